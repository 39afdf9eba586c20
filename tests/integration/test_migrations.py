"""A middle layer from before the index of commits: its ledger stays, and nothing is planned from older rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from schemas.model.errors import SettingsError, UnavailableError
from sink import layer
from sink.database import Connection, connect, schema_of, transaction
from sink.documents.records import from_json
from sink.documents.refs import DocumentRef
from sink.erp.kinds import ErpRecord, ErpRef
from sink.layer import enter, migrate, migrations
from sink.ledger import documents
from sink.ledger.outcomes import Intent
from sink.planning.changes import changes
from sink.staging.position import why_not_planned

OURS = layer.VERSION
# The state in which the release before left a staged and applied order: rows of two tables, evidence, an inbox, a
# ledger.
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
INSERT INTO ordertap.account (customer, number) VALUES ('shop/5', '100001'), ('shop/guest/ann@example.org', '100002');
INSERT INTO ordertap.history (type, key, event) VALUES ('sales_order', '17', 'create');
INSERT INTO ordertap.binding (name, value) VALUES ('shop', 'shop');
"""


def of_the_release_before(url: str, last: int = 2) -> Connection:
    """A middle layer at schema version 2, or a later one."""
    connection = connect(url, "ordertap")
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA ordertap; CREATE SCHEMA staged")
        cursor.execute(
            "CREATE TABLE ordertap.migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        for version, script in migrations()[:last]:
            cursor.execute(script)
            cursor.execute("INSERT INTO ordertap.migration (version) VALUES (%s)", [version])
        if last == 2:
            cursor.execute(_BEFORE)
    return connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def of_this_release(url: str, shop: str = "shop") -> Connection:
    """The same layer, taken over by this release."""
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


def test_account_numbers_go_from_mailboxes_to_the_keys_of_the_customers_that_the_erp_has(database: str) -> None:
    """Guests 7 and 8 share a mailbox, and the ERP took both. 9 has registered, and kept the first number in the ERP. It
    has neither 10, a guest, nor 11. The key of the last one only looks like a mailbox."""
    numbered = [("guest/ann", "1"), ("9", "2"), ("guest/bob", "3"), ("guest/cy", "4"), ("11", "5"), ("guest/12", "6")]
    with closing(of_the_release_before(database)) as before, before.cursor() as cursor:
        for customer, number in numbered:
            cursor.execute(
                "INSERT INTO ordertap.account (customer, number) VALUES (%s, %s)", [f"shop/{customer}", number]
            )
        for key, applied in (("7", "1"), ("8", "1"), ("9", "3"), ("10", None), ("11", None), ("guest/12", "6")):
            record = {"kind": "customer", "fields": {"number": applied, "name": "Ann"}, "lines": {}}
            cursor.execute(
                "INSERT INTO ordertap.document (type, key, unit, applied) VALUES ('customer', %s, 'u', %s)",
                [key, json.dumps(record) if applied else None],
            )
    with closing(of_this_release(database)) as connection:
        assert dict(rows(connection, "SELECT customer, number FROM account")) == {
            "shop/5": "100001", "shop/7": "1", "shop/9": "3", "shop/11": "5", "shop/guest/12": "6",
        }  # fmt: skip


def test_what_was_decided_about_a_deletion_stays_decided_if_it_was_about_the_last(database: str) -> None:
    """Schema version 15 named a deletion by the key of the step before it."""
    decided = {"kept": {"settled": "missing 3"}, "before": {"settled": "missing 2"}, "back": {"settled": "not ready 3"}}
    decided["released"] = {"settled": "", "released": {"deleted": "missing 3", "cap": "v1"}}
    with closing(of_this_release(database)) as connection, connection.cursor() as cursor:
        for key, one in decided.items():
            cursor.execute(
                "INSERT INTO document (type, key, unit, revision, disputed, decisions)"
                " VALUES ('sales_order', %s, 'u', 3, %s, %s)",
                (key, json.dumps({"version": "missing 3"}), json.dumps(one)),
            )
        cursor.execute(dict(migrations())[16])
        assert dict(rows(connection, "SELECT key, decisions FROM document")) == {
            "kept": {"settled": "missing"},
            "before": {"settled": "missing 2"},
            "back": {"settled": "not ready"},
            "released": {"settled": "", "released": {"deleted": "missing", "cap": "v1"}},
        }
        assert rows(connection, "SELECT DISTINCT disputed ->> 'version' FROM document") == [("missing",)]


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


_LINE = {"kind": "item", "sku": "A", "quantity": {"n": "2"}, "gross": {"n": "11.90"}}
_RECORDS: dict[tuple[str, str], dict[str, Any]] = {
    ("customer", "7"): {"kind": "customer", "fields": {"number": "100001", "name": "Ann"}, "lines": {}},
    ("sales_order", "1"): {
        "kind": "order",
        "fields": {
            "number": "S-1", "account": "100001", "cancelled": False, "placed_at": {"t": "2026-01-01T10:00:00+00:00"},
        },
        "lines": {"line:5:1": _LINE, "charge:1": {**_LINE, "sku": None}, "discount:1": {**_LINE, "gross": {"n": "-1"}}},
    },
    ("sales_order", "2"): {
        "kind": "order", "fields": {"number": "S-2", "account": "10000"}, "lines": {"line:9": _LINE},
    },
    ("return_order", "5"): {
        "kind": "return",
        "fields": {"number": "R-5", "order": "web/sales_order/1/1"},
        "lines": {"r1": {"order_line": "line:5:1", "quantity": {"n": "1"}, "reason": None}},
    },
    ("refund", "6"): {"kind": "refund", "fields": {"gross": {"n": "5"}, "order": "web/sales_order/1/1"}, "lines": {}},
    ("price", "A"): {"kind": "price", "fields": {"sku": "A", "amount": {"n": "5"}}, "lines": {}},
}  # fmt: skip


def test_records_and_intents_of_the_release_before_are_understood(database: str) -> None:
    """That release wrote all lines under one key, links as texts, and named the ERP's key after the profile's document
    type."""
    with closing(of_the_release_before(database, 4)) as before, before.cursor() as cursor:
        cursor.execute("INSERT INTO ordertap.binding (name, value) VALUES ('shop', 'web')")
        for (type_, key), record in _RECORDS.items():
            intent = {"verb": "amend", "record": record, "revision": 3, "marked": 7, "fingerprint": None}
            cursor.execute(
                "INSERT INTO ordertap.document (type, key, unit, revision, applied, desired, intent)"
                " VALUES (%s, %s, 'u', 2, %s, %s, %s)",
                (type_, key, json.dumps(record), json.dumps(record), json.dumps(intent) if type_ == "price" else None),
            )
        cursor.execute("INSERT INTO ordertap.document (type, key, unit) VALUES ('sales_order', '3', 'u')")
    connection = of_this_release(database, "web")
    with transaction(connection) as cursor:
        entries = documents.entries_of(cursor, [DocumentRef(*ref) for ref in (*_RECORDS, ("sales_order", "3"))])
    assert {one.ref.key: one.external for one in entries.values()} == {
        "7": "web/customer/7/1", "1": "web/sales_order/1/1", "2": "web/sales_order/2/1", "5": "web/return_order/5/1",
        "6": "web/refund/6/1", "A": "web/price/A/1", "3": None,
    }  # fmt: skip
    applied = {key: from_json(one.applied) for (_, key), one in entries.items() if one.applied}
    order = ErpRef("order", "web/sales_order/1/1")
    row = {"kind": "item", "sku": "A", "quantity": Decimal(2), "gross": Decimal("11.90")}
    assert applied["1"] == ErpRecord(
        "order",
        {"number": "S-1", "account": ErpRef("customer", "web/customer/7/1"), "cancelled": False,
         "placed_at": datetime(2026, 1, 1, 10, tzinfo=UTC)},
        {"line": {"5:1": row}, "charge": {"1": {**row, "sku": None}}, "discount": {"1": {**row, "gross": Decimal(-1)}}},
    )  # fmt: skip
    assert applied["2"].fields["account"] == ErpRef("customer", "hand:10000")
    assert applied["5"].parts["line"]["r1"]["order_line"] == order.child("line", "5:1")
    assert applied["6"].fields["order"] == order
    assert applied["A"].parts == {}
    components = ErpRecord("refund", applied["6"].fields, {"component": {"c1": {"gross": Decimal(5)}}})
    assert changes(components, applied["6"]) == set(), "what it did not write down is no change"
    price = entries[DocumentRef("price", "A")]
    assert price.intent is not None
    assert (price.intent.revision, price.intent.goal, from_json(price.intent.record)) == (3, "confirmed", applied["A"])
    assert isinstance(price.intent, Intent)
    of_document = "SELECT attname FROM pg_attribute WHERE attrelid = 'document'::regclass AND NOT attisdropped"
    assert ("applied",) in rows(connection, of_document)
    assert ("desired",) not in rows(connection, of_document), "nobody reads it"
    connection.close()


def pid_of(connection: Connection) -> int:
    return int(rows(connection, "SELECT pg_backend_pid()")[0][0])


@pytest.fixture
def next_release(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Once called, this release has one migration more."""

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


def test_nobody_begins_on_a_layer_of_another_release(
    database: str, next_release: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(of_this_release(database)) as connection:
        next_release()
        with pytest.raises(SettingsError, match=f"has schema version {OURS}, this release has {OURS + 1}"):
            enter(connection, "shop")
        rows(connection, "SELECT pg_advisory_unlock_all()")
        migrate(connection, "shop")
        enter(connection, "shop")
        monkeypatch.undo()
        for begin in (enter, migrate):
            with pytest.raises(SettingsError, match=f"schema version {OURS + 1}, this release knows {OURS}") as refused:
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


def test_a_document_that_rested_until_the_shop_changes_it_is_asked_for_once_more(database: str) -> None:
    with closing(of_the_release_before(database)) as old, old.cursor() as cursor:
        cursor.execute(
            "INSERT INTO ordertap.unit (unit) VALUES ('sales_order:18');"
            " INSERT INTO ordertap.document (type, key, unit, state, seen)"
            " VALUES ('sales_order', '18', 'sales_order:18', 'ignored', 1)"
        )
    with closing(of_this_release(database)) as connection:
        state = "SELECT state, marked > seen, due_at IS NOT NULL FROM document JOIN unit USING (unit) WHERE key = '18'"
        assert rows(connection, state) == [("due", True, True)]
