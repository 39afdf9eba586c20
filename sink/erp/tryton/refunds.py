"""Refunds: sales of negative amounts, made from their order. Once such a sale is processing, Tryton drafts the credit
note, which stays a draft."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, ClassVar

from sink.erp.contract import Step
from sink.erp.kinds import ErpRecord, Kind, Value
from sink.erp.tryton import lines
from sink.erp.tryton.documents import OfAnOrder, Told
from sink.erp.tryton.doing import Values
from sink.erp.tryton.rpc import Row


class Refunds(OfAnOrder):
    """The adapter's part for refunds."""

    kind: ClassVar[Kind] = "refund"
    dated: ClassVar[str] = "refunded_at"

    def told(self, row: Row) -> Told:
        """Its order and its components. Tryton has their amounts with the opposite sign."""
        currency = row["currency."]
        minor = Decimal(1).scaleb(-currency["digits"])
        read = lines.read("refund", row["lines."], self._master, minor, self.is_ours(row), -1)
        fields: dict[str, Value] = {
            "number": row["reference"] or None, "order": self.order_ref(row), "currency": currency["code"],
            "net": -row["untaxed_amount"], "tax": -row["tax_amount"], "gross": -row["total_amount"],
            **self.commented(row),
        }  # fmt: skip
        return Told(ErpRecord("refund", fields, read.parts), read.rates)

    def once(self, step: Step) -> Values:
        """No goods come in, and Tryton drafts the credit note by itself."""
        return {**self.conditions(), "invoice_method": "order", "shipment_method": "manual"}

    def rows_of(self, step: Step, order: Row, taxes: lines.Taxes) -> list[dict[str, Any]]:
        """One line for each component. Money goes back with the tax that the shop took, so it may differ from Tryton's
        as the order's did."""
        scale = self.scale(str(step.want.fields.get("currency")))
        sold = lines.read("order", order["lines."], self._master, scale.minor, self.is_ours(order))
        known = lines.differences(ErpRecord("order", {}, sold.parts), scale)
        return lines.values(step.want, self._master, scale, -1, known, taxes)
