"""What the models refuse beyond the types of their fields."""

from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from sink.documents.models import MODELS

AMOUNTS = {"tax_rate": 19, "net": "10.00", "tax": "1.90", "gross": "11.90"}
PAID = {"means": "card", "amount": "11.90"}
CONTENT: Mapping[str, Mapping[str, object]] = {
    "SalesOrder": {"key": "1", "number": "S-1", "customer": "7", "placed_at": "2026-01-01T10:00Z", "currency": "EUR",
                   "status": "open", "tax_included": True, "net": "10.00", "tax": "1.90", "gross": "11.90",
                   "lines": []},
    "ReturnOrder": {"key": "5", "number": "R-5", "order": "1", "returned_at": "2026-01-05T10:00Z"},
    "Refund": {"key": "6", "number": "F-6", "order": "1", "refunded_at": "2026-01-06T10:00Z", "currency": "EUR",
               "gross": "11.90"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("model", "field", "row"),
    [
        ("SalesOrder", "lines", {"sku": "A", "quantity": 1, "unit_price": "11.90", **AMOUNTS}),
        ("SalesOrder", "charges", {"kind": "shipping", **AMOUNTS}),
        ("SalesOrder", "discounts", AMOUNTS),
        ("SalesOrder", "payments", PAID),
        ("ReturnOrder", "lines", {"order_line": "l1", "quantity": 1}),
        ("Refund", "components", {"kind": "line", **AMOUNTS}),
    ],
)
def test_two_rows_with_one_key_are_refused(model: str, field: str, row: Mapping[str, object]) -> None:
    """A record has its children by their keys: one of the two would vanish."""
    both = [{"key": "a", **row}, {"key": "b", **row}]
    assert MODELS[model].model_validate({**CONTENT[model], field: both})
    with pytest.raises(ValidationError, match=f"(?s){field}.*two of them have the key a"):
        MODELS[model].model_validate({**CONTENT[model], field: [*both, {"key": "a", **row}]})
