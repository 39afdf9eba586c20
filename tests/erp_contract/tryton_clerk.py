"""A clerk at Tryton's own screens: presses its buttons and fills in its forms by the calls that its client sends."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from deploy.tryton.screen import Screen
from sink.erp.kinds import ErpRef, Fields, Milestone, Value

CHILD = "child"
OURS = re.compile(r"^ordertap (\{.*\})$", re.MULTILINE)
Find = Callable[[ErpRef], int]
Forget = Callable[[ErpRef, int], ErpRef]


class TrytonClerk:
    """A clerk in a Tryton. `find`: the id of a document. `forget`: takes our keys off a document, which no screen
    can."""

    def __init__(self, screen: Screen, find: Find, forget: Forget, run: Callable[..., Any]) -> None:
        self._screen, self._find, self._forget, self._run = screen, find, forget, run

    def edits(self, ref: ErpRef, field: str, value: Value, key: str | None = None) -> None:
        sale = self._find(ref)
        if key is not None:
            assert isinstance(value, Decimal)
            self._as_draft(sale, {"lines": [["write", [self._line(sale, key)], {field: float(value)}]]})
        elif field == "shipping_street":
            self._as_draft(sale, {"shipment_address": self._other_address(sale, str(value))})
        else:
            comment = self._screen.row("sale.sale", sale, "comment")["comment"]
            self._screen("sale.sale", "write", [sale], {"comment": with_value(comment, field, value)})

    def edits_own(self, ref: ErpRef) -> None:
        number = {"contact_mechanisms": [["create", [{"type": "phone", "value": "500"}]]]}
        self._screen("party.party", "write", [self._find(ref)], number)

    def adds_line(self, order: ErpRef) -> None:
        self._as_draft(self._find(order), {"lines": [["create", [self._line_of("A", 19, 1, Decimal(0))]]]})

    def drops_line(self, order: ErpRef, key: str) -> None:
        sale = self._find(order)
        self._as_draft(sale, {"lines": [["delete", [self._line(sale, key)]]]})

    def amends(self, order: ErpRef, key: str, quantity: Decimal) -> None:
        """In processing: makes a slip for a line, and validates it."""
        sale = self._find(order)
        line = self._screen.row("sale.line", self._line(sale, key), "product", "unit", "unit_price", "description")
        number = line.pop("id")
        change = {"action": "line", "line": number, **line, "quantity": float(quantity)}
        slip = {"sale": sale, "lines": [["create", [change]]]}
        self._screen("sale.amendment", "validate_amendment", self._screen("sale.amendment", "create", [slip]))

    def sets(self, ref: ErpRef, milestone: Milestone) -> None:
        sale = self._find(ref)
        match milestone:
            case Milestone.DRAFT:
                self._presses(sale, ("quotation", "draft"), ("confirmed", "draft"))
            case Milestone.CONFIRMED:
                self._presses(sale, ("draft", "quote"))
            case Milestone.PROCESSING:
                self._processes(sale)
            case Milestone.PART_DELIVERED | Milestone.DELIVERED:
                self._delivers(sale, whole=milestone is Milestone.DELIVERED)
            case Milestone.INVOICED | Milestone.PAID:
                self._invoices(sale, paid=milestone is Milestone.PAID)
            case Milestone.CLOSED:
                self._delivers(sale, whole=True)
                self._invoices(sale, paid=True)
            case Milestone.CANCELLED:
                self._cancels(sale)

    def sets_unknown(self, ref: ErpRef) -> None:
        """Sets a state that only the company's own module would have."""
        self._run("UPDATE sale_sale SET state = 'limbo' WHERE id = %s", self._find(ref))

    def deletes(self, ref: ErpRef) -> None:
        number = self._find(ref)
        if ref.kind in ("customer", "price"):
            model = "party.party" if ref.kind == "customer" else "product.price_list.line"
            self._screen(model, "delete", [number])
            return
        self._cancels(number)
        self._screen("sale.sale", "delete", [number])

    def takes_back(self, order: ErpRef, key: str, quantity: Decimal) -> None:
        """Uses the wizard "Return" and keeps one line of it. Money goes back another way."""
        sale = self._find(order)
        sold = self._screen.row("sale.line", self._line(sale, key), "product")["product"]
        before = {row["id"] for row in self._screen.rows("sale.sale", [["origin", "=", f"sale.sale,{sale}"]])}
        self._screen.wizard("sale.return_sale", [("return_", {})], "sale.sale", sale)
        (back,) = [
            row["id"]
            for row in self._screen.rows("sale.sale", [["origin", "=", f"sale.sale,{sale}"]])
            if row["id"] not in before
        ]
        lines = self._screen.rows("sale.line", [["sale", "=", back]], "product", "note")
        (kept,) = [
            row["id"] for row in lines if row["product"] == sold and in_note(row["note"]).get(CHILD) == f"line:{key}"
        ]
        changes = [
            ["delete", [row["id"] for row in lines if row["id"] != kept]],
            ["write", [kept], {"quantity": -float(quantity), "unit_price": Decimal(0)}],
        ]
        self._screen("sale.sale", "write", [back], {"lines": changes, "invoice_method": "manual"})
        self._processes(back)

    def gives_back(self, order: ErpRef, gross: Decimal) -> None:
        sale = self._find(order)
        names = ("party", "invoice_address", "shipment_address", "currency", "payment_term", "warehouse")
        common = {name: value for name, value in self._screen.row("sale.sale", sale, *names).items() if name in names}
        line = self._line_of("REFUND-0", 0, -1, gross)
        head = {"origin": f"sale.sale,{sale}", "reference": "by hand", "shipment_method": "manual"}
        (made,) = self._screen("sale.sale", "create", [common | head | {"lines": [["create", [line]]]}])
        self._processes(made)

    def forgets(self, ref: ErpRef) -> ErpRef:
        return self._forget(ref, self._find(ref))

    def types_in(self, number: str) -> None:
        self._screen("party.party", "create", [{"name": "Phone", "code": number}])

    def _as_draft(self, sale: int, values: Fields | dict[str, Any]) -> None:
        """Takes the sale back to draft, writes a value, and takes it to its former state again."""
        state = self._screen.row("sale.sale", sale, "state")["state"]
        if state in ("quotation", "confirmed"):
            self._screen("sale.sale", "draft", [sale])
        self._screen("sale.sale", "write", [sale], values)
        if state in ("quotation", "confirmed"):
            self._screen("sale.sale", "quote", [sale])
        if state == "confirmed":
            self._screen("sale.sale", "confirm", [sale])

    def _presses(self, sale: int, *buttons: tuple[str, str]) -> None:
        """Presses each button if the document is in the state that has it."""
        for state, button in buttons:
            if self._screen.row("sale.sale", sale, "state")["state"] == state:
                self._screen("sale.sale", button, [sale])

    def _processes(self, sale: int) -> None:
        self._presses(sale, ("draft", "quote"), ("quotation", "confirm"), ("confirmed", "process"))

    def _delivers(self, sale: int, *, whole: bool) -> None:
        self._processes(sale)
        for shipment in self._screen.row("sale.sale", sale, "shipments")["shipments"]:
            if not whole:
                (first, *_) = self._screen.row("stock.shipment.out", shipment, "outgoing_moves")["outgoing_moves"]
                quantity = self._screen.row("stock.move", first, "quantity")["quantity"]
                self._screen("stock.shipment.out", "draft", [shipment])
                self._screen("stock.move", "write", [first], {"quantity": quantity - 1})
                self._screen("stock.shipment.out", "wait", [shipment])
            for button in ("assign_force", "pick", "pack", "do"):
                self._screen("stock.shipment.out", button, [shipment])

    def _invoices(self, sale: int, *, paid: bool) -> None:
        self._processes(sale)
        for invoice in self._screen.row("sale.sale", sale, "invoices")["invoices"]:
            self._screen("account.invoice", "write", [invoice], {"invoice_date": self._today()})
            self._screen("account.invoice", "post", [invoice])
            if paid:
                self._pays(invoice)

    def _today(self) -> Any:
        return self._screen("ir.date", "today")

    def _pays(self, invoice: int) -> None:
        row = self._screen.row("account.invoice", invoice, "party", "currency", "company", "amount_to_pay")
        (method, *_) = self._screen.rows("account.invoice.payment.method", [])
        start = {
            "payee": row["party"], "amount": row["amount_to_pay"], "currency": row["currency"],
            "company": row["company"], "payment_method": method["id"], "date": self._today(), "description": None,
        }  # fmt: skip
        self._screen.wizard("account.invoice.pay", [("choice", {"start": start})], "account.invoice", invoice)

    def _cancels(self, sale: int) -> None:
        self._presses(sale, ("confirmed", "draft"), ("draft", "cancel"), ("quotation", "cancel"))
        row = self._screen.row("sale.sale", sale, "state", "shipments", "shipment_returns", "invoices", "lines")
        if row["state"] != "processing":
            return
        for model, name in (
            ("stock.shipment.out", "shipments"), ("stock.shipment.out.return", "shipment_returns"),
            ("account.invoice", "invoices"),
        ):  # fmt: skip
            if row[name]:
                self._screen(model, "cancel", row[name])
        lines = self._screen("sale.line", "read", row["lines"], ["moves"])
        moves = [move for line in lines for move in line["moves"]]
        for wizard, name, documents in (("shipment", "moves", moves), ("invoice", "invoices", row["invoices"])):
            if documents:
                page = {f"ignore_{name}": documents, f"recreate_{name}": [], f"domain_{name}": documents}
                self._screen.wizard(f"sale.handle.{wizard}.exception", [("handle", {"ask": page})], "sale.sale", sale)

    def _other_address(self, sale: int, street: str) -> int:
        party = self._screen.row("sale.sale", sale, "party")["party"]
        (made,) = self._screen("party.address", "create", [{"party": party, "street": street}])
        assert isinstance(made, int)
        return made

    def _line_of(self, code: str, rate: int, quantity: int, price: Decimal) -> dict[str, Any]:
        (item,) = self._screen.rows("product.product", [["code", "=", code]], "default_uom")
        (tax,) = self._screen.rows("account.tax", [["name", "=", f"VAT {rate} %"]])
        return {
            "product": item["id"], "unit": item["default_uom"], "quantity": float(quantity), "unit_price": price,
            "taxes": [["add", [tax["id"]]]],
        }  # fmt: skip

    def _line(self, sale: int, key: str) -> int:
        rows = self._screen.rows("sale.line", [["sale", "=", sale]], "note")
        (found,) = [row["id"] for row in rows if _is(row, key)]
        assert isinstance(found, int)
        return found


def _is(line: Mapping[str, Any], key: str) -> bool:
    return bool(in_note(line["note"]).get(CHILD) == f"line:{key}")


def in_note(text: str | None) -> dict[str, Any]:
    """What we have written into a comment or note."""
    found = OURS.search(text or "")
    return dict(json.loads(found.group(1))) if found else {}


def with_value(text: str, field: str, value: Value) -> str:
    """The text with another value for one of our fields."""
    data = in_note(text)
    assert field in data, "it is not kept there"
    return OURS.sub(lambda _: f"ordertap {json.dumps(data | {field: str(value)})}", text)
