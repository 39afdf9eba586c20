"""What may happen to shop, sink and ERP: the rules of a state machine. Hypothesis chooses their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schemas.model.errors import SettingsError
from sink.database import transaction
from sink.documents.refs import DocumentRef
from sink.erp.kinds import BY_HAND, ErpRef, Milestone
from sink.ledger import documents
from sink.operations.accept import accept_document
from sink.operations.holds import retry
from sink.operations.ignore import leave_alone
from tests.fix_erp import waiting
from tests.stateful import verdict
from tests.stateful.shop import Bought, D
from tests.stateful.unruly import FAULTS, LATER
from tests.stateful.world import LONG, World

T = TypeVar("T")
ANY: Final = st.integers(0, 5)
THEN: Final = st.integers(0, 3)
WHO: Final = st.integers(0, 1)
LINE_EDITS: Final = ("quantity", "price", "new line", "line gone", "unknown item", "known item")
EDITS: Final = (*LINE_EDITS, "street", "pays", "wrong sum", "fixed")
STATES: Final = ("cancel", "open", "not ready", "ready", "renumber", "deleted")
CLERK_LINES: Final = ("adds a line", "drops a line", "takes back")
CLERK: Final = (
    *CLERK_LINES, "edits", "cancels", "deletes", "goes on", "limbo", "gives back", "books the payment", "undoes all",
)  # fmt: skip
CALLS: Final = ("reply lost", "on its way", "in the server")
MEANWHILE: Final = (
    "time passes",
    "the other works",
    "edit",
    "cancel",
    "new key",
    "written anew",
    "clerk",
    "late call",
    "retry",
)


def _pick(of: Mapping[T, Any] | Sequence[T], number: int) -> T:
    found = list(of)
    return found[number % len(found)]


class Machine(RuleBasedStateMachine):
    """`make` returns a new world for each run."""

    make: Callable[[], World]

    def __init__(self) -> None:
        super().__init__()
        self.world = type(self).make()
        self.shop, self.desk, self.weather = self.world.shop, self.world.desk, self.world.weather
        self.next = 1

    def _has_orders(self) -> bool:
        return bool(self.shop.orders)

    def _has_papers(self) -> bool:
        return any(ref.kind == "order" for ref in self.desk.papers)

    @initialize(done=st.booleans(), collective=st.booleans())
    def opens(self, done: bool, collective: bool) -> None:
        """Two orders, one or both in the ERP. Buyers have accounts of their own, or all share one."""
        if collective:
            self.world.shares_an_account()
        self.shop.customer(1, "Ann")
        self.buys(0, 2, 2)
        self.buys(1, 3, 2 * done)

    # --- the shop

    @precondition(lambda self: len(self.shop.orders) < 4)
    @rule(buyer=ANY, quantity=st.integers(1, 3), then=THEN)
    def buys(self, buyer: int, quantity: int, then: int) -> None:
        customer = buyer % 2 + 1
        if customer not in self.shop.customers:
            self.shop.customer(customer, "Bob")
        lines = {1: ("A", quantity, D("11.90")), 2: ("B", 1, D("0.35"))}
        order = self.shop.orders[self.next] = Bought(f"S-{self.next}", customer, lines)
        order.paid = order.gross if quantity > 1 else D(0)
        order.currency = "CHF" if buyer > 3 else "EUR"
        self.shop.order(self.next)
        self.next += 1
        self.world.works(0, then)

    @precondition(_has_orders)
    @rule(number=ANY, what=st.sampled_from(EDITS), then=THEN)
    def edits(self, number: int, what: str, then: int = 0) -> None:
        key = _pick(self.shop.orders, number)
        order = self.shop.orders[key]
        if what in LINE_EDITS:
            order.edit_line(_pick(order.lines, number), what)
        else:
            order.edit_head(what)
        self.shop.order(key)
        self.world.works(number % 2, then)

    @precondition(_has_orders)
    @rule(number=ANY, what=st.sampled_from(STATES), then=THEN)
    def turns(self, number: int, what: str, then: int = 0) -> None:
        key = _pick(self.shop.orders, number)
        order = self.shop.orders[key]
        match what:
            case "cancel":
                order.status = "cancelled"
            case "open":
                order.status = "open"
            case "renumber":
                order.number += "x"
            case "deleted":
                del self.shop.orders[key]
            case _:
                order.ready = what == "ready"
        self.shop.order(key)
        self.world.works(number % 2, then)

    @precondition(_has_orders)
    @rule(number=ANY, logged=st.booleans(), then=THEN)
    def rekeys(self, number: int, logged: bool, then: int = 0) -> None:
        self.shop.rename(_pick(self.shop.orders, number), self.next, logged)
        self.next += 1
        self.world.works(number % 2, then)

    @rule(number=ANY)
    def renames(self, number: int) -> None:
        key = _pick(self.shop.customers, number)
        self.shop.customer(key, self.shop.customers[key] + "a")

    @precondition(_has_orders)
    @rule(number=ANY, order=ANY, quantity=st.integers(1, 2), then=THEN)
    def returns_goods(self, number: int, order: int, quantity: int, then: int) -> None:
        """A new return, or another quantity, line or order of an existing one."""
        of = _pick(self.shop.orders, order)
        back = number % 3 + 1
        self.shop.give_back(back, (of, _pick(self.shop.orders[of].lines, number), quantity))
        self.world.works(number % 2, then)

    @precondition(_has_orders)
    @rule(number=ANY, order=ANY, gross=st.sampled_from([D("1.19"), D("11.90"), D("50.00")]), then=THEN)
    def gives_money_back(self, number: int, order: int, gross: Decimal, then: int) -> None:
        self.shop.refund(number % 3 + 1, (_pick(self.shop.orders, order), gross))
        self.world.works(number % 2, then)

    @rule(sku=st.sampled_from(["A", "B"]), amount=st.sampled_from([None, D("10.00"), D("9.50")]))
    def prices(self, sku: str, amount: Decimal | None) -> None:
        self.shop.price(sku, amount)

    @rule()
    def loses_lines(self) -> None:
        self.shop.lose_lines()

    @rule()
    def reads_lines_again(self) -> None:
        self.shop.read_lines_again()

    # --- the sink

    @rule(who=WHO, steps=st.integers(1, 4))
    def works(self, who: int, steps: int) -> None:
        self.world.works(who, steps)

    @rule(who=WHO, moment=st.integers(1, 40))
    def dies(self, who: int, moment: int) -> None:
        fate = self.world.processes[who].fate
        fate.left, fate.dies = moment, True
        self.world.works(who, 2)
        self.world.processes[who].fate.left = 0

    @rule(who=WHO, moment=st.integers(1, 30), acts=st.lists(st.sampled_from(MEANWHILE), max_size=4), number=ANY)
    def stands_still(self, who: int, moment: int, acts: list[str], number: int) -> None:
        """A worker freezes between two of its transactions and calls. Other things happen, then it continues."""
        process = self.world.processes[who]
        if process.busy:
            return
        process.fate.left, process.fate.dies = moment, False
        process.fate.meanwhile = lambda: self._meanwhile(acts, who, number)
        self.world.works(who, 2)
        process.fate.left = 0

    def _meanwhile(self, acts: Sequence[str], who: int, number: int) -> None:
        for act in acts:
            self._act(act, who, number)

    def _act(self, act: str, who: int, number: int) -> None:
        match act:
            case "time passes":
                self.world.passes(LONG)
            case "the other works":
                self.world.works(1 - who, 3)
            case "edit" if self.shop.orders:
                self.edits(number, "price")
            case "cancel" if self.shop.orders:
                self.turns(number, "cancel")
            case "new key" | "written anew" if self.shop.orders:
                self.rekeys(number, act == "new key")
            case "clerk" if self._has_papers():
                self.clerk(number, "goes on")
            case "late call" if self.weather.late:
                self.weather.arrives(self.desk)
            case "retry":
                self.retries()

    @rule(seconds=st.sampled_from([1.0, 31.0, LONG, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.passes(seconds)

    # --- the ERP

    @rule(fault=st.sampled_from(FAULTS))
    def goes_wrong(self, fault: Any) -> None:
        self.weather.faults.append(fault)

    @precondition(lambda self: self.weather.late)
    @rule()
    def late_call_arrives(self) -> None:
        self.weather.arrives(self.desk)

    @precondition(_has_orders)
    @rule(number=ANY, who=WHO, fault=st.sampled_from(["on its way", "in the server"]), late=st.booleans())
    def changes_its_mind(self, number: int, who: int, fault: Any, late: bool) -> None:
        """A call is under way, the shop takes back its change, and another worker finds nothing to do."""
        key = _pick(self.shop.orders, number)
        self.world.works(who, 2)
        self.weather.faults.appendleft(fault)
        for more in (D("0.10"), D("-0.10")):
            self.shop.orders[key].paid += more
            self.shop.order(key)
            self.world.works(who, 2)
        self.world.passes(LONG if late else 31.0)
        self.world.works(1 - who, 2)
        if self.weather.late:
            self.weather.arrives(self.desk)

    @rule(buyer=ANY, who=WHO, fault=st.sampled_from(CALLS), moment=st.integers(0, 12), logged=st.booleans())
    def is_made_under_two_keys(self, buyer: int, who: int, fault: Any, moment: int, logged: bool) -> None:
        """The create of an order or its return is under way, or a worker is frozen just before or after it. The shop
        changes the key, and another worker finds a new document."""
        self.buys(buyer, 1, 0)
        key, self.next = self.next - 1, self.next + 1
        self.shop.give_back(1, (key, 1, 1))
        if buyer % 2:
            self.world.works(who, 1)

        def another_key() -> None:
            self.shop.rename(key, key + 1, logged)
            self.world.works(1 - who, 2)

        fate = self.world.processes[who].fate
        if moment:
            fate.left, fate.dies, fate.meanwhile = moment, False, another_key
        else:
            self.weather.faults.appendleft(fault)
        self.world.works(who, 1)
        if fate.left or not moment:
            fate.left = 0
            another_key()
        self.world.passes(31.0)
        self.world.works(1 - who, 2)
        if self.weather.late:
            self.weather.arrives(self.desk)

    @precondition(lambda self: self.weather.away)
    @rule()
    def comes_back(self) -> None:
        self.weather.away = False

    @precondition(_has_papers)
    @rule(number=ANY, what=st.sampled_from(CLERK))
    def clerk(self, number: int, what: str) -> None:
        ref = _pick([ref for ref in self.desk.papers if ref.kind == "order"], number)
        paper, clerk = self.desk.papers[ref], self.world.clerk
        if what in CLERK_LINES:
            lines = [key for key in paper.record.parts["line"] if not key.startswith(BY_HAND)]
            self._clerk_of_lines(ref, what, lines)
        match what:
            case "edits":
                clerk.edits(ref, "shipping_street", "Low Street 2")
            case "books the payment":
                clerk.edits(ref, "paid", paper.record.fields["gross"])
            case "cancels":
                clerk.sets(ref, Milestone.CANCELLED)
            case "deletes":
                clerk.deletes(ref)
            case "goes on":
                clerk.sets(ref, LATER[number % len(LATER)])
            case "limbo":
                clerk.sets_unknown(ref)
            case "gives back":
                clerk.gives_back(ref, D("1.00"))
            case "undoes all":
                clerk.undo()

    def _clerk_of_lines(self, ref: ErpRef, what: str, lines: list[str]) -> None:
        match what:
            case "adds a line":
                self.world.clerk.adds_line(ref)
            case "drops a line" if lines:
                self.world.clerk.drops_line(ref, lines[-1])
            case "takes back" if lines:
                self.world.clerk.takes_back(ref, lines[0], D(1))

    # --- people at the sink

    @rule()
    def retries(self) -> None:
        retry(self.world.connection, None)

    @rule(number=ANY)
    def accepts(self, number: int) -> None:
        held = self._held()
        if held:
            with suppress(SettingsError):  # some checks cannot be accepted
                accept_document(self.world.connection, _pick(held, number), "Ann", execute=True)

    def _held(self) -> list[DocumentRef]:
        """Held for a decision, without a step in doubt."""
        with transaction(self.world.connection) as cursor:
            found = [one.ref for one in waiting(cursor) if one.cause == "decision"]
            ones = documents.entries_of(cursor, found)
        return [ref for ref in found if ones[ref].intent is None]

    # --- what must be true

    @invariant()
    def nothing_twice(self) -> None:
        verdict.nothing_twice(self.desk)

    def teardown(self) -> None:
        try:
            self._ends()
        finally:
            self.world.close()

    def _ends(self) -> None:
        self.world.rests()
        self._late_calls_arrive()
        self.shop.mark_all()
        self.world.rests()
        self._is_well()
        self._people_fix()
        self.world.rests()
        for _ in range(6):
            held = self._held()
            if not held:
                break
            for ref in held:
                self._settled_by_a_person(ref)
            self.world.rests()
        self._is_well()
        left = [one for one in verdict.ledger(self.world).values() if one.state in ("held", "waits")]
        assert left == [], "no way out"

    def _settled_by_a_person(self, ref: DocumentRef) -> None:
        """The document stays in the ERP as it is; if the ERP does not have it, it stays away."""
        try:
            accept_document(self.world.connection, ref, "Ann", execute=True)
        except SettingsError:
            leave_alone(self.world.connection, ref, False, "Ann", execute=True)

    def _late_calls_arrive(self) -> None:
        while self.weather.late:
            self.weather.arrives(self.desk)

    def _is_well(self) -> None:
        verdict.nothing_twice(self.desk)
        verdict.said(self.world)
        verdict.money(self.world)
        verdict.nothing_due(self.world)

    def _people_fix(self) -> None:
        """Does what the holds say: the clerk undoes every change, items are made, the shop corrects its data."""
        self.world.clerk.undo()
        self.desk.items.add("NEW")
        self.shop.read_lines_again()
        for key, order in self.shop.orders.items():
            order.off, order.ready = D(0), True
            self.shop.order(key)
        for number, (of, *_) in [*self.shop.returns.items()]:
            if of not in self.shop.orders:
                self.shop.give_back(number, None)
        for number, (of, _) in [*self.shop.refunds.items()]:
            if of not in self.shop.orders:
                self.shop.refund(number, None)
        self.shop.mark_all()
