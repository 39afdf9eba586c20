"""Documents as ERP records, and as the ledger stores them."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sink.documents.models import Customer, Price, Refund, ReturnOrder, SalesOrder
from sink.documents.records import fingerprint, from_json, record, same_identity, to_json
from sink.erp.fields import CHILD_FIELDS, CHILD_LINKS, FIELDS, LINKS, FieldType
from sink.erp.kinds import ErpRecord, ErpRef, Fields, differing

D = Decimal
NOW = datetime(2026, 1, 1, 10, tzinfo=UTC)
ORDER = ErpRef("order", "shop/order/17/1")
MONEY = {"tax_rate": D(19), "net": D("10.00"), "tax": D("1.90"), "gross": D("11.90")}
ADDRESS = {"name": "Ann", "street": "Weg 1", "postcode": "1", "city": "Ulm", "country": "DE"}


def _order(**more: Any) -> SalesOrder:
    content: dict[str, Any] = {
        "key": "17", "number": "S-17", "customer": "7", "placed_at": NOW, "currency": "EUR", "status": "open",
        "tax_included": True, "net": D("10.00"), "tax": D("1.90"), "gross": D("11.90"),
        "lines": [{**MONEY, "key": "1", "sku": "A", "name": "Cup", "quantity": 2, "unit_price": D("5.95")}],
    }  # fmt: skip
    return SalesOrder(**content | more)


def test_an_order_with_all_its_parts() -> None:
    made = record(
        _order(
            charges=[{**MONEY, "key": "2", "kind": "shipping"}],
            discounts=[{**MONEY, "key": "3", "code": "TEN"}],
            payments=[
                {"key": "1", "means": "voucher", "amount": D(5)},
                {"key": "2", "means": "card", "amount": D("6.90"), "reference": "tx-1"},
            ],
            addresses=[{**ADDRESS, "kind": "billing"}],
        ),
        {"account": ErpRef("customer", "shop/customer/7/1")},
    )
    assert {part: [*rows] for part, rows in made.parts.items()} == {"line": ["1"], "charge": ["2"], "discount": ["3"]}
    assert (made.fields["paid"], made.fields["payment_means"]) == (D("11.90"), "card, voucher")
    assert (made.fields["payment_reference"], made.fields["account"]) == ("tx-1", ("customer", "shop/customer/7/1"))
    assert (made.fields["billing_city"], made.fields["shipping_city"]) == ("Ulm", None)
    discount = made.parts["discount"]["3"]
    assert (discount["name"], discount["quantity"], discount["gross"]) == ("TEN", D(1), D("-11.90"))


def test_an_erps_lines_simply_add_up() -> None:
    parts = {"charges": [{**MONEY, "key": "2", "kind": "fee"}], "discounts": [{**MONEY, "key": "3"}]}
    made = record(_order(**parts), {}).parts
    assert sum(D(str(line["gross"])) for rows in made.values() for line in rows.values()) == D("11.90")


def test_f10_money_given_back_that_a_refund_has_is_not_in_what_was_paid() -> None:
    paid = {"key": "1", "means": "card", "amount": D("11.90"), "reference": "tx-1"}
    back = {"key": "2", "means": "transfer", "amount": D("-5.00"), "reference": "S-17-G5"}
    for refund, sums in ((None, (D("6.90"), "card, transfer")), ("5", (D("11.90"), "card"))):
        made = record(_order(payments=[paid, {**back, "refund": refund}]), {})
        assert (made.fields["paid"], made.fields["payment_means"]) == sums
        assert made.payments is not None
        assert made.payments.keys() == {"1", "2"}, "it is still there, and was not purged"
    mistaken = record(_order(payments=[{**paid, "refund": "5"}]), {})
    assert mistaken.fields["paid"] == D("11.90"), "money that came in is no refund"


def test_an_unpaid_order_says_so() -> None:
    fields = record(_order(), {}).fields
    assert (fields["paid"], fields["payment_means"], fields["payment_reference"]) == (D(0), None, None)


def test_a_placeholder_keeps_what_was_sold_in_its_name() -> None:
    line = record(_order(), {}, {"A": "MISC"}).parts["line"]["1"]
    assert (line["sku"], line["name"]) == ("MISC", "A Cup")


def test_a_return_names_the_sold_line() -> None:
    made = record(
        ReturnOrder(
            key="5", number="R-5", order="17", returned_at=NOW, lines=[{"key": "1", "order_line": "1", "quantity": 1}]
        ),
        {"order": ORDER},
    )
    assert made.fields == {"number": "R-5", "returned_at": NOW, "order": ORDER}
    sold = ErpRef("order", "shop/order/17/1/line:1")
    assert made.parts == {"line": {"1": {"order_line": sold, "quantity": D(1), "reason": None}}}
    assert ORDER.part_and_key(sold.external) == ("line", "1")


def test_a_refund_is_the_sum_of_its_components() -> None:
    parts = [{**MONEY, "key": "1", "kind": "line", "order_line": "4"}, {**MONEY, "key": "2", "kind": "goodwill"}]
    made = record(
        Refund(key="6", number="F-6", order="17", currency="EUR", refunded_at=NOW, gross=D("23.80"), components=parts),
        {"order": ORDER},
    )
    assert [made.fields[name] for name in ("net", "tax", "gross")] == [D("20.00"), D("3.80"), D("23.80")]
    rows = made.parts["component"]
    assert [rows[key]["order_line"] for key in ("1", "2")] == [ORDER.child("line", "4"), None]
    assert [rows[key]["tax_rate"] for key in ("1", "2")] == [D(19), D(19)]


def test_a_customer_and_a_price() -> None:
    buyer = Customer(
        key="7", kind="guest", name="Ann", email="a@example.org", addresses=[{**ADDRESS, "kind": "billing"}]
    )
    made = record(buyer, {"number": "100001"})
    assert (made.kind, made.fields["number"], made.fields["billing_street"]) == ("customer", "100001", "Weg 1")
    price = record(Price(key="A", sku="A", price_list="p", currency="EUR", amount=D(1), tax_included=True), {})
    assert (price.kind, price.fields["minimum_quantity"], price.fields["valid_from"]) == ("price", D(1), None)


def test_a_fingerprint_tells_a_number_that_is_used_again() -> None:
    one = fingerprint(_order())
    assert one == fingerprint(_order(gross=D("12.00"), net=D("10.10"), status="cancelled")), (
        "what may change is not in it"
    )
    for other in ({"number": "S-18"}, {"customer": "8"}, {"customer": None}, {"placed_at": NOW + timedelta(seconds=1)}):
        assert fingerprint(_order(**other)) != one
    assert fingerprint(Customer(key="7", kind="guest", name="Ann")) is None


def test_a_fingerprint_does_not_depend_on_how_the_time_zone_is_written() -> None:
    berlin = NOW.astimezone(timezone(timedelta(hours=1)))
    assert fingerprint(_order(placed_at=berlin)) == fingerprint(_order())


_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.decimals(allow_nan=False, allow_infinity=False),
    st.datetimes(timezones=st.just(UTC)),
    st.datetimes(),
    st.builds(ErpRef, st.sampled_from(["order", "customer"]), st.text(max_size=8)),
)
_FIELDS = st.dictionaries(st.text(max_size=8), _VALUES, max_size=5)


_PARTS = st.dictionaries(st.sampled_from(["line", "charge"]), st.dictionaries(st.text(max_size=8), _FIELDS, max_size=3))


@given(st.sampled_from(["order", "price"]), _FIELDS, _PARTS)
def test_the_ledger_gives_back_exactly_what_it_was_given(kind: Any, fields: Any, parts: Any) -> None:
    made = ErpRecord(kind, fields, parts)
    back = from_json(json.loads(json.dumps(to_json(made))))
    assert back == made
    assert [str(value) for value in back.fields.values()] == [str(value) for value in made.fields.values()]


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (D("1.0"), D("1.00"), True),
        (None, "", True),
        (NOW, NOW.replace(tzinfo=None), True),
        (NOW, NOW.astimezone(timezone(timedelta(hours=2))), True),
        (D(1), "1", False),
        (D(0), None, False),
        (False, None, False),
        (NOW, NOW + timedelta(microseconds=1), False),
    ],
)
def test_what_counts_as_a_difference(one: Any, other: Any, equal: bool) -> None:
    assert differing({"x": one}, {"x": other}) == ([] if equal else ["x"])
    assert differing({"x": one}, {}) == ([] if one is None else ["x"])


@pytest.mark.parametrize(
    ("now", "then", "same"),
    [
        ("1001|2026-01-01T00:00:00+00:00|7", "1001|2026-01-01T00:00:00+00:00|7", True),
        ("1001|2026-01-01T00:00:00+00:00|", "1001|2026-01-01T00:00:00+00:00|7", True),
        ("1001|2026-01-01T00:00:00+00:00|8", "1001|2026-01-01T00:00:00+00:00|7", False),
        ("1001|2026-01-02T00:00:00+00:00|7", "1001|2026-01-01T00:00:00+00:00|7", False),
    ],
    ids=["same", "buyer erased", "another buyer", "another date"],
)
def test_an_identity_is_the_same_unless_it_is_used_again(now: str, then: str, same: bool) -> None:
    assert same_identity(now, then) is same


TYPES: dict[str, type] = {"text": str, "money": Decimal, "number": Decimal, "yes or no": bool, "time": datetime}


def _of_their_types(fields: Fields, known: dict[str, FieldType], links: tuple[str, ...]) -> None:
    assert fields.keys() - {"cancelled"} <= {*known, *links}
    for name in fields.keys() & known.keys():
        value = fields[name]
        assert known[name].empty if value is None else isinstance(value, TYPES[known[name].type]), name


@pytest.mark.parametrize("full", [False, True])
def test_what_an_erp_is_told_of_the_fields_is_what_documents_have(full: bool) -> None:
    """`sink.erp.fields` is what a mapping is held against."""
    parts = {"charges": [{**MONEY, "key": "2", "kind": "fee"}], "discounts": [{**MONEY, "key": "3", "name": "ten"}]}
    both = [{**ADDRESS, "kind": "billing"}, {**ADDRESS, "kind": "shipping"}] if full else []
    component = {**MONEY, "key": "1", "kind": "line", "order_line": "1"}
    when = NOW if full else None
    documents = [
        _order(addresses=both, **parts),
        Customer(key="7", name="Ann", kind="guest", email="a@example.org" if full else None, addresses=both[:1]),
        ReturnOrder(key="5", number="R", order="17", returned_at=NOW,
                    lines=[{"key": "1", "order_line": "1", "quantity": 1, "reason": "odd" if full else None}]),
        Refund(key="6", number="F", order="17", currency="EUR", refunded_at=NOW, means="card", gross=D("11.90"),
               components=[component]),
        Price(key="A", sku="A", price_list="retail", currency="EUR", amount=D(1), tax_included=True, valid_from=when,
              valid_until=when),
    ]  # fmt: skip
    for document in documents:
        made = record(document, {"order": ORDER} if isinstance(document, ReturnOrder | Refund) else {"number": "100001"}
                      if isinstance(document, Customer) else {})  # fmt: skip
        _of_their_types(made.fields, {**FIELDS[made.kind]}, LINKS[made.kind])
        if full:
            assert {*FIELDS[made.kind]} <= made.fields.keys()
        for children in made.parts.values():
            for fields in children.values():
                _of_their_types(fields, {**CHILD_FIELDS[made.kind]}, CHILD_LINKS[made.kind])
                assert {*CHILD_FIELDS[made.kind]} <= fields.keys()
