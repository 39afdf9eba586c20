"""`sink link` and `sink unlink`: documents that people typed into the ERP."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any, Final, NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, Cursor, transaction
from sink.documents.models import Built, Document, Invalid, Missing, NotReady, SalesOrder
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF, record
from sink.documents.refs import DocumentRef
from sink.erp.commands import ChangedField, amount_of, unlike
from sink.erp.contract import Erp, Found
from sink.erp.kinds import BY_HAND, ErpRecord, ErpRef, Kind, Milestone
from sink.erp.money import money
from sink.ledger import decisions, documents, history, marks
from sink.ledger.documents import Entry
from sink.ledger.outcomes import State, why_not_ready
from sink.operations.accept import busy
from sink.operations.show import built_of, buyers_of, kind_of, links_of
from sink.planning import adoption
from sink.planning.decisions import Decisions

_WHICH: Final = "say which: `sink link {ref} {first}`"
_SEVERAL: Final = 10


class Linked(NamedTuple):
    """A link. `hand`: the ERP's own key (`hand:7`); `ours`, `theirs`: gross, None if there is none; `lines`: our
    children → the ERP's lines; `differences`: what still differs (`one`: the shop's side), and is sent afterwards as
    the rules allow."""

    ref: DocumentRef
    hand: str
    reference: str
    milestone: str
    ours: Decimal | None
    theirs: Decimal | None
    currency: str | None
    lines: Mapping[str, str]
    differences: Sequence[ChangedField]


class LinkSides(NamedTuple):
    """What a link needs. `built`: documents that were already built, in one read."""

    connection: Connection
    profile: Profile
    shop: str
    erp: Erp
    built: Mapping[DocumentRef, Built] = {}


def link(
    sides: LinkSides, ref: DocumentRef, reference: str, accept_difference: bool, person: str, execute: bool
) -> Linked:
    """Links a document that the ERP was not given to one that was typed in there. `execute` does it.

    `reference`: the ERP's number, the shop's number as it was typed in, or the ERP's own key (`hand:7`). SettingsError
    if the ERP has none or several, if that one is cancelled or another document's, if lines are ambiguous, or if the
    amounts differ without `accept_difference`.
    """
    kind = _kind(sides.profile, ref)
    desired = _shop_side(sides, ref)
    found = _the_one(sides.erp, ref, kind, reference)
    told = _compared(ref, desired, found)
    if told.ours != told.theirs and not accept_difference:
        ours, theirs = (money(amount, told.currency) for amount in (told.ours, told.theirs))
        amounts = f"the shop's {ref} comes to {ours}, {found.ref.external} of the ERP to {theirs or 'nothing'}"
        raise SettingsError(amounts, "is it the right one? `--accept-difference` links it, and the difference is sent")
    with transaction(sides.connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])  # no worker can take it from here on
        said = _free(cursor, sides.profile, ref, kind, found.ref.external)
        if execute:
            documents.save(cursor, ref, decisions=replace(said, linked=found.ref.external).to_json())
            history.note(cursor, ref, "linked", f"{found.ref.external}, {told.reference}", person)
            marks.look_anew(cursor, [ref, *(one.ref for one in decisions.with_dependants(cursor, ref))])
    return told


class Unlinked(NamedTuple):
    """A link that was taken back. `adopted`: the ERP's document had our key."""

    ref: DocumentRef
    hand: str
    adopted: bool


def unlink(sides: LinkSides, ref: DocumentRef, person: str, execute: bool) -> Unlinked:
    """Takes a link back, so that the ERP gets a document of its own. `execute` does it.

    SettingsError if there is no link, if the ERP's document still has our key (a person has to clear it first), or if
    something else was sent since.
    """
    kind = _kind(sides.profile, ref)
    with transaction(sides.connection) as cursor:
        entry = documents.entry(cursor, ref)
    if entry is None or not entry.linked:
        raise SettingsError(f"{ref} is not linked", "`sink link` links it")
    if entry.applied and entry.external and sides.erp.observe([ErpRef(kind, entry.external)]):
        step = (
            f"clear the key {entry.external} there, then try again; the ERP's document then counts as typed in by hand"
        )
        raise SettingsError(f"the ERP's {entry.linked} has the key of {ref}", step)
    with transaction(sides.connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])
        told = _still_linked(cursor, ref, entry)
        if execute:
            documents.save(cursor, ref, **_as_before(entry))
            history.note(cursor, ref, "unlinked", told.hand, person)
            marks.look_anew(cursor, [ref, *(one.ref for one in decisions.with_dependants(cursor, ref))])
    return told


class LinkedRow(NamedTuple):
    """A line of a file: its link, or why it is refused and what to do."""

    number: int
    ref: str
    linked: Linked | None
    refused: str = ""
    next_step: str = ""


def link_all(
    sides: LinkSides, rows: Iterable[Sequence[str]], accept_difference: bool, person: str, execute: bool
) -> list[LinkedRow]:
    """Links each row `type,key,reference`; a first row with these words is a heading. `execute` links all rows that are
    well. If two rows name one document of the ERP, the second is refused."""
    found: list[LinkedRow] = []
    taken: dict[str, int] = {}
    every = [[cell.strip() for cell in row] for row in rows]
    refs = {DocumentRef(*cells[:2]) for cells in every if len(cells) == 3}
    sides = sides._replace(built=built_of(sides.connection, sides.profile, sides.shop, refs))
    for number, cells in enumerate(every, 1):
        if not any(cells) or (number == 1 and cells == ["type", "key", "reference"]):
            continue
        name = " ".join(cells[:2])
        try:
            found.append(
                LinkedRow(number, name, _of_row(sides, cells, taken, number, accept_difference, person, execute))
            )
        except SettingsError as error:
            found.append(LinkedRow(number, name, None, error.message, error.hint))
    return found


def _of_row(
    sides: LinkSides, cells: Sequence[str], taken: dict[str, int], number: int, accept: bool, person: str, execute: bool
) -> Linked:
    if len(cells) != 3 or not all(cells):
        raise SettingsError("it is not `type,key,reference`", "correct the line")
    ref = DocumentRef(cells[0], cells[1])
    told = link(sides, ref, cells[2], accept, person, execute=False)
    hand = f"{ref.type} {told.hand}"
    if hand in taken:
        raise SettingsError(f"{told.hand} of the ERP is that of line {taken[hand]}", "name another one")
    taken[hand] = number
    return link(sides, ref, told.hand, accept, person, execute) if execute else told


def _kind(profile: Profile, ref: DocumentRef) -> Kind:
    kind = kind_of(profile, ref)
    if kind is None or kind == "price":
        named = ", ".join(name for name, rule in profile.documents.items() if KIND_OF[rule.model] != "price")
        raise SettingsError(f"{ref.type} cannot be linked", f"one of {named}")
    return kind


def _shop_side(sides: LinkSides, ref: DocumentRef) -> ErpRecord:
    """The document from the copy, as an ERP record."""
    every = sides.built if ref in sides.built else built_of(sides.connection, sides.profile, sides.shop, [ref])
    built = every.get(ref)
    match built:
        case None | Missing():
            raise SettingsError(f"the shop has no {ref}", "`sink list` shows what there is")
        case NotReady(until):
            raise SettingsError(f"{ref} is not ready: {why_not_ready(until)}", "link it when it is ready")
        case Invalid():
            raise SettingsError(f"{ref}: {built.reason}", built.next_step)
    with transaction(sides.connection) as cursor:
        others = documents.entries_of(cursor, {*buyers_of(sides.profile, [built]), *_order_of(sides.profile, built)})
    links = links_of(sides.profile, built, others)
    if _order_of(sides.profile, built) and not links:
        raise SettingsError(f"the order of {ref} is not in the ERP yet", "link that one first, or wait for it")
    if isinstance(built, SalesOrder):
        links = {**links, "cancelled": built.status == "cancelled"}
    return record(built, links)


def _order_of(profile: Profile, document: Document) -> list[DocumentRef]:
    """The order that it belongs to, if any."""
    order: Any = getattr(document, "order", None)
    return [DocumentRef(profile.of_model("SalesOrder")[0].name, order)] if isinstance(order, str) else []


def _the_one(erp: Erp, ref: DocumentRef, kind: Kind, reference: str) -> Found:
    """The ERP's document. SettingsError if there is none, or several, or one that cannot be linked."""
    found = _find(erp, kind, reference)
    if not found:
        step = "give its number there, or the shop's number as it was typed in"
        raise SettingsError(f"the ERP has no {kind} {reference}", step)
    if len(found) > 1:
        every = "; ".join(map(_named, found[:_SEVERAL]))
        step = _WHICH.format(ref=ref, first=found[0].ref.external)
        raise SettingsError(f"the ERP has {len(found)} {kind}s {reference}: {every}", step)
    (one,) = found
    if not one.ref.external.startswith(BY_HAND):
        raise SettingsError(
            f"{reference} of the ERP has the key {one.ref.external}", "it belongs to that document: name another one"
        )
    if one.observed.milestone is None:
        raise SettingsError(f"{one.ref.external}: {one.observed.problem}", "correct it in the ERP")
    if one.observed.milestone is Milestone.CANCELLED:
        raise SettingsError(f"{_named(one)} is cancelled in the ERP", "open it again there, or name another one")
    return one


def _find(erp: Erp, kind: Kind, reference: str) -> list[Found]:
    if reference.startswith(BY_HAND):
        return [Found(ref, seen) for ref, seen in erp.observe([ErpRef(kind, reference)]).items()]
    found: dict[ErpRef, Found] = {}
    for name in ("reference", "number"):
        try:
            found |= {one.ref: one for one in erp.find(kind, {name: reference})}
        except SettingsError:  # this ERP does not keep the shop's number
            continue
    return list(found.values())


def _named(found: Found) -> str:
    """For people."""
    seen = found.observed
    currency = _currency(seen.record)
    gross = money(amount_of(seen.record), currency)
    amount = f", {gross} {currency or ''}".rstrip() if gross else ""
    return f"{found.ref.external} ({seen.reference}{amount}, {seen.milestone or seen.problem})"


def _currency(record: ErpRecord) -> str | None:
    found = record.fields.get("currency")
    return found if isinstance(found, str) else None


def _compared(ref: DocumentRef, desired: ErpRecord, found: Found) -> Linked:
    """Compares both sides. SettingsError if lines are ambiguous."""
    matched = adoption.matched(desired, found.observed.record)
    if matched.unclear:
        raise SettingsError(adoption.unclear(matched), "make them distinct in the ERP, then try again")
    seen = found.observed
    return Linked(
        ref,
        found.ref.external,
        seen.reference,
        seen.milestone or "",
        amount_of(desired),
        amount_of(seen.record),
        _currency(desired),
        {ours.named: theirs.key for ours, theirs in matched.pairs},
        list(unlike(desired, adoption.with_keys(desired, seen, matched))),
    )


def _free(cursor: Cursor, profile: Profile, ref: DocumentRef, kind: Kind, hand: str) -> Decisions:
    """The document's decisions. SettingsError if it cannot be linked, or the ERP's document is already linked."""
    asked = decisions.asked(cursor, ref)
    if asked is None:
        raise SettingsError(f"the ledger has no {ref} yet", "`sink status` shows how far the copy is")
    if asked.applied:
        raise SettingsError(f"the ERP has {ref} already, as {asked.reference}", f"`sink show {ref}` shows it")
    if asked.state == State.IGNORED:
        raise SettingsError(f"a person ignores {ref}", f"`sink ignore --undo {ref} --person NAME` first")
    if asked.busy:
        raise busy(ref)
    types = [name for name, rule in profile.documents.items() if KIND_OF[rule.model] == kind]
    others = [one for one in decisions.linked_to(cursor, types, hand) if one != ref]
    if others:
        raise SettingsError(
            f"{hand} of the ERP is linked to {others[0]}", f"`sink unlink {others[0]} --person NAME` ends that"
        )
    return Decisions.from_json(asked.decisions)


def _still_linked(cursor: Cursor, ref: DocumentRef, entry: Entry) -> Unlinked:
    """SettingsError if the link can no longer be taken back."""
    asked = decisions.asked(cursor, ref)
    if asked is None or asked.busy or bool(asked.applied) is not bool(entry.applied):
        raise busy(ref)
    others = [one.ref for one in decisions.with_dependants(cursor, ref) if one.reference is not None and one.ref != ref]
    if entry.applied and (others or history.last_step(cursor, ref) != "adopt"):
        sent = f"{others[0]} of it" if others else "more of it"
        step = f"correct both documents in the ERP; `sink ignore {ref} --person NAME` leaves them alone"
        raise SettingsError(f"the ERP was given {sent} since it was linked", step)
    return Unlinked(ref, entry.linked, entry.applied is not None)


def _as_before(entry: Entry) -> dict[str, Any]:
    """The ledger's columns of a document that the ERP does not have. The ERP's lines may still have our keys, so the
    document gets new ones."""
    said = replace(Decisions.from_json(entry.decisions), linked="").to_json()
    if not entry.applied:
        return {"decisions": said}
    return {
        "decisions": said, "applied": None, "external": None, "reference": None, "reached": None, "fingerprint": None,
        "revision": 0, "incarnation": entry.incarnation + 1,
    }  # fmt: skip
