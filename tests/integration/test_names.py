"""The search_path: the ledger's tables, and within a block only the shop's."""

import psycopg2
import pytest

from sink.database import Connection, Cursor, names_of, reading, transaction

RELATIONS = "SELECT to_regclass('document') IS NOT NULL, to_regclass('orders') IS NOT NULL"
LEDGER, SHOP = (True, False), (False, True)


def found(cursor: Cursor) -> tuple[bool, ...] | None:
    cursor.execute(RELATIONS)
    return cursor.fetchone()


def test_the_shops_names_end_with_their_block(middle: Connection) -> None:
    with transaction(middle) as cursor:
        with names_of(cursor, "shop", unseen="show"):
            assert found(cursor) == SHOP
            cursor.execute("SELECT current_setting('ordertap.unseen')")
            assert cursor.fetchone() == ("show",)
        assert found(cursor) == LEDGER
        cursor.execute("SELECT current_setting('ordertap.unseen')")
        assert cursor.fetchone() == ("",)
    with reading(middle) as cursor:
        with names_of(cursor, "shop"):
            assert found(cursor) == SHOP
        assert found(cursor) == LEDGER


def test_they_are_put_back_with_a_savepoint_and_a_transaction(middle: Connection) -> None:
    with transaction(middle) as cursor:
        cursor.execute("SAVEPOINT before")
        with pytest.raises(psycopg2.ProgrammingError), names_of(cursor, "shop"):
            cursor.execute("SELECT FROM document")
        cursor.execute("ROLLBACK TO SAVEPOINT before")
        assert found(cursor) == LEDGER
        with names_of(cursor, "shop"):
            cursor.execute("SAVEPOINT inside")
            cursor.execute("ROLLBACK TO SAVEPOINT inside")
            assert found(cursor) == SHOP
        assert found(cursor) == LEDGER
    with pytest.raises(psycopg2.ProgrammingError), transaction(middle) as cursor, names_of(cursor, "shop"):
        cursor.execute("SELECT FROM document")
    with transaction(middle) as cursor:
        assert found(cursor) == LEDGER
