"""Finds columns of the ERP that do not fit the mapping, before the first document is sent. It only reads.

A column that would harm every document is refused: it does not exist, or cannot give back what it was given, as a float
with cents. A column that will hold some documents later is noted, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import sqlalchemy as sa

from sink.erp.contract import Advice
from sink.erp.fields import CHILD_FIELDS, FIELDS, FieldType, ValueType
from sink.erp.kinds import KINDS, Kind, Milestone
from sink.erp.sql.connections import Columns, ErpDatabase, plain_type
from sink.erp.sql.mapping import DocumentTable, LineTable, LinkColumn, Mapped
from sink.erp.sql.reads import link_target

Known = Mapping[str, Columns]
"""The columns that exist, by table."""

_MAKE: Final[Mapping[ValueType, str]] = {
    "text": "varchar(300)", "money": "numeric(14, 2)", "number": "numeric(14, 4)", "yes or no": "boolean",
    "time": "timestamp",
}  # fmt: skip
_CENTS: Final = 2
_DIGITS: Final[Mapping[ValueType, int]] = {"money": 7, "number": 3}  # before the point
_KEY_LENGTH: Final = 100  # room for a shop's name, a kind, and keys of several columns
_WORDS: Final = {"currency": 3, "billing_country": 2, "shipping_country": 2, "kind": len("discount")}
_OF_A_CUSTOMER: Final = {"kind": len("registered")}
_MICROSECONDS: Final = 6


class Use(NamedTuple):
    """A column that the mapping names, and the keys that lead to it there. `type`: of the values that the adapter
    writes."""

    table: str
    column: str
    names: tuple[str, ...]
    type: FieldType | None = None

    @property
    def shown(self) -> str:
        """For people."""
        return f"{self.table}.{self.column}"


class Looked(NamedTuple):
    """What was found."""

    refused: list[Advice]
    notes: list[Advice]


def look(database: ErpDatabase) -> Looked:
    """Compares all mapped columns with the ERP's tables as they are now."""
    mapping = database.mapping
    every = list(uses(mapping))
    known = database.described({use.table for use in every})
    missing = {_missing(use, known): use for use in reversed(every)}
    missing.pop("", None)
    found = Looked([], [])
    for said, use in reversed(missing.items()):
        found.refused.append(_told(mapping, use, said, "correct the mapping, or the rights of the ERP user"))
    if missing:
        return found
    for use in every:
        _of_type(mapping, use, known, database.dialect, found)
    for kind in KINDS:
        document = mapping.of(kind)
        found.refused.extend(_links_that_cannot_lead(database, kind, known))
        found.notes.extend(_left_empty(document, known, database.dialect))
        _of_states(mapping, kind, known, found)
    return Looked(_once(found.refused), _once(found.notes))


def uses(mapping: Mapped) -> Iterator[Use]:
    """Every column that the mapping names."""
    text, number = FieldType("text"), FieldType("number")
    yield Use(mapping.identity.table, mapping.identity.column, ("identity", "column"))
    yield Use(mapping.items.table, mapping.items.sku, ("items", "sku"), text)
    for kind in KINDS:
        document = mapping.of(kind)
        yield Use(document.table, document.key, (kind, "key"), text)
        yield Use(document.table, document.revision, (kind, "revision"), number)
        yield Use(document.table, document.id, (kind, "id"))
        yield Use(document.table, document.reference, (kind, "reference"))
        if document.status:
            yield Use(document.table, document.status, (kind, "status"))
        yield from _fields_and_links(mapping, document, (kind,), FIELDS[kind])
        if document.lines is not None:
            lines, at = document.lines, (kind, "lines")
            yield Use(lines.table, lines.key, (*at, "key"), text)
            yield Use(lines.table, lines.id, (*at, "id"))
            yield Use(lines.table, lines.parent, (*at, "parent"))
            yield from _fields_and_links(mapping, lines, at, CHILD_FIELDS[kind])


def _fields_and_links(
    mapping: Mapped, rows: DocumentTable | LineTable, at: tuple[str, ...], types: Mapping[str, FieldType]
) -> Iterator[Use]:
    for name, column in rows.fields.items():
        yield Use(rows.table, column, (*at, "fields", name), types[name])
    for name, link in rows.links.items():
        yield Use(rows.table, link.column, (*at, "links", name, "column"))
        if link.by:
            yield Use(link_target(mapping, name).table, link.by, (*at, "links", name, "by"))


def _missing(use: Use, known: Known) -> str:
    if use.table not in known:
        return f"the ERP has no table {use.table}"
    return "" if use.column in known[use.table] else f"the ERP has no {use.shown}"


def _told(mapping: Mapped, use: Use, said: str, fix: str) -> Advice:
    return Advice(f"{mapping.where(*use.names)}: {said}", fix)


def _of_type(mapping: Mapped, use: Use, known: Known, dialect: str, found: Looked) -> None:
    """Finds out whether the column gives back what it is given, and which values it does not take."""
    column = known[use.table][use.column]
    if use.type is None:
        return
    kind, type_ = use.type.type, plain_type(column)
    fix = f"make it {_MAKE[kind]}, or name another column"
    if "computed" in column or column.get("identity", {}).get("always"):
        found.refused.append(_told(mapping, use, f"{use.shown} is filled by the ERP itself", "name another column"))
    elif unfit := _unfit(kind, type_, dialect):
        found.refused.append(_told(mapping, use, f"{use.shown} is {_name(type_)}, {unfit}", fix))
    else:
        for said in _narrow(use, type_, dialect):
            found.notes.append(_told(mapping, use, f"{use.shown} is {_name(type_)}, {said}", fix))
        if use.type.empty and not column["nullable"]:
            said = f"{use.shown} must have a value, and the shop may have none: such a document is held"
            found.notes.append(_told(mapping, use, said, "allow it to be empty (DROP NOT NULL)"))


def _name(type_: sa.types.TypeEngine[object]) -> str:
    return str(type_).partition(" COLLATE")[0]


def _unfit(kind: ValueType, type_: sa.types.TypeEngine[object], dialect: str) -> str:
    """Why a column does not give back values of a kind as they were; '' if it does, or if nobody knows."""
    if isinstance(type_, sa.types.NullType):
        return ""
    exact, whole = isinstance(type_, sa.Numeric) and not isinstance(type_, sa.Float), isinstance(type_, sa.Integer)
    match kind:
        case "text":
            return "" if isinstance(type_, sa.String) else "which is not text"
        case "money":
            return _loses_cents(type_, exact, whole)
        case "number":
            return "" if exact or whole else "which does not keep a number exactly"
        case "yes or no":
            fits = isinstance(type_, sa.Boolean) or (whole and dialect != "postgresql")
            return "" if fits else "which is not a yes or no"
    return "" if isinstance(type_, sa.DateTime) else "which is not a date with a time"


def _loses_cents(type_: sa.types.TypeEngine[object], exact: bool, whole: bool) -> str:
    if not exact:
        return "which cannot hold cents" if whole else "which does not keep cents exactly"
    scale = getattr(type_, "scale", None)
    return "which rounds cents" if scale is not None and scale < _CENTS else ""


def _narrow(use: Use, type_: sa.types.TypeEngine[object], dialect: str) -> Iterator[str]:
    """Which values of this kind the column does not take."""
    if use.type is None or use.names[-1] == "revision":
        return
    precision, scale = getattr(type_, "precision", None), getattr(type_, "scale", None) or 0
    digits = _DIGITS.get(use.type.type)
    if digits and isinstance(precision, int) and precision - scale < digits:
        yield f"which takes less than {10 ** (precision - scale)}: a document with more is held"
    if use.type.type == "number" and (isinstance(type_, sa.Integer) or (isinstance(precision, int) and not scale)):
        yield "which cannot hold decimals: a document with some is held"
    if use.type.type == "text":
        yield from _short(use, type_, dialect)
    if use.type.type == "time" and _fraction(type_, dialect) < _MICROSECONDS:
        yield "which cuts fractions of a second: a document with some is held"


def _fraction(type_: sa.types.TypeEngine[object], dialect: str) -> int:
    """How many digits of a second the column keeps. MariaDB keeps none unless told."""
    named = getattr(type_, "fsp", None) if dialect in ("mysql", "mariadb") else getattr(type_, "precision", None)
    usual = 0 if dialect in ("mysql", "mariadb") else _MICROSECONDS
    return named if isinstance(named, int) else usual


def _short(use: Use, type_: sa.types.TypeEngine[object], dialect: str) -> Iterator[str]:
    length, name = getattr(type_, "length", None), use.names[-1]
    words = _WORDS | (_OF_A_CUSTOMER if use.names[0] == "customer" else {})
    needed = _KEY_LENGTH if name == "key" else words.get(name, 0)
    if length is not None and length < needed:
        yield f"and {'our keys' if name == 'key' else name} may have {needed} characters: a document with more is held"
    if isinstance(type_, sa.CHAR) and length != needed and dialect not in ("sqlite", "mysql", "mariadb"):
        yield "which is padded with blanks: a document with a shorter value is held"


def _left_empty(document: DocumentTable, known: Known, dialect: str) -> Iterator[Advice]:
    """Columns that need a value and get none from us. A trigger may fill them, which cannot be seen from here."""
    lines = [(document.lines.table, document.lines.written)] if document.lines else []
    for table, written in [(document.table, document.written), *lines]:
        for name, column in known[table].items():
            numbered = "identity" in column or column.get("autoincrement") is True or "computed" in column
            if dialect == "sqlite" and dict(column).get("primary_key") and isinstance(column["type"], sa.Integer):
                numbered = True  # SQLite: another name of the row's own number
            if name not in written and not column["nullable"] and column["default"] is None and not numbered:
                said = f"{table}.{name} must have a value, has no default, and the mapping does not name it"
                yield Advice(said, f"ALTER TABLE {table} ALTER COLUMN {name} SET DEFAULT …, or name it in the mapping")


def _links_that_cannot_lead(database: ErpDatabase, kind: Kind, known: Known) -> Iterator[Advice]:
    """Columns whose type differs from that of their target: each look at a document would fail."""
    for at, rows in _rows(database.mapping, kind):
        for name, link in rows.links.items():
            target = link_target(database.mapping, name)
            here, there = known[rows.table][link.column], known[target.table][link.by or target.id]
            if {_sort(plain_type(here)), _sort(plain_type(there))} == {"text", "number"}:
                said = (
                    f"{rows.table}.{link.column} is {_name(plain_type(here))} and cannot refer to "
                    f"{target.table}.{link.by or target.id}, {_name(plain_type(there))}"
                )
                use = Use(rows.table, link.column, (*at, "links", name))
                yield _told(database.mapping, use, said, "name in `by` the column that it refers to")


def _rows(mapping: Mapped, kind: Kind) -> Iterator[tuple[tuple[str, ...], DocumentTable | LineTable]]:
    document = mapping.of(kind)
    yield (kind,), document
    if document.lines is not None:
        yield (kind, "lines"), document.lines


def _sort(type_: sa.types.TypeEngine[object]) -> str:
    if isinstance(type_, sa.String):
        return "text"
    return "number" if isinstance(type_, sa.Integer | sa.Numeric) else ""


def _of_states(mapping: Mapped, kind: Kind, known: Known, found: Looked) -> None:
    """Checks that the mapped states can be written, and that there is one for each milestone that documents reach."""
    document = mapping.of(kind)
    if document.status is None:
        if kind in ("order", "price"):
            said = "no `status`: what the shop cancels is held"
            found.notes.append(Advice(f"{mapping.where(kind)}: {said}", "name the column of its state"))
        return
    use = Use(document.table, document.status, (kind, "milestones"))
    type_ = plain_type(known[document.table][document.status])
    named = getattr(type_, "enums", None) or []
    for state in document.milestones:
        at = use._replace(names=(kind, "milestones", state))
        if named and state not in named:
            found.refused.append(_told(mapping, at, f"{use.shown} has no value `{state}`", "correct the state"))
        elif (length := getattr(type_, "length", None)) is not None and len(state) > length:
            found.refused.append(_told(mapping, at, f"{use.shown} is {_name(type_)}, too short for it", "widen it"))
    strange = [state for state in named if state not in document.milestones]
    if strange:
        said = f"{use.shown} may be {', '.join(map(repr, strange))}, unknown to the mapping: such a document is held"
        found.notes.append(_told(mapping, use, said, "name them in `milestones`"))
    found.notes.extend(_told(mapping, use, said, "name one in `milestones`") for said in _not_reached(kind, document))


def _not_reached(kind: Kind, document: DocumentTable) -> Iterator[str]:
    """The milestones that have no state. Credit notes stay drafts; other documents may skip the draft."""
    first = [Milestone.DRAFT] if kind == "refund" else [Milestone.DRAFT, Milestone.CONFIRMED]
    if not any(document.state_of(one) is not None for one in first):
        yield f"no state means {' or '.join(first)}: each {kind} is held"
    if kind in ("order", "price") and document.state_of(Milestone.CANCELLED) is None:
        yield f"no state means {Milestone.CANCELLED}: what the shop cancels is held"


def keys(database: ErpDatabase) -> list[Advice]:
    """Missing unique constraints and indexes: without them a key may be there twice, or a look at an order reads a
    whole table."""
    mapping = database.mapping
    unique: dict[tuple[str, str], str] = {}
    led_by = [(mapping.items.table, mapping.items.sku)]
    for kind in KINDS:
        for _, rows in _rows(mapping, kind):
            unique[rows.table, rows.key] = "a document could be made twice"
            led_by += [(rows.table, link.column) for link in rows.links.values()]
            led_by += [(rows.table, rows.parent)] if isinstance(rows, LineTable) else []
            for name, link in rows.links.items():
                unique |= _referred_to(mapping, name, link)
    found = []
    indexes = {table: database.leading_columns(table) for table, _ in {**unique, **dict.fromkeys(led_by, "")}}
    for (table, column), harm in unique.items():
        if column not in indexes[table][1]:
            found.append(
                Advice(f"{table}.{column} is not unique: {harm}", f"CREATE UNIQUE INDEX ON {table} ({column})")
            )
    for table, column in dict.fromkeys(led_by):
        if column not in indexes[table][0]:
            said = f"{table}.{column} has no index: each look at a document reads all of it"
            found.append(Advice(said, f"CREATE INDEX ON {table} ({column})"))
    return found


def _referred_to(mapping: Mapped, name: str, link: LinkColumn) -> dict[tuple[str, str], str]:
    target = link_target(mapping, name)
    return {(target.table, link.by or target.id): "a document could be booked to another"}


def _once(some: list[Advice]) -> list[Advice]:
    return list(dict.fromkeys(some))
