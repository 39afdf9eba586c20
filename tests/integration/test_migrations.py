"""A middle layer of the release before the index of commits: its ledger stays, and nothing goes back behind it."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from schemas.errors import SettingsError, UnavailableError
from sink import layer
from sink.database import Connection, connect, schema_of, transaction
from sink.layer import enter, migrate, migrations
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


def pid_of(connection: Connection) -> int:
    return int(rows(connection, "SELECT pg_backend_pid()")[0][0])


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From its call on, ours is a release with one migration more."""

    def begin() -> None:
        more = [*migrations(), (layer.VERSION + 1, "CREATE TABLE more ()")]
        monkeypatch.setattr(layer, "VERSION", layer.VERSION + 1)
        monkeypatch.setattr(layer, "migrations", lambda: more)
        monkeypatch.setattr(layer, "_PATIENCE", "200ms")

    return begin


def test_a_process_that_works_keeps_a_migration_away_and_is_named(
    database: str, next_release: Callable[[], None]
) -> None:
    with closing(of_this_release(database)) as newer, closing(connect(database, "ordertap_shop")) as older:
        enter(older, "shop")
        enter(newer, "shop")  # any number of them
        rows(newer, "SELECT pg_advisory_unlock_all()")
        next_release()
        with pytest.raises(UnavailableError) as refused:
            migrate(newer, "shop")
        named = rf"process {pid_of(older)} of the database \(ordertap sink, from 127\.0\.0\.1, since 20.* UTC\)"
        assert re.search(named, refused.value.message)
        assert f"pg_terminate_backend({pid_of(older)})" in refused.value.hint
        assert rows(newer, "SELECT to_regclass('more')") == [(None,)]
        older.close()
        assert migrate(newer, "shop") == layer.VERSION
        assert rows(newer, "SELECT to_regclass('more') IS NOT NULL") == [(True,)]


def test_nobody_begins_on_a_layer_that_is_not_of_his_release(
    database: str, next_release: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(of_this_release(database)) as connection:
        next_release()
        with pytest.raises(SettingsError, match="has schema version 5, this release has 6"):
            enter(connection, "shop")
        rows(connection, "SELECT pg_advisory_unlock_all()")
        migrate(connection, "shop")
        enter(connection, "shop")
        monkeypatch.undo()
        for begin in (enter, migrate):
            with pytest.raises(SettingsError, match="schema version 6, this release knows 5") as refused:
                begin(connection, "shop")
            assert refused.value.hint == "run the newer release"


def test_nobody_begins_while_a_layer_is_migrated(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "_PATIENCE", "200ms")
    with closing(of_this_release(database)) as migrating, closing(connect(database, "ordertap_shop")) as other:
        with transaction(migrating) as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('ordertap_shop.version', 0))")
            with pytest.raises(UnavailableError, match="is being migrated"):
                enter(other, "shop")
        enter(other, "shop")


def test_a_stager_of_the_release_before_is_waited_for_too(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer, "_PATIENCE", "200ms")
    with closing(of_the_release_before(database)) as before:
        rows(before, "SELECT pg_advisory_lock(hashtextextended('ordertap.stager', 0))")
        with pytest.raises(UnavailableError, match=f"process {pid_of(before)} of the database"):
            of_this_release(database)
    of_this_release(database).close()
