"""A middle layer of the release before the index of commits: its ledger stays, and nothing goes back behind it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sink.database import Connection, connect, migrate, migrations, transaction
from sink.documents.records import from_json
from sink.documents.refs import DocumentRef
from sink.erp.kinds import ErpRecord, ErpRef
from sink.ledger import documents
from sink.ledger.outcomes import Intent
from sink.planning.changes import changes
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


def of_the_release_before(url: str, last: int = 2) -> Connection:
    """A middle layer at schema version 2, or a later one."""
    connection = connect(url)
    with connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA ordertap")
        cursor.execute(
            "CREATE TABLE ordertap.migration (version integer PRIMARY KEY, done_at timestamptz DEFAULT now())"
        )
        for version, script in (one for one in migrations() if one[0] <= last):
            cursor.execute(script)
            cursor.execute("INSERT INTO ordertap.migration (version) VALUES (%s)", [version])
        if last == 2:
            cursor.execute(_BEFORE)
    return connection


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_ledger_keys_accounts_and_history_stay_and_what_was_staged_is_read_again(database: str) -> None:
    connection = of_the_release_before(database)
    version = migrate(connection)
    assert migrate(connection) == version == migrations()[-1][0]
    ledger = "SELECT state, incarnation, revision, applied, reference FROM ordertap.document"
    assert rows(connection, ledger) == [("done", 2, 3, {"kind": "order"}, "A-17")]
    assert rows(connection, "SELECT customer, number FROM ordertap.account") == [("shop/5", "100001")]
    assert rows(connection, "SELECT key, event FROM ordertap.history") == [("17", "create")]
    assert rows(connection, "SELECT name, value FROM ordertap.binding") == [("shop", "shop")]
    assert rows(connection, "SELECT tablename FROM pg_tables WHERE schemaname = 'staged'") == []
    for table in ("staged_table", "evidence", "gap", "parked", "blocked", "snapshot", "copy"):
        assert rows(connection, f"SELECT count(*) FROM ordertap.{table}") == [(0,)], table
    connection.close()


def test_nothing_is_planned_before_the_copy_has_come_past_what_was_acted_on(database: str) -> None:
    connection = of_the_release_before(database)
    migrate(connection)
    assert rows(connection, "SELECT generation, lsn FROM ordertap.acted") == [(1, 7000)]
    stand = (
        "INSERT INTO ordertap.copy (generation, lsn, ordinal, state, index_topic_id, index_offset, serial,"
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
    """As it wrote them: lines under one key, links as texts, the ERP's key by the document's name in the profile."""
    connection = of_the_release_before(database, 4)
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO ordertap.binding (name, value) VALUES ('shop', 'web')")
        for (type_, key), record in _RECORDS.items():
            intent = {"verb": "amend", "record": record, "revision": 3, "marked": 7, "fingerprint": None}
            cursor.execute(
                "INSERT INTO ordertap.document (type, key, unit, revision, applied, desired, intent)"
                " VALUES (%s, %s, 'u', 2, %s, %s, %s)",
                (type_, key, json.dumps(record), json.dumps(record), json.dumps(intent) if type_ == "price" else None),
            )
        cursor.execute("INSERT INTO ordertap.document (type, key, unit) VALUES ('sales_order', '3', 'u')")
    migrate(connection)
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
    connection.close()
