"""Steps and values as people read them."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from sink.erp.commands import Command, changed_fields, command, unlike
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Value, not_kept, shown

D = Decimal
LINE: Fields = {"sku": "A", "quantity": D("2.000"), "gross": D("11.9"), "order_line": None}
ORDER = ErpRecord(
    "order",
    {"number": "S-1", "currency": "EUR", "gross": D("11.900000"), "billing_name": "Ann", "billing_city": "Bonn"},
    {"line": {"l1": LINE}},
)


def _changed(record: ErpRecord, lines: dict[str, Fields] | None = None, **fields: Value) -> ErpRecord:
    return ErpRecord(record.kind, {**record.fields, **fields}, record.parts if lines is None else {"line": lines})


@pytest.mark.parametrize(
    ("value", "name", "said"),
    [
        (D("4.14000000000000000000"), "gross", "4.14"),
        (D("12"), "amount", "12.00"),
        (D("0.04250"), "amount", "0.0425"),
        (D("1E+3"), "net", "1,000.00"),
        (D("2.000"), "quantity", "2"),
        (D("1E+1"), "quantity", "10"),
        (D("19.00"), "tax_rate", "19"),
        (D("NaN"), "net", "NaN"),
        (True, "tax_included", "yes"),
        (None, "name", "nothing"),
        ("", "name", "nothing"),
        (ErpRef("order", "shop/order/1/1"), "order", "shop/order/1/1"),
        (datetime(2026, 1, 2, tzinfo=UTC), "placed_at", "2026-01-02 00:00:00+00:00"),
    ],
)
def test_a_value_is_shown_as_people_write_it(value: Value, name: str, said: str) -> None:
    assert shown(value, name) == said


def test_a_create_says_its_lines_and_what_it_comes_to() -> None:
    assert command("create", "confirmed", None, ORDER) == Command(
        "create", "order", "confirmed", "EUR", None, D("11.9"), ["line l1: 2 x A, 11.90"]
    )


def test_what_changes_is_said_with_both_values_and_of_a_person_only_where() -> None:
    now = _changed(ORDER, {"l2": LINE}, gross=D("9.9"), billing_name="Bea")
    told = command("amend", "confirmed", ORDER, now)
    assert told.changes == [
        "billing_name",
        "gross: 11.90 → 9.90",
        "line l1: gone, 2 x A, 11.90",
        "line l2: new, 2 x A, 11.90",
    ]
    assert (told.before, told.after) == (D("11.9"), D("9.9"))
    more = _changed(ORDER, {"l1": {**LINE, "quantity": D(3)}})
    assert command("amend", "confirmed", ORDER, more).changes == ["line l1 quantity: 2 → 3"]


def test_what_is_cancelled_comes_to_nothing() -> None:
    told = command("cancel", "cancelled", ORDER, _changed(ORDER, cancelled=True))
    assert (told.before, told.after, told.changes) == (D("11.9"), D(0), ["cancelled: nothing → yes"])


def test_a_long_list_is_cut() -> None:
    many = _changed(ORDER, {f"l{n}": LINE for n in range(20)})
    assert command("create", "confirmed", None, many).changes[-1] == "and 8 more"
    assert len(command("create", "confirmed", None, many).changes) == 13


def test_a_command_is_kept_as_it_is() -> None:
    for told in (
        command("amend", "draft", ORDER, _changed(ORDER, gross=D("9.90"))),
        command("create", "draft", None, ORDER),
    ):
        assert Command.from_json(told.to_json()) == told


def test_what_one_side_does_not_keep_is_no_difference() -> None:
    found = ErpRecord("order", {"gross": D(12), "account": "X"}, {"line": {"l1": {"gross": D("11.9"), "own": "x"}}})
    assert [(one.where, one.one, one.other) for one in unlike(ORDER, found)] == [("gross", D("11.9"), D(12))]
    assert list(changed_fields(ORDER, ORDER)) == []


def test_reasons_name_personal_fields_without_their_values() -> None:
    found = _changed(ORDER, billing_name="An", gross=D("12"))
    reason = not_kept(ORDER, found)
    assert reason == ("billing_name: the ERP stored another value; gross: the shop has 11.90, the ERP stored 12.00")
