"""Children of a record as lines of a sale and back, with Tryton's own arithmetic in between."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sink.erp.contract import HoldError, Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Milestone, PartKind, Sums, not_kept
from sink.erp.tryton import edits, lines, notes
from sink.erp.tryton.orders import Orders
from tests.unit.sink.erp.tryton.pretend import RATES, Master, cents, line_row, lines_row, sale_row

D = Decimal
SCALE = lines.Scale(D("0.01"), D("0.0001"))
OLD_TAX, OLD_CENT = 51, 52


class Retired(Master):
    """With a tax of 19 % and one of a cent that are inactive by now."""

    def rate_of(self, tax_ids: Collection[int]) -> Decimal | None:
        return D(19) if [*tax_ids] == [OLD_TAX] else super().rate_of(tax_ids)

    def is_cent(self, tax_ids: Collection[int]) -> bool:
        return [*tax_ids] == [OLD_CENT] or super().is_cent(tax_ids)


PARTS: tuple[PartKind, ...] = ("line", "charge", "discount")


def row(part: PartKind, gross: Decimal, rate: Decimal, quantity: Decimal, name: str) -> dict[str, Any]:
    """A line as a shop computes it: net from gross, and the tax is the rest."""
    sign = -1 if part == "discount" else 1
    net = cents(gross / (1 + rate / 100))
    return {
        "kind": "item" if part == "line" else part, "sku": "A" if part == "line" else None, "name": name,
        "quantity": quantity, "unit_price": sign * gross / quantity, "discount": D(0), "tax_rate": rate,
        "net": sign * net, "tax": sign * (gross - net), "gross": sign * gross,
    }  # fmt: skip


def cents_up(value: Decimal) -> Decimal:
    return value.quantize(D("0.01"), ROUND_HALF_UP)


def order(parts: dict[PartKind, dict[str, Fields]]) -> ErpRecord:
    rows = [fields for some in parts.values() for fields in some.values()]
    sums = {name: sum((D(str(one[name])) for one in rows), D(0)) for name in ("net", "tax", "gross")}
    return ErpRecord("order", {"tax_included": True, **sums}, parts)


@st.composite
def rows(draw: st.DrawFn, part: PartKind) -> dict[str, Any]:
    quantity = D(draw(st.integers(1, 9))) if part == "line" else D(1)
    unit = D(draw(st.integers(0, 20_000))) / 100
    name = draw(st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=10))
    return row(part, unit * quantity, draw(st.sampled_from(list(RATES))), quantity, name)


@st.composite
def orders(draw: st.DrawFn) -> ErpRecord:
    keys = st.text("abc123:/", min_size=1, max_size=4)
    parts = {part: draw(st.dictionaries(keys, rows(part), max_size=4)) for part in PARTS}
    return order(dict(parts))


def shown(values: list[dict[str, Any]]) -> lines.Read:
    return lines.read("order", lines_row(values), Master(), D("0.01"), ours=True)


@settings(max_examples=60, deadline=None)
@given(orders())
def test_an_order_comes_back_from_tryton_to_the_cent(record: ErpRecord) -> None:
    values = lines.values(record, Master(), SCALE)
    found = shown(values)
    assert not_kept(record, ErpRecord("order", {}, found.parts)) == ""
    assert {*found.parts["line"]} == {*record.parts["line"]}
    sale = sale_row({}, "shop/order/1/1", lines_row(values))
    assert (sale["untaxed_amount"], sale["tax_amount"], sale["total_amount"]) == tuple(
        record.fields[name] for name in ("net", "tax", "gross")
    ), "by Tryton's own sums"
    sums = [sum((one[n] for one in found.rates.values()), D(0)) for n in range(3)]
    assert sums == [sale["untaxed_amount"], sale["tax_amount"], sale["total_amount"]]


@settings(max_examples=60, deadline=None)
@given(orders())
def test_what_is_there_already_needs_no_write(record: ErpRecord) -> None:
    values = {"comment": "x", "lines": lines.values(record, Master(), SCALE)}
    assert not edits.edit(values, sale_row(values, "shop/order/1/1", lines_row(values["lines"])))


@pytest.mark.parametrize("name", ["", " ", None, "Mug"])
def test_what_a_clerk_changes_of_a_line_leaves_its_name_ours(name: str) -> None:
    """One without a name has its SKU there: that is no name that somebody gave it."""
    values = lines.values(order({"line": {"1": row("line", D("23.80"), D(19), D(2), name)}}), Master(), SCALE)
    (more,) = lines_row(values)
    more = line_row({**more, "quantity": D(3)}, 1)
    found = lines.read("order", [more], Master(), D("0.01"), ours=True).parts["line"]["1"]
    assert (found["name"], found["quantity"]) == (name, D(3))
    renamed = lines.read("order", [{**more, "description": "Pot"}], Master(), D("0.01"), ours=True)
    assert renamed.parts["line"]["1"]["name"] == "Pot"


@settings(max_examples=60, deadline=None)
@given(orders(), orders())
def test_a_draft_becomes_what_is_wanted_by_one_write(was: ErpRecord, wanted: ErpRecord) -> None:
    values = {"comment": "x", "lines": lines.values(wanted, Master(), SCALE)}
    sale = sale_row({"comment": "y"}, "shop/order/1/1", lines_row(lines.values(was, Master(), SCALE)))
    after = written(sale, edits.as_write(edits.edit(values, sale), sale))
    assert not edits.edit(values, after)
    found = lines.read("order", after["lines."], Master(), D("0.01"), ours=True)
    assert not_kept(wanted, ErpRecord("order", {}, found.parts)) == ""


def written(sale: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A sale after a write."""
    there = {line["id"]: line for line in sale["lines."]}
    for what, *given_ in values.pop("lines", []):
        match what:
            case "write":
                ((one,), changes) = given_
                there[one] = line_row({**there[one], **changes, **_taxes(there[one], changes)}, one)
            case "delete":
                there = {one: line for one, line in there.items() if one not in given_[0]}
            case "create":
                fresh = [{**line, "taxes": line["taxes"][0][1]} for line in given_[0]]
                there |= {line["id"]: line for line in lines_row(fresh, 100)}
    return {**sale, **values, "lines.": list(there.values())}


def _taxes(line: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    found = list(line["taxes"])
    for what, ids in changes.get("taxes", []):
        found = [one for one in found if one not in ids] if what == "remove" else [*found, *ids]
    return {"taxes": found}


def test_the_shops_cent_stands_on_a_line_of_its_own() -> None:
    lone = {**row("line", D("11.91"), D(19), D(1), "x"), "net": D("10.00"), "tax": D("1.91")}
    values = lines.values(order({"line": {"1": lone}}), Master(), SCALE)
    assert [(one["quantity"], one["unit_price"], one["taxes"]) for one in values] == [
        (1.0, D("10.0000"), [1]),
        (1.0, D(0), [4]),
    ]
    assert shown(values).rates == {D(19): Sums(D("10.00"), D("1.91"), D("11.91"))}


def test_a_yen_is_a_hundred_pieces_and_a_tenth_of_a_cent_needs_a_unit_with_decimals() -> None:
    lone = {**row("line", D(1191), D(19), D(1), "x"), "net": D(1000), "tax": D(191)}
    values = lines.values(order({"line": {"1": lone}}), Master(), SCALE._replace(minor=D(1)))
    assert values[-1]["quantity"] == 100.0
    read = lines.read("order", lines_row(values), Master(), D(1), ours=True)
    assert read.rates == {D(19): Sums(D(1000), D(191), D(1191))}
    lone = {**lone, "net": D("10.000"), "tax": D("1.901"), "gross": D("11.901")}
    with pytest.raises(HoldError, match=r"0\.001 more than the ERP's, and the least it adds is a cent"):
        lines.values(order({"line": {"1": lone}}), Master(), SCALE._replace(minor=D("0.001")))


def test_a_line_keeps_its_tax_while_its_rate_stays() -> None:
    lone = {**row("line", D("11.91"), D(19), D(1), "x"), "net": D("10.00"), "tax": D("1.91")}
    had = {("line", "1"): [OLD_TAX], ("rounding", "19"): [OLD_CENT]}
    values = lines.values(order({"line": {"1": lone}}), Retired(), SCALE, taxes=had)
    assert [one["taxes"] for one in values] == [[OLD_TAX], [OLD_CENT]]
    values = lines.values(order({"line": {"1": row("line", D("1.07"), D(7), D(1), "x")}}), Retired(), SCALE, taxes=had)
    assert [one["taxes"] for one in values] == [[RATES[D(7)]]]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantity": D(0)}, "quantity 0"),
        ({"net": None}, "no net"),
        ({"sku": None}, "no SKU"),
        ({"quantity": D("0.5")}, "keeps 0 decimals"),
        ({"quantity": D(1000), "net": D("10.34"), "tax": D("1.96"), "gross": D("12.30")}, "net: the shop has 10.34"),
        ({"tax": D("1.95"), "gross": D("11.95")}, "the shop's tax is 0.05 more"),
    ],
)
def test_what_tryton_would_not_keep_is_held(changes: dict[str, Any], reason: str) -> None:
    lone = {**row("line", D("11.90"), D(19), D(1), "x"), **changes}
    record = order({"line": {"1": lone}}) if lone["net"] is not None else ErpRecord("order", {}, {"line": {"1": lone}})
    with pytest.raises(HoldError, match=reason):
        lines.values(record, Master(), SCALE)


OSCARS: dict[str, Any] = {  # four of 6.07 net, each with a tax of 0.42, less an eighth
    **row("line", D("22.72"), D(7), D(4), "Decaf"),
    "unit_price": D("6.49"), "discount": D("3.24"), "net": D("21.25"), "tax": D("1.47"),
}  # fmt: skip


def test_a_shop_may_round_the_tax_of_each_unit() -> None:
    values = lines.values(order({"line": {"1": OSCARS}}), Master(), SCALE)
    assert [(one["quantity"], one["unit_price"]) for one in values] == [(4.0, D("5.3125")), (-2.0, D(0))]
    assert shown(values).rates == {D(7): Sums(D("21.25"), D("1.47"), D("22.72"))}


@settings(max_examples=200, deadline=None)
@given(st.integers(10, 20_000), st.integers(1, 200), st.sampled_from([D(7), D(19)]), st.integers(0, 90), st.booleans())
def test_whatever_a_shop_sells_that_rounds_the_tax_of_each_unit(
    unit: int, quantity: int, rate: Decimal, percent: int, included: bool
) -> None:
    """And takes the discount from net and tax alike."""
    each = cents_up(D(unit) * rate / 100 / 100)
    price = D(unit) / 100 + (each if included else 0)
    discount = cents(price * quantity * percent / 100)
    paid = price * quantity - discount
    net = cents(paid * D(unit) / 100 / price) if included else paid
    tax = paid - net if included else cents(each * paid / price)
    lone = {
        **row("line", paid, rate, D(quantity), "x"),
        "unit_price": price, "discount": discount, "net": net, "tax": tax, "gross": net + tax,
    }  # fmt: skip
    record = order({"line": {"1": lone}})
    record = ErpRecord("order", {**record.fields, "tax_included": included}, record.parts)
    fine = SCALE._replace(price=D("0.000001"))
    assert lines.roundings(record, fine).get(rate, 0) == tax - lines.booked(lone, fine).tax


@pytest.mark.parametrize(
    "changes",
    [
        {"tax": D("1.44"), "gross": D("22.69")},
        {"tax": D("1.52"), "gross": D("22.77")},
        {"unit_price": D("6.50"), "discount": D(0), "quantity": D(1), "net": D("6.07"), "tax": D("0.40")},
        {"unit_price": D("0.05"), "discount": D(0), "quantity": D(100), "net": D("5.00"), "tax": D(0)},
    ],
)
def test_more_than_the_shops_rounding_of_units_is_held(changes: dict[str, Any]) -> None:
    with pytest.raises(HoldError, match="at 7 % the shop's tax is"):
        lines.values(order({"line": {"1": {**OSCARS, **changes}}}), Master(), SCALE)


def test_money_goes_back_with_the_tax_that_the_shop_took() -> None:
    given_back = {**row("line", D("22.72"), D(7), D(1), "Decaf"), "net": D("21.25"), "tax": D("1.47")}
    refund = ErpRecord("refund", {}, {"component": {"c1": given_back}})
    with pytest.raises(HoldError, match=r"the shop's tax is -0\.02 more"):
        lines.values(refund, Master(), SCALE, -1)
    known = lines.differences(order({"line": {"1": OSCARS}}), SCALE)
    cent = lines.values(refund, Master(), SCALE, -1, known)[-1]
    assert (known, cent["quantity"]) == ({D(7): D("0.02")}, 2.0)
    lower = {**given_back, "tax": D("1.45"), "gross": D("22.70")}
    with pytest.raises(HoldError, match=r"the shop's tax is -0\.04 more"):
        lines.values(ErpRecord("refund", {}, {"component": {"c1": lower}}), Master(), SCALE, -1, known)


def test_without_a_line_of_rounding_a_cent_is_held() -> None:
    lone = {**row("line", D("11.91"), D(19), D(1), "x"), "net": D("10.00"), "tax": D("1.91")}
    with pytest.raises(HoldError, match=r"the shop's tax is 0\.01 more"):
        lines.values(order({"line": {"1": lone}}), Master(), SCALE._replace(rounds=False))


def test_a_clerks_price_counts_and_the_note_no_more() -> None:
    values = lines.values(order({"line": {"1": row("line", D("11.90"), D(19), D(1), "x")}}), Master(), SCALE)
    found = shown([{**values[0], "unit_price": D("5.0000")}]).parts["line"]["1"]
    assert (found["net"], found["tax"], found["gross"]) == (D("5.00"), D("0.95"), D("5.95"))
    assert "unit_price" not in found


def test_a_copied_line_is_another_one() -> None:
    values = lines.values(order({"line": {"1": row("line", D("11.90"), D(19), D(1), "x")}}), Master(), SCALE)
    assert shown([*values, *values]).parts["line"].keys() == {"1", "hand:2"}
    copy = lines.read("order", lines_row(values), Master(), D("0.01"), ours=False)
    assert copy.parts["line"].keys() == {"hand:1"}, "nor are the notes of a copied order ours"


@settings(deadline=None)
@given(st.text(max_size=20), st.text(max_size=8))
def test_other_peoples_words_stay_beside_ours(words: str, value: str) -> None:
    text = notes.written(words, {"a": value})
    again = notes.written(text, {"a": "other"})
    assert (notes.read(text)["a"], notes.read(again)["a"]) == (value, "other")
    assert again.count("ordertap {") == 1 + notes.written(words, {}).count("ordertap {") - 1
    assert notes.read("ordertap {spoiled") == {} == notes.read(None)


def test_a_component_without_a_quantity_is_one_and_says_none_of_it() -> None:
    fields: Fields = {"kind": "fee", "tax_rate": D(19), "net": D("-10.00"), "tax": D("-1.90"), "gross": D("-11.90")}
    record = ErpRecord("refund", {}, {"component": {"c1": fields}})
    values = lines.values(record, Master(), SCALE, -1)
    assert [(one["quantity"], one["unit_price"]) for one in values] == [(-1.0, D("-10.0000"))], "a fee is withheld"
    found = lines.read("refund", lines_row(values), Master(), D("0.01"), ours=True, sign=-1)
    assert found.parts["component"]["c1"] == fields


@pytest.mark.parametrize(("tax", "again"), [("1.91", False), ("1.90", True)])
def test_a_line_of_cents_that_a_clerk_deleted_is_made_again(tax: str, again: bool) -> None:
    lone = {**row("line", D("11.91"), D(19), D(1), "x"), "net": D("10.00"), "tax": D("1.91")}
    want = order({"line": {"1": lone}})
    gross = D("10.00") + D(tax)
    seen = replace(want, fields={**want.fields, "tax": D(tax), "gross": gross, "comment": "a clerk's"})
    there = SimpleNamespace(observed=Observed(seen, Milestone.DRAFT, "1", "stamp"), row={"lines.": []})
    step = Step(ErpRef("order", "s/order/1/1"), "amend", want, None, Milestone.DRAFT, 2)
    made = {"lines": ["all"]} if again else {}
    assert Orders.lines_of(cast(Any, None), step, cast(Any, there), lambda _: cast(Any, ["all"])) == made


def test_a_spoiled_note_of_a_rounding_line_harms_nothing() -> None:
    """A clerk may type in it. Its cents then count at no rate, and the document is read like any other."""
    record = order({"line": {"1": row("line", D("0.35"), D(19), D(1), "x")}, "charge": {}, "discount": {}})
    there = lines_row(lines.values(record, Master(), SCALE))
    cent = {
        **lines_row([lines._rounding(D(19), D("0.01"), Master(), 1, ())])[0],
        "note": 'ordertap {"rounding": "a cent"}',
    }
    found = lines.read("order", [*there, cent], Master(), D("0.01"), ours=True)
    assert found.rates[D(0)] == Sums(D(0), D("0.01"), D("0.01"))
    assert found.parts["line"].keys() == {"1"}
