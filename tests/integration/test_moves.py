"""A document whose key the shop has changed stays the same document in the ERP."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime

import pytest
from psycopg2 import sql

from sink.apply.worker import Worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import NotDone, Observed, RetryError, Step, StepProgress, StepResult
from sink.erp.kinds import ErpRef, Kind
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import documents, leases, marks, moves
from sink.ledger.outcomes import Outcome, State
from sink.operations.accept import Accepted, accept_document
from sink.operations.ignore import leave_alone
from sink.planning.policy import Check
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    REFUND,
    RETURN,
    ROOT,
    UNITS,
    LosesReplies,
    adapter_of,
    change,
    drain,
    held,
    look,
    make_worker,
    mark,
    pass_deadlines,
    rows,
    run,
)

NEW = DocumentRef("sales_order", "9")
ORDERS = "SELECT external_key, shop_number, gross::text, status FROM orders ORDER BY external_key"
NOTED = "SELECT key, old_key FROM ordertap_shop.key_change ORDER BY key"
COPY = "INSERT INTO orders SELECT {}, number, customer, placed_at, status, sku, quantity, gross FROM orders"
THIRD = DocumentRef("sales_order", "3")
DOUBT = "the shop changed its key, and it may have been one of these: sales_order 1, sales_order 3"
ONE_ORDER = [("shop/order/1/1", "S-1", "11.90", "confirmed")]


@pytest.fixture
def worker(middle: Connection, erp: SqlErp, profile_path: str) -> Worker:
    """The order, a return and a refund of it are in the ERP."""
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    found = make_worker(middle, erp, profile_path)
    mark(middle, *UNITS)
    drain(found)
    assert held(middle) == []
    return found


def _log_says(middle: Connection, new: DocumentRef, old: str) -> None:
    with transaction(middle) as cursor:
        moves.note(cursor, {new: old})


@pytest.mark.parametrize("first", [NEW, ORDER])
def test_f5_an_order_under_another_key_is_no_second_one(
    worker: Worker,
    middle: Connection,
    erp_url: str,
    erp: SqlErp,
    profile_path: str,
    monkeypatch: pytest.MonkeyPatch,
    first: DocumentRef,
) -> None:
    """Whichever key is looked at first. Its return and refund go with it."""
    change(middle, "UPDATE orders SET id = 9; UPDATE returns SET order_id = 9")
    look(worker, middle, first)
    for ref in (RETURN, REFUND):
        monkeypatch.setitem(UNITS, ref, "sales_order:9")
    look(worker, middle, NEW, ORDER, CUSTOMER, RETURN, REFUND)
    assert held(middle) == []
    assert run(erp_url, ORDERS) == ONE_ORDER
    change(middle, "UPDATE orders SET gross = 9.90")
    look(worker, middle, NEW)
    assert run(erp_url, ORDERS) == [("shop/order/1/1", "S-1", "9.90", "confirmed")]
    assert run(erp_url, "SELECT count(*) FROM returns") == [(1,)]
    history = "SELECT event, detail FROM ordertap_shop.history WHERE type = 'sales_order' AND key = '9' ORDER BY id"
    assert [event for event, _ in rows(middle, history) if event != "held"] == ["create", "moved", "amend"]
    assert ("moved", "its key in the shop was 1") in rows(middle, history)
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_f5_the_old_key_may_be_used_again(worker: Worker, middle: Connection, erp_url: str) -> None:
    """Another order takes the key before anyone has looked at the one that moved."""
    change(middle, "UPDATE orders SET id = 9; DELETE FROM returns;"
                   " INSERT INTO orders VALUES (1, 'S-2', '7', '2026-02-01T10:00Z', 'open', 'A', 2, 5.95)")  # fmt: skip
    look(worker, middle, NEW, ORDER)
    assert run(erp_url, ORDERS) == [*ONE_ORDER, ("shop/order/1/2", "S-2", "5.95", "confirmed")]


def test_f5_what_held_an_order_does_not_stay_with_its_old_key(worker: Worker, middle: Connection, erp_url: str) -> None:
    """Another order takes the key and is held, too: since now, and with a line of its own in the history."""
    run(erp_url, "UPDATE orders SET shop_number = 'S-7'")
    look(worker, middle)
    with transaction(middle) as cursor:
        cursor.execute("UPDATE document SET held_since = held_since - interval '1 day' WHERE state = 'held'")
        assert cursor.rowcount == 1
    change(middle, "UPDATE orders SET id = 9; DELETE FROM returns;"
                   " INSERT INTO orders VALUES (1, 'S-2', '7', '2026-02-01T10:00Z', 'open', 'B', 2, 5.95)")  # fmt: skip
    look(worker, middle, NEW, ORDER)
    since = (
        "SELECT key, state, clock_timestamp() - held_since < interval '1 hour' FROM document WHERE type = 'sales_order'"
    )
    assert sorted(rows(middle, since)) == [("1", "held", True), ("9", "held", True)]
    noted = "SELECT key, count(*)::int FROM history WHERE event = 'held' AND type = 'sales_order' GROUP BY 1 ORDER BY 1"
    assert rows(middle, noted) == [("1", 1), ("9", 2)]


def test_f5_two_orders_that_are_alike_are_two(worker: Worker, middle: Connection, erp_url: str) -> None:
    change(middle, COPY.format(9))
    look(worker, middle, NEW, ORDER)
    assert held(middle) == []
    assert [key for key, *_ in run(erp_url, ORDERS)] == ["shop/order/1/1", "shop/order/9/1"]


@pytest.fixture
def doubt(worker: Worker, middle: Connection) -> Worker:
    """Two equal orders are gone, and one has come."""
    change(middle, COPY.format(3))
    look(worker, middle, THIRD)
    change(middle, "DELETE FROM returns; DELETE FROM orders WHERE id = 3; UPDATE orders SET id = 9")
    look(worker, middle, NEW, ORDER, THIRD)
    assert DOUBT in held(middle)
    return worker


def test_f5_in_doubt_a_person_says_which_it_was(doubt: Worker, middle: Connection, erp_url: str) -> None:
    assert len(run(erp_url, ORDERS)) == 2
    accept_document(middle, THIRD, "Ada", execute=True)
    with transaction(middle) as cursor:
        marks.retry(cursor, NEW)
    drain(doubt)
    assert DOUBT not in held(middle)
    assert rows(middle, "SELECT external FROM ordertap_shop.document WHERE key = '9'") == [("shop/order/1/1",)]


@pytest.mark.parametrize("said", ["ignored", "settled"])
def test_f5_an_order_of_which_a_person_has_spoken_is_no_second_one_when_it_is_written_anew(
    worker: Worker, middle: Connection, erp_url: str, said: str
) -> None:
    """The person decided before anyone asked whether it is the one that comes later."""
    change(middle, "DELETE FROM returns; CREATE TABLE gone AS SELECT * FROM orders; DELETE FROM orders")
    look(worker, middle, ORDER)
    if said == "ignored":
        leave_alone(middle, ORDER, False, "Ada", execute=True)
    else:
        assert accept_document(middle, ORDER, "Ada", execute=True).taken_for is Accepted.KEPT
    drain(worker)
    change(middle, "INSERT INTO orders SELECT 9, number, customer, placed_at, status, sku, quantity, 9.90 FROM gone")
    look(worker, middle, NEW)
    gross = "11.90" if said == "ignored" else "9.90"
    assert run(erp_url, ORDERS) == [("shop/order/1/1", "S-1", gross, "confirmed")]
    state = "ignored" if said == "ignored" else "done"
    assert rows(middle, "SELECT state FROM ordertap_shop.document WHERE key = '9'") == [(state,)]


def test_f5_an_ignored_order_that_the_erp_never_had_is_in_doubt_when_its_number_comes_again(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """A number alone may be another order's, so a person decides."""
    worker = make_worker(middle, erp, profile_path)
    change(middle, "UPDATE orders SET sku = 'NEW'")
    look(worker, middle)
    leave_alone(middle, ORDER, False, "Ada", execute=True)
    change(middle, "UPDATE orders SET id = 9, sku = 'A'")
    look(worker, middle, NEW, ORDER)
    assert held(middle) == ["the shop changed its key, and it may have been one of these: sales_order 1"]
    assert run(erp_url, ORDERS) == []
    accept_document(middle, NEW, "Ada", execute=True)
    drain(worker)
    assert run(erp_url, ORDERS) == [("shop/order/9/1", "S-1", "11.90", "confirmed")]


def test_f5_what_answered_a_doubt_stays_the_answer_while_another_worker_has_what_it_was(
    doubt: Worker, middle: Connection
) -> None:
    leave_alone(middle, THIRD, False, "Ada", execute=True)
    with transaction(middle) as cursor:
        (lease,) = leases.take(cursor, "another", 60.0, ["sales_order:1"])
        marks.retry(cursor, NEW)
    drain(doubt)
    with transaction(middle) as cursor:
        leases.release(cursor, [lease])
    for _ in range(2):
        pass_deadlines(middle)
        drain(doubt)
    assert rows(middle, "SELECT external, state FROM ordertap_shop.document WHERE key = '9'") == [
        ("shop/order/1/1", "done")
    ]


def test_f5_in_doubt_a_person_says_that_it_is_a_new_one(doubt: Worker, middle: Connection, erp_url: str) -> None:
    assert accept_document(middle, NEW, "Ada", execute=True).taken_for is Accepted.NEW
    drain(doubt)
    assert DOUBT not in held(middle)
    assert [key for key, *_ in run(erp_url, ORDERS)] == ["shop/order/1/1", "shop/order/3/1", "shop/order/9/1"]


def test_f5_two_that_may_be_one_are_held(worker: Worker, middle: Connection, erp_url: str) -> None:
    change(middle, f"DELETE FROM returns; UPDATE orders SET id = 9; {COPY.format(8)}")
    mark(middle, NEW, DocumentRef("sales_order", "8"), ORDER)
    drain(worker)
    assert len([why for why in held(middle) if why.startswith("the shop changed its key")]) == 2
    assert run(erp_url, ORDERS) == ONE_ORDER


@pytest.mark.parametrize(("was_sent", "key"), [(True, "shop/order/1/1"), (False, "shop/order/9/1")])
def test_f5_nothing_is_made_while_another_worker_has_what_it_was_and_may_be_about_to_make_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, was_sent: bool, key: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    if was_sent:
        drain(worker)
    before = run(erp_url, ORDERS)
    assert before == ONE_ORDER * was_sent
    with transaction(middle) as cursor:
        (lease,) = leases.take(cursor, "another", 60.0, ["sales_order:1"])
    change(middle, "UPDATE orders SET id = 9")
    _log_says(middle, NEW, "1")
    look(worker, middle, NEW)
    assert run(erp_url, ORDERS) == before
    assert rows(middle, "SELECT state FROM ordertap_shop.document WHERE key = '9'") == [("settling",)]
    with transaction(middle) as cursor:
        leases.release(cursor, [lease])
    pass_deadlines(middle)
    drain(worker)
    assert run(erp_url, ORDERS) == [(key, "S-1", "11.90", "confirmed")]


@pytest.mark.parametrize("logged", [True, False])
@pytest.mark.parametrize("used_again", [False, True])
def test_f5_an_order_on_its_way_to_the_erp_under_its_old_key_is_no_second_one(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, used_again: bool, logged: bool
) -> None:
    """The reply of its create was lost. Before anyone has asked about it, the shop changes its key, or deletes it and
    writes it anew, which the log does not tell."""

    change(middle, "INSERT INTO orders VALUES (2, 'S-0', '7', '2026-01-01T09:00Z', 'open', 'A', 2, 5.95)")
    mark(middle, CUSTOMER, DocumentRef("sales_order", "2"))
    drain(make_worker(middle, erp, profile_path))  # its buyer is there, so nothing waits
    before = run(erp_url, ORDERS)
    lossy = adapter_of(LosesReplies, erp_url)
    mark(middle, ORDER)
    make_worker(middle, lossy, profile_path, "another").step()
    lossy.close()
    assert run(erp_url, ORDERS) == ONE_ORDER + before
    change(middle, "UPDATE orders SET id = 9 WHERE id = 1")
    if used_again:
        change(middle, "INSERT INTO orders VALUES (1, 'S-2', '7', '2026-02-01T10:00Z', 'open', 'A', 2, 5.95)")
    if logged:
        _log_says(middle, NEW, "1")
    mark(middle, NEW, ORDER)
    worker = make_worker(middle, erp, profile_path)
    worker.step()
    assert run(erp_url, ORDERS) == ONE_ORDER + before
    pass_deadlines(middle)
    look(worker, middle, NEW, ORDER, CUSTOMER)
    assert held(middle) == []
    again = [("shop/order/1/2", "S-2", "5.95", "confirmed")] * used_again
    assert run(erp_url, ORDERS) == [*ONE_ORDER, *again, *before]
    assert rows(middle, "SELECT external FROM ordertap_shop.document WHERE key = '9'") == [("shop/order/1/1",)]


class Meanwhile(SqlErp):
    """Lets something happen between a worker's look and its call."""

    happens: Callable[[], None] | None = None

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        happens, self.happens = self.happens, None
        if happens:
            happens()
        return super().observe(refs)


@pytest.fixture
def meanwhile(erp_url: str) -> Iterator[Meanwhile]:
    adapter = adapter_of(Meanwhile, erp_url)
    yield adapter
    adapter.close()


def test_f5_an_order_that_is_written_anew_after_the_look_at_it_is_made_once(
    middle: Connection, database: str, erp: SqlErp, erp_url: str, profile_path: str, meanwhile: Meanwhile
) -> None:
    """One worker has looked at the order, and has not written its intent yet. Then the shop deletes the order and
    writes it under another key, and another worker makes that one."""
    change(middle, "INSERT INTO orders VALUES (2, 'S-0', '7', '2026-01-01T09:00Z', 'open', 'A', 2, 5.95)")
    mark(middle, CUSTOMER, DocumentRef("sales_order", "2"))
    drain(make_worker(middle, erp, profile_path))
    before = run(erp_url, ORDERS)
    with closing(connect(database, "ordertap_shop")) as other:

        def writes_it_anew() -> None:
            change(other, "UPDATE orders SET id = 9 WHERE id = 1")
            mark(other, NEW, ORDER)
            make_worker(other, erp, profile_path, "another").step()

        meanwhile.happens = writes_it_anew
        mark(middle, ORDER)
        worker = make_worker(middle, meanwhile, profile_path)
        worker.step()
        assert meanwhile.happens is None
    assert run(erp_url, ORDERS) == [*before, ("shop/order/9/1", "S-1", "11.90", "confirmed")]
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, ORDERS) == [*before, ("shop/order/9/1", "S-1", "11.90", "confirmed")]


class Late(SqlErp):
    """A call of it is on its way for long, and nobody hears of it."""

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        return [NotDone(RetryError("the reply was lost")) for _ in steps]


class Asked(SqlErp):
    """Knows of what it was asked, and what it was told to do."""

    def __init__(self, url: str) -> None:
        super().__init__(url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
        self.kinds: set[Kind] = set()

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        self.kinds |= {step.ref.kind for step in steps}
        return super().progress(steps)

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.kinds |= {step.ref.kind for step in steps}
        return super().apply(steps, not_after)


def test_f5_a_return_of_which_a_call_is_under_way_stays_with_its_order_until_that_is_resolved(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its order's key is changed meanwhile: nobody asks for it, or sends it, while that call may still arrive."""
    mark(middle, ORDER, CUSTOMER)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN)
    with closing(adapter_of(Late, erp_url)) as late:
        make_worker(middle, late, profile_path, "another").step()
    change(middle, "UPDATE orders SET id = 9; UPDATE returns SET order_id = 9")
    _log_says(middle, NEW, "1")
    monkeypatch.setitem(UNITS, RETURN, "sales_order:9")
    mark(middle, NEW, ORDER, RETURN)
    unit = "SELECT unit, next_unit FROM ordertap_shop.document WHERE type = 'return_order'"
    assert rows(middle, unit) == [("sales_order:1", "sales_order:9")]
    with closing(Asked(erp_url)) as asked:
        worker = make_worker(middle, asked, profile_path)
        drain(worker)
        assert "return" not in asked.kinds
        assert run(erp_url, "SELECT external_key FROM returns") == []
        pass_deadlines(middle)
        drain(worker)
    assert rows(middle, unit) == [("sales_order:9", None)]
    assert held(middle) == []
    assert run(erp_url, "SELECT external_key FROM returns") == [("shop/return/5/1",)]
    assert run(erp_url, ORDERS) == ONE_ORDER


def test_f5_a_return_that_goes_to_another_order_after_the_look_at_it_is_sent_by_that_ones_worker(
    middle: Connection, database: str, erp: SqlErp, erp_url: str, profile_path: str, meanwhile: Meanwhile,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    mark(middle, ORDER, CUSTOMER)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "INSERT INTO orders VALUES (2, 'S-0', '7', '2026-01-01T09:00Z', 'open', 'A', 2, 5.95);"
                   " INSERT INTO returns VALUES (5, 1, 1, 5.95)")  # fmt: skip
    mark(middle, DocumentRef("sales_order", "2"))
    drain(make_worker(middle, erp, profile_path))
    mark(middle, RETURN)

    with closing(connect(database, "ordertap_shop")) as other:

        def goes_to_another() -> None:
            change(other, "UPDATE returns SET order_id = 2")
            monkeypatch.setitem(UNITS, RETURN, "sales_order:2")
            mark(other, RETURN)

        meanwhile.happens = goes_to_another
        make_worker(middle, meanwhile, profile_path).step()
        assert meanwhile.happens is None
        assert run(erp_url, "SELECT * FROM returns") == [], "the worker no longer has the unit"
        assert rows(middle, "SELECT count(*) FROM ordertap_shop.document WHERE intent IS NOT NULL") == [(0,)]
        drain(make_worker(other, erp, profile_path, "another"))
    assert held(middle) == []
    assert run(erp_url, "SELECT external_key FROM returns") == [("shop/return/5/1",)]


def test_f5_nothing_is_noted_of_a_look_at_a_return_that_has_gone_to_another_order(middle: Connection) -> None:
    """Its outcome is not written, so the history must not tell of a hold."""
    mark(middle, RETURN)
    with transaction(middle) as cursor:
        leased = leases.take(cursor, "w1", 60.0, [UNITS[RETURN]])
        one = documents.entries_of(cursor, [RETURN])[RETURN]
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL("SELECT 'return_order' AS type, '5' AS key, 'sales_order:2' AS unit"))
    with transaction(middle) as cursor:
        documents.write(cursor, leased, [(one, Outcome.held("why", "fix it", "decision", None, Check.CAP))])
    assert (one.state, one.check) == (State.DUE, None)
    assert rows(middle, "SELECT unit, state, seen::int FROM document") == [("sales_order:2", "due", 0)]
    assert rows(middle, "SELECT event FROM history") == []


@pytest.mark.parametrize("was_sent", [True, False])
def test_f5_an_order_that_a_person_ignores_is_ignored_under_its_new_key(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, was_sent: bool
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    if was_sent:
        drain(worker)
    leave_alone(middle, ORDER, False, "Ada", execute=True)
    before = run(erp_url, ORDERS)
    change(middle, "UPDATE orders SET id = 9, gross = 9.90")
    _log_says(middle, NEW, "1")
    look(worker, middle, NEW, ORDER)
    assert run(erp_url, ORDERS) == before == ONE_ORDER * was_sent
    assert rows(middle, "SELECT state FROM ordertap_shop.document WHERE key = '9'") == [("ignored",)]


def test_f5_what_a_person_accepted_and_which_profile_made_it_go_with_it(
    worker: Worker, middle: Connection, erp_url: str
) -> None:
    run(erp_url, "UPDATE orders SET gross = 1")
    change(middle, "DELETE FROM returns")
    look(worker, middle, ORDER)
    accept_document(middle, ORDER, "Ada", execute=True)
    drain(worker)
    said = "SELECT decisions, made_by FROM ordertap_shop.document WHERE type = 'sales_order' AND key = '{}'"
    before = rows(middle, said.format(1))
    assert None not in before[0]
    change(middle, "UPDATE orders SET id = 9")
    look(worker, middle, NEW, ORDER)
    assert [why for why in held(middle) if "changed in the ERP" in why] == []
    assert rows(middle, said.format(9)) == before
    assert rows(middle, said.format(1)) == [(None, None)]


def test_f5_a_buyer_under_another_key_keeps_the_account(worker: Worker, middle: Connection, erp_url: str) -> None:
    """The same commit gives the buyer's orders the new key, and the log tells that it is the same buyer."""
    buyer = DocumentRef("customer", "8")
    change(middle, "UPDATE orders SET customer = '8', gross = 9.90")
    _log_says(middle, buyer, "7")
    look(worker, middle, buyer, CUSTOMER, ORDER)
    assert held(middle) == []
    accounts = "SELECT external_key, account_number FROM customers"
    assert run(erp_url, accounts) == [("shop/customer/7/1", "shop-100001")]
    assert run(erp_url, ORDERS) == [("shop/order/1/1", "S-1", "9.90", "confirmed")]
    change(middle, "INSERT INTO orders VALUES (2, 'S-2', '7', '2026-02-01T10:00Z', 'open', 'A', 2, 5.95)")
    mark(middle, CUSTOMER, DocumentRef("sales_order", "2"))
    drain(worker)
    assert sorted(run(erp_url, accounts)) == [
        ("shop/customer/7/1", "shop-100001"), ("shop/customer/7/2", "shop-100002"),
    ]  # fmt: skip


def test_f5_a_return_and_a_refund_under_other_keys_are_no_second_ones(
    worker: Worker, middle: Connection, erp_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    goods, money = DocumentRef("return_order", "55"), DocumentRef("refund", "56")
    change(middle, "UPDATE returns SET id = 55")
    _log_says(middle, DocumentRef("return_order", "54"), "5")  # it was changed twice
    _log_says(middle, goods, "54")
    _log_says(middle, money, "6")
    for ref in (goods, money):
        monkeypatch.setitem(UNITS, ref, "sales_order:1")
    look(worker, middle, RETURN, REFUND, goods, money)
    assert held(middle) == []
    assert run(erp_url, "SELECT external_key FROM returns") == [("shop/return/5/1",)]
    assert run(erp_url, "SELECT external_key FROM refunds") == [("shop/refund/6/1",)]
    assert rows(middle, NOTED) == [], "nobody asks for it any more"


def test_f5_what_the_log_says_of_a_key_is_kept_as_long_as_it_may_be_asked_for(
    worker: Worker, middle: Connection, erp: SqlErp, profile_path: str
) -> None:
    ones = [DocumentRef("sales_order", key) for key in ("3", "4", "5")]
    change(middle, f"{COPY.format(3)}; UPDATE orders SET number = 'S-3' WHERE id = 3; DELETE FROM returns")
    _log_says(middle, ones[0], "2")  # nothing is known of that one
    _log_says(middle, ones[1], "8")  # the shop no longer has this one
    _log_says(middle, ones[2], "4")  # this one was both, and is not seen yet
    look(worker, middle, *ones[:2])
    assert rows(middle, NOTED) == [("4", "8"), ("5", "4")]
    make_worker(middle, erp, profile_path).check()
    assert rows(middle, NOTED) == [("4", "8"), ("5", "4")], "a link between the two is kept"
    look(worker, middle, ones[2])
    make_worker(middle, erp, profile_path).check()
    make_worker(middle, erp, profile_path).check()
    assert rows(middle, NOTED) == []


def test_f5_an_order_that_changed_its_number_too_is_held_as_another(
    worker: Worker, middle: Connection, erp_url: str
) -> None:
    change(middle, "DELETE FROM returns; UPDATE orders SET id = 9, number = 'S-9'")
    _log_says(middle, NEW, "1")
    look(worker, middle, NEW, ORDER)
    assert run(erp_url, ORDERS) == ONE_ORDER
    accept_document(middle, NEW, "Ada", execute=True)
    drain(worker)
    assert run(erp_url, ORDERS) == [("shop/order/1/1", "S-9", "11.90", "confirmed")]
