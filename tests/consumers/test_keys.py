"""A record's key is Debezium's even if the table has no primary key."""

from typing import Any

import psycopg2
import pytest

from capture.postgres.catalogue import table_facts
from schemas.writing.codec import compile_codec
from tests.consumers.test_values import database
from tests.integration.test_types import stream

__all__ = ["database"]


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("(a int NOT NULL, b int NOT NULL UNIQUE)", ("b",)),
        ("(a int NOT NULL, b int NOT NULL, UNIQUE (b, a))", ("b", "a")),
        ("(a int NOT NULL UNIQUE, b int PRIMARY KEY)", ("b",)),
        ("(a int UNIQUE, b int)", ()),  # NULLs tell no rows apart
        ("(a int NOT NULL UNIQUE DEFERRABLE, b int)", ()),
        ("(a int NOT NULL, b int); CREATE UNIQUE INDEX ON t (a) WHERE b > 0", ()),
        ("(a int NOT NULL, b int); CREATE UNIQUE INDEX ON t (abs(a))", ()),
        ("(a int NOT NULL, b int NOT NULL); CREATE UNIQUE INDEX y ON t (a); CREATE UNIQUE INDEX x ON t (b)", ("b",)),
    ],
)
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_unique_index_of_columns_that_are_not_null_is_the_key(
    database: Any, table: str, key: tuple[str, ...], identity: str
) -> None:
    database.execute(f"CREATE TABLE t {table}; ALTER TABLE t REPLICA IDENTITY {identity}; INSERT INTO t VALUES (1, 2)")
    relation, _ = stream(database)
    codec = compile_codec("shop.public.t", relation, table_facts(database.connection, relation))
    assert codec.key_columns == key
    assert (codec.key_schema is None) == (not key)
    if identity == "DEFAULT" and key and not any(column.key for column in relation.columns):
        with pytest.raises(psycopg2.errors.ObjectNotInPrerequisiteState):  # so no delete comes without a key
            database.execute("DELETE FROM t")


def test_the_index_of_the_replica_identity_is_the_key_though_there_is_a_primary_key(database: Any) -> None:
    """Debezium takes the primary key, which the log of a delete does not have: its key is then 0 or null."""
    database.execute(
        "CREATE TABLE t (id int PRIMARY KEY, code text NOT NULL UNIQUE);"
        "ALTER TABLE t REPLICA IDENTITY USING INDEX t_code_key; INSERT INTO t VALUES (1, 'a')"
    )
    relation, _ = stream(database)
    codec = compile_codec("shop.public.t", relation, table_facts(database.connection, relation))
    assert codec.key_columns == ("code",)
