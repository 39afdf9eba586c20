"""What the copy lacks holds documents, with the real stager and worker.

A gap of a table lets only cancellations pass. An unseen value holds its document alone. Both holds end by themselves
once the rows come. Each order has one line; its buyer is its `note`. Products are a reference: their changes mark no
order.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pytest

from schemas.model import change
from schemas.model.commits import SnapshotState
from sink.apply.worker import Worker
from sink.database import connect
from sink.documents.profile import Profile, load_profile
from sink.erp.sql.adapter import SqlErp
from sink.operations.accept import accept_gaps
from sink.operations.status import status
from tests.fix_erp import drain, make_worker, run
from tests.integration.stager_feed import LINES, ORDERS, Feed, Piece, line, order, until

PROFILE = """
tables:
  public.orders: {id: bigint, status: text, total: numeric, note: text}
  public.order_lines: {id: bigint, order_id: bigint, sku: text, quantity: integer}
  public.products: {id: bigint, name: text}
  public.payments: {id: bigint, order_id: bigint, amount: numeric}
documents:
  customer: {model: Customer, key: orders.note, touched_by: {orders: note}}
  sales_order:
    model: SalesOrder
    key: orders.id
    order: orders.id
    touched_by: {orders: id, order_lines: order_id, payments: order_id}
"""
_AMOUNTS = "o.total AS net, 0::numeric AS tax, o.total AS gross"
SQL = {
    "customer.sql": "SELECT DISTINCT note AS key, 'registered' AS kind, note AS name FROM orders"
    " WHERE note = ANY (%(keys)s)",
    "sales_order.sql": "SELECT id::text AS key, 'S-' || mod(id, 10) AS number, note AS customer,"
    " '2026-01-01T10:00Z'::timestamptz AS placed_at, 'EUR' AS currency, status, true AS tax_included,"
    f" {_AMOUNTS}, status <> 'not paid' AS ready FROM orders AS o WHERE id::text = ANY (%(keys)s)",
    "sales_order.lines.sql": "SELECT order_id::text AS parent, l.id AS key, sku, p.name, quantity, 0 AS tax_rate,"
    f" o.total / quantity AS unit_price, {_AMOUNTS} FROM order_lines AS l JOIN orders AS o ON o.id = l.order_id"
    " JOIN products AS p ON p.id = 1 WHERE order_id::text = ANY (%(keys)s)",
    "sales_order.payments.sql": "SELECT order_id::text AS parent, id AS key, 'card' AS means, amount FROM payments"
    " WHERE order_id::text = ANY (%(keys)s)",
}
PRODUCTS, PAYMENTS = "public.products", "public.payments"
FIXED_BY = f"`capture signal snapshot {LINES}`"


class Shop(Feed):
    """Three orders in the ERP, and what happens to them."""

    @property
    def profile(self) -> Profile:
        folder = self.folder / "profile"
        folder.mkdir(exist_ok=True)
        for name, text in {"profile.yaml": PROFILE, **SQL}.items():
            (folder / name).write_text(text)
        return load_profile(str(folder))

    def until_there(self, *pieces: Piece, counts: dict[str, int] | None = None) -> None:
        """Writes a commit with these changes, which the index counts as `counts`, and waits until it is visible."""
        at = self.place()
        placed = [piece._replace(lsn=at, ordinal=number) for number, piece in enumerate(pieces, 1)]
        if counts is None:
            self.commit(at, *placed)
        else:
            self.write(*placed, index=self.indexed([(at, counts)]))
        self.until_at(at)

    def lose(self, table: str) -> None:
        """Writes a commit in which a change of this table never comes."""
        self.until_there(order(90, 0, status="not paid"), counts={ORDERS: 1, table: 1})
        assert self.gaps() == [(table, "lost")]

    def read_again(self, table: str, *pieces: Piece) -> None:
        """Does what `capture signal snapshot` does."""
        at = self.place()
        rows = [piece._replace(lsn=at, ordinal=0, op="r", snapshot=f"s{at}") for piece in pieces]
        state = SnapshotState(f"s{at}", "completed", at, False, (table,), {table: len(rows)})
        chunks = [(at, {table: len(rows)}, f"s{at}")]
        self.write(*rows, index=self.indexed(chunks=chunks, snapshots=(state,)))
        until(
            lambda: self.rows("SELECT 1 FROM snapshot WHERE id = %s AND state = 'complete'", f"s{at}"),
            "it",
        )

    def held(self) -> dict[str, tuple[str, str]]:
        """What is held: document → (reason, next step)."""
        query = "SELECT type || ' ' || key, reason, next_step FROM document WHERE state = 'held'"
        return {row[0]: row[1:] for row in self.rows(query)}


def an_order(number: int, status: str = "open", op: str = "c", total: str = "10") -> Piece:
    return order(number, 0, status=status, op=op, row={"total": total, "note": f"buyer {number}"})


def payment(number: int, of: int, amount: str = "10", op: str = "c") -> Piece:
    return Piece(PAYMENTS, op, {"id": number, "order_id": of, "amount": Decimal(amount)}, 0, 1)


PRODUCT = Piece(PRODUCTS, "c", {"id": 1, "name": "Bolt"}, 0, 1)


@pytest.fixture
def shop(tmp_path: Path, bootstrap_servers: str, prefix: str, database: str) -> Iterator[Shop]:
    made = Shop(tmp_path, bootstrap_servers, prefix, database)
    made.types[PRODUCTS] = {"id": (20, -1), "name": (25, -1)}
    made.types[PAYMENTS] = {"id": (20, -1), "order_id": (20, -1), "amount": (1700, (12 << 16 | 2) + 4)}
    made.make_topics({made.topic(PRODUCTS): 1, made.topic(PAYMENTS): 1})
    made.begin()
    with made.running():
        made.until_there(PRODUCT)
        for number in (1, 2, 3):
            made.until_there(an_order(number), line(number, 0, of=number))
        until(lambda: made.rows("SELECT 1 FROM copy WHERE state = 'steady'"), "the first snapshot is staged")
        yield made


@pytest.fixture
def worker(shop: Shop, erp: SqlErp) -> Iterator[Worker]:
    """A worker that has sent everything so far."""
    with closing(connect(shop.url, "ordertap_shop")) as connection:
        made = make_worker(connection, erp, f"{shop.folder}/profile/")
        drain(made)
        yield made


def in_erp(erp_url: str) -> list[tuple[str, str, str]]:
    """The ERP's orders: number, status, gross."""
    return run(erp_url, "SELECT shop_number, status, gross::text FROM orders ORDER BY 1")


def test_while_a_table_has_a_gap_only_cancellations_are_sent(shop: Shop, worker: Worker, erp_url: str) -> None:
    assert in_erp(erp_url) == [(f"S-{number}", "confirmed", "10.00") for number in (1, 2, 3)]
    shop.lose(LINES)
    cancelled_and_raised = an_order(2, "cancelled", "u", "25")  # nobody knows by how much
    new = (an_order(4), line(4, 0, of=4))
    shop.until_there(an_order(1, "cancelled", "u"), cancelled_and_raised, an_order(3, op="u", total="30"), *new)
    drain(worker)
    certain = [("S-1", "cancelled", "10.00"), ("S-2", "cancelled", "10.00"), ("S-3", "confirmed", "10.00")]
    assert in_erp(erp_url) == certain
    held = shop.held()
    assert {"sales_order 3", "sales_order 4"} <= held.keys()
    assert not {"sales_order 1", "sales_order 2", "customer buyer 4"} & held.keys()  # customers read no lines
    for reason, next_step in (held["sales_order 3"], held["sales_order 4"]):
        assert reason.startswith(f"{LINES}: 1 changes of the commit at")
        assert next_step == FIXED_BY
    shop.read_again(LINES, *(line(number, 0, of=number) for number in (1, 2, 3, 4)))
    assert shop.gaps() == []
    drain(worker)
    assert in_erp(erp_url) == [*certain[:2], ("S-3", "confirmed", "30.00"), ("S-4", "confirmed", "10.00")]
    assert shop.held() == {}


DOUBT = "; it is cancelled, but the cancellation may have been undone"


def test_a_cancellation_reaches_an_order_that_was_rewritten_during_a_gap(
    shop: Shop, worker: Worker, erp_url: str
) -> None:
    """Its key has changed, and no log says from which: it is known by number, date and buyer."""
    shop.lose(LINES)
    again = order(11, 0, status="cancelled", row={"total": "10", "note": "buyer 1"})
    shop.until_there(order(1, 0, op="d"), again, line(11, 0, of=11))
    drain(worker)
    assert "it may have been one of these: sales_order 1" in shop.held()["sales_order 11"][0]
    shop.read_again(LINES, *(line(number, 0, of=number) for number in (2, 3)), line(11, 0, of=11))
    drain(worker)
    assert in_erp(erp_url)[0] == ("S-1", "cancelled", "10.00")
    assert shop.held() == {}


def test_a_cancellation_is_kept_by_a_gap_of_the_orders_that_came_after_it(
    shop: Shop, worker: Worker, erp_url: str
) -> None:
    """The missing change opened order 1 again. Order 2 is cancelled after that, which is certain."""
    shop.until_there(an_order(1, "cancelled", "u"))
    shop.until_there(order(90, 0, status="not paid"), counts={ORDERS: 2})
    assert shop.gaps() == [(ORDERS, "lost")]
    shop.until_there(an_order(2, "cancelled", "u"))
    drain(worker)
    assert [row[:2] for row in in_erp(erp_url)[:2]] == [("S-1", "confirmed"), ("S-2", "cancelled")]
    reason, next_step = shop.held()["sales_order 1"]
    assert reason.startswith(f"{ORDERS}: 1 changes of the commit at")
    assert reason.endswith(DOUBT)
    assert next_step == f"`capture signal snapshot {ORDERS}`"
    shop.read_again(ORDERS, an_order(1), an_order(2, "cancelled"), an_order(3))
    drain(worker)
    assert shop.held() == {}
    assert [row[:2] for row in in_erp(erp_url)[:2]] == [("S-1", "confirmed"), ("S-2", "cancelled")]


def test_a_cancellation_is_kept_by_a_record_of_the_order_that_cannot_be_read(
    shop: Shop, worker: Worker, erp_url: str
) -> None:
    shop.until_there(an_order(1, "cancelled", "u"))
    shop.until_there(an_order(1, "open", "u")._replace(row_bytes=b"\0no schema"))
    drain(worker)
    assert in_erp(erp_url)[0][:2] == ("S-1", "confirmed")
    assert shop.held()["sales_order 1"][0].endswith(DOUBT)
    shop.until_there(an_order(1, "cancelled", "u"))
    drain(worker)
    assert shop.held() == {}
    assert in_erp(erp_url)[0][:2] == ("S-1", "cancelled")


def test_a_cancellation_is_kept_while_nobody_knows_which_order_a_record_is_of(
    shop: Shop, worker: Worker, erp_url: str
) -> None:
    shop.until_there(an_order(1, "cancelled", "u"))
    shop.rows(
        'INSERT INTO parked (topic, partition, "offset", reason, headers, holds_table)'
        " VALUES (%s, 0, 99, 'odd', '[]', %s)",
        shop.topic(ORDERS),
        ORDERS,
    )
    drain(worker)
    assert in_erp(erp_url)[0][:2] == ("S-1", "confirmed")
    assert shop.held()["sales_order 1"][0].endswith(DOUBT)
    accept_gaps(shop.connection, ORDERS, shop.topic(ORDERS), "Ada", execute=True)
    drain(worker)
    assert in_erp(erp_url)[0][:2] == ("S-1", "cancelled")


def test_the_end_of_a_gap_wakes_what_it_held(shop: Shop, worker: Worker, erp_url: str) -> None:
    """No row of the order comes again, and the products come again unchanged."""
    shop.lose(PRODUCTS)
    shop.until_there(an_order(3, op="u", total="30"))
    drain(worker)
    assert "sales_order 3" in shop.held()
    assert ("S-3", "confirmed", "10.00") in in_erp(erp_url)
    shop.read_again(PRODUCTS, PRODUCT)
    drain(worker)
    assert shop.held() == {}
    assert ("S-3", "confirmed", "30.00") in in_erp(erp_url)


def test_a_value_that_was_never_seen_holds_its_document_alone(shop: Shop, worker: Worker, erp_url: str) -> None:
    left_out = ((change.UNCHANGED_HEADER, change.unchanged_header(["sku"])),)
    unseen = line(8, 0, of=5, op="u")._replace(headers=left_out)  # its row was skipped once
    shop.until_there(an_order(5), unseen, an_order(6), line(6, 0, of=6))
    drain(worker)
    assert shop.held() == {"sales_order 5": (f"{LINES}.sku was never seen", FIXED_BY)}
    assert [row[0] for row in in_erp(erp_url)] == ["S-1", "S-2", "S-3", "S-6"]
    shop.read_again(LINES, *(line(number, 0, of=number) for number in (1, 2, 3, 6)), line(8, 0, of=5))
    drain(worker)
    assert shop.held() == {}
    assert ("S-5", "confirmed", "10.00") in in_erp(erp_url)


def test_a_record_that_cannot_be_read_holds_all_but_a_cancellation(shop: Shop, worker: Worker, erp_url: str) -> None:
    lost = [line(number, 0, of=number, op="u")._replace(row_bytes=b"\0no schema") for number in (1, 2)]
    shop.until_there(an_order(1, "cancelled", "u"), lost[0])
    shop.until_there(an_order(2, op="u", total="25"), lost[1])
    drain(worker)
    assert in_erp(erp_url)[:2] == [("S-1", "cancelled", "10.00"), ("S-2", "confirmed", "10.00")]
    held = shop.held()
    assert "sales_order 1" not in held
    reason, next_step = held["sales_order 2"]
    assert reason.startswith("a record of its shop commit cannot be read")
    assert "sink offsets reset" in next_step


def comes_again(shop: Shop) -> None:
    shop.until_there(payment(21, of=1, op="u"))


def is_read_again(shop: Shop) -> None:
    shop.read_again(PAYMENTS, payment(21, of=1))


def is_deleted(shop: Shop) -> None:
    shop.until_there(payment(21, of=1, op="d"))


def is_accepted(shop: Shop) -> None:
    accept_gaps(shop.connection, PAYMENTS, shop.topic(PAYMENTS), "Ada", execute=True)


@pytest.mark.parametrize(
    ("fix", "paid"), [(comes_again, "10.00"), (is_read_again, "10.00"), (is_deleted, "0.00"), (is_accepted, "0.00")]
)
def test_a_new_row_that_cannot_be_read_holds_what_reads_its_table_until_it_is_fixed(
    shop: Shop, worker: Worker, erp_url: str, fix: Callable[[Shop], None], paid: str
) -> None:
    """A payment in its own commit: nothing that is staged says whose it is."""
    shop.until_there(payment(21, of=1)._replace(row_bytes=b"\0no schema"))
    shop.until_there(an_order(1, op="u", total="30"), an_order(2, "cancelled", "u"))
    drain(worker)
    assert in_erp(erp_url)[:2] == [("S-1", "confirmed", "10.00"), ("S-2", "cancelled", "10.00")]
    why = f"{PAYMENTS}: 1 of its records cannot be staged, and which documents they are part of is not known"
    assert shop.held() == {"sales_order 1": (why, f"`capture signal snapshot {PAYMENTS}`")}
    assert [gap[:2] for gap in status(shop.connection, True).table_gaps] == [(PAYMENTS, "unreadable")]
    fix(shop)
    drain(worker)
    assert shop.held() == {}
    assert in_erp(erp_url)[0] == ("S-1", "confirmed", "30.00")
    assert run(erp_url, "SELECT paid::text FROM orders WHERE shop_number = 'S-1'") == [(paid,)]
    assert status(shop.connection, True).table_gaps == []


def test_a_row_that_comes_again_without_all_its_values_ends_no_hold(shop: Shop, worker: Worker) -> None:
    shop.until_there(payment(21, of=1))
    shop.until_there(payment(21, of=1, amount="20", op="u")._replace(row_bytes=b"\0no schema"))
    left_out = ((change.UNCHANGED_HEADER, change.unchanged_header(["amount"])),)
    shop.until_there(payment(21, of=1, op="u")._replace(headers=left_out))
    drain(worker)
    reason = shop.held()["sales_order 1"][0]
    assert reason.startswith("a record of its shop commit cannot be read")
    shop.until_there(payment(21, of=1, amount="20", op="u"))
    drain(worker)
    assert shop.held() == {}


def test_while_a_large_commit_brings_a_column_a_worker_does_not_wait(shop: Shop, worker: Worker, erp_url: str) -> None:
    """The worker releases its units, which stay due. Later it finds them done by what the commit says."""
    shop.until_there(an_order(4), line(4, 0, of=4))
    shop.types[LINES]["extra"] = (25, -1)
    at = shop.place()
    pieces = [line(n, at, n, of=99) for n in range(1_000, 13_000)]  # of an order that is not there
    late = shop.another_producer()
    shop.write(*pieces[:7_000])
    shop.write(*pieces[7_000:], commit=False, producer=late)
    shop.write(index=shop.indexed([(at, {LINES: len(pieces)})]))
    until(lambda: shop.rows(GATE), "the commit has the gate")
    worker._connection.cursor().execute("SET statement_timeout = '20s'")  # it would wait for ever
    assert worker.step() is False
    assert shop.rows(GATE), "the commit had it all the time"
    assert shop.rows("SELECT owner, due_at <= now() FROM unit WHERE unit = 'sales_order:4'") == [(None, True)]
    assert "S-4" not in str(in_erp(erp_url))
    late.commit_transaction(20)
    shop.until_at(at)
    drain(worker)
    assert ("S-4", "confirmed", "10.00") in in_erp(erp_url)


GATE = "SELECT 1 FROM pg_locks WHERE relation = 'schema_gate'::regclass AND mode = 'AccessExclusiveLock' AND granted"
