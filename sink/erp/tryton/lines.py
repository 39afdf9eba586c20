"""A document's children as lines of a sale, both ways, to the cent. Pure.

Tryton keeps a net unit price with a fixed number of decimals, and adds up the tax line by line. If the shop's tax at a
rate differs by some cents, a line of its own makes up for it: price 0, and a tax of 0.01 per piece, so a yen takes a
hundred. What Tryton has
no field for is in the line's note. The note counts as long as Tryton's own figures still equal those in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from typing import Any, Final, NamedTuple, Protocol

from sink.erp.contract import HoldError
from sink.erp.fields import CHILD_FIELDS, CHILD_LINKS, FieldType
from sink.erp.kinds import (
    BY_HAND,
    PARTS,
    ErpRecord,
    ErpRef,
    Fields,
    Kind,
    PartKind,
    Sums,
    Value,
    count,
    not_kept,
    same,
)
from sink.erp.money import money
from sink.erp.tryton import notes

Row = Mapping[str, Any]

Taxes = Mapping[tuple[str, str], Sequence[int]]
"""The taxes of lines that are there, by part and key, or by `rounding` and rate. A line keeps them while its rate
stays: they may be inactive by now, and in processing Tryton changes no tax."""

_ZERO: Final = Decimal(0)
_CENT: Final = Decimal("0.01")
"""What one piece of the `cent` service adds, whatever the currency."""
_EXACT: Final = ("net", "quantity", "tax_rate", "sku")
"""Fields that Tryton keeps itself. The note belongs to the line as long as they are what we wrote."""
ROUNDING: Final = "rounding"
CHILD: Final = "child"
_IN_NOTE: Final = (
    "kind",
    "unit_price",
    "discount",
    "tax",
    "net",
    "quantity",
    "tax_rate",
    "sku",
    "name",
    "order_line",
    "reason",
)


class Product(Protocol):
    """A product in Tryton, and its sales unit. digits: decimals of a quantity in that unit."""

    @property
    def id(self) -> int: ...
    @property
    def unit(self) -> int: ...
    @property
    def digits(self) -> int: ...


class Goods(Protocol):
    """What Tryton can book to. HoldError if it is missing. Rates are in percent."""

    def item(self, sku: str) -> Product: ...

    def service(self, kind: str, rate: Decimal) -> Product:
        """The service product for a kind of charge, or for `discount`, `refund` or `cent`."""
        ...

    def tax(self, rate: Decimal) -> int: ...

    def rate_of(self, tax_ids: Collection[int]) -> Decimal | None: ...

    def cent(self, rate: Decimal) -> int:
        """The tax of the `cent` service."""
        ...

    def is_cent(self, tax_ids: Collection[int]) -> bool: ...


class Scale(NamedTuple):
    """minor: the smallest amount of a currency. price: the smallest step of a unit price. rounds: whether rounding
    lines may be added."""

    minor: Decimal
    price: Decimal
    rounds: bool = True


class Booked(NamedTuple):
    """A child as Tryton books it: its net unit price, and the amounts Tryton calculates from that."""

    price: Decimal
    net: Decimal
    tax: Decimal


def booked(fields: Fields, scale: Scale) -> Booked:
    """Books a child by Tryton's arithmetic. HoldError if it has no amounts."""
    quantity, net, rate = _quantity(fields), _number(fields, "net"), _number(fields, "tax_rate")
    if not quantity:
        raise HoldError("a line has the quantity 0", "fix it in the shop, then `sink retry`", "data")
    price = (net / quantity).quantize(scale.price, ROUND_HALF_EVEN)
    return Booked(price, _rounded(price * quantity, scale.minor), _rounded(price * quantity * rate / 100, scale.minor))


def roundings(record: ErpRecord, scale: Scale, known: Mapping[Decimal, Decimal] = {}) -> dict[Decimal, Decimal]:
    """The amounts by which the shop's tax exceeds Tryton's, by rate. known: what it may differ more than by its own
    rounding, by rate. HoldError if a net amount cannot be met, or if the difference is too large for rounding."""
    as_booked: dict[PartKind, dict[str, Fields]] = {}
    for part, key, fields in children(record):
        as_booked.setdefault(part, {})[key] = {"net": booked(fields, scale).net}
    sums = {name: record.fields[name] for name in ("net", "tax", "gross") if name in record.fields}
    kept = {name: _rounded(value, scale.minor) for name, value in sums.items() if isinstance(value, Decimal)}
    if wrong := not_kept(record, ErpRecord(record.kind, kept, as_booked)):
        hint = "make Tryton keep more decimals of a price (`price_decimal` in its configuration), then `sink retry`"
        raise HoldError(f"the ERP did not store it as sent: {wrong}", hint, "data")
    found: dict[Decimal, Decimal] = {}
    for rate, taxes in _taxes(record, scale).items():
        amount = sum((one.shop - one.line for one in taxes), _ZERO)
        if not _is_rounding(taxes, scale, known.get(rate, _ZERO)):
            hint = "compare their tax at this rate (erp.rounding: line evens cents out), then `sink retry`"
            raise HoldError(f"at {count(rate)} % the shop's tax is {money(amount)} more than the ERP's", hint)
        if amount:
            found[rate] = amount
    return found


def differences(record: ErpRecord, scale: Scale) -> dict[Decimal, Decimal]:
    """By how much the shop's tax of single lines differs from Tryton's, added up by rate. Refunds of an order may
    differ as much."""
    return {
        rate: sum((abs(one.shop - one.line) for one in taxes), _ZERO) for rate, taxes in _taxes(record, scale).items()
    }


class _Taxes(NamedTuple):
    """The tax of one line: the shop's, Tryton's, and that of a shop that rounds the tax of each unit."""

    shop: Decimal
    line: Decimal
    unit: Decimal


def _taxes(record: ErpRecord, scale: Scale) -> dict[Decimal, list[_Taxes]]:
    included = bool(record.fields.get("tax_included", True))
    found: dict[Decimal, list[_Taxes]] = {}
    for part, _, fields in children(record):
        line = booked(fields, scale).tax
        unit = _tax_by_unit(fields, scale.minor, included) if part == "line" else None
        taxes = _Taxes(_number(fields, "tax"), line, line if unit is None else unit)
        found.setdefault(_number(fields, "tax_rate"), []).append(taxes)
    return found


def _tax_by_unit(fields: Fields, minor: Decimal, included: bool) -> Decimal | None:
    """The tax of a line in a shop that rounds the tax of each unit, half up, and takes as much of it as is paid
    after the discount. None if that is nothing."""
    unit, rate = _or_nothing(fields, "unit_price"), _number(fields, "tax_rate")
    exact = unit * rate / (100 + (rate if included else _ZERO))
    each = (exact / minor).quantize(Decimal(1), ROUND_HALF_UP) * minor
    paid = _number(fields, "net") + (_number(fields, "tax") if included else _ZERO)
    return each * paid / unit if each else None


def _is_rounding(taxes: Collection[_Taxes], scale: Scale, known: Decimal) -> bool:
    """Whether the shop's tax is what rounding makes of it. Both sides round each line by up to half a unit."""
    by_line = abs(sum((one.shop - one.line for one in taxes), _ZERO))
    by_unit = abs(sum((one.shop - one.unit for one in taxes), _ZERO))
    most = scale.minor * len(taxes)
    return min(by_line - known, by_unit) <= most if scale.rounds else not by_line


def children(record: ErpRecord) -> Iterator[tuple[PartKind, str, Fields]]:
    """Part, key and fields of each child."""
    for part, rows in record.parts.items():
        for key, fields in rows.items():
            yield part, key, fields


def values(
    record: ErpRecord,
    goods: Goods,
    scale: Scale,
    sign: int = 1,
    known: Mapping[Decimal, Decimal] = {},
    taxes: Mapping[tuple[str, str], Sequence[int]] = {},
) -> list[dict[str, Any]]:
    """The values of all lines, rounding lines too. sign: -1 for what is given back. known: as for `roundings`. taxes:
    `Taxes`. HoldError if Tryton has nothing to book a line to, or would calculate other amounts."""
    more, included = roundings(record, scale, known), bool(record.fields.get("tax_included", True))
    found = [
        _line(part, key, fields, goods, scale, sign, included) | _taxed(fields, goods, taxes.get((part, key), ()))
        for part, key, fields in children(record)
    ]
    return found + [
        _rounding(rate, amount, goods, sign, taxes.get((ROUNDING, count(rate)), ()))
        for rate, amount in sorted(more.items())
    ]


def _taxed(fields: Fields, goods: Goods, had: Sequence[int]) -> dict[str, Any]:
    rate = _number(fields, "tax_rate")
    return {"taxes": [*had] if goods.rate_of(had) == rate else [goods.tax(rate)]}


def _line(
    part: PartKind, key: str, fields: Fields, goods: Goods, scale: Scale, sign: int, included: bool
) -> dict[str, Any]:
    rate, quantity = _number(fields, "tax_rate"), _quantity(fields)
    item, price = _item(part, fields, goods), booked(fields, scale).price
    if quantity != quantity.quantize(Decimal(1).scaleb(-item.digits)):
        said = f"{part}:{key} quantity: the shop has {count(quantity)}, the ERP keeps {item.digits} decimals of it"
        raise HoldError(
            f"the ERP did not store it as sent: {said}", "give the product a finer unit, then `sink retry`", "data"
        )
    discount = _or_nothing(fields, "discount") / quantity / ((1 + rate / 100) if included else 1)
    return {
        "type": "line", "product": item.id, "unit": item.unit, "quantity": float(sign * quantity),
        "unit_price": price, "base_price": price + discount.quantize(scale.price, ROUND_HALF_EVEN),
        "description": described(part, fields), "note": note(part, key, fields),
    }  # fmt: skip


def described(part: PartKind, fields: Fields) -> str:
    """What people read on the line, stripped, as Tryton strips it."""
    return str(fields.get("name") or "").strip() or str(fields.get("sku") or fields.get("reason") or part)


def note(part: PartKind, key: str, fields: Fields) -> str:
    """The note of a line: our key, and what Tryton has no field for."""
    return notes.written(None, {CHILD: f"{part}:{key}", **{name: fields[name] for name in _IN_NOTE if name in fields}})


def _item(part: PartKind, fields: Fields, goods: Goods) -> Product:
    if part != "line":
        service = {"discount": "discount", "component": "refund"}.get(part) or str(fields.get("name") or part)
        return goods.service(service, _number(fields, "tax_rate"))
    if not fields.get("sku"):
        raise HoldError("a line has no SKU", "fix it in the shop, then `sink retry`", "data")
    return goods.item(str(fields["sku"]))


def _rounding(rate: Decimal, amount: Decimal, goods: Goods, sign: int, had: Sequence[int]) -> dict[str, Any]:
    """A line that adds an amount of tax. HoldError if its unit is too coarse for it."""
    item, pieces = goods.service("cent", rate), amount / _CENT
    if pieces != pieces.quantize(Decimal(1).scaleb(-item.digits)):
        reason = f"at {count(rate)} % the shop's tax is {amount} more than the ERP's, and the least it adds is a cent"
        raise HoldError(reason, "give the cent item a unit with decimals there, then `sink retry`", "master data")
    return {
        "type": "line", "product": item.id, "unit": item.unit, "quantity": float(sign * pieces), "unit_price": _ZERO,
        "base_price": _ZERO, "taxes": [*had] if goods.is_cent(had) else [goods.cent(rate)],
        "description": f"Rounding {count(rate)} %", "note": notes.written(None, {ROUNDING: count(rate)}),
    }  # fmt: skip


class Read(NamedTuple):
    """The lines of a sale as Tryton shows them: children by part and key, the line of each child, and sums by rate."""

    parts: dict[PartKind, dict[str, Fields]]
    lines: dict[tuple[PartKind, str], Row]
    rates: dict[Decimal, Sums]


def read(kind: Kind, lines: Sequence[Row], goods: Goods, minor: Decimal, ours: bool, sign: int = 1) -> Read:
    """Reads the lines of a sale. A line with the quantity 0 counts as deleted. ours: whether the notes can be trusted;
    those of a copied sale cannot."""
    found = Read({part: {} for part in PARTS[kind]}, {}, {})
    for line in lines:
        if line["type"] != "line" or not line["quantity"]:
            continue
        noted, quantity = notes.read(line["note"]), sign * _decimal(line["quantity"])
        if goods.is_cent(line["taxes"]):
            rate = _or_nothing(notes.typed(noted, {ROUNDING: FieldType("number")}), ROUNDING)
            _add(found.rates, rate, _ZERO, quantity * _CENT)
            continue
        part, key, fields = _child(kind, line, goods, noted if ours else {}, sign)
        if key in found.parts[part]:  # somebody has copied a line together with its note
            key = f"{BY_HAND}{line['id']}"
        rate, net = goods.rate_of(line["taxes"]) or _ZERO, sign * _decimal(line["amount"] or 0)
        tax = _rounded(_decimal(line["unit_price"] or 0) * quantity * rate / 100, minor)
        _add(found.rates, rate, net, tax)
        found.parts[part][key] = {"tax": tax, "gross": net + tax, **fields}
        found.lines[part, key] = line
    return found


def _child(kind: Kind, line: Row, goods: Goods, noted: Mapping[str, Any], sign: int) -> tuple[PartKind, str, Fields]:
    """Part, key and fields; with a tax only if the note has it."""
    named = child_of(noted)
    if named and named[0] not in PARTS[kind]:
        named = None
    part: PartKind = named[0] if named else PARTS[kind][0]
    code = (line.get("product.") or {}).get("code") if part == "line" else None
    net = sign * _decimal(line["amount"] or 0)
    fields: dict[str, Value] = {
        "sku": code, "name": line["description"] or None, "quantity": sign * _decimal(line["quantity"]),
        "tax_rate": goods.rate_of(line["taxes"]) or _ZERO, "net": net,
    }  # fmt: skip
    written = notes.typed(noted, CHILD_FIELDS[kind])
    if named:
        fields = {name: value for name, value in fields.items() if name in written or name in ("net", "tax_rate")}
    if "name" in written and fields.get("name") == described(part, written):  # whatever else a clerk has changed
        fields["name"] = written["name"]
    if named and all(same(fields.get(name), written.get(name)) for name in _EXACT):
        fields |= {name: written[name] for name in ("kind", "unit_price", "discount") if name in written}
        if isinstance(tax := written.get("tax"), Decimal):
            fields |= {"tax": tax, "gross": net + tax}
    if "order_line" in CHILD_LINKS[kind] and "order_line" in noted:
        sold = noted["order_line"]
        fields["order_line"] = None if sold is None else ErpRef("order", str(sold))
    return part, named[1] if named else f"{BY_HAND}{line['id']}", fields


def child_of(noted: Mapping[str, Any]) -> tuple[PartKind, str] | None:
    """Part and key of the child that a note names."""
    found, _, key = str(noted.get(CHILD, "")).partition(":")
    return next(((part, key) for some in PARTS.values() for part in some if part == found), None)


def _add(rates: dict[Decimal, Sums], rate: Decimal, net: Decimal, tax: Decimal) -> None:
    was = rates.get(rate, Sums())
    rates[rate] = Sums(was.net + net, was.tax + tax, was.gross + net + tax)


def _number(fields: Fields, name: str) -> Decimal:
    value = fields.get(name)
    if not isinstance(value, Decimal):
        raise HoldError(f"a line has no {name}", "fix it in the shop, then `sink retry`", "data")
    return value


def _quantity(fields: Fields) -> Decimal:
    """The quantity, 1 if there is none: a component of a refund needs none."""
    return _number(fields, "quantity") if "quantity" in fields else Decimal(1)


def _or_nothing(fields: Fields, name: str) -> Decimal:
    value = fields.get(name)
    return value if isinstance(value, Decimal) else _ZERO


def _decimal(value: Any) -> Decimal:
    return value if isinstance(value, Decimal) else Decimal(str(value))


def _rounded(value: Decimal, minor: Decimal) -> Decimal:
    """Rounded as Tryton rounds money."""
    return (value / minor).quantize(Decimal(1), ROUND_HALF_EVEN) * minor
