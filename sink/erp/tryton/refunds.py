"""Refunds: sales of negative amounts, made of their order and invoiced at once: the credit note stays a draft."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import partial
from typing import ClassVar

from sink.erp.contract import HoldError, Step
from sink.erp.kinds import ErpRecord, Kind, Milestone, Sums, Value
from sink.erp.tryton import lines
from sink.erp.tryton.documents import OfAnOrder
from sink.erp.tryton.doing import Values, Wanted
from sink.erp.tryton.rpc import Row, WriteCalls
from sink.erp.tryton.steps import Sale


class Refunds(OfAnOrder):
    """The adapter's part for refunds."""

    kind: ClassVar[Kind] = "refund"

    def target(self, goal: Milestone) -> str:
        """A draft of a credit note comes of a sale in processing. Where orders are confirmed by a person, so are
        these: they stay drafts of a sale."""
        return "draft" if self._master.settings.orders.goal in ("draft", "quotation") else "processing"

    def record(self, row: Row) -> tuple[ErpRecord, Mapping[Decimal, Sums]]:
        """Its order, and its components, whose amounts Tryton has as negative ones."""
        currency = row["currency."]
        minor = Decimal(1).scaleb(-currency["digits"])
        read = lines.read("refund", row["lines."], self._master, minor, self.is_ours(row), -1)
        fields: dict[str, Value] = {
            "number": row["reference"] or None, "order": self.order_ref(row), "currency": currency["code"],
            "net": -row["untaxed_amount"], "tax": -row["tax_amount"], "gross": -row["total_amount"],
            **self.commented(row),
        }  # fmt: skip
        return ErpRecord("refund", fields, read.parts), read.rates

    def once(self, step: Step) -> Values:
        """Nothing comes in, and the credit note is made at once."""
        return {**self.conditions(), "invoice_method": "order", "shipment_method": "manual"}

    def values(self, steps: Mapping[int, Step], there: Mapping[int, Sale], calls: WriteCalls) -> Wanted:
        """Each component on a line of its own."""
        orders = self.orders(steps.values())
        found: Wanted = {}
        for number, step in steps.items():
            try:
                order, sale = self.order_of(step, orders), there.get(number)
                scale = self.scale(str(step.want.fields.get("currency")))
                rows = partial(lines.values, step.want, self._master, scale, -1)
                found[number] = self.of_order(step, order, sale, "refunded_at") | self.lines_of(step, sale, rows)
            except HoldError as error:
                found[number] = error
        return found
