"""Documents from a profile's SQL, on a real server: what one document's data breaks holds up no other."""

from pathlib import Path

import psycopg2
import pytest

from schemas.errors import SettingsError
from sink.database import connect, transaction
from sink.documents.build import build
from sink.documents.models import Built, Invalid, Missing, NotReady, Price
from sink.documents.profile import load_profile

PROFILE = """
tables: [public.prices]
documents:
  price: {model: Price, key: prices.id, touched_by: {prices: id}}
"""
HEAD = """SELECT id::text AS key, 'A' AS sku, 'list' AS price_list, currency, 100 / per AS amount, true AS tax_included,
ready FROM prices WHERE id = ANY (%(keys)s::bigint[]) -- 100 % net"""


def built(url: str, folder: Path, keys: list[str], head: str = HEAD) -> dict[str, Built]:
    (folder / "profile.yaml").write_text(PROFILE)
    (folder / "price.sql").write_text(head)
    connection = connect(url, "public")
    try:
        with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
            return build(cursor, load_profile(str(folder)).documents["price"], keys)
    finally:
        connection.close()


@pytest.fixture
def shop(database: str) -> str:
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE prices (id bigint PRIMARY KEY, currency text, per int, ready boolean)")
        cursor.execute("INSERT INTO prices VALUES (1, 'EUR', 5, true), (2, 'EUR', 0, true), (3, NULL, 1, true)")
        cursor.execute("INSERT INTO prices VALUES (4, 'EUR', 1, false)")
    connection.close()
    return database


def test_each_document_is_what_its_own_data_makes_it(shop: str, tmp_path: Path) -> None:
    found = built(shop, tmp_path, ["1", "2", "3", "4", "5", "x"])
    assert isinstance(found["1"], Price)
    assert found["1"].amount == 20
    assert found["2"] == Invalid("price.sql: DivisionByZero")
    assert isinstance(found["3"], Invalid)
    assert found["3"].reason.startswith("currency: ")
    assert (found["4"], found["5"]) == (NotReady(), Missing())
    assert found["x"] == Invalid("price.sql: InvalidTextRepresentation")


def test_sql_that_does_not_run_names_its_file(shop: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"price\.sql: .*column.*pric.*does not exist"):
        built(shop, tmp_path, ["1"], HEAD.replace("currency", "pric"))
