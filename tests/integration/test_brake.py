"""The brake: too many changes of documents in the ERP wait for a person, who releases them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest
from psycopg2 import sql

from schemas.model.errors import SettingsError
from sink.apply.desired import Desired, Known
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import brake as commands
from sink.commands.output import said
from sink.commands.status import told
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import HowFar, NotDone, RetryError, Step, StepProgress, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import brake as counters
from sink.ledger import control, marks
from sink.ledger.brake import Limit
from sink.ledger.listed import Listed
from sink.operations import brake, holds
from sink.operations.status import status
from sink.planning.brake import Brake
from sink.planning.policy import Policy
from tests.fix_erp import ORDER, PRICE, ROOT, change, drain, held, mark, pass_deadlines, run

COUNT = 20
FIVE = Brake(orders=5, prices=5)
REASON = "brake: more than 5 orders, returns and refunds were changed within an hour"
NINE = "SELECT count(*)::int FROM orders WHERE gross = 9.90"


@pytest.fixture
def other(database: str, middle: Connection) -> Iterator[Connection]:
    connection = connect(database, "ordertap_shop")
    yield connection
    connection.close()


def make(middle: Connection, erp: SqlErp, profile_path: str, limits: Brake = FIVE, batch: int = 50) -> Worker:
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, batch=batch, brake=limits)
    return Worker(middle, load_profile(profile_path), erp, rules, f"w{id(middle)}")


def mark_all(middle: Connection, which: str = "true") -> None:
    """Marks the orders that fit, and all buyers."""
    refs = f"SELECT 'sales_order' AS type, id::text AS key, 'sales_order:' || id AS unit FROM shop.orders WHERE {which}"
    buyers = "SELECT 'customer', customer, 'customer:' || customer FROM shop.orders"
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL(f"{refs} UNION {buyers}"))


@pytest.fixture
def sold(middle: Connection, erp: SqlErp, profile_path: str) -> Connection:
    """Twenty orders are in the ERP: new documents pass, however many."""
    many = f"SELECT n, 'S-' || n, 'c', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90 FROM generate_series(2, {COUNT}) AS n"
    change(middle, f"INSERT INTO orders {many}")
    mark_all(middle)
    drain(make(middle, erp, profile_path, Brake(orders=0, prices=0)))
    assert held(middle) == []
    return middle


def change_orders(middle: Connection, statement: str = "gross = 9.90", which: str = "true") -> None:
    change(middle, f"UPDATE orders SET {statement} WHERE {which}")
    mark_all(middle, which)


def waiting(middle: Connection) -> list[Listed]:
    found = [one for group in holds.held(middle, limit=1_000) for one in group.first]
    return [one for one in found if (one.reason or "").startswith("brake: ")]


def test_so_many_changes_pass_and_the_others_wait_until_a_person_releases_them(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make(sold, erp, profile_path, batch=7)
    change_orders(sold)
    drain(worker)
    assert run(erp_url, NINE) == [(5,)]
    assert [(one.cause, one.reason) for one in waiting(sold)] == [("decision", REASON)] * (COUNT - 5)
    dry = brake.release_mass(sold, "", "Ada", execute=False)
    assert [(one.verb, one.documents, one.before, one.after) for one in dry.waiting] == [
        ("amend", COUNT - 5, Decimal("178.50"), Decimal("148.50"))
    ]
    assert len(dry.examples) == 10
    assert list(commands.released(dry))[-1].startswith("nothing was changed")
    drain(worker)
    assert run(erp_url, NINE) == [(5,)], "a dry run changes nothing"
    assert brake.release_mass(sold, "orders", "Ada", execute=True).released == COUNT - 5
    drain(worker)
    assert run(erp_url, NINE) == [(COUNT,)]
    assert held(sold) == []
    with transaction(sold) as cursor:
        cursor.execute("SELECT count(*) FROM history WHERE event = 'released' AND person = 'Ada'")
        assert cursor.fetchall() == [(COUNT - 5,)]


def test_after_a_release_all_is_counted_anew(sold: Connection, erp: SqlErp, profile_path: str, erp_url: str) -> None:
    worker = make(sold, erp, profile_path)
    change_orders(sold)
    drain(worker)
    brake.release_mass(sold, "", "Ada", execute=True)
    drain(worker)
    change_orders(sold, "gross = 8.90")
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE gross = 8.90") == [(5,)], (
        "the release was for the other"
    )
    assert len(waiting(sold)) == COUNT - 5


def test_what_the_shop_has_changed_since_it_was_shown_is_not_released_with_it(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make(sold, erp, profile_path)
    change_orders(sold)
    drain(worker)
    change_orders(sold, "gross = 8.90", f"id = {waiting(sold)[0].key}")
    assert brake.release_mass(sold, "", "Ada", execute=True).released == COUNT - 6
    drain(worker)
    assert run(erp_url, NINE) == [(COUNT - 1,)]
    with transaction(sold) as cursor:
        cursor.execute("SELECT count(*) FROM brake_count")
        assert cursor.fetchall() == [(1,)], "it is counted as any other"


def test_what_the_shop_changes_before_the_released_version_is_built_is_counted(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker has read that the orders pass. What it builds is a later version."""
    change_orders(sold)
    drain(make(sold, erp, profile_path))
    brake.release_mass(sold, "", "Ada", execute=True)
    build, late = Desired.build, ["gross = 8.90"]

    def built(desired: Desired, refs: Collection[DocumentRef]) -> Mapping[DocumentRef, Known]:
        if late:
            change_orders(sold, late.pop())
        return build(desired, refs)

    monkeypatch.setattr(Desired, "build", built)
    drain(make(sold, erp, profile_path))
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE gross = 8.90") == [(5,)]
    assert len(waiting(sold)) == COUNT - 5


def test_what_was_released_passes_once_also_when_all_is_looked_at_again(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    change_orders(sold)
    drain(make(sold, erp, profile_path))
    brake.release_mass(sold, "", "Ada", execute=True)
    drain(make(sold, erp, profile_path))
    assert run(erp_url, NINE) == [(COUNT,)]
    lines = Path(profile_path, "sales_order.lines.sql")
    lines.write_text(lines.read_text().replace("'l1' AS key,", "'l1' AS key, 'a name' AS name,"))
    holds.retry_everything(sold, execute=True)
    drain(make(sold, erp, profile_path))
    assert run(erp_url, "SELECT count(*)::int FROM order_lines WHERE name = 'a name'") == [(5,)]


def test_once_it_has_stopped_a_kind_time_lets_nothing_more_pass(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make(sold, erp, profile_path)
    change_orders(sold, which="id <= 5")
    drain(worker)
    assert waiting(sold) == []
    _an_hour_passes(sold)
    change_orders(sold, which="id > 5 AND id <= 10")
    drain(worker)
    assert waiting(sold) == [], "so many in each window are the shop's daily work"
    change_orders(sold, which="id = 11")
    drain(worker)
    _an_hour_passes(sold)
    change_orders(sold, which="id = 12")
    drain(worker)
    assert (run(erp_url, NINE), len(waiting(sold))) == ([(10,)], 2)
    lines = list(told(status(sold, True)))
    assert (
        lines[lines.index(f"{REASON}: the others wait") + 1]
        == "    next: `sink brake` shows them, `sink release --mass --person NAME` releases them"
    )
    with transaction(sold) as cursor:
        assert control.read(cursor).stopped == {"orders": REASON}


def _an_hour_passes(middle: Connection) -> None:
    with transaction(middle) as cursor:
        cursor.execute("UPDATE brake_count SET at = at - interval '1 hour'")


def test_one_document_that_changes_often_is_no_mass(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make(sold, erp, profile_path, Brake(orders=1))
    for cents in range(10, 17):
        change_orders(sold, f"gross = 9.{cents}", "id = 3")
        drain(worker)
    assert run(erp_url, "SELECT gross::text FROM orders WHERE shop_number = 'S-3'") == [("9.16",)]


def test_a_cancellation_counts_too_and_a_document_that_is_cancelled_after_an_amendment_counts_once(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    change_orders(sold, "status = 'cancelled', gross = 9.90", "id <= 6")
    drain(make(sold, erp, profile_path))
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE status = 'cancelled'") == [(0,)]
    assert run(erp_url, NINE) == [(5,)], "stopped by the sixth amendment, before the first cancellation"
    found = brake.show(sold, FIVE)
    assert {(one.verb, one.documents) for one in found.waiting} == {("amend", 1), ("cancel", 5)}
    assert sum(one.after or 0 for one in found.waiting if one.verb == "cancel") == 0
    brake.release_mass(sold, "", "Ada", execute=True)
    drain(make(sold, erp, profile_path, Brake(orders=0)))
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE status = 'cancelled'") == [(6,)]


def test_what_the_shop_undoes_waits_no_more(sold: Connection, erp: SqlErp, profile_path: str) -> None:
    worker = make(sold, erp, profile_path)
    change_orders(sold)
    drain(worker)
    change_orders(sold, "gross = 11.90", f"id IN ({', '.join(one.key for one in waiting(sold))})")
    drain(worker)
    assert held(sold) == []
    assert brake.show(sold, FIVE).waiting == []
    assert brake.release_mass(sold, "", "Ada", execute=True).released == 0
    with pytest.raises(SettingsError, match="holds nothing back"):
        brake.release_mass(sold, "", "Ada", execute=True)


def test_a_retry_of_one_lets_that_one_pass_and_a_retry_of_all_lets_none(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    worker = make(sold, erp, profile_path)
    change_orders(sold)
    drain(worker)
    holds.retry(sold, None)
    drain(worker)
    assert run(erp_url, NINE) == [(5,)]
    one = waiting(sold)[0]
    holds.retry(sold, DocumentRef(one.type, one.key))
    drain(worker)
    assert run(erp_url, NINE) == [(6,)]
    change_orders(sold, "gross = 8.90", f"id = {one.key}")
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE gross = 8.90") == [(0,)], "that was another change"


class Lossy(SqlErp):
    """An ERP that breaks off, and says so later."""

    lost = True

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        lost = [NotDone(RetryError("the reply was lost")) for _ in steps]
        return lost if self.lost else super().apply(steps, not_after)

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        return [StepProgress(HowFar.PARTLY) for _ in steps]


def test_a_step_that_is_under_way_is_counted_once_and_settled_though_the_brake_has_stopped(
    sold: Connection, erp_url: str, profile_path: str
) -> None:
    lossy = Lossy(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    try:
        worker = make(sold, lossy, profile_path)
        change_orders(sold)
        drain(worker)
        assert (run(erp_url, NINE), len(waiting(sold))) == ([(0,)], COUNT - 5)
        lossy.lost = False
        pass_deadlines(sold)
        drain(worker)
        assert (run(erp_url, NINE), len(held(sold))) == ([(5,)], COUNT - 5), "the five go on where they were"
        with transaction(sold) as cursor:
            cursor.execute("SELECT count(*) FROM history WHERE event = 'held'")
            assert cursor.fetchall() == [(COUNT - 5,)]
    finally:
        lossy.close()


def test_two_workers_at_once_do_not_each_let_so_many_pass(
    sold: Connection, other: Connection, erp: SqlErp, profile_path: str, erp_url: str, database: str
) -> None:
    """The first has counted five and not committed its intents yet. The second waits for it, and then knows of them."""
    change_orders(sold, which="id > 5")
    worker = make(other, erp, profile_path)
    with transaction(sold) as first:
        passing, reason = counters.admit(
            first, "orders", [DocumentRef("sales_order", str(n)) for n in range(1, 6)], _FIVE
        )
        assert (len(passing), reason) == (5, "")
        thread = threading.Thread(target=drain, args=(worker,))
        thread.start()
        _until_it_waits_for(first, other.info.backend_pid)
    thread.join(60)
    assert not thread.is_alive()
    assert run(erp_url, NINE) == [(0,)]
    assert len(waiting(sold)) == COUNT - 5


_FIVE = Limit("orders, returns and refunds were changed", 5, 3600)


def _until_it_waits_for(ours: counters.Cursor, pid: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        ours.execute("SELECT pg_backend_pid() = ANY(pg_blocking_pids(%s))", (pid,))
        if ours.fetchall() == [(True,)]:
            return
        time.sleep(0.02)
    raise AssertionError("it did not wait")


PRICES = 60


@pytest.fixture
def listed(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Connection:
    """Sixty prices are in the ERP."""
    run(erp_url, f"INSERT INTO items SELECT 'P' || n, 'p' FROM generate_series(1, {PRICES}) AS n")
    change(middle, f"INSERT INTO prices SELECT 'P' || n, 10 FROM generate_series(1, {PRICES}) AS n")
    mark_prices(middle)
    drain(make(middle, erp, profile_path, Brake(orders=0, prices=0)))
    assert run(erp_url, LISTED) == [(PRICES,)]
    return middle


LISTED = "SELECT count(*)::int FROM prices WHERE status <> 'cancelled'"


def mark_prices(middle: Connection) -> None:
    mark(middle, *(PRICE._replace(key=f"P{n}") for n in range(1, PRICES + 1)))


def test_a_list_of_small_changes_passes_and_one_of_large_ones_waits(
    listed: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make(listed, erp, profile_path)
    change(listed, "UPDATE prices SET amount = 12")
    mark_prices(listed)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM prices WHERE amount = 12") == [(PRICES,)]
    change(listed, "UPDATE prices SET amount = 7.2")
    mark_prices(listed)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM prices WHERE amount = 7.2") == [(6,)], "a tenth of the list"
    found = brake.show(listed, FIVE)
    assert [(one.kind, one.verb, one.documents, one.before) for one in found.waiting] == [
        ("prices", "amend", PRICES - 6, None)
    ]
    change(listed, "UPDATE prices SET amount = 11 WHERE sku = 'P60'")
    mark_prices(listed)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM prices WHERE amount = 11") == [(1,)], "a small change passes by"
    brake.release_mass(listed, "prices", "Ada", execute=True)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM prices WHERE amount = 7.2") == [(PRICES - 1,)]


def test_prices_that_vanish_all_at_once_stay_until_a_person_has_looked(
    listed: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """F8: TRUNCATE in the shop ended every price of the ERP."""
    worker = make(listed, erp, profile_path)
    change(listed, "TRUNCATE prices")
    mark_prices(listed)
    drain(worker)
    assert run(erp_url, LISTED) == [(PRICES - 6,)]
    assert len(waiting(listed)) == PRICES - 6
    lines = list(commands.lines(brake.show(listed, FIVE)))
    assert any("prices were changed by more than 20 %, or removed, within an hour" in line for line in lines)
    assert json.loads(next(iter(said(brake.show(listed, FIVE), lines, as_json=True))))["waiting"][0]["verb"] == "remove"
    with pytest.raises(SettingsError, match="knows no kind 'price'"):
        brake.release_mass(listed, "price", "Ada", execute=True)
    with pytest.raises(SettingsError, match="holds nothing back"):
        brake.release_mass(listed, "orders", "Ada", execute=True)
    brake.release_mass(listed, "prices", "Ada", execute=True)
    drain(worker)
    assert run(erp_url, LISTED) == [(0,)]


def test_the_brake_of_orders_is_not_that_of_prices(
    sold: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make(sold, erp, profile_path)
    change(sold, "INSERT INTO prices VALUES ('A', 10)")
    mark(sold, PRICE)
    change_orders(sold)
    drain(worker)
    change(sold, "UPDATE prices SET amount = 20")
    mark(sold, PRICE, ORDER)
    drain(worker)
    assert run(erp_url, "SELECT amount::text FROM prices") == [("20.000000",)]
