"""Returns: sales of negative quantities at price 0, made from their order. They bring goods back, and no money."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar, Final

from sink.erp.contract import HoldError, Step
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Kind, Value
from sink.erp.tryton import lines, notes
from sink.erp.tryton.documents import OfAnOrder, Told
from sink.erp.tryton.doing import Values
from sink.erp.tryton.rpc import Row

_ZERO: Final = Decimal(0)
_NO_LINE: Final = HoldError(
    "a returned line is not on the ERP's order", "compare both orders, then `sink retry`", "master data"
)


class Returns(OfAnOrder):
    """The adapter's part for returns."""

    kind: ClassVar[Kind] = "return"
    dated: ClassVar[str] = "returned_at"

    def told(self, row: Row) -> Told:
        """Its order, and the goods that came back."""
        fields: dict[str, Value] = {
            "number": row["reference"] or None,
            "order": self.order_ref(row),
            **self.commented(row),
        }
        rows: dict[str, Fields] = {}
        for line in row["lines."]:
            if line["type"] == "line" and line["quantity"]:
                key, found = self._line(row, line)
                rows[f"{BY_HAND}{line['id']}" if key in rows else key] = found
        return Told(ErpRecord("return", fields, {"line": rows}))

    def _line(self, row: Row, line: Row) -> tuple[str, Fields]:
        noted = notes.read(line["note"]) if self.is_ours(row) else {}
        child = lines.child_of(noted)
        reason = noted.get("reason")
        if line["description"] != lines.described("line", {"reason": reason}):
            reason = line["description"]
        sold = noted.get("order_line")
        found: dict[str, Value] = {
            "order_line": ErpRef("order", str(sold)) if sold else None,
            "quantity": -Decimal(str(line["quantity"])), "reason": reason,
        }  # fmt: skip
        return child[1] if child else f"{BY_HAND}{line['id']}", found

    def once(self, step: Step) -> Values:
        """Tryton makes the shipment, and no invoice."""
        return {**self.conditions(), "invoice_method": "manual", "shipment_method": "order"}

    def rows_of(self, step: Step, order: Row, taxes: lines.Taxes) -> list[dict[str, Any]]:
        """One line for each line that came back."""
        return [self._value(key, fields, order) for _, key, fields in lines.children(step.want)]

    def _value(self, key: str, fields: Fields, order: Row) -> dict[str, Any]:
        ref = fields.get("order_line")
        sold = self.sold(order).get(ref.external) if isinstance(ref, ErpRef) else None
        quantity = fields.get("quantity")
        if sold is None or not isinstance(quantity, Decimal):
            raise _NO_LINE
        return {
            "type": "line", "product": sold["product"], "unit": sold["unit"], "quantity": -float(quantity),
            "unit_price": _ZERO, "base_price": _ZERO, "taxes": [], "note": lines.note("line", key, fields),
            "description": lines.described("line", fields),
        }  # fmt: skip
