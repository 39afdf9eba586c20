"""A middle layer and an ERP with many orders, made in SQL: staged rows, the ledger, and the ERP's documents.

A worker sends a first order with its buyer, a second one with a return and a refund, and a price. Their rows in ledger
and ERP are then copied under other keys and numbers, so both sides agree.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2 import sql

from deploy.embedded import Postgres
from schemas.model.change import Stamp
from schemas.model.lsn import LSN
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Cursor, connect, schema_of, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.layer import migrate
from sink.ledger import marks
from sink.planning.policy import Policy
from sink.staging import indexes, snapshots
from sink.staging.assembly import LAST
from sink.staging.position import Position, save_position
from sink.staging.schema import Catalogue, stored_name
from tests.programs import ROOT

SHOP: Final = "growth"
PRICES: Final = 1_000
RETURNED: Final = 10  # every tenth order has a return and a refund of one piece
_KEYS: Final = {"order_addresses": ("order_id", "kind")}
_STAMP: Final = "1, 100, 1, false, NULL, NULL, 1"  # of a staged row
_ROWS: Final[Mapping[str, Sequence[str]]] = {
    "customers": ["1, 'registered', 'Buyer 1', 'buyer.1@example.com', NULL, NULL"],
    "addresses": ["1, 1, 'billing', 'Buyer 1', NULL, 'Lindenweg 1', '50667', 'Köln', 'DE'"],
    "products": ["1, 'SKU-1', 11.90, true"],
    "orders": ["1, 'S1', 1, 'paid', 'EUR', '2026-01-01T10:00Z', 5.95, 19, 0.95, 65.00, 12.35, 77.35"],
    "order_addresses": ["1, 'shipping', 'Buyer 1', NULL, 'Lindenweg 1', '50667', 'Köln', 'DE'"],
    "order_lines": [
        "3, 1, 'SKU-1', 'Steel bolt M8, box of 100', 1, 11.90, 0, 19, 11.90, 1.90",
        "4, 1, 'SKU-2', 'Steel nut M8, box of 100', 2, 11.90, 0, 19, 23.80, 3.80",
        "5, 1, 'SKU-3', 'Washer, box of 500', 3, 11.90, 0, 19, 35.70, 5.70",
    ],
    "payments": ["1, 1, 'card', 77.35, 'tx-1', '2026-01-01T10:01Z'"],
    "returns": ["2, 2, 'refunded', 0, '2026-01-05T10:00Z', '2026-01-06T10:00Z'"],
    "return_lines": ["2, 2, 6, 1, 'does not fit', 11.90"],
}
"""The first order with everything it needs, and the second one's return, with the profile's columns."""
_OF_FIRST: Final = {
    "customers": "id = 1",
    "addresses": "customer_id = 1",
    "orders": "id = 1",
    "returns": "id = 2",
    "return_lines": "return_id = 2",
}
_MORE: Final[Mapping[str, Mapping[str, str]]] = {
    "customers": {"id": "n", "name": "'Buyer ' || n", "email": "'buyer.' || n || '@example.com'"},
    "addresses": {"id": "n", "customer_id": "n"},
    "orders": {"id": "n", "number": "'S' || n", "customer_id": "n"},
    "order_addresses": {"order_id": "n"},
    "order_lines": {"id": "3 * n + s.id - 3", "order_id": "n"},
    "payments": {"id": "n", "order_id": "n", "reference": "'tx-' || n"},
    "returns": {"id": "n", "order_id": "n"},
    "return_lines": {"id": "n", "return_id": "n", "order_line_id": "3 * n"},
}
_ERP_KEY: Final = f"'{SHOP}/{{}}/' || n || '/1'"
_LINE_KEY: Final = (
    _ERP_KEY.format("order")
    + " || '/' || CASE WHEN s.kind = 'item' THEN 'line:' || 3 * n + split_part(s.external_key, ':', 2)::bigint - 3"
    " ELSE split_part(s.external_key, '/', 5) END"
)


class GrowthState(NamedTuple):
    """Two databases with this many orders."""

    middle: str
    erp: str
    orders: int


def make(server: Postgres, orders: int) -> GrowthState:
    """Makes the state, as after a night's VACUUM."""
    state = GrowthState(server.create_database(f"middle_{orders}"), server.create_database(f"erp_{orders}"), orders)
    _make_erp(state.erp)
    with closing(connect(state.middle, schema_of(SHOP))) as connection:
        migrate(connection, SHOP)
        with transaction(connection) as cursor:
            _stage_first(cursor)
        profile = load_profile("sample")
        with transaction(connection) as cursor:
            units = _units()
            marks.mark(cursor, sql.SQL("SELECT * FROM (VALUES {}) AS t (type, key, unit)").format(units))
        with closing(an_erp(state)) as erp:
            worker = Worker(connection, profile, erp, rules(), "bench")
            worker.check()
            while worker.step():
                pass
        with transaction(connection) as cursor:
            _stage_more(cursor, orders)
            _fill_ledger(cursor, orders)
        indexes.make(connection, profile)
    with closing(psycopg2.connect(state.erp)) as connection, connection, connection.cursor() as cursor:
        _fill_erp(cursor, orders)
    for database in (state.middle, state.erp):
        server.psql("VACUUM ANALYZE", database.rpartition("/")[2])
    server.psql("CHECKPOINT")
    return state


def rules() -> Rules:
    """Rules of a sink that applies at once."""
    return Rules(SHOP, Policy("shop"), apply=True, settle_seconds=0)


def an_erp(state: GrowthState) -> SqlErp:
    """The ERP's adapter."""
    return SqlErp(state.erp, load_mapping(ROOT / "deploy/erp/mapping.yaml"))


def _make_erp(dsn: str) -> None:
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute((ROOT / "deploy/erp/schema.sql").read_text("utf-8"))
        cursor.execute("INSERT INTO company VALUES ('growth', 'The factory')")
        cursor.execute(f"INSERT INTO items SELECT 'SKU-' || n, 'Item' FROM generate_series(1, {PRICES}) n")


def _stage_first(cursor: Cursor) -> None:
    """Makes staged tables as the stager does, with the rows of two orders and a price."""
    profile = load_profile("sample")
    reads = {table: frozenset(columns) for table, columns in profile.columns.items()}
    catalogue = Catalogue(SHOP, reads)
    for table, columns in profile.columns.items():
        name = table.partition(".")[2]
        catalogue.fit(cursor, table, columns, _KEYS.get(name, ("id",)), Stamp(1, LSN(100), 1))
        for row in _ROWS.get(name, ()):
            cursor.execute(f'INSERT INTO "{stored_name(table)}" VALUES ({row}, {_STAMP})')
    for name, values in _MORE.items():
        if not name.startswith("return"):
            _copy(cursor, f"public.{name}", _OF_FIRST.get(name, "order_id = 1"), values, "generate_series(2, 2) AS n")
    snapshots.accept(cursor, "the benchmark")
    save_position(cursor, Position(Stamp(1, LSN(1_000), LAST), "steady"), None)


def _units() -> sql.Composable:
    first = [("customer", "1"), ("sales_order", "1"), ("customer", "2"), ("sales_order", "2"), ("price", "1")]
    rows = [(type_, key, f"{type_}:{key}") for type_, key in first]
    rows += [("return_order", "2", "sales_order:2"), ("refund", "2", "sales_order:2")]
    return sql.SQL(", ").join(sql.SQL("({}, {}, {})").format(*map(sql.Literal, row)) for row in rows)


def _stage_more(cursor: Cursor, orders: int) -> None:
    every, returned = _series(orders)
    for name, values in _MORE.items():
        series = returned if name.startswith("return") else every
        _copy(cursor, f"public.{name}", _OF_FIRST.get(name, "order_id = 1"), values, series)
    _copy(cursor, "public.products", "id = 1", {"id": "n", "sku": "'SKU-' || n"}, f"generate_series(2, {PRICES}) AS n")


def _fill_ledger(cursor: Cursor, orders: int) -> None:
    every, returned = _series(orders)
    prices = f"generate_series(2, {PRICES}) AS n"
    for type_, kind, unit, series in (
        ("customer", "customer", "customer", every),
        ("sales_order", "order", "sales_order", every),
        ("return_order", "return", "sales_order", returned),
        ("refund", "refund", "sales_order", returned),
        ("price", "price", "price", prices),
    ):
        first = "2" if series is returned else "1"
        values = {"key": "n::text", "unit": f"'{unit}:' || n", "external": _ERP_KEY.format(kind)}
        _copy(cursor, "document", f"type = '{type_}' AND key = '{first}'", values, series)
        if type_ == unit:
            cursor.execute(f"INSERT INTO unit (unit) SELECT '{unit}:' || n FROM {series}")
    cursor.execute(f"INSERT INTO account SELECT '{SHOP}/' || n, '{SHOP}-' || 100000 + n FROM {every}")


def _fill_erp(cursor: Cursor, orders: int) -> None:
    """Fills the ERP. Its own keys are 10 and the number of an order, so that lines and returns find theirs."""
    every, returned = _series(orders)
    number = f"'{SHOP}-' || 100000 + n"
    key = _ERP_KEY.format
    of_one, of_two = f"'{SHOP}/order/1/1'", f"'{SHOP}/return/2/1'"
    customer = {"id": "10 + n", "external_key": key("customer"), "account_number": number, "name": "'Buyer ' || n"}
    customer["email"] = "'buyer.' || n || '@example.com'"
    _copy(cursor, "customers", f"external_key = '{SHOP}/customer/1/1'", customer, every)
    order = {"id": "10 + n", "external_key": key("order"), "shop_number": "'S' || n", "account_number": number}
    order["payment_reference"] = "'tx-' || n"
    _copy(cursor, "orders", f"external_key = {of_one}", order, every)
    first = "(SELECT min(id) FROM order_lines l WHERE l.order_id = s.order_id)"
    line = {"id": f"100 + 4 * n + s.id - {first}", "order_id": "10 + n", "external_key": _LINE_KEY}
    _copy(cursor, "order_lines", f"order_id = (SELECT id FROM orders WHERE external_key = {of_one})", line, every)
    back = {"id": "10 + n", "external_key": key("return"), "order_id": "10 + n", "shop_number": "'S' || n || '-R' || n"}
    _copy(cursor, "returns", f"external_key = {of_two}", back, returned)
    line = {"id": "10 + n", "return_id": "10 + n", "external_key": key("return") + " || '/line:' || n"}
    line["order_line_id"] = (
        f"(SELECT l.id FROM order_lines l WHERE l.external_key = {key('order')} || '/line:' || 3 * n)"
    )
    _copy(cursor, "return_lines", f"return_id = (SELECT id FROM returns WHERE external_key = {of_two})", line, returned)
    money = {**back, "external_key": key("refund"), "shop_number": "'S' || n || '-G' || n"}
    _copy(cursor, "refunds", f"external_key = '{SHOP}/refund/2/1'", money, returned)
    price = {"id": "10 + n", "external_key": key("price"), "sku": "'SKU-' || n"}
    _copy(cursor, "prices", f"external_key = '{SHOP}/price/1/1'", price, f"generate_series(2, {PRICES}) AS n")


def _series(orders: int) -> tuple[str, str]:
    """All orders but the first two, and those of them that have a return."""
    return f"generate_series(3, {orders}) AS n", f"generate_series({RETURNED}, {orders}, {RETURNED}) AS n"


def _copy(cursor: Any, table: str, which: str, values: Mapping[str, str], series: str) -> None:
    """Copies rows once for each `n`, with these columns anew."""
    cursor.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped",
        (f'"{table}"',),
    )
    columns = [f'"{name}"' for (name,) in cursor.fetchall()]
    chosen = [values.get(name.strip('"'), f"s.{name}") for name in columns]
    cursor.execute(
        f'INSERT INTO "{table}" ({", ".join(columns)}) SELECT {", ".join(chosen)} FROM "{table}" AS s, {series}'
        f" WHERE {which} ORDER BY n"
    )
