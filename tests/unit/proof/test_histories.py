"""The comparison after the histories finds each kind of error."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pytest

from tests.faults.histories_plan import Book, histories
from tests.faults.histories_proof import (
    Doc,
    Goods,
    Key,
    Pair,
    Rates,
    Sides,
    Sums,
    compare,
    compare_sums,
    pairs,
)

ORDER: Key = ("order", "1")
RATES: Rates = {Decimal(19): (Decimal("10.00"), Decimal("1.90"))}
LESS: Rates = {Decimal(19): (Decimal("9.99"), Decimal("1.91"))}
SOLD = Doc(ORDER, 1, "7", False, Decimal("10.00"), Decimal("1.90"), RATES, {"A": Decimal(1)})
CHEAPER_RATES: Rates = {Decimal(19): (Decimal("9.00"), Decimal("1.71"))}
CHEAPER = SOLD._replace(net=Decimal("9.00"), tax=Decimal("1.71"))

NOTHING: tuple[list[str], Decimal] = ([], Decimal(0))


def _found(shop: list[Doc], erp: list[Doc], held: dict[Key, str], done: set[str]) -> tuple[list[str], Decimal]:
    book = Book({1: {"buy", *done}}, {1: {(Decimal("10.00"), Decimal("1.90"))}}, customers={"7"})
    found, difference = compare(Sides(shop, erp, held, frozenset({ORDER})), book)
    return [one.kind for one in found], difference


def test_what_is_the_same_is_no_finding() -> None:
    assert _found([SOLD], [SOLD], {}, set()) == NOTHING


@pytest.mark.parametrize(
    ("erp", "found"),
    [
        ([], (["lost"], Decimal("11.90"))),
        ([SOLD, SOLD], (["double"], Decimal(0))),
        ([CHEAPER], (["wrong"], Decimal("1.19"))),
        ([SOLD._replace(party="8")], (["wrong"], Decimal(0))),
        ([SOLD._replace(items={"A": Decimal(2)})], (["wrong"], Decimal(0))),
        ([SOLD._replace(cancelled=True)], (["wrong"], Decimal(0))),
        ([SOLD._replace(rates=LESS)], (["wrong"], Decimal(0))),
        ([SOLD, SOLD._replace(key=("order", "2"))], (["double"], Decimal("11.90"))),
    ],
)
def test_what_differs_is_found(erp: list[Doc], found: tuple[list[str], Decimal]) -> None:
    assert _found([SOLD], erp, {}, set()) == found


POSTED = "change prices, but the ERP has invoiced it, and posted documents are not changed"


def test_a_hold_must_be_explained_and_what_is_held_has_amounts_that_somebody_gave_it() -> None:
    assert _found([CHEAPER], [SOLD], {ORDER: POSTED}, {"invoices"}) == NOTHING
    assert _found([CHEAPER], [SOLD], {ORDER: POSTED}, {"delivers"})[0] == ["wrong"]
    assert _found([CHEAPER], [SOLD], {ORDER: "nobody knows"}, {"invoices"})[0] == ["wrong"]
    stray = SOLD._replace(net=Decimal("9.50"))
    assert _found([CHEAPER], [stray], {ORDER: POSTED}, {"invoices"})[0] == ["wrong"]


def test_what_hangs_on_a_held_order_is_explained_by_it_alone() -> None:
    back: Key = ("refund", "5")
    waits = {back: "waits for sales_order 1"}
    assert _found([SOLD, Doc(back, 1)], [SOLD], waits, set())[0] == ["wrong"]
    assert _found([SOLD, Doc(back, 1)], [SOLD], {**waits, ORDER: POSTED}, {"invoices"})[0] == []


def test_a_return_or_refund_has_the_buyer_of_its_order_in_the_erp() -> None:
    refund = Doc(("refund", "5"), 1, "8")
    held: dict[Key, str] = {ORDER: "in processing, Tryton cannot change party"}
    assert _found([SOLD._replace(party="8"), refund], [SOLD, refund._replace(party="7")], held, {"merge"}) == NOTHING
    assert _found([SOLD, refund], [SOLD, refund], {}, set())[0] == ["wrong"]


def test_the_days_of_a_price_are_compared() -> None:
    price = Doc(("temporary price", "1"), 0, net=Decimal(5), days=(date(2026, 3, 1), date(2026, 3, 7)))
    assert _found([price], [price], {}, set()) == NOTHING
    assert _found([price], [price._replace(days=(date(2026, 3, 1), date(2026, 3, 8)))], {}, set())[0] == ["wrong"]


def test_the_erps_own_sums_must_be_the_shops_by_party_and_rate() -> None:
    sides, book = Sides([SOLD], [SOLD], {}, frozenset()), Book()
    gross = {"7": Decimal("11.90")}
    assert not list(compare_sums(sides, Sums(gross, {"7": RATES}), book))
    assert len(list(compare_sums(sides, Sums(gross, {"7": LESS}), book))) == 1
    assert len(list(compare_sums(sides, Sums(gross, {}), book))) == 2


def test_only_what_a_held_or_edited_order_came_to_is_left_out_of_its_buyers_sums() -> None:
    """And what the clerk gave back by hand is the shop's sum, too."""
    other = SOLD._replace(key=("order", "2"), order=2)
    invoices = {"7": {Decimal(19): (Decimal("19.00"), Decimal("3.61")), Decimal(0): (Decimal(-1), Decimal(0))}}
    sides = Sides([SOLD, other], [CHEAPER._replace(rates=CHEAPER_RATES), other], {}, frozenset())
    for held, done in (({ORDER: POSTED}, {"invoices"}), ({}, {"edits"})):
        book = Book({1: done}, given={2: Decimal(1)})
        assert pairs(sides._replace(held=held), Sums({}, invoices), book) == [
            Pair("7", Decimal(0), (Decimal(-1), Decimal(0)), (Decimal(-1), Decimal(0))),
            Pair("7", Decimal(19), RATES[Decimal(19)], RATES[Decimal(19)]),
        ]
    wrong = pairs(sides, Sums({}, invoices), Book())
    assert [pair.shop == pair.erp for pair in wrong] == [False, False], "nothing explains these"


@pytest.mark.parametrize(
    ("goods", "acts", "found"),
    [
        ((2, 2, 0, 2), {"delivers"}, 0), ((2, 3, 0, 0), {"edits"}, 1), ((2, 2, 1, 2), {"delivers", "invoices"}, 1),
        ((2, 2, 1, 2), {"delivers", "invoices", "edits"}, 0),
    ],
)  # fmt: skip
def test_what_is_invoiced_of_an_order_must_be_what_is_delivered(
    goods: tuple[int, ...], acts: set[str], found: int
) -> None:
    sums = Sums({}, {}, [Goods(1, "A", *map(Decimal, goods))])
    assert len(list(compare_sums(Sides([], [], {}, frozenset()), sums, Book({1: acts})))) == found


@pytest.mark.parametrize(
    ("sold", "edits", "found"), [("11.91", set(), 1), ("11.91", {"edits"}, 0), ("11.92", {"edits"}, 1)]
)
def test_the_tax_of_an_order_that_the_clerk_changed_is_rounded_on_two_invoices(
    sold: str, edits: set[str], found: int
) -> None:
    sides, book = Sides([SOLD], [SOLD], {}, frozenset()), Book({1: {"buy", *edits}})
    assert len(list(compare_sums(sides, Sums({"7": Decimal(sold)}, {"7": RATES}), book))) == found


def test_the_same_seed_is_the_same_histories_and_each_act_comes_up() -> None:
    assert histories(3, 50) == histories(3, 50) != histories(4, 50)
    names = {act.name for one in histories(1, 300) for act in one.left}
    assert names == {
        "buy", "pay", "edit", "discount", "price", "temporary price", "merge", "ship", "ask to return", "receive",
        "refund", "cancel", "delete", "sees", "edits", "delivers", "invoices", "credits",
    }  # fmt: skip
