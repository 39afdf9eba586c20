"""A middle layer of the release before the index of commits: its ledger stays, and nothing goes back behind it."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from sink.database import Connection, connect, schema_of, transaction
from sink.layer import migrate, migrations
from sink.staging.position import why_not_planned

# As the release before staged an order and applied it: rows of two tables, evidence, an inbox, a ledger.
_BEFORE = """
CREATE TABLE staged."public.orders" (id bigint PRIMARY KEY, status text, _generation bigint NOT NULL,
    _commit_lsn numeric(20) NOT NULL, _ordinal bigint NOT NULL, _deleted boolean NOT NULL, _snapshot text,
    _unseen text[], _filled jsonb);
INSERT INTO staged."public.orders" VALUES (17, 'paid', 1, 5000, 1, false, NULL, NULL, NULL);
CREATE TABLE staged."public.order_lines" (id bigint PRIMARY KEY, _generation bigint NOT NULL,
    _commit_lsn numeric(20) NOT NULL, _ordinal bigint NOT NULL, _deleted boolean NOT NULL);
INSERT INTO staged."public.order_lines" VALUES (1, 1, 7000, 2, false);
CREATE SCHEMA shop;
CREATE VIEW shop.orders AS SELECT id, status FROM staged."public.orders" WHERE NOT _deleted;
INSERT INTO ordertap.staged_table (table_name, key_columns) VALUES ('public.orders', '{id}');
INSERT INTO ordertap.evidence (topic, topic_id, partition, next_offset) VALUES ('shop.public.orders', 'id', 0, 9);
INSERT INTO ordertap.inbox VALUES ('7:8000', 'public.orders', 1, 0, 1, 8000, 'u', '{}');
INSERT INTO ordertap.snapshot (id, generation, lsn, tables, state) VALUES ('s', 1, 100, '{public.orders}', 'complete');
INSERT INTO ordertap.unit (unit) VALUES ('sales_order:17');
INSERT INTO ordertap.document (type, key, unit, state, incarnation, revision, applied, reference)
    VALUES ('sales_order', '17', 'sales_order:17', 'done', 2, 3, '{"kind": "order"}', 'A-17');
INSERT INTO ordertap.account (customer, number) VALUES ('shop/5', '100001');
INSERT INTO ordertap.history (type, key, event) VALUES ('sales_order', '17', 'create');
INSERT INTO ordertap.binding (name, value) VALUES ('shop', 'shop');
"""


def of_the_release_before(url: str) -> Connection:
    """A middle layer at schema version 2."""
    connection = connect(url, "ordertap")
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA ordertap; CREATE SCHEMA staged")
        cursor.execute(
            "CREATE TABLE ordertap.migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        for version, script in migrations()[:2]:
            cursor.execute(script)
            cursor.execute("INSERT INTO ordertap.migration (version) VALUES (%s)", [version])
        cursor.execute(_BEFORE)
    return connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def of_this_release(url: str, shop: str = "shop") -> Connection:
    """The same, as this release takes it over."""
    connection = connect(url, schema_of(shop))
    migrate(connection, shop)
    return connection


def test_ledger_keys_accounts_and_history_stay_and_what_was_staged_is_read_again(database: str) -> None:
    of_the_release_before(database).close()
    connection = of_this_release(database)
    assert migrate(connection, "shop") == migrations()[-1][0]
    ledger = "SELECT state, incarnation, revision, applied, reference FROM document"
    assert rows(connection, ledger) == [("done", 2, 3, {"kind": "order"}, "A-17")]
    assert rows(connection, "SELECT customer, number FROM account") == [("shop/5", "100001")]
    assert rows(connection, "SELECT key, event FROM history") == [("17", "create")]
    assert rows(connection, "SELECT tablename FROM pg_tables WHERE tablename LIKE '%.%'") == []
    assert rows(connection, "SELECT to_regnamespace('staged'), to_regclass('shop.orders')") == [(None, None)]
    for table in ("staged_table", "evidence", "gap", "parked", "blocked", "snapshot", "copy"):
        assert rows(connection, f"SELECT count(*) FROM {table}") == [(0,)], table
    connection.close()


def test_a_program_of_the_release_before_finds_a_layer_that_is_too_new_for_it(database: str) -> None:
    of_the_release_before(database).close()
    of_this_release(database).close()
    with closing(connect(database, "ordertap")) as before:
        assert rows(before, "SELECT max(version) > 4 FROM ordertap.migration") == [(True,)]


def test_a_layer_of_the_release_before_that_is_another_shops_is_left_alone(database: str) -> None:
    with closing(of_the_release_before(database)) as before, closing(of_this_release(database, "other")) as other:
        assert rows(other, "SELECT count(*) FROM document") == [(0,)]
        assert rows(before, "SELECT value FROM ordertap.binding") == [("shop",)]
        assert rows(before, "SELECT id FROM shop.orders") == [(17,)]
    with closing(of_this_release(database)) as shop:
        assert rows(shop, "SELECT key FROM document") == [("17",)]


def test_staged_tables_of_the_index_of_commits_are_taken_over_with_their_views(database: str) -> None:
    """A layer of version 4: nothing is read again."""
    with closing(of_the_release_before(database)) as before, before.cursor() as cursor:
        for version, script in migrations()[2:4]:
            cursor.execute(script)
            cursor.execute("INSERT INTO ordertap.migration (version) VALUES (%s)", [version])
        cursor.execute(
            'CREATE TABLE staged."public.items" (id int); INSERT INTO staged."public.items" VALUES (5);'
            ' DROP VIEW shop.orders; CREATE VIEW shop.items AS SELECT id FROM staged."public.items"'
        )
    with closing(of_this_release(database)) as connection:
        assert rows(connection, 'SELECT id FROM ordertap_shop."public.items"') == [(5,)]
        assert rows(connection, "SELECT id FROM shop.items") == [(5,)]
        assert rows(connection, "SELECT to_regnamespace('staged')") == [(None,)]


def test_nothing_is_planned_before_the_copy_has_come_past_what_was_acted_on(database: str) -> None:
    of_the_release_before(database).close()
    connection = of_this_release(database)
    assert rows(connection, "SELECT generation, lsn FROM acted") == [(1, 7000)]
    stand = (
        "INSERT INTO copy (generation, lsn, ordinal, state, index_topic_id, index_offset, serial,"
        " end_generation, end_lsn) VALUES (1, {0}, 0, 'steady', '', 0, 1, 1, {0}) ON CONFLICT (one)"
        " DO UPDATE SET lsn = excluded.lsn"
    )
    for lsn, planned in ((6_999, False), (7_000, True)):
        with transaction(connection) as cursor:
            cursor.execute(stand.format(lsn))
            assert (why_not_planned(cursor, require_snapshot=True) == "") is planned
    connection.close()
