"""Many orders at once: what one of them lacks holds that one alone, and what fails half way is continued."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg2 import sql

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, Cursor, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import (
    ConflictError,
    HoldError,
    HowFar,
    NotDone,
    RetryError,
    Step,
    StepProgress,
    StepResult,
    Verb,
    basis,
)
from sink.erp.kinds import Milestone
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import documents, leases, marks
from sink.ledger.outcomes import Outcome, State
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    PRICE,
    REFUND,
    RETURN,
    ROOT,
    UNITS,
    change,
    drain,
    held,
    make_worker,
    mark,
    pass_deadlines,
    rows,
    run,
)

COUNT = 30
MANY = (
    "INSERT INTO orders SELECT n, 'S-' || n, 'c' || n, '2026-01-01T10:00Z', 'open', 'A', 2, 11.90"
    f" FROM generate_series(2, {COUNT}) AS n"
)


class Counting(SqlErp):
    """An ERP that records what it was asked for."""

    steps: list[list[Step]]

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.steps.append(list(steps))
        return super().apply(steps, not_after)


@pytest.fixture
def counting(erp_url: str) -> Iterator[Counting]:
    adapter = Counting(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    adapter.steps = []
    yield adapter
    adapter.close()


@pytest.fixture
def many(middle: Connection) -> Connection:
    """Marks all orders and their buyers."""
    change(middle, MANY)
    _mark_all(middle)
    return middle


def _mark_all(middle: Connection) -> None:
    refs = "SELECT 'sales_order' AS type, id::text AS key, 'sales_order:' || id AS unit FROM shop.orders"
    buyers = "SELECT 'customer', customer, 'customer:' || customer FROM shop.orders"
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL(f"{refs} UNION ALL {buyers}"))


def test_orders_and_their_buyers_go_in_a_few_calls(many: Connection, counting: Counting, profile_path: str) -> None:
    drain(make_worker(many, counting, profile_path))
    kinds = [[step.ref.kind for step in steps] for steps in counting.steps]
    assert kinds == [["customer"] * COUNT + ["order"] * COUNT], "fifty orders at a time, after their buyers"
    report = reconcile(many, None, "shop", load_profile(profile_path), counting, collective=False)
    assert report.summary() == f"agree: {COUNT} orders, 0 returns, 0 prices, difference 0.00"


def test_v2_a_new_buyer_travels_with_the_order(middle: Connection, counting: Counting, profile_path: str) -> None:
    """The buyer's own unit was never due, because no document needed it."""
    mark(middle, CUSTOMER)
    worker = make_worker(middle, counting, profile_path)
    drain(worker)
    assert counting.steps == []
    mark(middle, ORDER)
    assert worker.step()
    assert [[step.ref.kind for step in steps] for steps in counting.steps] == [["customer", "order"]]


def test_v5_what_one_cannot_have_is_its_own(
    many: Connection, counting: Counting, profile_path: str, erp_url: str
) -> None:
    """An item that the ERP lacks, a name that its column cannot hold, and a row that a trigger refuses."""
    run(erp_url, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on a Sunday'; END $$")
    run(erp_url, "CREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW WHEN (NEW.shop_number = 'S-7')"
                 " EXECUTE FUNCTION no()")  # fmt: skip
    change(many, "UPDATE orders SET sku = 'NEW' WHERE id = 3")
    change(many, "UPDATE orders SET number = repeat('9', 101) WHERE id = 5")
    drain(make_worker(many, counting, profile_path))
    reasons = sorted(held(many))
    assert len(reasons) == 3
    assert reasons[0] == "the ERP has no item NEW"
    assert all(reason.startswith("the ERP refused it: ") for reason in reasons[1:])
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(COUNT - 3,)]
    with transaction(many) as cursor:
        assert all(state != "retry" for _, state in documents.counts(cursor)), "a refusal is no outage"
    run(erp_url, "DROP TRIGGER no ON orders; INSERT INTO items VALUES ('NEW', 'n')")
    change(many, "UPDATE orders SET number = 'S-5' WHERE id = 5")
    _mark_all(many)
    drain(make_worker(many, counting, profile_path))
    assert held(many) == []
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(COUNT,)]


def test_orders_of_a_buyer_whom_the_erp_refuses_wait_and_come_once(
    middle: Connection, counting: Counting, erp_url: str, profile_path: str
) -> None:
    """Two come in one call, a third by itself. Another buyer's order is sent."""
    change(middle, "INSERT INTO orders SELECT n, 'S-' || n, CASE WHEN n = 4 THEN '8' ELSE '7' END, placed_at, status,"
                   " sku, quantity, gross FROM orders, generate_series(2, 4) AS n")  # fmt: skip
    run(erp_url, "ALTER TABLE customers ADD CONSTRAINT odd CHECK (account_number <> 'shop-100001')")
    worker = make_worker(middle, counting, profile_path)
    mark(middle, *(DocumentRef("sales_order", str(n)) for n in range(1, 4)), CUSTOMER)
    drain(worker)
    mark(middle, DocumentRef("sales_order", "4"), DocumentRef("customer", "8"))
    drain(worker)
    assert run(erp_url, "SELECT shop_number FROM orders") == [("S-4",)]
    assert len([why for why in held(middle) if why.startswith("waits for customer 7")]) == 3
    with transaction(middle) as cursor:
        cursor.execute("SELECT count(*) FROM document WHERE intent IS NOT NULL OR state = 'retry'")
        assert cursor.fetchall() == [(0,)]
    run(erp_url, "ALTER TABLE customers DROP CONSTRAINT odd")
    with transaction(middle) as cursor:
        marks.retry(cursor, CUSTOMER)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM customers)") == [(4, 2)]


def test_a_buyer_whom_the_erp_refuses_is_not_asked_for_by_the_order_again_and_again(
    middle: Connection, counting: Counting, erp_url: str, profile_path: str
) -> None:
    """The buyer rests until the shop changes it or a person acts. The order rests as well, and wakes when the buyer
    arrives."""
    run(erp_url, "ALTER TABLE customers ADD CONSTRAINT odd CHECK (account_number <> 'shop-100001')")
    worker = make_worker(middle, counting, profile_path)
    mark(middle)
    drain(worker)
    rests = "SELECT state, next_try > clock_timestamp() + interval '9 min' FROM document WHERE type = 'sales_order'"
    with transaction(middle) as cursor:
        cursor.execute(rests)
        assert cursor.fetchall() == [("waits", True)]
        cursor.execute("UPDATE unit SET due_at = clock_timestamp() WHERE unit = 'sales_order:1'")
    counting.steps = []
    drain(worker)
    mark(middle, ORDER)
    drain(worker)
    assert counting.steps == []
    run(erp_url, "ALTER TABLE customers DROP CONSTRAINT odd")
    mark(middle, CUSTOMER)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT shop_number FROM orders") == [("S-1",)]


class Edited(Counting):
    """Somebody has the account open in the ERP."""

    is_open = True

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        if not self.is_open:
            return super().apply(steps, not_after)
        self.steps.append(list(steps))
        return [NotDone(ConflictError("it is being edited")) for _ in steps]


def test_a_buyer_who_failed_is_not_sent_again_by_an_order_before_the_next_try(
    middle: Connection, erp_url: str, profile_path: str
) -> None:
    with closing(Edited(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))) as adapter:
        adapter.steps = []
        worker = make_worker(middle, adapter, profile_path)
        mark(middle)
        assert worker.step()
        asked = "SELECT type, state FROM document ORDER BY type"
        assert rows(middle, asked) == [("customer", "retry"), ("sales_order", "waits")]
        with transaction(middle) as cursor:  # as after many attempts
            cursor.execute("UPDATE document SET next_try = clock_timestamp() + interval '4 min' WHERE state = 'retry'")
            cursor.execute("UPDATE unit SET due_at = clock_timestamp() + interval '4 min' WHERE unit = 'customer:7'")
        adapter.steps, adapter.is_open = [], False
        mark(middle, ORDER)
        drain(worker)
        assert adapter.steps == []
        assert held(middle) == ["waits for customer 7"]
        pass_deadlines(middle)
        drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT shop_number FROM orders") == [("S-1",)]


def test_an_order_that_is_cancelled_while_its_buyer_is_refused_waits_for_nothing(
    middle: Connection, counting: Counting, erp_url: str, profile_path: str
) -> None:
    """It was sent once, together with the buyer, and the ERP has neither. Its return is settled with it."""
    run(erp_url, "ALTER TABLE customers ADD CONSTRAINT odd CHECK (account_number <> 'shop-100001')")
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    worker = make_worker(middle, counting, profile_path)
    mark(middle, ORDER, CUSTOMER, RETURN)
    drain(worker)
    asked = "SELECT type, state, revision::int FROM document ORDER BY type"
    waits = [("customer", "held", 1), ("return_order", "waits", 0), ("sales_order", "waits", 1)]
    assert rows(middle, asked) == waits
    change(middle, "UPDATE orders SET status = 'cancelled'")
    mark(middle, ORDER, RETURN)
    drain(worker)
    over = [("customer", "held", 1), ("return_order", "done", 0), ("sales_order", "done", 1)]
    assert rows(middle, asked) == over
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(0,)]


def test_what_the_erp_refuses_of_an_order_keeps_back_no_payment(
    middle: Connection, counting: Counting, erp_url: str, profile_path: str
) -> None:
    """That the ERP refuses the price is known only once it has been asked."""
    worker = make_worker(middle, counting, profile_path)
    mark(middle)
    drain(worker)
    run(erp_url, "ALTER TABLE orders ADD CONSTRAINT odd CHECK (gross <> 9.90)")
    counting.steps.clear()
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)
    drain(worker)
    assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("11.90", "9.90")]
    assert [reason.partition(":")[0] for reason in held(middle)] == ["the ERP refused it"]
    assert len(counting.steps) == 3, "all, the payment, and the price"
    mark(middle, ORDER)
    drain(worker)
    assert len(counting.steps) == 4, "the price alone"
    run(erp_url, "ALTER TABLE orders DROP CONSTRAINT odd")
    mark(middle, ORDER)
    drain(worker)
    assert run(erp_url, "SELECT gross::text, paid::text FROM orders") == [("9.90", "9.90")]
    assert held(middle) == []


def test_two_returns_of_one_order_share_what_was_sold(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    """Both are planned before either is in the ERP, so the second has to know of the first."""
    drain_all = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(drain_all)
    change(middle, "INSERT INTO returns VALUES (5, 1, 2, 5.95), (15, 1, 1, 5.95)")
    second = DocumentRef("return_order", "15")
    UNITS[second] = "sales_order:1"
    try:
        mark(middle, RETURN, second, REFUND)
    finally:
        del UNITS[second]
    drain(drain_all)
    assert held(middle) == ["line:l1: 1 returned now, but 2 were sold and 2 already returned"]
    assert run(erp_url, "SELECT sum(quantity)::int FROM return_lines") == [(2,)]


class Halfway(SqlErp):
    """An ERP that makes a draft of a new order and confirms it in another transaction. `failure` happens in between.
    `verbs`: of the steps that it was given."""

    failure: RetryError | HoldError | None = None
    verbs: tuple[Verb, ...] = ()

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.verbs += tuple(step.verb for step in steps)
        return [self._one(step, not_after) for step in steps]

    def _one(self, step: Step, not_after: datetime) -> StepResult:
        if step.ref.kind != "order" or step.verb != "create":
            return super().apply([step], not_after)[0]
        if step.before is None:
            if step.ref in self.observe([step.ref]):
                return NotDone(ConflictError("it has the key already"))
            super().apply([replace(step, goal=Milestone.DRAFT, key=0)], not_after)
        draft = self.observe([step.ref])[step.ref]
        if self.failure is not None:
            return NotDone(self.failure, draft if isinstance(self.failure, HoldError) else None)
        return super().apply([replace(step, verb="advance", before=basis(draft))], not_after)[0]

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        told = super().progress(steps)
        return [
            one._replace(how_far=HowFar.PARTLY) if one.observed and one.how_far is HowFar.NOT_DONE else one
            for one in told
        ]


@pytest.fixture
def halfway(erp_url: str) -> Iterator[Halfway]:
    adapter = Halfway(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    yield adapter
    adapter.close()


STATUS = "SELECT status, revision::int FROM orders"


def test_a_step_whose_first_half_was_done_goes_on(
    middle: Connection, halfway: Halfway, profile_path: str, erp_url: str
) -> None:
    """The reply of the second call never came."""
    halfway.failure = RetryError("the reply was lost")
    mark(middle)
    drain(make_worker(middle, halfway, profile_path))
    assert run(erp_url, STATUS) == [("draft", 0)]
    halfway.failure = None
    change(middle, "UPDATE orders SET gross = 9.90")  # the shop has gone on meanwhile
    mark(middle, ORDER)
    pass_deadlines(middle)
    drain(make_worker(middle, halfway, profile_path, "w2"))
    assert run(erp_url, "SELECT status, gross::text FROM orders") == [("confirmed", "9.90")]
    assert held(middle) == []


@pytest.mark.parametrize("edit", ["", "UPDATE order_lines SET name = 'typed over'"])
def test_a_draft_whose_order_is_cancelled_meanwhile_is_cancelled_and_never_confirmed(
    middle: Connection, halfway: Halfway, profile_path: str, erp_url: str, edit: str
) -> None:
    """The reply was lost after the draft. A clerk may have edited it since: the ledger must know it as ours."""
    halfway.failure = RetryError("the reply was lost")
    mark(middle)
    drain(make_worker(middle, halfway, profile_path))
    assert run(erp_url, STATUS) == [("draft", 0)]
    if edit:
        run(erp_url, edit)
    halfway.failure, halfway.verbs = None, ()
    change(middle, "UPDATE orders SET status = 'cancelled'")
    mark(middle, ORDER)
    pass_deadlines(middle)
    drain(make_worker(middle, halfway, profile_path, "w2"))
    assert halfway.verbs == ("cancel",)
    assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]
    assert held(middle) == []


@pytest.mark.parametrize("gross", ["11.90", "9.90"])
def test_what_a_refused_step_reached_is_kept_and_taken_on(
    middle: Connection, halfway: Halfway, profile_path: str, erp_url: str, gross: str
) -> None:
    """The draft is there, and its number is known. Once it may be confirmed, it is, and nothing is made twice."""
    halfway.failure = HoldError("the buyer's credit is used up", "raise it, then `sink retry`")
    mark(middle)
    drain(make_worker(middle, halfway, profile_path))
    assert held(middle) == ["the buyer's credit is used up"]
    assert run(erp_url, STATUS) == [("draft", 0)]
    ledger = (
        "SELECT reached, reference IS NOT NULL, intent IS NULL FROM ordertap_shop.document WHERE type = 'sales_order'"
    )
    with transaction(middle) as cursor:
        cursor.execute(ledger)
        assert cursor.fetchall() == [("draft", True, True)]
        marks.retry(cursor, None)
    halfway.failure = None
    change(middle, f"UPDATE orders SET gross = {gross}")  # or the shop has gone on meanwhile
    drain(make_worker(middle, halfway, profile_path))
    assert run(erp_url, "SELECT status, gross::text FROM orders") == [("confirmed", gross)]
    assert held(middle) == []


class StateByState(SqlErp):
    """An ERP that writes an order's content first and takes it on from state to state, each in a transaction of its
    own. While it `breaks_off`, only the first is done, and the reply is lost. `verbs` are those of the steps since."""

    url = ""
    breaks_off = False
    verbs: tuple[Verb, ...] = ()

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self.verbs += tuple(step.verb for step in steps)
        if not self.breaks_off:
            return super().apply([self._going_on(step) for step in steps], not_after)
        for step in steps:
            assert step.before is not None
            if step.verb == "amend":
                super().apply([replace(step, goal=step.before.milestone)], not_after)
            else:
                run(self.url, "UPDATE orders SET status = 'confirmed'")
        return [NotDone(RetryError("the reply was lost")) for _ in steps]

    def _going_on(self, step: Step) -> Step:
        """The reference ERP takes no key twice."""
        seen = self.observe([step.ref]).get(step.ref)
        return replace(step, key=step.key + 1) if seen and seen.key == step.key and step.verb != "create" else step

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        return [
            told._replace(how_far=HowFar.PARTLY)
            if told.observed and (told.observed.milestone or step.goal).before(step.goal)
            else told
            for step, told in zip(steps, super().progress(steps), strict=True)
        ]


@pytest.fixture
def state_by_state(erp_url: str) -> Iterator[StateByState]:
    with closing(StateByState(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))) as adapter:
        adapter.url = erp_url
        yield adapter


def _taking_to(goal: Milestone, middle: Connection, erp: SqlErp, profile_path: str) -> Worker:
    rules = Rules("shop", Policy("shop", goal=goal), apply=True, settle_seconds=0)
    return Worker(middle, load_profile(profile_path), erp, rules, goal)


def _broken_off(middle: Connection, erp: StateByState, profile_path: str, goal: Milestone, then: str) -> Worker:
    """A draft in the ERP, of which a step to a later milestone breaks off after its first transaction."""
    mark(middle)
    drain(_taking_to(Milestone.DRAFT, middle, erp, profile_path))
    change(middle, then)
    erp.breaks_off = True
    worker = _taking_to(goal, middle, erp, profile_path)
    mark(middle, ORDER)
    drain(worker)
    erp.breaks_off, erp.verbs = False, ()
    pass_deadlines(middle)
    return worker


@pytest.mark.parametrize(
    ("meanwhile", "verbs", "becomes"),
    [
        ("", ("advance",), ("part_delivered", "11.90")),
        ("gross = 9.90", ("amend",), ("part_delivered", "9.90")),
        ("status = 'cancelled'", ("cancel",), ("cancelled", "11.90")),
    ],
)
def test_an_order_that_was_on_its_way_is_not_taken_on_without_a_look_at_the_shop(
    middle: Connection, state_by_state: StateByState, profile_path: str, erp_url: str, meanwhile: str,
    verbs: tuple[str, ...], becomes: tuple[str, str],
) -> None:  # fmt: skip
    """Its advance broke off half way. Once goods had left, the ERP would not cancel it any more."""
    nothing = "UPDATE orders SET gross = gross"
    worker = _broken_off(middle, state_by_state, profile_path, Milestone.PART_DELIVERED, nothing)
    assert run(erp_url, "SELECT status FROM orders") == [("confirmed",)]
    if meanwhile:
        change(middle, f"UPDATE orders SET {meanwhile}")
        mark(middle, ORDER)
    drain(worker)
    assert state_by_state.verbs == verbs
    assert run(erp_url, "SELECT status, gross::text FROM orders") == [becomes]
    assert held(middle) == []


CASH = "changed in the ERP: payment_means: we wrote card, the ERP has cash"


@pytest.mark.parametrize(
    ("clerk", "shop", "verbs", "becomes", "why"),
    [
        ("", "", ("advance",), ("confirmed", "9.90", "card"), []),
        ("", "status = 'cancelled'", ("cancel",), ("cancelled", "9.90", "card"), []),
        ("payment_means = 'cash'", "", (), ("draft", "9.90", "cash"), [CASH]),
        ("payment_means = 'cash'", "gross = 8.90", ("amend",), ("confirmed", "8.90", "cash"), [CASH]),
    ],
)
def test_a_change_that_broke_off_after_its_content_is_compared_and_not_written_again(
    middle: Connection, state_by_state: StateByState, profile_path: str, erp_url: str, clerk: str, shop: str,
    verbs: tuple[str, ...], becomes: tuple[str, str, str], why: list[str],
) -> None:  # fmt: skip
    """A clerk may have changed the order since, or the shop. What is in it is ours, and no clerk's edit."""
    worker = _broken_off(middle, state_by_state, profile_path, Milestone.CONFIRMED, "UPDATE orders SET gross = 9.90")
    assert run(erp_url, "SELECT status, gross::text FROM orders") == [("draft", "9.90")]
    if clerk:
        run(erp_url, f"UPDATE orders SET {clerk}")
    if shop:
        change(middle, f"UPDATE orders SET {shop}")
        mark(middle, ORDER)
    drain(worker)
    assert state_by_state.verbs == verbs
    assert run(erp_url, "SELECT status, gross::text, payment_means FROM orders") == [becomes]
    assert held(middle) == why


class TwoStates(SqlErp):
    """An ERP with two states for the goal's milestone. While it `refuses`, a new order comes to the first one only.
    `goes_on` counts the calls that took it on."""

    refuses, goes_on = True, 0

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        return [self._one(step, not_after) for step in steps]

    def _one(self, step: Step, not_after: datetime) -> StepResult:
        if step.ref.kind != "order":
            return super().apply([step], not_after)[0]
        error = HoldError("the buyer's account is closed", "open it, then `sink retry`")
        if step.before is not None:
            self.goes_on += 1
            return NotDone(error) if self.refuses else self.observe([step.ref])[step.ref]
        super().apply([step], not_after)
        return NotDone(error, self.observe([step.ref])[step.ref])

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        return [StepProgress(HowFar.PARTLY, self.observe([step.ref])[step.ref]) for step in steps]


def test_an_order_whose_rest_is_refused_again_and_again_is_held_until_it_is_done(
    middle: Connection, profile_path: str, erp_url: str
) -> None:
    """Its milestone alone does not tell that something is left to do. So the step goes on, until the ERP takes it."""
    with closing(TwoStates(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))) as erp:
        worker = make_worker(middle, erp, profile_path)
        mark(middle)
        drain(worker)
        for refused in (0, 1, 2):
            assert (held(middle), erp.goes_on) == (["the buyer's account is closed"], refused)
            _retried(middle, worker)
        erp.refuses = False
        _retried(middle, worker)
        assert (held(middle), erp.goes_on) == ([], 4)
        assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]


def _retried(middle: Connection, worker: Worker) -> None:
    pass_deadlines(middle)
    with transaction(middle) as cursor:
        marks.retry(cursor, None)
    drain(worker)


class CancelsInSteps(SqlErp):
    """An ERP that takes several calls to cancel an order. While it is `slow`, the time is over after the first."""

    slow = True

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        if not self.slow or steps[0].verb != "cancel":
            return super().apply(steps, not_after)
        seen = self.observe([step.ref for step in steps])
        return [NotDone(RetryError("the time limit of this call has passed"), seen[step.ref]) for step in steps]


def test_an_order_whose_cancellation_came_half_way_is_cancelled_and_was_not_opened_again(
    middle: Connection, profile_path: str, erp_url: str
) -> None:
    with closing(CancelsInSteps(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))) as erp:
        worker = make_worker(middle, erp, profile_path)
        mark(middle)
        drain(worker)
        change(middle, "UPDATE orders SET status = 'cancelled'")
        mark(middle, ORDER)
        drain(worker)
        assert run(erp_url, "SELECT status FROM orders") == [("confirmed",)]
        erp.slow = False
        pass_deadlines(middle)
        mark(middle, ORDER)
        drain(worker)
        assert run(erp_url, "SELECT status FROM orders") == [("cancelled",)]
        assert held(middle) == []


def test_orders_are_taken_as_far_as_they_shall(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    for goal in (Milestone.DRAFT, Milestone.CONFIRMED):
        rules = Rules("shop", Policy("shop", goal=goal), apply=True, settle_seconds=0)
        mark(middle)
        drain(Worker(middle, load_profile(profile_path), erp, rules, "w1"))
        assert run(erp_url, "SELECT status FROM orders") == [(goal.value,)]


def test_v8_a_plan_takes_planned_buyers_and_orders_for_made(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, ORDER, CUSTOMER, RETURN, REFUND)
    drain(make_worker(middle, erp, profile_path, apply=False))
    with transaction(middle) as cursor:
        cursor.execute("SELECT type, reason FROM ordertap_shop.document ORDER BY type")
        assert cursor.fetchall() == [
            ("customer", "would create customer"), ("refund", "would create refund"),
            ("return_order", "would create return"), ("sales_order", "would create order"),
        ]  # fmt: skip


def test_f5_a_document_that_is_named_anew_in_the_profile_is_held_and_not_made_twice(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    for file in Path(profile_path).iterdir():
        file.rename(file.with_name(file.name.replace("sales_order", "purchase")))
    profile = Path(profile_path) / "profile.yaml"
    profile.write_text(profile.read_text().replace("sales_order:", "purchase:"))
    mark(middle, ORDER)
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL("SELECT 'purchase' AS type, '1' AS key, 'purchase:1' AS unit"))
    drain(make_worker(middle, erp, profile_path))
    assert sorted(held(middle)) == [
        "the ERP has it as sales_order 1: was the document renamed in the profile?",
        "the profile no longer has a document of this name",
    ]
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]


def test_a_key_that_is_there_twice_holds_its_document_alone(
    many: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    """The ERP lacks the unique index, which `sink check` reports."""
    run(erp_url, "ALTER TABLE orders DROP CONSTRAINT orders_external_key_key")
    drain(make_worker(many, erp, profile_path))
    columns = (
        "external_key, shop_number, account_number, placed_at, currency, tax_included, net, tax, gross, paid, status"
    )
    run(erp_url, f"INSERT INTO orders ({columns}) SELECT {columns} FROM orders WHERE shop_number = 'S-1'")
    change(many, "UPDATE orders SET gross = 9.90")
    _mark_all(many)
    drain(make_worker(many, erp, profile_path))
    assert held(many) == ["orders of the ERP has more than one row with its key"]
    assert run(erp_url, "SELECT count(*)::int FROM orders WHERE gross = 9.90") == [(COUNT - 1,)]
    advice = [one.message for one in erp.check().advice]
    assert "orders.external_key is not unique: a document could be made twice" in advice


def test_all_orders_of_a_collective_account(middle: Connection, erp: SqlErp, profile_path: str, erp_url: str) -> None:
    rules = Rules(
        "shop", Policy("shop"), apply=True, settle_seconds=0, customers="collective", collective_account="10000"
    )
    mark(middle)
    drain(Worker(middle, load_profile(profile_path), erp, rules, "w1"))
    assert held(middle) == ["the ERP has no account 10000"]
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('10000', 'Web shop')")
    with transaction(middle) as cursor:
        marks.retry(cursor, None)
    drain(Worker(middle, load_profile(profile_path), erp, rules, "w1"))
    assert run(erp_url, "SELECT account_number, (SELECT count(*)::int FROM customers) FROM orders") == [("10000", 1)]


def test_buyers_fill_up_what_orders_leave(middle: Connection) -> None:
    """So a batch is mostly orders, and a buyer who came with an order goes to the same worker."""
    mark(middle, CUSTOMER, PRICE)
    mark(middle, ORDER)
    for most, found in (
        (1, ["sales_order:1"]),
        (2, ["customer:7", "sales_order:1"]),
        (3, ["customer:7", "sales_order:1"]),
    ):
        with transaction(middle) as cursor:
            taken = leases.lease(cursor, "w1", 60, most, later=("price",), filling=("customer",))
            assert sorted(one.unit for one in taken) == found
            leases.release(cursor, taken)


def test_v3_orders_go_before_prices_that_wait_longer(middle: Connection) -> None:
    mark(middle, PRICE)
    mark(middle, ORDER)
    for later, first in (((), "price:A"), (("price",), "sales_order:1")):
        with transaction(middle) as cursor:
            (lease,) = leases.lease(cursor, "w1", 60, 1, later)
            assert lease.unit == first
            leases.release(cursor, [lease])


def test_more_prices_than_orders_go_together_where_nothing_else_is_due(middle: Connection) -> None:
    prices = [PRICE._replace(key=f"P{number}") for number in range(4)]
    mark(middle, *prices)
    mark(middle, ORDER)
    for most_later, found in ((3, 1), (3, 3), (0, 1)):
        with transaction(middle) as cursor:
            taken = leases.lease(cursor, "w1", 60, 1, later=("price",), most_later=most_later)
            assert len(taken) == found
            leases.prove(cursor, taken)


def test_orders_that_become_due_during_a_look_are_not_leased_by_the_number_of_prices(
    middle: Connection, database: str
) -> None:
    """No order was due, so prices are taken, more than fit into a batch of orders. Orders were marked just before that
    statement."""
    mark(middle, PRICE)

    class Looks(Cursor):
        looked = 0

        def execute(self, query: Any, values: Any = None) -> None:
            super().execute(query, values)
            self.looked += 1
            if self.looked == 1:
                mark(middle, *(ORDER._replace(key=str(number)) for number in range(3)))

    with closing(connect(database, "ordertap_shop")) as other, other.cursor(cursor_factory=Looks) as cursor:
        taken = leases.lease(cursor, "w1", 60, 1, later=("price",), most_later=4)
        assert cursor.looked == 2, "once for orders, once for prices"
    assert [one.unit for one in taken] == ["price:A"]


def test_an_order_whose_buyer_another_worker_has_keeps_its_place(
    middle: Connection, counting: Counting, profile_path: str, erp_url: str
) -> None:
    """In a backlog, the order and its buyer are sent once the buyer is released, before what was marked after them."""
    change(middle, "INSERT INTO orders SELECT n, 'S-' || n, 'c' || n, '2026-01-01T10:00Z', 'open', 'A', 2, 11.90"
                   " FROM generate_series(2, 4) AS n")  # fmt: skip
    others = [DocumentRef(*ref) for n in "234" for ref in (("sales_order", n), ("customer", f"c{n}"))]
    mark(middle, ORDER, CUSTOMER, *others)  # together, like one commit, or like marks that waited for days
    with transaction(middle) as cursor:
        taken = leases.take(cursor, "another", 60.0, ["customer:7"])
    worker = Worker(
        middle, load_profile(profile_path), counting, Rules("shop", Policy("shop"), apply=True, batch=1), "w1"
    )
    assert worker.step()
    assert counting.steps == []
    asked = "SELECT u.due_at = d.marked_at, u.owner, d.state FROM unit AS u JOIN document AS d USING (unit)"
    with transaction(middle) as cursor:
        cursor.execute(f"{asked} WHERE unit = 'sales_order:1'")
        assert cursor.fetchall() == [(True, None, "due")], "it is not looked at"
        cursor.execute("SELECT count(*) FROM unit WHERE deadline > clock_timestamp() AND unit = 'sales_order:1'")
        assert cursor.fetchall() == [(1,)], "and not at once again, as long as the buyer is away"
        leases.release(cursor, taken)
        cursor.execute("UPDATE unit SET deadline = NULL")
    drain(worker)
    assert run(erp_url, "SELECT shop_number FROM orders ORDER BY id") == [("S-1",), ("S-2",), ("S-3",), ("S-4",)]
    assert held(middle) == []


def test_an_order_whose_buyer_is_just_given_back_keeps_its_place(
    middle: Connection, counting: Counting, profile_path: str, database: str
) -> None:
    """Another transaction has the buyer locked when we want it, and no owner is known: nobody would wake the order."""
    mark(middle)
    with closing(connect(database, "ordertap_shop")) as other, transaction(other) as cursor:
        cursor.execute("SELECT FROM unit WHERE unit = 'customer:7' FOR UPDATE")
        make_worker(middle, counting, profile_path).step()
    assert counting.steps == []
    with transaction(middle) as cursor:
        cursor.execute("SELECT u.due_at = d.marked_at, d.state FROM unit AS u JOIN document AS d USING (unit)"
                       " WHERE unit = 'sales_order:1'")  # fmt: skip
        assert cursor.fetchall() == [(True, "due")]


@pytest.mark.parametrize("first", ["buyer", "order"])
def test_an_order_that_is_parked_while_its_held_buyer_arrives_is_woken(
    middle: Connection, database: str, first: str
) -> None:
    """Two workers write at once, neither sees what the other has not committed, and he was due by himself."""
    mark(middle)
    with transaction(middle) as cursor:
        marks.need(cursor, [CUSTOMER])
        taken = {ref: leases.take(cursor, ref.type, 60.0, [UNITS[ref]]) for ref in (CUSTOMER, ORDER)}
        entries = documents.entries_of(cursor, [CUSTOMER, ORDER])
    came, waits = Outcome.shares("shop/customer/8/1"), Outcome.waits(CUSTOMER, State.HELD, 600.0)
    given = [(taken[CUSTOMER], [(entries[CUSTOMER], came)]), (taken[ORDER], [(entries[ORDER], waits)])]
    if first == "order":
        given.reverse()

    def second(connection: Connection) -> None:
        with transaction(connection) as cursor:
            documents.write(cursor, *given[1])

    with closing(connect(database, "ordertap_shop")) as other, ThreadPoolExecutor(1) as pool:
        with transaction(middle) as cursor:
            documents.write(cursor, *given[0])
            writes = pool.submit(second, other)
            while not (writes.done() or _stands_still(cursor, other)):
                time.sleep(0.01)
        writes.result(60)
    with transaction(middle) as cursor:
        leases.release(cursor, taken[ORDER])
    assert rows(middle, "SELECT state, waits_for FROM document WHERE key = '1'") == [("waits", "customer 7")]
    assert rows(middle, "SELECT due_at <= clock_timestamp() FROM unit WHERE unit = 'sales_order:1'") == [(True,)]


def _stands_still(cursor: Cursor, other: Connection) -> bool:
    """Whether another connection waits for a lock of this one."""
    cursor.execute("SELECT pg_backend_pid() = ANY(pg_blocking_pids(%s))", (other.info.backend_pid,))
    return cursor.fetchall() == [(True,)]


def test_an_order_waits_for_a_buyer_of_whom_a_call_is_under_way(
    middle: Connection, counting: Counting, profile_path: str
) -> None:
    """No worker can lease the buyer before that call's deadline. The order does not keep asking meanwhile."""
    mark(middle)
    with transaction(middle) as cursor:
        cursor.execute("UPDATE unit SET deadline = clock_timestamp() + interval '60 s' WHERE unit = 'customer:7'")
    drain(make_worker(middle, counting, profile_path))
    assert held(middle) == ["waits for customer 7"]
