"""Orders: sales with our key in `web_id`, which is unique within a web shop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar, Final

from sink.erp.contract import HoldError, Observed, Step
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Fields, Kind, Value
from sink.erp.tryton import lines, moved, reads, sales
from sink.erp.tryton.addresses import Side, address_of, fields_of
from sink.erp.tryton.batches import together
from sink.erp.tryton.catalogue import PartyAddress, address_in, key_of
from sink.erp.tryton.documents import SaleDocuments, Told
from sink.erp.tryton.doing import Values, Wanted
from sink.erp.tryton.rpc import Row, WriteCalls
from sink.erp.tryton.steps import Sale

_SIDES: Final[Mapping[Side, str]] = {"billing": "invoice_address", "shipping": "shipment_address"}
_NO_ACCOUNT: Final = HoldError("its account is not in the ERP", "see what holds its customer", "master data")


class Orders(SaleDocuments):
    """The adapter's part for orders."""

    kind: ClassVar[Kind] = "order"

    def observed(self, rows: Sequence[Row]) -> list[Observed]:
        """Orders with what was delivered, invoiced, returned and refunded: one more call for all, another if any has
        invoices, a third if any of those is credited."""
        shop = self._master.web_shop
        back: dict[int, list[Row]] = {}
        for sale in reads.coming_back(self._rpc, [row["id"] for row in rows]):
            back.setdefault(int(str(sale["origin"]).rpartition(",")[2]), []).append(sale)
        credits_ = reads.credit_notes(self._rpc, {line for row in rows for line in moved.invoice_lines(row)})
        return [self._with_moved(row, back.get(row["id"], []), credits_, shop) for row in rows]

    def _with_moved(self, row: Row, back: Sequence[Row], credits_: Sequence[Row], shop: int) -> Observed:
        sale = self.sale(row)
        paid = sale.observed.record.fields.get("paid")
        return replace(
            sale.observed,
            paid=paid if isinstance(paid, Decimal) else None,
            moved=moved.moved(reads.ref_of(row, shop), sale.lines, back, shop),
            refunded=moved.refunded(row, back, credits_, shop),
        )

    def whole(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Rows with their `account`: the one in the comment if it is the sale's party, else the party's own key. If
        these differ (the party was merged, or a clerk chose another one), it takes a call."""
        own = {row["id"]: _own_key(row) for row in rows}
        named = {row["id"]: sales.account_named(row["comment"]) for row in rows if self.is_ours(row)}
        other = {one: ref for one, ref in named.items() if ref and ref != own[one]}
        parties = self._master.accounts({*other.values()})
        led = {row["id"] for row in rows if row["id"] in other and parties.get(other[row["id"]]) == row["party"]}
        return [{**row, "account": other[row["id"]] if row["id"] in led else own[row["id"]]} for row in rows]

    def told(self, row: Row) -> Told:
        """The fields that Tryton keeps, and those that are in the comment."""
        fields: dict[str, Value] = {
            "number": row["reference"] or None,
            "account": row["account"],
            "currency": row["currency."]["code"],
            "net": row["untaxed_amount"], "tax": row["tax_amount"], "gross": row["total_amount"],
            **self.commented(row),
        }  # fmt: skip
        if row["sale_date"] and "placed_at" in fields and not self._is_of_day(fields["placed_at"], row["sale_date"]):
            fields["placed_at"] = self._master.midnight(row["sale_date"])
        for side, name in _SIDES.items():
            address = row[f"{name}."]
            country = (address or {}).get("country.")
            fields |= fields_of(address, side, {country["id"]: country["code"]} if country else {})
        minor = Decimal(1).scaleb(-row["currency."]["digits"])
        read = lines.read("order", row["lines."], self._master, minor, self.is_ours(row))
        sold = {key: line for (part, key), line in read.lines.items() if part == "line"}
        return Told(ErpRecord("order", fields, read.parts), read.rates, sold)

    def _is_of_day(self, when: Value, day: Any) -> bool:
        return isinstance(when, datetime) and self._master.day(when) == day

    def once(self, step: Step) -> Values:
        """Warehouse and payment term, and that Tryton itself makes shipment and invoice."""
        return {**self.conditions(), "invoice_method": "order", "shipment_method": "order"}

    def values(self, steps: Mapping[int, Step], there: Mapping[int, Sale], calls: WriteCalls) -> Wanted:
        """Checks all that can be refused, then makes the addresses that the parties do not have yet."""
        refs = {ref for step in steps.values() if isinstance(ref := step.want.fields.get("account"), ErpRef)}
        accounts = self._master.accounts(refs)
        self._master.items(
            [
                str(line["sku"])
                for step in steps.values()
                for line in step.want.parts.get("line", {}).values()
                if line.get("sku")
            ]
        )
        found: Wanted = {}
        places: dict[int, list[tuple[int, PartyAddress]]] = {}
        for number, step in steps.items():
            ref = step.want.fields.get("account")
            account = accounts.get(ref) if isinstance(ref, ErpRef) else None
            try:
                if account is None:
                    raise _NO_ACCOUNT
                found[number] = self._values(step, account, there.get(number))
                places[number] = [(account, one) for one in self._addresses(step.want.fields)]
            except HoldError as error:
                found[number] = error
        return found | self._with_addresses(found, places, there, calls)

    def _values(self, step: Step, party: int, there: Sale | None) -> Values:
        fields = step.want.fields
        placed_at, currency = fields.get("placed_at"), str(fields.get("currency"))

        def made(taxes: lines.Taxes) -> list[dict[str, Any]]:
            return lines.values(step.want, self._master, self.scale(currency), taxes=taxes)

        return {
            "party": party,
            "currency": self._master.currency(currency),
            "reference": fields.get("number"),
            "sale_date": self._master.day(placed_at) if isinstance(placed_at, datetime) else None,
            **self.lines_of(step, there, made),
        }

    def _addresses(self, fields: Fields) -> list[PartyAddress]:
        """The billing and the shipping address."""
        return [address_of(fields, side, self._master.country(_text(fields.get(f"{side}_country")))) for side in _SIDES]

    def _with_addresses(
        self,
        values: Wanted,
        places: Mapping[int, list[tuple[int, PartyAddress]]],
        there: Mapping[int, Sale],
        calls: WriteCalls,
    ) -> Wanted:
        found: Wanted = {}

        def make(some: Mapping[int, list[tuple[int, PartyAddress]]]) -> None:
            ids = self._master.addresses([one for pair in some.values() for one in pair], calls)
            for number, pair in some.items():
                sale = there.get(number)
                sides = {
                    name: _as_it_is(sale, name, one) or ids[one]
                    for name, one in zip(_SIDES.values(), pair, strict=True)
                }
                whole = values[number]
                found[number] = {**whole, **sides} if isinstance(whole, Mapping) else whole

        return found | together(places, make)


def _own_key(row: Row) -> ErpRef:
    """The party of a sale, by its own key."""
    key = key_of((row["party."] or {}).get("identifiers.") or ())
    return ErpRef("customer", key or f"{BY_HAND}{row['party']}")


def _as_it_is(sale: Sale | None, name: str, wanted: tuple[int, PartyAddress]) -> int | None:
    """Id of the sale's own address if it equals the wanted one."""
    row = sale.row[f"{name}."] if sale else None
    if sale and row and sale.row["party"] == wanted[0] and address_in(row) == wanted[1]:
        return int(row["id"])
    return None


def _text(value: Value) -> str | None:
    return str(value) if value else None
