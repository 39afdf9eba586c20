"""A row that makes no document is reported with field, row and the most similar column."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from sink.documents.models import Customer, Part, SalesOrder
from sink.documents.refusals import in_words

LINE = {
    "key": "l1", "sku": "A", "quantity": Decimal(2), "unit_price": Decimal(1), "tax_rate": Decimal(19),
    "net": Decimal(1), "tax": Decimal(1), "gross": Decimal(2),
}  # fmt: skip
ORDER = {
    "key": "1", "number": "S-1", "customer": "7", "placed_at": "2026-01-01T10:00Z", "currency": "EUR", "status": "open",
    "tax_included": True, "net": Decimal(1), "tax": Decimal(1), "gross": Decimal(2), "lines": [LINE],
}  # fmt: skip


def _said(model: type[Part], content: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(content)
    problems = refused.value.errors(include_input=False, include_url=False, include_context=False)
    return [in_words(model, problem, content) for problem in problems]


def _with_line(**fields: Any) -> dict[str, Any]:
    return {**ORDER, "lines": [{**LINE, **fields}]}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_with_line(quantity=Decimal("-2.000")), "lines l1: quantity is -2, and must be greater than 0"),
        (_with_line(quantty=1),
         "lines l1: the profile's SQL gives a column quantty, which a Line does not have; the nearest is quantity"),
        (_with_line(sku=None), "lines l1: sku is empty, and must be a valid string"),
        ({**ORDER, "status": "lost"}, "status is lost, and must be 'open' or 'cancelled'"),
        ({**ORDER, "lines": [LINE, LINE]}, "lines: two of them have the key l1"),
        ({name: one for name, one in ORDER.items() if name != "number"},
         "the profile's SQL gives no column number, which a SalesOrder must have"),
    ],
)  # fmt: skip
def test_of_an_order(content: dict[str, Any], said: str) -> None:
    assert _said(SalesOrder, content) == [said]


def test_a_row_without_a_key_is_counted_and_what_is_of_a_person_is_not_shown() -> None:
    content = {"key": "7", "kind": "guest", "name": ["Ann"], "addresses": [{"kind": "home", "city": ["Bonn"]}]}
    said = _said(Customer, content)
    assert said == [
        "name: must be a valid string",
        "addresses 1: kind is home, and must be 'billing' or 'shipping'",
        "addresses 1: city: must be a valid string",
    ]
