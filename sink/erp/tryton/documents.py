"""Documents that are sales in Tryton: what orders, returns and refunds have in common."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, Final, NamedTuple

from schemas.model.errors import SettingsError
from sink.erp.contract import Found, HoldError, HowFar, Observed, Step, StepResult, Verb
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Kind, Milestone, Sums, not_kept
from sink.erp.tryton import came_of, edits, lines, reads, sales, steps
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.doing import Doing, Values, Wanted
from sink.erp.tryton.lines import Scale, Taxes
from sink.erp.tryton.rpc import Row, Rpc, WriteCalls
from sink.erp.tryton.steps import Sale

_MANY: Final = 100
_NAMES: Final = ("web_shop", "web_id", "lines.type", "lines.quantity", "lines.product.type")
"""The fields that tell a sale's kind."""


class Told(NamedTuple):
    """What a sale says: what the shop owns of it, sums by rate in percent, and its lines by our keys of them."""

    record: ErpRecord
    rates: Mapping[Decimal, Sums] = {}
    lines: Mapping[str, Row] = {}


class SaleDocuments:
    """Base class for documents stored as sales. Subclasses define which fields belong to the shop."""

    kind: ClassVar[Kind]

    def __init__(self, rpc: Rpc, master: MasterData) -> None:
        self._rpc = rpc
        self._master = master

    # --- what differs

    def told(self, row: Row) -> Told:
        """What a sale says: the fields and lines that the shop owns, and its sums by tax rate."""
        raise NotImplementedError

    def values(self, steps: Mapping[int, Step], there: Mapping[int, Sale], calls: WriteCalls) -> Wanted:
        """The values that each sale must have, or why it cannot have them; by number."""
        raise NotImplementedError

    def once(self, step: Step) -> Values:
        """Values that a sale gets when it is made, and keeps."""
        raise NotImplementedError

    def lines_of(self, step: Step, there: Sale | None, made: Callable[[Taxes], list[dict[str, Any]]]) -> dict[str, Any]:
        """The sale's new lines; nothing if lines and sums need no change, since a clerk may have edited them. The sums
        show whether a rounding line is missing. made: makes the lines, given the taxes of those that are there."""
        if there is None:
            return {"lines": made({})}
        sums = [name for name in ("net", "tax", "gross") if name in step.want.fields]
        if not not_kept(_only(sums, step.want), _only(sums, there.observed.record)):
            return {}
        return {"lines": made({edits.place(one): one["taxes"] for one in there.row["lines."] if one["type"] == "line"})}

    def target(self, goal: Milestone) -> str:
        """The sale's state at a milestone."""
        return self._master.settings.state_of(goal)

    def observed(self, rows: Sequence[Row]) -> list[Observed]:
        """Sales as the planner sees them."""
        return [self.sale(row).observed for row in rows]

    # --- what the adapter asks for

    def read(self, refs: Collection[ErpRef]) -> dict[ErpRef, Observed]:
        """Sales as they are now; missing ones are left out."""
        rows = self._rows(refs)
        return dict(zip(rows, self.observed(list(rows.values())), strict=True))

    def do(self, verb: Verb, steps: Sequence[Step], calls: WriteCalls) -> Sequence[StepResult]:
        """Does steps of one verb. One result each, in order. StopError if the amounts would not be ours (see
        `demand_rounding_by_line`)."""
        if verb != "cancel":
            self._master.demand_rounding_by_line()
        return Doing(self._rpc, self, calls, self._master.web_shop, steps).run(verb)

    def how_far(self, step: Step, seen: Observed | None) -> HowFar:
        """How far a step in doubt came."""
        return steps.how_far(step, seen, self.target(step.goal))

    def find(self, fields: Fields) -> list[int]:
        """Ids of the sales with the shop's number, or with Tryton's own."""
        domain = self._of_us()
        for name, value in fields.items():
            if name == "reference":
                ids = [("id", "=", one) for one in reads.ids_of([str(value)])]
                domain.append(["OR", ("number", "=", value), *ids])
            elif name == "number":
                domain.append(("reference", "=", value))
            else:
                raise SettingsError(f"Tryton cannot look for {self.kind}s by {name}", "look for number or reference")
        rows = self._rpc.search(reads.MODEL, domain, _NAMES)
        return [row["id"] for row in rows if reads.ref_of(row, self._master.web_shop).kind == self.kind][:_MANY]

    def found(self, ids: Sequence[int]) -> list[Found]:
        """Sales in the order of the ids."""
        by_id = {row["id"]: row for row in self.whole(reads.by_ids(self._rpc, ids))}
        rows = [by_id[one] for one in ids if one in by_id]
        refs = [reads.ref_of(row, self._master.web_shop) for row in rows]
        return [Found(ref, seen) for ref, seen in zip(refs, self.observed(rows), strict=True)]

    def keys(self, after: int, limit: int) -> tuple[list[tuple[int, ErpRef]], int | None]:
        """Ids and keys above `after`, rising; then the next `after`, None on the last page. Sales of other kinds are
        left out."""
        rows = self._rpc.search(reads.MODEL, [("id", ">", after), *self._of_us()], _NAMES, limit)
        refs = [(row["id"], reads.ref_of(row, self._master.web_shop)) for row in rows]
        return [one for one in refs if one[1].kind == self.kind], rows[-1]["id"] if len(rows) == limit else None

    def _of_us(self) -> list[Any]:
        """Searches for our company's sales that are in our web shop or, typed in by hand, in none."""
        shop = ("web_shop", "=", self._master.web_shop)
        return [("company", "=", self._master.company), ["OR", shop, ("web_shop", "=", None)]]

    # --- what doing steps asks for

    def sales(self, refs: Collection[ErpRef]) -> dict[ErpRef, Sale]:
        """Sales as they are now; missing ones are left out."""
        return {ref: self.sale(row) for ref, row in self._rows(refs).items()}

    def _rows(self, refs: Collection[ErpRef]) -> dict[ErpRef, Row]:
        shop = self._master.web_shop
        rows = {reads.ref_of(row, shop): row for row in self.whole(reads.by_refs(self._rpc, shop, refs))}
        return {ref: rows[ref] for ref in refs if ref in rows}

    def whole(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows with what takes another call to read."""
        return rows

    def sale(self, row: Row) -> Sale:
        """A row with what the planner sees of it."""
        record, rates, lines_ = self.told(row)
        key = sales.commented(self.kind, row["comment"])[0] if self.is_ours(row) else 0
        milestone = sales.milestone(self.kind, row)
        unknown = f"Tryton has it in the state {row['state']}, which the sink does not know"
        observed = Observed(
            record=record,
            milestone=milestone,
            reference=str(row["number"] or row["id"]),
            stamp=sales.stamp(record, row),
            key=key,
            state=row["state"],
            problem="" if milestone else unknown,
            may_not=came_of.may_not(row) | edits.may_not(row),
            rates=rates if _adds_up(rates, record) else {},
        )
        return Sale(row, observed, lines_)

    def commented(self, row: Row) -> Fields:
        """The fields in the comment; none unless the sale has a key of ours."""
        return sales.commented(self.kind, row["comment"])[1] if self.is_ours(row) else {}

    def is_ours(self, row: Row) -> bool:
        """Whether it has a key of ours, so that its comment and notes can be trusted."""
        return reads.is_ours(row, self._master.web_shop)

    def conditions(self) -> Values:
        """Warehouse and payment term."""
        return {"warehouse": self._master.warehouse, "payment_term": self._master.payment_term}

    def scale(self, currency: str) -> Scale:
        """The precision of money and prices. HoldError if there is no such currency."""
        master = self._master
        return Scale(master.minor(currency), master.least_price(), master.settings.rounding == "line")


class OfAnOrder(SaleDocuments):
    """A kind of sale that is made from an order, its origin. `dated`: the field of ours that gives its date."""

    dated: ClassVar[str]

    def rows_of(self, step: Step, order: Row, taxes: Taxes) -> list[dict[str, Any]]:
        """The lines that the sale must have. taxes: of the lines that it has."""
        raise NotImplementedError

    def whole(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows with the key of their order."""
        ids = {_origin(row) for row in rows} - {0}
        found = {row["id"]: row for row in reads.keys(self._rpc, ids)}
        return [{**row, "origin.": found.get(_origin(row))} for row in rows]

    def order_ref(self, row: Row) -> ErpRef | None:
        """The order that a sale was made from."""
        order = row["origin."]
        if order is None:
            return None
        return ErpRef("order", order["web_id"] if self.is_ours(order) else f"{BY_HAND}{order['id']}")

    def orders(self, steps: Iterable[Step]) -> dict[ErpRef, Row]:
        """The orders that the steps refer to."""
        shop = self._master.web_shop
        refs = {ref for step in steps if isinstance(ref := step.want.fields.get("order"), ErpRef)}
        return {reads.ref_of(row, shop): row for row in reads.by_refs(self._rpc, shop, refs)}

    def order_of(self, step: Step, orders: Mapping[ErpRef, Row]) -> Row:
        """The row of the step's order. HoldError if it is missing."""
        ref = step.want.fields.get("order")
        if not isinstance(ref, ErpRef) or ref not in orders:
            raise HoldError("its order is not in the ERP", "see what holds the order", "master data")
        return orders[ref]

    def values(self, steps: Mapping[int, Step], there: Mapping[int, Sale], calls: WriteCalls) -> Wanted:
        """What each sale has from its order, and its lines."""
        orders = self.orders(steps.values())
        found: Wanted = {}
        for number, step in steps.items():
            try:
                order, sale = self.order_of(step, orders), there.get(number)
                rows = partial(self.rows_of, step, order)
                found[number] = self._of_order(step, order) | self.lines_of(step, sale, rows)
            except HoldError as error:
                found[number] = error
        return found

    def _of_order(self, step: Step, order: Row) -> dict[str, Any]:
        at = step.want.fields.get(self.dated)
        return {
            "origin": f"{reads.MODEL},{order['id']}",
            "party": order["party"],
            "invoice_address": order["invoice_address"],
            "shipment_address": order["shipment_address"],
            "currency": order["currency"],
            "reference": step.want.fields.get("number"),
            "sale_date": self._master.day(at) if isinstance(at, datetime) else None,
        }

    def sold(self, order: Row) -> dict[str, Row]:
        """The lines of an order, each by its external key."""
        ref = reads.ref_of(order, self._master.web_shop)
        minor = Decimal(1).scaleb(-order["currency."]["digits"])
        read = lines.read("order", order["lines."], self._master, minor, self.is_ours(order))
        return {ref.child(part, key).external: line for (part, key), line in read.lines.items()}


def _only(fields: Collection[str], record: ErpRecord) -> ErpRecord:
    """The record with these fields and all its parts."""
    return replace(record, fields={name: record.fields.get(name) for name in fields})


def _adds_up(rates: Mapping[Decimal, Sums], record: ErpRecord) -> bool:
    """Whether the sums of the lines by rate come to the sale's own sums. Tryton has sums by rate on invoices alone."""
    sums = (sum((one[n] for one in rates.values()), Decimal(0)) for n in range(3))
    return all(record.fields.get(name) == value for name, value in zip(("net", "tax", "gross"), sums, strict=True))


def _origin(row: Row) -> int:
    """Tryton's id of the order; 0 if there is none."""
    model, _, id_ = str(row["origin"] or "").partition(",")
    return int(id_) if model == reads.MODEL else 0
