"""A clerk beside the sink in a real Tryton: whatever they do ends in agreement, or in a hold that a person can end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple

import pytest

from deploy.tryton.screen import Screen
from sink.apply.worker import Worker
from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Observed
from sink.erp.kinds import BY_HAND, ErpRef, Milestone
from sink.operations.accept import accept_document
from sink.operations.holds import retry, retry_everything
from sink.operations.release import let_pass
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget
from tests.faults.tryton_chain import orders, worker
from tests.fix_erp import CUSTOMER, ORDER, REFUND, RETURN, change, drain, held, mark, rows

D = Decimal
SALE: Final = ErpRef("order", "shop/order/1/1")
LINE: Final = "l1"
CHEAPER: Final = "UPDATE orders SET gross = 9.90"
MORE: Final = "UPDATE orders SET quantity = 3, gross = 17.85"
CANCELLED: Final = "UPDATE orders SET status = 'cancelled'"
ONE_BACK: Final = "INSERT INTO returns VALUES (5, 1, 1, 4.95)"
BACKS: Final = {RETURN: "shop/return/5/1", REFUND: "shop/refund/6/1"}
NEXT_STEPS: Final = "SELECT next_step FROM ordertap_shop.document WHERE state = 'held'"


@dataclass
class Office:
    """Tryton, with the sink and the clerk at work in it. stays: whether the clerk's own documents are as he left
    them."""

    place: TrytonTarget
    screen: Screen
    middle: Connection
    worker: Worker
    erp: Erp
    stays: Callable[[], bool] = lambda: True

    @property
    def id(self) -> int:
        """Tryton's id of the order."""
        (row,) = self.screen.rows("sale.sale", [["web_id", "=", SALE.external]])
        return int(row["id"])

    def invoices(self) -> list[int]:
        """Ids of its invoices."""
        return list(self.screen.row("sale.sale", self.id, "invoices")["invoices"])

    def backs(self) -> list[int]:
        """Ids of the sales made from the order."""
        return [row["id"] for row in self.screen.rows("sale.sale", [["origin", "=", f"sale.sale,{self.id}"]])]

    def states(self) -> list[str]:
        """The states of the order and of the sales made from it, sorted."""
        rows = self.screen.rows("sale.sale", [["id", "in", [self.id, *self.backs()]]], "state")
        return sorted(row["state"] for row in rows)

    def credit_notes(self) -> list[tuple[str, Decimal]]:
        """State and gross of each credit note that nobody has cancelled."""
        unless = [["total_amount", "<", 0], ["state", "!=", "cancelled"]]
        rows = self.screen.rows("account.invoice", unless, "state", "total_amount")
        return [(row["state"], row["total_amount"]) for row in rows]

    def deletes(self, *sales: int) -> None:
        """Cancels and deletes drafts, as a clerk does."""
        self.screen("sale.sale", "cancel", [*sales])
        self.screen("sale.sale", "delete", [*sales])

    def shop_has(self, statement: str, *refs: DocumentRef) -> None:
        """Changes the shop, and lets the sink look."""
        change(self.middle, statement)
        mark(self.middle, *refs)
        drain(self.worker)


Does = Callable[[Office], object]


def _nothing(_: Office) -> None:
    """Does nothing."""


def _again(ref: DocumentRef, first: Does = _nothing) -> Does:
    """Lets the sink look once more, after `first` has fixed what was wrong."""

    def way_out(office: Office) -> None:
        first(office)
        assert retry(office.middle, ref) == 1

    return way_out


def _accepted(ref: DocumentRef) -> Does:
    return lambda office: accept_document(office.middle, ref, "Ada", True)


def _released(ref: DocumentRef) -> Does:
    return lambda office: let_pass(office.middle, ref, "Ada", True)


class Act(NamedTuple):
    """does: what the clerk does. shop: what changes in the shop meanwhile. of: the documents that it changes. reason:
    of the hold it comes to, "" for none. way_out: ends the hold. gross, then: amount and milestone of Tryton's order in
    the end; gross None: it is gone. at: its milestone before."""

    does: Does
    shop: str = CHEAPER
    of: tuple[DocumentRef, ...] = (ORDER,)
    reason: str = ""
    way_out: Does = _nothing
    gross: str | None = "9.90"
    at: Milestone = Milestone.PROCESSING
    then: Milestone = Milestone.PROCESSING


def _sets(milestone: Milestone) -> Does:
    return lambda office: office.place.clerk.sets(SALE, milestone)


def _amends(office: Office) -> None:
    office.place.clerk.amends(SALE, LINE, D(3))


def _copies(office: Office) -> None:
    """Duplicates the order. The copy has to stay as it is, and counts as typed in by hand."""
    (copy,) = office.screen("sale.sale", "copy", [office.id], {})
    names = ("web_shop", "web_id", "state", "party", "total_amount", "lines", "_timestamp")

    def seen() -> tuple[object, object, Observed]:
        head = office.screen.row("sale.sale", copy, *names)
        lines = office.screen.rows("sale.line", [["sale", "=", copy]], "quantity", "unit_price", "note", "_timestamp")
        by_hand = ErpRef("order", f"{BY_HAND}{copy}")
        (found,) = [one for one in office.erp.page(["order"], "", 100).found if one.ref != SALE]
        assert found.ref == by_hand
        return head, lines, found.observed

    before = seen()
    assert (before[2].record.fields["gross"], before[2].milestone) == (D("11.90"), Milestone.DRAFT)
    office.stays = lambda: seen() == before


def _comes_back(office: Office) -> None:
    """Takes back everything with the wizard, which makes a draft."""
    office.screen.wizard("sale.return_sale", [("return_", {})], "sale.sale", office.id)


def _credits(office: Office) -> None:
    """Credits the whole invoice with the wizard, which makes a draft that refers to no order."""
    office.place.clerk.sets(SALE, Milestone.INVOICED)
    (invoice,) = office.invoices()
    start: dict[str, Any] = {"with_refund": False, "invoice_date": None}
    office.screen.wizard("account.invoice.credit", [("credit", {"start": start})], "account.invoice", invoice)


def _drops_credit(office: Office) -> None:
    drafts = office.screen.rows("account.invoice", [["state", "=", "draft"], ["total_amount", "<", 0]])
    office.screen("account.invoice", "delete", [row["id"] for row in drafts])


def _empties_comment(office: Office) -> None:
    office.screen("sale.sale", "write", [office.id], {"comment": None})


def _ships(*buttons: str) -> Does:
    """Presses buttons of the last shipment in turn."""

    def does(office: Office) -> None:
        shipment = office.screen.row("sale.sale", office.id, "shipments")["shipments"][-1]
        for button in buttons:
            office.screen("stock.shipment.out", button, [shipment])

    return does


def _makes_parcel_anew(office: Office) -> None:
    """Cancels the shipment, and has it made again."""
    _ships("cancel")(office)
    moves = [row["id"] for row in office.screen.rows("stock.move", [["sale", "=", office.id]])]
    _answers(office, "shipment", "moves", moves)


def _validates_invoice(office: Office) -> None:
    office.screen("account.invoice", "validate_invoice", office.invoices())


def _makes_invoice_anew(office: Office) -> None:
    """Cancels the invoice, and has it made again."""
    invoices = office.invoices()
    office.screen("account.invoice", "cancel", invoices)
    _answers(office, "invoice", "invoices", invoices)


def _answers(office: Office, what: str, name: str, ids: list[int]) -> None:
    """What was cancelled is made again."""
    page = {f"recreate_{name}": ids, f"ignore_{name}": [], f"domain_{name}": ids}
    office.screen.wizard(f"sale.handle.{what}.exception", [("handle", {"ask": page})], "sale.sale", office.id)


def _drops_back_order(office: Office) -> None:
    """Sends one of two pieces, and cancels the rest."""
    office.place.clerk.sets(SALE, Milestone.PART_DELIVERED)
    _ships("cancel")(office)


GONE = "it was made in the ERP and is no longer there"
EDITED = "changed in the ERP: net: we wrote 10.00, the ERP has 15.00"
INVOICED, DELIVERED, QUOTED = Milestone.INVOICED, Milestone.DELIVERED, Milestone.CONFIRMED
PARTLY = Milestone.PART_DELIVERED
PICKS = ("assign_force", "pick")
ACTS: Mapping[str, Act] = {
    "edits, and the shop's goes over it": Act(_amends, reason=EDITED, way_out=_released(ORDER)),
    "edits, and it stays": Act(_amends, reason=EDITED, way_out=_accepted(ORDER), gross="17.85"),
    "edits, and takes it back": Act(
        _amends, reason=EDITED,
        way_out=_again(ORDER, lambda office: office.place.clerk.amends(SALE, LINE, D(2))),
    ),
    "edits as the shop does": Act(_amends, MORE, gross="17.85"),
    "empties the comment": Act(_empties_comment),
    "copies": Act(_copies),
    "deletes": Act(
        lambda office: office.place.clerk.deletes(SALE), reason=GONE, way_out=_accepted(ORDER), gross=None, at=QUOTED,
    ),
    "confirms a draft": Act(_sets(Milestone.PROCESSING), at=Milestone.DRAFT),
    "takes a quotation back to draft": Act(_sets(Milestone.DRAFT), at=QUOTED, then=Milestone.DRAFT),
    "cancels": Act(_sets(Milestone.CANCELLED), reason="changed in the ERP: it was cancelled", way_out=_accepted(ORDER),
                   gross="11.90", then=Milestone.CANCELLED),
    "cancels as the shop does": Act(_sets(Milestone.CANCELLED), CANCELLED, gross="11.90", then=Milestone.CANCELLED),
    "delivers, and more is wanted": Act(
        _sets(DELIVERED), MORE, reason="goods have left", way_out=_accepted(ORDER), gross="11.90", then=DELIVERED,
    ),
    "delivers, and one comes back": Act(_sets(DELIVERED), ONE_BACK, (RETURN, REFUND), gross="11.90", then=DELIVERED),
    "invoices": Act(
        _sets(INVOICED), reason="posted documents are not changed", way_out=_accepted(ORDER), gross="11.90",
        then=INVOICED,
    ),
    "invoices, and one comes back": Act(_sets(INVOICED), ONE_BACK, (RETURN, REFUND), gross="11.90", then=INVOICED),
    "picks, and packs": Act(
        _ships(*PICKS), reason="is picked: pack it", way_out=_again(ORDER, _ships("pack")),
    ),
    "packs, and more is wanted": Act(
        _ships(*PICKS, "pack"), MORE, reason="is packed: cancel it", way_out=_again(ORDER, _makes_parcel_anew),
        gross="17.85",
    ),
    "gives it to the carrier": Act(
        _ships(*PICKS, "pack", "ship"), CANCELLED, reason="is with the carrier: take",
        way_out=_again(ORDER, _ships("cancel")), gross="11.90", then=Milestone.CANCELLED,
    ),
    "validates the invoice": Act(
        _validates_invoice, reason="its invoice is validated: cancel it", way_out=_again(ORDER, _makes_invoice_anew),
    ),
    "cancels what is left to deliver": Act(
        _drops_back_order, MORE, reason="goods have left", way_out=_accepted(ORDER), gross="11.90", then=PARTLY,
    ),
    "takes all back by a draft": Act(
        _comes_back, ONE_BACK, (RETURN,), reason="2 already returned", gross="11.90",
        way_out=_again(RETURN, lambda office: office.deletes(*office.backs())),
    ),
    "credits the invoice": Act(
        _credits, ONE_BACK, (REFUND,), reason="11.90 already refunded", way_out=_again(REFUND, _drops_credit),
        gross="11.90", then=INVOICED,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTS)
def test_what_a_clerk_does(
    tryton_place: TrytonTarget, tryton_clerk: Screen, middle: Connection, profile_path: str, name: str
) -> None:
    act = ACTS[name]
    erp = tryton_place.adapter(orders={"goal": _GOALS[act.at]})
    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, erp, goal=act.at), erp)
    mark(middle, ORDER, CUSTOMER)
    drain(office.worker)
    assert erp.observe([SALE])[SALE].milestone is act.at

    act.does(office)
    office.shop_has(act.shop, *act.of)
    reasons = held(middle)
    assert [act.reason in one for one in reasons] == ([True] if act.reason else []), reasons
    assert all(step for (step,) in rows(middle, NEXT_STEPS))
    act.way_out(office)
    drain(office.worker)
    assert held(middle) == []
    mark(middle, ORDER)
    drain(office.worker)
    assert held(middle) == [], "nor is it held when the sink looks once more"
    _ends(office, act)


_GOALS: Final = {Milestone.DRAFT: "draft", QUOTED: "quotation", Milestone.PROCESSING: "processing"}


def _ends(office: Office, act: Act) -> None:
    """Checks what Tryton has in the end."""
    assert office.stays()
    seen = office.erp.observe([SALE]).get(SALE)
    if act.gross is None:
        assert seen is None
        return
    assert seen is not None
    assert (seen.record.fields["gross"], seen.milestone) == (D(act.gross), act.then)
    if act.then is Milestone.PROCESSING:
        _goes_out_once(office, D(act.gross))
    if "INSERT" in act.shop:
        assert len(office.backs()) == len(act.of), "what comes back is there once"


def test_after_the_goal_was_raised_what_is_there_goes_on_and_a_cancelled_order_leaves_no_credit_note_untold(
    tryton_place: TrytonTarget, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """The refund once stayed a draft sale for ever. As a credit note, it outlived its order, and nobody heard of it."""
    quoting, processing = (tryton_place.adapter(orders={"goal": goal}) for goal in ("quotation", "processing"))
    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, quoting, goal=QUOTED), quoting)
    mark(middle, ORDER, CUSTOMER)
    drain(office.worker)
    office.shop_has(ONE_BACK, RETURN, REFUND)
    assert (office.states(), office.credit_notes()) == (["draft", "quotation", "quotation"], [])

    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, processing, "w2"), processing)
    assert retry_everything(middle, execute=True) == 4
    drain(office.worker)
    assert office.states() == ["processing", "processing", "quotation"], "the return waits for the goods"
    assert office.credit_notes() == [("draft", D("-4.95"))]
    office.shop_has("UPDATE returns SET refunded = 3.00", REFUND)
    assert (held(middle), office.credit_notes()) == ([], [("draft", D("-3.00"))])

    office.shop_has(CANCELLED, ORDER, RETURN, REFUND)
    assert sorted(reason.partition(", so ")[2] for reason in held(middle)) == [
        "its goods never left", "there is no invoice to credit",
    ]  # fmt: skip
    assert office.erp.observe([SALE])[SALE].milestone is Milestone.CANCELLED
    for ref in (RETURN, REFUND):
        office.place.clerk.sets(ErpRef("refund" if ref == REFUND else "return", BACKS[ref]), Milestone.CANCELLED)
        _accepted(ref)(office)
    drain(office.worker)
    assert (held(middle), office.credit_notes()) == ([], [])


def test_a_price_that_needs_a_line_of_cents_keeps_back_no_payment(
    tryton_place: TrytonTarget, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """That it does is known only once Tryton's tax is worked out. The whole change was held once."""
    erp = tryton_place.adapter(orders={"goal": "processing"})
    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, erp), erp)
    mark(middle, ORDER, CUSTOMER)
    drain(office.worker)
    office.shop_has("UPDATE orders SET gross = 9.99", ORDER)
    (reason,) = held(middle)
    assert "would need a line of cents" in reason
    fields = erp.observe([SALE])[SALE].record.fields
    assert (fields["gross"], fields["paid"]) == (D("11.90"), D("9.99"))
    office.shop_has(CHEAPER, ORDER)
    fields = erp.observe([SALE])[SALE].record.fields
    assert (held(middle), fields["gross"], fields["paid"]) == ([], D("9.90"), D("9.90"))


def _goes_out_once(office: Office, gross: Decimal) -> None:
    """Checks that the goods are on one shipment, and the money on one invoice."""
    moves = office.screen.rows("stock.move", [["sale", "=", office.id], ["state", "!=", "cancelled"]], "quantity")
    lines = office.screen.rows("sale.line", [["sale", "=", office.id]], "quantity")
    assert sum(row["quantity"] for row in moves) == sum(row["quantity"] for row in lines)
    domain = [["sales", "=", office.id], ["state", "!=", "cancelled"]]
    invoices = office.screen.rows("account.invoice", domain, "total_amount")
    assert [row["total_amount"] for row in invoices] == [gross]


def _credits_both(screen: Screen) -> None:
    """Makes one credit note for a piece of each order, from lines of two invoices."""
    (first, *_) = invoices = screen.rows(
        "account.invoice", [], "party", "invoice_address", "account", "journal", "lines"
    )
    names = ("product", "unit", "unit_price", "account", "description", "taxes")
    rows_ = screen.rows(
        "account.invoice.line", [["id", "in", [one for row in invoices for one in row["lines"]]]], *names
    )
    lines = [
        {
            **{name: row[name] for name in names}, "type": "line", "quantity": -1.0,
            "taxes": [["add", row["taxes"]]], "origin": f"account.invoice.line,{row['id']}",
        }
        for row in rows_
    ]  # fmt: skip
    head = {name: first[name] for name in ("party", "invoice_address", "account", "journal")}
    screen("account.invoice", "create", [{**head, "type": "out", "lines": [["create", lines]]}])


def test_of_a_credit_note_for_two_orders_each_counts_its_share(
    tryton_place: TrytonTarget, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """It once counted in full for both orders, and a refund of what was left was held."""
    erp = tryton_place.adapter(orders={"goal": "processing"})
    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, erp), erp)
    orders(middle, 2)
    drain(office.worker)
    _credits_both(tryton_clerk)
    for number in (1, 2):
        (given,) = erp.observe([ErpRef("order", f"shop/order/{number}/1")]).values()
        assert [*given.refunded.values()] == [D("5.95")]
    office.shop_has("INSERT INTO returns VALUES (5, 1, 1, 6.00)", REFUND)
    (reason,) = held(middle)
    assert "5.95 already refunded" in reason
    office.shop_has("UPDATE returns SET refunded = 5.95", REFUND)
    assert held(middle) == []
    assert len(office.backs()) == 1


def _groups_both(data: TrytonData) -> None:
    """Puts goods and lines of the second order on the first one's shipment and invoice, as Tryton's modules for
    grouping do."""
    data.run("UPDATE stock_move SET shipment = (SELECT min(shipment) FROM stock_move) WHERE shipment IS NOT NULL")
    data.run("UPDATE account_invoice_line SET invoice = (SELECT min(invoice) FROM account_invoice_line)")


def test_a_shipment_and_an_invoice_of_two_orders_are_not_cancelled_with_one(
    tryton_place: TrytonTarget, tryton_data: TrytonData, tryton_clerk: Screen, middle: Connection, profile_path: str
) -> None:
    """Both were once cancelled with the first order. If both orders were cancelled, the call named the shipment twice,
    and all sending stopped."""
    erp = tryton_place.adapter(orders={"goal": "processing"})
    office = Office(tryton_place, tryton_clerk, middle, worker(middle, profile_path, erp), erp)
    orders(middle, 2)
    drain(office.worker)
    _groups_both(tryton_data)
    second = DocumentRef("sales_order", "2")
    office.shop_has(CANCELLED, ORDER, second)
    reasons = held(middle)
    assert [" also has lines of other sales" in one for one in reasons] == [True, True], reasons
    assert {row["state"] for row in tryton_clerk.rows("account.invoice", [["lines", "!=", None]], "state")} == {"draft"}

    tryton_place.clerk.amends(SALE, LINE, D(0))
    accept_document(middle, ORDER, "Ada", True)
    assert retry(middle, second) == 1
    drain(office.worker)
    assert held(middle) == []
    other = ErpRef("order", "shop/order/2/1")
    assert erp.observe([other])[other].milestone is Milestone.CANCELLED
