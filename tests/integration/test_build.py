"""Documents from a profile's SQL, on a real server: one document's bad data does not hold up the others."""

from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest

from schemas.model.errors import SettingsError
from sink.database import connect, transaction
from sink.documents.build import build, ready_keys
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
    assert found["2"] == Invalid("price.sql: division by zero")
    assert isinstance(found["3"], Invalid)
    assert found["3"].reason == "currency is empty, and must be a valid string"
    assert (found["4"], found["5"]) == (NotReady(), Missing())
    assert found["x"] == Invalid("price.sql: invalid text representation")


def test_a_document_is_not_ready_before_its_time(shop: str, tmp_path: Path) -> None:
    """By the time up to which the rows are all there; without that, by now."""
    head = HEAD.replace("ready FROM", "ready, CASE id WHEN 1 THEN '2999-01-01Z'::timestamptz END AS ready_at FROM")
    ends = datetime(2999, 1, 1, tzinfo=UTC)
    built(shop, tmp_path, [], head)
    rule = load_profile(str(tmp_path)).documents["price"]
    with closing(connect(shop, "public")) as connection, transaction(connection) as cursor:
        assert build(cursor, rule, ["1", "4"]) == {"1": NotReady(ends), "4": NotReady()}
        assert build(cursor, rule, ["1"], ends - timedelta(seconds=1)) == {"1": NotReady(ends)}
        assert isinstance(build(cursor, rule, ["1"], ends)["1"], Price)
        assert ready_keys(cursor, rule, ["1"]) == set()


def test_sql_that_does_not_run_names_its_file(shop: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"price\.sql: .*column.*pric.*does not exist"):
        built(shop, tmp_path, ["1"], HEAD.replace("currency", "pric"))


CALENDAR = "a date that is not in the years 1 to 9999"


@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ("'20000-01-01'::timestamptz", CALENDAR),
        ("'0044-03-15 BC'::date", CALENDAR),
        ("(SELECT now() FROM prices)", "cardinality violation"),
    ],
)
def test_a_row_that_neither_the_sql_nor_python_can_take_holds_its_document_alone(
    shop: str, tmp_path: Path, fails: str, reason: str
) -> None:
    """The driver raises another class of error for each, and none of them is the profile's fault."""
    head = HEAD.replace("100 / per AS amount", f"100 AS amount, CASE WHEN id = 1 THEN {fails} END AS valid_until")
    found = built(shop, tmp_path, ["1", "2", "5"], head)
    assert isinstance(found["1"], Invalid)
    assert found["1"].reason == f"price.sql: {reason}"
    assert isinstance(found["2"], Price)
    assert found["5"] == Missing()
    connection = connect(shop, "public")
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        rule = load_profile(str(tmp_path)).documents["price"]
        assert ready_keys(cursor, rule, ["1", "2", "4", "5"]) == {"2"}
    connection.close()


def test_the_last_hours_of_the_calendar_west_of_greenwich(shop: str, tmp_path: Path) -> None:
    """Python has them in that zone, but not in UTC."""
    head = HEAD.replace("100 / per AS amount", "1 AS amount, '9999-12-31 23:59:59-05'::timestamptz AS valid_until")
    connection = psycopg2.connect(shop)
    with connection, connection.cursor() as cursor:
        cursor.execute(f"ALTER DATABASE {connection.info.dbname} SET timezone = 'America/Bogota'")
    connection.close()
    found = built(shop, tmp_path, ["1"], head)["1"]
    assert found == Invalid("valid_until: it is not in the years 1 to 9999 of UTC")


def test_two_rows_with_one_key_are_no_document(shop: str, tmp_path: Path) -> None:
    """We cannot decide which of them the ERP should have."""
    head = HEAD.replace("FROM prices", "FROM prices CROSS JOIN generate_series(1, CASE id WHEN 1 THEN 2 ELSE 1 END)")
    found = built(shop, tmp_path, ["1", "4"], head)
    assert found == {"1": Invalid("price.sql: 2 rows with the key 1"), "4": NotReady()}
