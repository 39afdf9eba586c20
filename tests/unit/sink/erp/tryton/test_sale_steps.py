"""What comes next of a step on a sale, and how far it came, of every state that a sale can be in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from sink.erp.contract import Basis, ConflictError, HoldError, HowFar, NotDone, Observed, Step, Verb
from sink.erp.kinds import ErpRecord, ErpRef, Milestone, Value
from sink.erp.tryton import came_of, edits, lines, reads, sales, steps
from sink.erp.tryton.steps import Call, Sale
from tests.unit.sink.erp.tryton.pretend import Master, lines_row, sale_row

D = Decimal
REF = ErpRef("order", "shop/order/1/1")
SCALE = lines.Scale(D("0.01"), D("0.0001"))
SLIP = {"id": 9, "description": "ordertap:2", "state": "draft", "_timestamp": "1"}
VALIDATED = SLIP | {"state": "validated", "_timestamp": "3.5"}
CLERKS = VALIDATED | {"id": 8, "description": None, "_timestamp": "20.25"}


def line(quantity: int, net: str, tax: str, rate: int = 19) -> dict[str, Value]:
    return {
        "kind": "item", "sku": "A", "name": "x", "quantity": D(quantity), "unit_price": D(net), "discount": D(0),
        "tax_rate": D(rate), "net": D(net), "tax": D(tax), "gross": D(net) + D(tax),
    }  # fmt: skip


def order(number: str = "1", **rows: dict[str, Value]) -> ErpRecord:
    head: dict[str, Value] = {"number": number, "tax_included": True, "placed_at": datetime(2026, 1, 1, tzinfo=UTC)}
    sums = {name: sum((D(str(row[name])) for row in rows.values()), D(0)) for name in ("net", "tax", "gross")}
    return ErpRecord("order", {**head, **sums}, {"line": rows, "charge": {}, "discount": {}})


WAS = order(l1=line(2, "20.00", "3.80"), l2=line(1, "5.00", "0.95"))
CHEAPER = order(l1=line(2, "18.00", "3.42"), l2=line(1, "5.00", "0.95"))
OTHER_LINE = order(l1=line(2, "20.00", "3.80"), l3=line(3, "6.00", "1.14"))
FEWER = order(l1=line(2, "20.00", "3.80"))
MORE = order(l1=line(2, "20.00", "3.80"), l2=line(1, "5.00", "0.95"), l4=line(1, "1.00", "0.19"))
CENT_MORE = order(l1=line(2, "20.00", "3.81"), l2=line(1, "5.00", "0.95"))
OTHER_TAX = order(l1=line(2, "20.00", "1.40", 7), l2=line(1, "5.00", "0.95"))
RENUMBERED = order("2", l1=line(2, "20.00", "3.80"), l2=line(1, "5.00", "0.95"))


def values(record: ErpRecord, key: int) -> dict[str, Any]:
    return {
        "reference": record.fields["number"],
        "comment": sales.comment("order", None, record.fields, key),
        "lines": lines.values(record, Master(), SCALE),
    }


def sale(state: str = "draft", record: ErpRecord = WAS, key: int = 1, **more: Any) -> Sale:
    given = values(record, key)
    row = (
        sale_row(
            {name: given[name] for name in ("reference", "comment")}, REF.external, lines_row(given["lines"]), state
        )
        | {"party": 1, "invoice_address": 1, "shipment_address": 1}
        | more
    )
    read = lines.read("order", row["lines."], Master(), D("0.01"), ours=True)
    number, fields = sales.commented("order", row["comment"])
    amounts = zip(("net", "tax", "gross"), (row["untaxed_amount"], row["tax_amount"], row["total_amount"]), strict=True)
    seen = ErpRecord("order", {"number": row["reference"], **fields, **dict(amounts)}, read.parts)
    stamp = sales.stamp(seen, row)
    return Sale(row, Observed(seen, sales.milestone("order", row), "1", stamp, number, state))


def step(verb: Verb, before: Sale | None, want: ErpRecord = WAS, goal: Milestone = Milestone.DRAFT) -> Step:
    on = before and before.observed.milestone and Basis(before.observed.milestone, before.observed.stamp)
    return Step(REF, verb, want, on or None, goal, 2 if before else 1)


def following(one: Step, now: Sale, target: str = "draft") -> Call | None:
    return steps.following(one, now, values(one.want, one.key) if one.verb == "amend" else None, target)


@pytest.mark.parametrize(
    ("state", "target", "button"),
    [
        ("draft", "draft", None), ("draft", "quotation", "quote"), ("draft", "processing", "quote"),
        ("quotation", "quotation", None), ("quotation", "confirmed", "confirm"), ("confirmed", "confirmed", None),
        ("confirmed", "processing", "process"), ("processing", "quotation", None), ("done", "processing", None),
        ("cancelled", "processing", None),
    ],
)  # fmt: skip
def test_a_sale_is_taken_on_state_by_state(state: str, target: str, button: str | None) -> None:
    now = sale(state)
    call = following(step("advance", now), now, target)
    assert (call.method if call else None) == button


@pytest.mark.parametrize(
    ("state", "want", "calls"),
    [
        ("draft", CHEAPER, ["write"]),
        ("quotation", CHEAPER, ["draft"]),
        ("confirmed", CHEAPER, ["draft"]),
        ("quotation", RENUMBERED, ["write"]),
        ("processing", RENUMBERED, ["write"]),
        ("processing", CHEAPER, ["write", "amendments"]),
        ("processing", FEWER, ["write", "amendments"]),
        ("processing", OTHER_LINE, ["write", "amendments"]),
    ],
)
def test_a_change_is_made_as_the_state_takes_it(state: str, want: ErpRecord, calls: list[str]) -> None:
    now = sale(state)
    call = following(step("amend", now, want), now)
    assert call is not None
    assert (call.model, call.method) == ("sale.sale", calls[0])
    if "amendments" in calls:
        ids, values_ = call.args
        ((_, (slip,)),) = values_["amendments"]
        assert (ids, [*values_], slip["description"]) == ([1], ["amendments"], "ordertap:2")


def test_a_slip_that_lies_there_is_validated() -> None:
    now = sale("processing", **{"amendments.": [SLIP]})
    assert following(step("amend", now, CHEAPER), now) == Call("sale.amendment", "validate_amendment", (9,))
    another = sale("processing", **{"amendments.": [{**SLIP, "description": "the clerk's"}]})
    call = following(step("amend", another, CHEAPER), another)
    assert call is not None
    assert call.method == "write"


@pytest.mark.parametrize(
    ("want", "reason"),
    [
        (MORE, "cannot add lines to an order in processing: enter"),
        (OTHER_TAX, "cannot change the tax of a line"),
        (CENT_MORE, "the shop's tax is not Tryton's at 19 %, which would need a line of cents"),
    ],
)
def test_what_processing_does_not_take_is_refused_before_the_first_write(want: ErpRecord, reason: str) -> None:
    now = sale("processing")
    with pytest.raises(HoldError, match=reason):
        following(step("amend", now, want), now)


def test_nothing_is_left_of_what_was_done() -> None:
    now = sale("quotation", CHEAPER, 2)
    assert following(step("amend", sale(), CHEAPER), now, "quotation") is None


def came_of_it(move: str, invoice: str, shipment: str = "waiting", **more: Any) -> Sale:
    """In processing, with a shipment (5) of one move and an invoice (6)."""
    first, *rest = sale("processing").row["lines."]
    there = {"id": 5, "number": "S5", "state": shipment}
    moves = [{"id": 7, "state": move, "quantity": D(2), "shipment": "stock.shipment.out,5", "shipment.": there}]
    invoiced = [{"id": 8, "quantity": D(2), "invoice.": {"id": 6, "number": None, "state": invoice}}]
    return sale("processing", **{"lines.": [{**first, "moves.": moves, "invoice_lines.": invoiced}, *rest]}, **more)


OFF = {"shipment_state": "exception"}
OFF_TOO = {"shipment_state": "none", "invoice_state": "exception"}


@pytest.mark.parametrize(
    ("now", "method", "ids"),
    [
        (sale("draft"), "sale.sale cancel", 1),
        (sale("quotation"), "sale.sale cancel", 1),
        (sale("confirmed"), "sale.sale draft", 1),
        (came_of_it("draft", "draft"), "stock.shipment.out cancel", 5),
        (came_of_it("cancelled", "draft", **OFF), "account.invoice cancel", 6),
        (came_of_it("cancelled", "cancelled", **OFF), "sale.handle.shipment.exception handle", 1),
        (came_of_it("cancelled", "cancelled", **OFF_TOO), "sale.handle.invoice.exception handle", 1),
    ],
)  # fmt: skip
def test_a_cancellation_goes_on_where_the_sale_is(now: Sale, method: str, ids: int) -> None:
    call = following(step("cancel", now, goal=Milestone.CANCELLED), now)
    assert call is not None
    assert (f"{call.model} {call.method}", call.args) == (method, (ids,))


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (came_of_it("done", "draft"), "goods have left"),
        (came_of_it("draft", "posted"), "its invoice is posted"),
        (came_of_it("draft", "draft", "picked"), "its shipment S5 is picked: cancel it in Tryton once"),
        (came_of_it("assigned", "draft", "packed"), "its shipment S5 is packed: cancel it in Tryton once"),
        (came_of_it("assigned", "draft", "shipped"), "its shipment S5 is with the carrier: take the goods back"),
    ],
)
def test_a_cancellation_is_refused_before_its_first_write(now: Sale, reason: str) -> None:
    with pytest.raises(HoldError, match=reason):
        following(step("cancel", now), now)


@pytest.mark.parametrize(
    ("now", "method"),
    [
        (came_of_it("cancelled", "cancelled", invoice_state="pending", shipment_state="waiting"), "process"),
        (came_of_it("cancelled", "cancelled", invoice_state="pending"), "process"),
        (came_of_it("cancelled", "cancelled", **OFF), "handle"),
    ],
)
def test_a_cancellation_does_not_wait_for_trytons_queue(now: Sale, method: str) -> None:
    """It once was held, because the sale did not show yet that its shipment was cancelled."""
    one = step("cancel", now)
    call = following(one, now)
    assert call is not None
    assert call.method == method
    if method == "handle":
        assert steps.following(one, now, None, "draft", call) == Call("sale.sale", "process", (1,))
    else:
        with pytest.raises(HoldError, match="cannot take it back"):
            steps.following(one, now, None, "draft", call)


PRICES, QUANTITIES, ADDRESSES, CANCEL = "change prices", "change quantities", "change addresses", "cancel"


@pytest.mark.parametrize(
    ("shipment", "invoice", "waits", "way_out"),
    [
        ("waiting", "draft", (), ""),
        ("cancelled", "draft", (), ""),
        ("assigned", "draft", (PRICES, QUANTITIES, ADDRESSES), "assigned: set it back to waiting"),
        ("picked", "draft", (PRICES, QUANTITIES, ADDRESSES), "picked: pack it"),
        ("picked", "draft", (CANCEL,), "picked: cancel it"),
        ("packed", "draft", (QUANTITIES, ADDRESSES), "packed: cancel it in Tryton and have it made again"),
        ("shipped", "draft", (QUANTITIES, ADDRESSES), "with the carrier: correct it"),
        ("shipped", "validated", (PRICES,), "its invoice is validated: cancel it"),
        ("waiting", "validated", (PRICES, QUANTITIES, ADDRESSES), "its invoice is validated"),
        ("waiting", "cancelled", (), ""),
    ],
)
def test_what_shipments_and_invoices_keep_as_it_is(
    shipment: str, invoice: str, waits: tuple[str, ...], way_out: str
) -> None:
    now = came_of_it("assigned", invoice, shipment)
    found = {str(change): reason for change, reason in came_of.may_not(now.row).items()}
    assert {change: way_out in found[change] for change in waits} == dict.fromkeys(waits, True)
    free = {PRICES, QUANTITIES, ADDRESSES, CANCEL} - found.keys()
    if shipment in ("waiting", "cancelled", "assigned") or invoice == "validated":
        assert (CANCEL in free) is (shipment != "shipped")
    if not waits:
        assert found == {}


@pytest.mark.parametrize(
    ("quantity", "price", "least", "is_"),
    [
        ("3", "1.6725", "0.01", "5.02"), ("1", "0.125", "0.01", "0.12"), ("1", "0.135", "0.01", "0.14"),
        ("-3", "1.6725", "0.01", "-5.02"), ("1", "1.03", "0.05", "1.05"), ("2.5", "0.0103", "0.01", "0.03"),
        ("1", "0.125", "0", "0.125"),
    ],
)  # fmt: skip
def test_a_line_comes_to_what_tryton_makes_of_it(quantity: str, price: str, least: str, is_: str) -> None:
    """By the currency's least amount, halves to the even one."""
    assert reads.amount({"quantity": D(quantity), "unit_price": D(price)}, D(least)) == D(is_)


NOT_DONE = HowFar.NOT_DONE


def amended(record: ErpRecord, *slips: dict[str, Any]) -> Sale:
    """In processing, by slips; the comment is written after that."""
    return sale("processing", record, 1, **{"amendments.": [*slips]})


def test_the_stamp_of_an_earlier_release_is_read() -> None:
    earlier = ("x", "processing", "pending", "waiting", 1, 0, "", "")
    assert sales.standing("x:processing:pending:waiting:1") == earlier
    assert sales.standing("x:processing:pending:waiting:1:0") == earlier
    assert sales.standing("x:processing:pending:waiting:1:0:y") == (*earlier[:-2], "y", "")
    assert sales.standing(amended(CHEAPER, VALIDATED).observed.stamp).amended_by == 2


BEFORE = sale("quotation")
PROCESSING = sale("processing")


@pytest.mark.parametrize(
    ("one", "now", "far"),
    [
        (step("create", None), None, HowFar.NOT_DONE),
        (step("create", None, goal=Milestone.CONFIRMED), sale(), HowFar.PARTLY),
        (step("create", None), sale("quotation"), HowFar.DONE),
        (step("advance", sale()), sale(), HowFar.NOT_DONE),
        (step("advance", sale()), sale("quotation"), HowFar.DONE),
        (step("advance", sale(), goal=Milestone.PROCESSING), sale("confirmed"), HowFar.PARTLY),
        (step("advance", sale()), sale("cancelled"), HowFar.DONE),
        (step("amend", BEFORE, CHEAPER), BEFORE, HowFar.NOT_DONE),
        (step("amend", BEFORE, CHEAPER), sale("draft"), HowFar.PARTLY),
        (step("amend", BEFORE, CHEAPER), sale("draft", CHEAPER, 2), HowFar.PARTLY),
        (step("amend", BEFORE, CHEAPER), sale("quotation", CHEAPER, 2), HowFar.DONE),
        (step("amend", BEFORE, CHEAPER), sale("quotation", FEWER, 1), HowFar.NOT_DONE),
        (step("amend", BEFORE, CHEAPER), sale("quotation", FEWER, 3), HowFar.DONE),
        (step("amend", BEFORE, CHEAPER), sale("cancelled"), HowFar.NOT_DONE),
        (step("amend", PROCESSING, CHEAPER), sale("processing", **{"amendments.": [SLIP]}), HowFar.PARTLY),
        (step("amend", PROCESSING, CHEAPER), amended(CHEAPER, VALIDATED), HowFar.PARTLY),
        (step("amend", PROCESSING, CHEAPER), amended(CHEAPER, CLERKS | {"_timestamp": "3"}, VALIDATED), HowFar.PARTLY),
        (step("amend", PROCESSING, CHEAPER), amended(order("2", **CHEAPER.parts["line"]), VALIDATED), NOT_DONE),
        (step("amend", amended(CHEAPER, VALIDATED), CHEAPER), amended(FEWER, VALIDATED), HowFar.NOT_DONE),
        (step("amend", PROCESSING, CHEAPER), amended(FEWER, VALIDATED, CLERKS), HowFar.NOT_DONE),
        (step("amend", PROCESSING, CHEAPER), amended(FEWER, VALIDATED | {"description": "ordertap:1"}), NOT_DONE),
        (step("amend", PROCESSING, CHEAPER), amended(FEWER, VALIDATED | {"description": "2"}), HowFar.NOT_DONE),
        (step("cancel", BEFORE), sale("cancelled"), HowFar.DONE),
        (step("cancel", BEFORE), BEFORE, HowFar.NOT_DONE),
        (step("cancel", sale("confirmed")), sale("draft"), HowFar.PARTLY),
        (step("cancel", PROCESSING), sale("processing", shipment_state="exception"), HowFar.PARTLY),
        (step("cancel", PROCESSING), sale("processing", shipment_state="sent"), HowFar.NOT_DONE),
        (step("cancel", PROCESSING), sale("odd"), HowFar.UNCLEAR),
    ],
)  # fmt: skip
def test_how_far_a_step_came_is_read_off_the_sale(one: Step, now: Sale | None, far: HowFar) -> None:
    target = {Milestone.DRAFT: "quotation", Milestone.CONFIRMED: "quotation"}.get(one.goal, "processing")
    assert steps.how_far(one, now.observed if now else None, target) is far


def error(result: object) -> type[Exception] | None:
    return type(result.error) if isinstance(result, NotDone) else None


def test_what_is_known_of_a_step_before_it_is_begun() -> None:
    now = sale()
    amend = step("amend", now, CHEAPER)
    assert steps.known(step("create", None), None, "draft") is None
    assert steps.known(step("create", None), now, "draft") is None, "ours: it is gone on with"
    assert error(steps.known(step("create", None, CHEAPER), now, "draft")) is ConflictError
    assert error(steps.known(replace(step("create", None), key=2), now, "draft")) is ConflictError
    assert error(steps.known(amend, None, "draft")) is HoldError
    assert steps.known(amend, now, "draft") is None
    assert steps.known(amend, sale("draft", CHEAPER, 2), "draft") is None
    assert error(steps.known(amend, sale("quotation"), "draft")) is ConflictError
    assert error(steps.known(amend, sale("draft", FEWER, 3), "draft")) is ConflictError
    assert steps.known(step("advance", now), sale("quotation"), "quotation") == sale("quotation").observed
    assert steps.known(step("cancel", now), sale("cancelled"), "draft") == sale("cancelled").observed


@pytest.mark.parametrize(
    ("state", "invoice", "shipment", "moves", "becomes"),
    [
        ("draft", "none", "none", (), Milestone.DRAFT),
        ("quotation", "none", "none", (), Milestone.CONFIRMED),
        ("confirmed", "none", "none", (), Milestone.CONFIRMED),
        ("processing", "pending", "waiting", ("draft",), Milestone.PROCESSING),
        ("processing", "pending", "partially shipped", ("done", "draft"), Milestone.PART_DELIVERED),
        ("processing", "pending", "exception", ("done", "cancelled"), Milestone.PART_DELIVERED),
        ("processing", "pending", "exception", ("cancelled",), Milestone.PROCESSING),
        ("processing", "exception", "waiting", ("draft",), Milestone.INVOICED),
        ("processing", "pending", "sent", ("done",), Milestone.DELIVERED),
        ("processing", "awaiting payment", "waiting", ("draft",), Milestone.INVOICED),
        ("processing", "partially paid", "sent", ("done",), Milestone.INVOICED),
        ("done", "paid", "sent", ("done",), Milestone.PAID),
        ("done", "none", "none", ("cancelled",), Milestone.CANCELLED),
        ("processing", "none", "none", (), Milestone.PROCESSING),
        ("cancelled", "none", "none", (), Milestone.CANCELLED),
        ("odd", "none", "none", (), None),
    ],
)  # fmt: skip
def test_what_a_sale_has_become(
    state: str, invoice: str, shipment: str, moves: tuple[str, ...], becomes: Milestone | None
) -> None:
    bill = "posted" if invoice == "exception" else "draft"
    row = {
        "state": state, "invoice_state": invoice, "shipment_state": shipment, "invoices_ignored": [],
        "lines.": [
            {"moves.": [{"state": one} for one in moves], "invoice_lines.": [{"invoice.": {"id": 6, "state": bill}}]}
        ],
    }  # fmt: skip
    assert sales.milestone("order", row) is becomes
    if state in ("draft", "quotation", "confirmed"):
        assert sales.milestone("refund", row) is Milestone.DRAFT, "there is no credit note"
    elif invoice == "pending":
        assert sales.milestone("refund", row) is Milestone.PROCESSING, "a credit note that nobody has posted"


def test_in_processing_a_line_that_goes_makes_room_for_one_of_the_same_tax() -> None:
    now = sale("processing")
    change = edits.in_processing(edits.edit(values(OTHER_LINE, 2), now.row), now.row)
    (slip,) = edits.as_slip(change, now.row)
    assert (slip["line"], slip["quantity"], slip["unit_price"]) == (2, 3.0, D("2.0000"))
    assert "line:l3" in edits.as_notes(change)["lines"][0][2]["note"]
    gone = edits.in_processing(edits.edit(values(FEWER, 2), now.row), now.row)
    assert [(one["line"], one["quantity"]) for one in edits.as_slip(gone, now.row)] == [(2, 0.0)]


def test_in_processing_a_line_has_the_same_place_when_a_step_is_gone_on_with() -> None:
    """The slip gives a quantity to a line that was free before, and that line keeps another's note until it is
    written."""
    now = sale("processing")
    now.row["lines."][0]["quantity"] = D(0)
    wanted = values(order(l3=line(3, "6.00", "1.14"), l4=line(1, "1.00", "0.19")), 2)
    for slip in edits.as_slip(edits.in_processing(edits.edit(wanted, now.row), now.row), now.row):
        (changed,) = [one for one in now.row["lines."] if one["id"] == slip["line"]]
        changed |= {name: slip[name] for name in ("product", "unit", "quantity", "unit_price", "description")}
    left = edits.in_processing(edits.edit(wanted, now.row), now.row)
    assert edits.as_slip(left, now.row) == []
    assert sorted(left.changed) == [1, 2], "notes are left"


def test_in_processing_an_address_changes_by_a_slip_and_the_order_stays() -> None:
    now = sale("processing")
    moved_in = edits.edit({**values(WAS, 1), "shipment_address": 4}, now.row)
    (slip,) = edits.as_slip(edits.in_processing(moved_in, now.row), now.row)
    assert slip == {"action": "party", "party": 1, "invoice_address": 1, "shipment_address": 4}
    with pytest.raises(HoldError, match="the order that it belongs to"):
        edits.in_processing(edits.edit({**values(WAS, 1), "origin": "sale.sale,4"}, now.row), now.row)
