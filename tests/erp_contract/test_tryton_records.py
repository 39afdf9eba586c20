"""Customers and prices in Tryton, and what `check` says of a Tryton: what only this adapter has."""

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.erp.contract import Checked, HoldError, NotDone, StopError
from sink.erp.kinds import ErpRecord, ErpRef, Milestone, Value
from sink.erp.tryton import catalogue, reads
from sink.erp.tryton.rpc import Rpc
from tests.erp_contract.cells import component, refund
from tests.erp_contract.records import BY_KIND, CUSTOMER, PRICE, REF, SALE, Sink, changed, create, line, refused, step
from tests.erp_contract.records import sale as sale_of
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import TrytonTarget

D = Decimal
BUYER, LISTED = REF["customer"], REF["price"]
PLACE: dict[str, Value] = {
    "billing_name": "Ann", "billing_company": None, "billing_street": "Way 1\nBack", "billing_postcode": "53111",
    "billing_city": "Bonn", "billing_country": "DE", "tax_id": None,
}  # fmt: skip
AT_HOME = changed(CUSTOMER, **PLACE)
BERLIN = ZoneInfo("Europe/Berlin")


def cent_more(row: dict[str, Value]) -> dict[str, Value]:
    """The line with a cent of tax more than Tryton's, and less net."""
    return {**row, "net": D(str(row["net"])) - D("0.01"), "tax": D(str(row["tax"])) + D("0.01")}


@pytest.fixture
def sink(tryton_place: TrytonTarget) -> Sink:
    return Sink(tryton_place.adapter())


@pytest.fixture
def admin(tryton: Tryton) -> Screen:
    return Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)


def _amended(sink: Sink, want: ErpRecord, key: int, ref: ErpRef = BUYER) -> Any:
    return sink.apply(step("amend", ref, want, sink.see(ref), key))[0]


def _addresses(admin: Screen) -> list[tuple[str, int | None]]:
    """City and place in the list of each of the buyer's addresses."""
    rows = admin.rows("party.address", [["party.code", "=", "100001"]], "city", "sequence")
    return [(row["city"], row["sequence"]) for row in rows]


def test_a_buyer_who_moves_gets_a_new_address_and_comes_back_to_the_old_one(sink: Sink, admin: Screen) -> None:
    sink.done(create(AT_HOME, BUYER))
    away = changed(AT_HOME, billing_city="Köln", billing_country="AT")
    sink.done(step("amend", BUYER, away, sink.see(BUYER), 2))
    assert sorted(_addresses(admin), key=str) == [("Bonn", None), ("Köln", 1)]
    assert sink.see(BUYER).record.fields["billing_city"] == "Köln"
    sink.done(step("amend", BUYER, AT_HOME, sink.see(BUYER), 3))
    assert sorted(_addresses(admin), key=str) == [("Bonn", 1), ("Köln", None)]


def test_what_is_taken_off_sale_is_unknown_within_a_minute(
    sink: Sink, admin: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The adapter remembers it that long, so that it need not ask for each order."""
    (item,) = admin.rows("product.product", [["code", "=", "A"]], "template")
    assert sink.erp.unknown_items({"A"}) == set()
    admin("product.template", "write", [item["template"]], {"salable": False})
    try:
        assert sink.erp.unknown_items({"A"}) == set()
        monkeypatch.setattr(catalogue, "_A_MINUTE", 0.0)
        assert sink.erp.unknown_items({"A"}) == {"A"}
    finally:
        admin("product.template", "write", [item["template"]], {"salable": True})
    monkeypatch.undo()
    assert sink.erp.unknown_items({"A"}) == set(), "what was unknown is asked for at once"


def test_a_line_comes_to_what_tryton_says(sink: Sink, admin: Screen, tryton: Tryton) -> None:
    """The sink does not ask for it: Tryton works it out for each line by itself."""
    sink.done(create(CUSTOMER, BUYER))
    sink.done(create(SALE, REF["order"]))
    web_id = ("sale.web_id", "=", REF["order"].external)
    clerk = Screen(tryton.url, tryton.database, tryton.clerk, tryton.clerk_password)
    clerk("sale.sale", "draft", [one["id"] for one in clerk.rows("sale.sale", [["web_id", "=", web_id[2]]])])
    for row, quantity, price in zip(
        clerk.rows("sale.line", [web_id]), (1.0, 3.0, 7.0), ("0.1250", "-0.1250", "1.0150"), strict=True
    ):
        clerk("sale.line", "write", [row["id"]], {"quantity": quantity, "unit_price": D(price)})
    rpc = Rpc(tryton.url, tryton.database, tryton.user, tryton.password, "", 50.0, 1)
    names = ["quantity", "unit_price", "amount", "sale.currency.rounding"]
    for least in ("0.01", "0.05"):
        (euro,) = admin.rows("currency.currency", [["code", "=", "EUR"]])
        admin("currency.currency", "write", [euro["id"]], {"rounding": D(least)})
        try:
            rows = rpc.search("sale.line", [web_id], names)
            assert [reads.amount(row, row["sale."]["currency."]["rounding"]) for row in rows] == [
                row["amount"] for row in rows
            ]
        finally:
            admin("currency.currency", "write", [euro["id"]], {"rounding": D("0.01")})
    rpc.close()


@pytest.mark.parametrize(
    ("given", "kind"), [("DE136695976", "eu_vat"), ("DE 136 695 976", "eu_vat"), ("none so far", None), (None, None)]
)
def test_a_tax_number_stands_there_whatever_it_is(sink: Sink, admin: Screen, given: str | None, kind: str) -> None:
    sink.done(create(changed(AT_HOME, tax_id=given), BUYER))
    rows = admin.rows("party.identifier", [["party.code", "=", "100001"]], "code", "type")
    assert [(row["code"], row["type"]) for row in rows if not row["code"].startswith("ordertap:")] == (
        [(given, kind)] if given else []
    )
    sink.done(step("amend", BUYER, changed(AT_HOME, tax_id="DE129273398"), sink.see(BUYER), 2))
    assert sink.see(BUYER).record.fields["tax_id"] == "DE129273398"


def test_one_bad_tax_number_keeps_nobody_from_coming(sink: Sink) -> None:
    steps = [
        create(
            changed(AT_HOME, number=f"7{n}", tax_id="no" if n == 3 else None), ErpRef("customer", f"s/customer/{n}/1")
        )
        for n in range(6)
    ]
    assert refused(sink.apply(*steps)) == [""] * 6


def test_a_mailbox_is_one_as_tryton_writes_it(sink: Sink) -> None:
    wanted = changed(AT_HOME, email="Ann@EXAMPLE.org")
    sink.done(create(wanted, BUYER))
    assert sink.plans(BUYER, wanted, wanted) == []
    assert [one.ref for one in sink.erp.find("customer", {"email": "ANN@example.org"})] == [BUYER]
    assert sink.erp.find("customer", {"email": "an_@example.org"}) == [], "no pattern"


def test_what_is_the_clerks_own_is_no_conflict(sink: Sink, tryton_place: TrytonTarget, admin: Screen) -> None:
    sink.done(create(AT_HOME, BUYER))
    wanted = step("amend", BUYER, changed(AT_HOME, name="Ann B."), sink.see(BUYER), 2)
    tryton_place.clerk.edits_own(BUYER)
    (party,) = admin.rows("party.party", [["code", "=", "100001"]], "name")
    admin("party.address", "create", [{"party": party["id"], "city": "Ulm"}])
    sink.done(wanted)


def test_a_customer_whom_a_clerk_put_away_is_cancelled_there(sink: Sink, admin: Screen) -> None:
    sink.done(create(AT_HOME, BUYER))
    (party,) = admin.rows("party.party", [["code", "=", "100001"]], "name")
    admin("party.party", "write", [party["id"]], {"active": False})
    assert sink.see(BUYER).milestone is Milestone.CANCELLED
    assert BUYER in {one.ref for one in sink.erp.page(["customer"], "", 100).found}


def _merge(admin: Screen, source: int, into: int) -> None:
    """As a person does it. Tryton asks the person about differing tax numbers and names; these have none."""
    admin.wizard(
        "party.replace", [("replace", {"ask": {"source": source, "destination": into}})], "party.party", source
    )


def test_merged_customers_go_on_under_both_keys(sink: Sink, admin: Screen) -> None:
    other, number_2 = ErpRef("customer", "shop/customer/2/1"), changed(AT_HOME, number="100002")
    sink.done(create(AT_HOME, BUYER))
    sink.done(create(number_2, other))
    first = changed(SALE, billing_city="Bonn")
    sink.done(create(first, REF["order"]))
    gone, left = (row["id"] for row in admin.rows("party.party", [["code", "in", ["100001", "100002"]]]))
    _merge(admin, gone, left)

    assert sink.plans(REF["order"], first, first) == [], "it is on the party that is left"
    assert sink.plans(BUYER, AT_HOME, AT_HOME) == sink.plans(other, number_2, number_2) == []
    moved = step("amend", BUYER, changed(AT_HOME, name="Ann B.", email="b@example.org"), sink.see(BUYER), 2)
    assert sink.done(moved).reference == "100002"
    assert admin.row("party.party", left, "name")["name"] == "Ann", "it is another's account by now"
    sink.done(step("amend", other, changed(number_2, name="Ann C."), sink.see(other), 2))

    for n, account in enumerate((BUYER, other), 2):
        ref, sale = ErpRef("order", f"shop/order/{n}/1"), changed(SALE, number=f"S-{n}", account=account)
        sink.done(create(sale, ref))
        assert sink.plans(ref, sale, sale) == []
    assert {row["party"] for row in admin.rows("sale.sale", [], "party")} == {left}


def test_typed_in_accounts_that_are_merged_lead_to_the_one_that_is_left(sink: Sink, admin: Screen) -> None:
    every = admin("party.party", "create", [{"name": "Ann"}] * 3)
    shared = changed(SALE, account=ErpRef("customer", f"hand:{every[0]}"))
    _merge(admin, every[0], every[1])
    _merge(admin, every[1], every[2])
    sink.done(create(shared, REF["order"]))
    assert sink.plans(REF["order"], shared, shared) == []
    assert [row["party"] for row in admin.rows("sale.sale", [], "party")] == [every[2]]


def test_of_a_collective_account_only_addresses_like_the_orders_are_read(
    sink: Sink, admin: Screen, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [{"party_name": f"P{n % 20}", "postal_code": f"{n // 20}"} for n in range(400)]
    empty = [{"party_name": "", "postal_code": "", "city": "Ulm"}]
    (party,) = admin("party.party", "create", [{"name": "Web", "addresses": [["create", others + empty]]}])
    read, search = [], Rpc.search

    def counted(rpc: Rpc, model: str, *args: Any) -> list[dict[str, Any]]:
        rows = search(rpc, model, *args)
        read.extend(rows if model == "party.address" else [])
        return rows

    monkeypatch.setattr(Rpc, "search", counted)
    sale = changed(
        SALE, account=ErpRef("customer", f"hand:{party}"), billing_name="P7", billing_postcode="3",
        shipping_name=None, shipping_postcode=None, shipping_city="Ulm",
    )  # fmt: skip
    sink.done(create(sale, REF["order"]))
    assert sink.plans(REF["order"], sale, sale) == []
    assert len(read) == 2
    assert len(admin.rows("party.address", [["party", "=", party]])) == 401, "both were used again"


def test_the_number_of_a_party_that_was_put_away_is_taken(sink: Sink, admin: Screen) -> None:
    (party,) = admin("party.party", "create", [{"name": "Bob", "code": "100001"}])
    admin("party.party", "write", [party], {"active": False})
    assert refused(sink.apply(create(AT_HOME, BUYER))) == ["HoldError"]
    (taken,) = sink.erp.find("customer", {"number": "100001"})
    assert (taken.ref.external, taken.observed.milestone) == (f"hand:{party}", Milestone.CANCELLED)


def test_a_refusal_is_told_without_who_it_is_about(sink: Sink) -> None:
    sink.done(create(AT_HOME, BUYER))
    result = _amended(sink, changed(AT_HOME, number="100002"), 2)
    assert isinstance(result, NotDone)
    assert isinstance(result.error, HoldError)
    assert "Code" in result.error.message
    assert "Ann" not in result.error.message
    assert "a@example.org" not in result.error.message


def test_a_number_that_another_has_is_refused_and_harms_no_other(sink: Sink) -> None:
    sink.done(create(AT_HOME, BUYER))
    steps = [create(changed(AT_HOME, number=f"10000{n}"), ErpRef("customer", f"s/customer/{n}/1")) for n in range(4)]
    assert refused(sink.apply(*steps)) == ["", "HoldError", "", ""]


def _from(day: int, hour: int = 0, second: int = 0) -> datetime:
    return datetime(2026, 3, day, hour, tzinfo=BERLIN) + timedelta(seconds=second)


@pytest.mark.parametrize(
    ("since", "until", "days"),
    [
        (None, None, (None, None)),
        (_from(1), _from(15), ("2026-03-01", "2026-03-14")),
        (_from(29), None, ("2026-03-29", None)),
        (None, _from(29), (None, "2026-03-28")),
        (None, _from(15, second=-1), (None, "2026-03-14")),
    ],
)
def test_a_window_is_of_whole_days(
    sink: Sink, admin: Screen, since: datetime | None, until: datetime | None, days: tuple[str | None, ...]
) -> None:
    wanted = changed(PRICE, valid_from=since, valid_until=until)
    sink.done(create(wanted, LISTED))
    assert sink.plans(LISTED, wanted, wanted) == []
    (line,) = admin.rows("product.price_list.line", [], "start_date", "end_date")
    assert tuple(map(_day, (line["start_date"], line["end_date"]))) == days


def _day(value: dict[str, int] | None) -> str | None:
    return value and f"{value['year']}-{value['month']:02}-{value['day']:02}"


def test_a_window_that_begins_within_a_day_is_held(sink: Sink) -> None:
    result = sink.apply(create(changed(PRICE, valid_from=_from(1, 12)), LISTED))[0]
    assert isinstance(result, NotDone)
    assert "begins within a day" in result.error.message
    assert sink.erp.observe([LISTED]) == {}


def test_dated_prices_and_larger_quantities_come_first(sink: Sink, admin: Screen) -> None:
    wanted = [
        changed(PRICE, amount=D(10)),
        changed(PRICE, amount=D("9.5"), minimum_quantity=D("1.5")),
        changed(PRICE, amount=D(9), minimum_quantity=D(10)),
        changed(PRICE, amount=D(8), valid_from=_from(1), valid_until=_from(9)),
        changed(PRICE, amount=D(7), minimum_quantity=D(10), valid_from=_from(1), valid_until=_from(9)),
    ]
    steps = [create(one, ErpRef("price", f"shop/price/AB {n}:#1/1")) for n, one in enumerate(wanted)]
    assert refused(sink.apply(*steps)) == [""] * 5
    assert refused(sink.apply(*steps)) == [""] * 5, "their keys are read again"
    rows = admin("product.price_list.line", "search_read", [], 0, None, [["sequence", "ASC"]], ["formula"])
    assert [row["formula"].split()[0] for row in rows] == ["7.0", "8.0", "9.0", "9.5", "10.0"]


def test_a_formula_that_a_clerk_typed_in_is_no_price_of_ours(sink: Sink, admin: Screen) -> None:
    sink.done(create(PRICE, LISTED))
    (line,) = admin.rows("product.price_list.line", [], "formula")
    admin("product.price_list.line", "write", [line["id"]], {"formula": line["formula"].replace("10.00", "list_price")})
    seen = sink.see(LISTED)
    assert seen.milestone is None
    assert "not an amount" in seen.problem
    assert "not an amount" in sink.held(LISTED, changed(PRICE, amount=D(9)), PRICE)


def test_of_two_who_make_a_price_at_once_one_does(tryton_place: TrytonTarget, admin: Screen) -> None:
    """Both have seen that there is none, and nothing in Tryton keeps a key unique."""
    first, second = Sink(tryton_place.adapter()), Sink(tryton_place.adapter())
    barrier = threading.Barrier(2)

    def before_it_is_made(moment: str) -> None:
        if moment == "before" and not barrier.broken:
            with suppress(threading.BrokenBarrierError):
                barrier.wait(10)
                barrier.abort()

    with tryton_place.hooked(before_it_is_made), ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda sink: sink.apply(create(PRICE, LISTED))[0], (first, second)))
    assert len(admin.rows("product.price_list.line", [])) == 1
    assert refused(found) == ["", ""], "it is the same step"


def test_a_price_list_of_other_taxes_is_held_and_takes_nothing(sink: Sink, tryton_place: TrytonTarget) -> None:
    before = tryton_place.content()
    result = sink.apply(create(changed(PRICE, tax_included=False), LISTED))[0]
    assert isinstance(result, NotDone)
    assert "tax_included: the shop has no, the ERP stored yes" in result.error.message
    assert tryton_place.content() == before


def test_a_draft_credit_note_is_changed_and_cancelled(sink: Sink, admin: Screen) -> None:
    sink.done(create(CUSTOMER, BUYER))
    for kind in ("order", "refund"):
        sink.done(replace(create(BY_KIND[kind], REF[kind]), goal=Milestone.PROCESSING))
    less = refund(c1=component("line", "11.90", "1"))
    amended = sink.done(step("amend", REF["refund"], less, sink.see(REF["refund"]), 2))
    assert (amended.milestone, amended.record.fields["gross"]) == (Milestone.PROCESSING, D("11.90"))
    open_ = [["state", "=", "draft"], ["total_amount", "<", 0]]
    assert [row["total_amount"] for row in admin.rows("account.invoice", open_, "total_amount")] == [D("-11.90")]
    assert sink.done(step("cancel", REF["refund"], less, amended, 3)).milestone is Milestone.CANCELLED
    assert admin.rows("account.invoice", open_) == []


def test_a_removed_price_stays_as_a_line_of_1900(sink: Sink, admin: Screen) -> None:
    sink.done(create(PRICE, LISTED))
    sink.done(step("remove", LISTED, PRICE, sink.see(LISTED), 2))
    (line,) = admin.rows("product.price_list.line", [], "end_date")
    assert _day(line["end_date"]) == "1900-01-01"
    assert sink.see(LISTED).milestone is Milestone.CANCELLED
    assert sink.plans(LISTED, None, PRICE) == []


def _checked(tryton_place: TrytonTarget, **settings: Any) -> Checked:
    return tryton_place.adapter(**settings).check()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"settles_seconds": None}, "60 s are assumed"),
        ({"items": {"shipping": "FREIGHT-{rate}"}}, "Tryton has no item FREIGHT-19: a shipping at 19 % is held"),
        ({"items": {"cent": "A"}}, "the tax of item A is not an active one of 0.01"),
        ({"taxes": {"19": "VAT 19 %", "16": "VAT 16 %"}}, "the ERP has no tax of 16 % for sales"),
        ({"price_lists": {"retail": "Web prices"}}, "no price list 'Web prices'"),
    ],
)
def test_what_will_hold_some_documents_is_advised(
    tryton_place: TrytonTarget, settings: dict[str, Any], told: str
) -> None:
    advice = _checked(tryton_place, **settings).advice
    assert told in " ".join(one.message for one in advice)
    assert all(one.hint for one in advice)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"web_shop": "Shop"}, "no web shop 'Shop'"),
        ({"payment_term": "Tomorrow"}, "no payment term 'Tomorrow'"),
        ({"warehouse": "Attic"}, "no warehouse 'Attic'"),
        ({"company": "Moon Ltd"}, "does not work in the company 'Moon Ltd'"),
        ({"password": "Wrong-Pass-1"}, "Tryton refuses the login"),
    ],
)
def test_what_keeps_all_documents_away_stops(tryton_place: TrytonTarget, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(StopError) as stopped:
        _checked(tryton_place, **settings)
    assert told in stopped.value.message
    assert stopped.value.hint


def test_old_orders_keep_a_tax_that_was_replaced_and_new_ones_take_the_new_one(
    sink: Sink, admin: Screen, tryton_place: TrytonTarget
) -> None:
    sale = sale_of({"1": cent_more(line("3", "10.00"))}, {})
    sink.done(create(CUSTOMER, BUYER))
    sink.done(replace(create(sale, REF["order"]), goal=Milestone.PROCESSING))
    (old,) = admin.rows("account.tax", [["name", "=", "VAT 19 %"]])
    (cent,) = admin.rows("account.tax", [["name", "=", "Web cent 19 %"]])
    (new,) = admin("account.tax", "copy", [old["id"]], {"name": "VAT 19 % (2)", "template": None})
    admin("account.tax", "write", [old["id"], cent["id"]], {"active": False})
    try:
        later = Sink(tryton_place.adapter())
        assert later.plans(REF["order"], sale, sale) == []
        dearer = sale_of({"1": cent_more(line("3", "11.00"))}, {})
        later.done(later.planned(REF["order"], dearer, sale))
        ref, without = ErpRef("order", "shop/order/2/1"), changed(SALE, number="S-2")
        later.done(create(without, ref))
        (held,) = later.apply(create(changed(sale, number="S-3"), ErpRef("order", "shop/order/3/1")))
        assert isinstance(held, NotDone)
        assert "the tax of item CENT-19 is not an active one of 0.01" in held.error.message
        rows = admin.rows("sale.line", [], "taxes", "sale.web_id")
        assert {(row["sale."]["web_id"], *row["taxes"]) for row in rows} == {
            ("shop/order/1/1", old["id"]), ("shop/order/1/1", cent["id"]), (ref.external, new),
        }  # fmt: skip
    finally:
        admin("account.tax", "write", [old["id"], cent["id"]], {"active": True})
        admin("account.tax", "write", [new], {"active": False})


def test_a_yen_of_tax_is_added_as_a_cent_is(sink: Sink, admin: Screen) -> None:
    yen = {
        "name": "Yen",
        "code": "JPY",
        "symbol": "¥",
        "digits": 0,
        "rounding": D(1),
        "rates": [["create", [{"rate": D(160)}]]],
    }
    admin("currency.currency", "create", [yen])
    row = {**line("1", "1191"), "net": D(1000), "tax": D(191), "gross": D(1191)}
    sale = sale_of({"1": row}, {}, currency="JPY")
    sink.done(create(CUSTOMER, BUYER))
    sink.done(replace(create(sale, REF["order"]), goal=Milestone.PROCESSING))
    assert sink.plans(REF["order"], sale, sale) == []
    assert [row["total_amount"] for row in admin.rows("account.invoice", [], "total_amount")] == [D(1191)]


def test_a_web_shop_that_gives_drafts_up_is_told(tryton_place: TrytonTarget, tryton_data: TrytonData) -> None:
    tryton_data.run("UPDATE web_shop SET sale_draft_abandon_delay = interval '1 day'")
    try:
        advice = _checked(tryton_place).advice
    finally:
        tryton_data.run("UPDATE web_shop SET sale_draft_abandon_delay = NULL")
    assert ["cancels drafts" in one.message for one in advice] == [True]


def test_a_group_that_the_user_is_not_in_is_named(tryton_place: TrytonTarget, admin: Screen) -> None:
    """A lost right to read is named at the first look, too: Tryton's own words name neither right nor group."""
    erp = tryton_place.adapter()
    assert erp.observe([REF["order"]]) == {}
    for group in provision.API_GROUPS:
        called = admin.row("res.group", admin("ir.model.data", "get_id", *group.split(".")), "name")["name"]
        looks = [erp.check, *([lambda: erp.observe([REF["order"]])] if called == "Sales" else [])]
        with tryton_place.lacking(called):
            for look in looks:
                with pytest.raises(StopError, match="Tryton's user may not ") as stopped:
                    look()
                hints = [hint.removeprefix("put erp.user into the group ") for hint in stopped.value.hint.split("; ")]
                assert called in {one for hint in hints for one in hint.split(" or ")}, stopped.value.hint
    assert erp.check().version.startswith("Tryton 8.2")
