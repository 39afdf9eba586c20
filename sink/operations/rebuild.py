"""`sink rebuild`: what a changed profile, or a release with other models, would change in the ERP."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, names_of, reading, transaction
from sink.documents.build import build
from sink.documents.models import Built, Customer, Document, Invalid, Missing, NotReady, Price, SalesOrder
from sink.documents.profile import Profile
from sink.documents.records import fingerprint, from_json, record, same_identity
from sink.documents.refs import DocumentRef
from sink.erp.kinds import ErpRecord, Fields
from sink.ledger import history, made_by, marks
from sink.ledger.documents import Entry
from sink.ledger.outcomes import State
from sink.operations.control import APPLYING
from sink.planning.changes import changes
from sink.staging.position import why_not_planned

_PAGE: Final = 200


class Alike(NamedTuple):
    """What would happen to documents: amend, cancel, remove, or hold."""

    type: str
    would: str
    currency: str | None


class Change(NamedTuple):
    """Documents with the same fate, and their money before and after; None if they have none."""

    alike: Alike
    documents: int
    before: Decimal | None
    after: Decimal | None


class Rebuild(NamedTuple):
    """How many documents were looked at, what would change, and how many were marked for another look."""

    looked_at: int
    changes: Sequence[Change]
    marked: int


def rebuild(
    connection: Connection,
    profile: Profile,
    shop: str,
    placeholder: str,
    require_snapshot: bool,
    person: str,
    execute: bool,
    progress: Callable[[int, int], None] = lambda _looked_at, _of: None,
) -> Rebuild:
    """Builds the documents that the ERP has and another version of the profile made, page by page, and compares them
    with what was written. The ERP is not asked. `execute` marks those that differ, as a change in the shop would, so
    that the brake counts them; the others are noted as made by this version.

    SettingsError if the copy may not be acted on.
    """
    found: dict[Alike, list[tuple[Decimal | None, Decimal | None]]] = defaultdict(list)
    with transaction(connection) as cursor:
        if reason := why_not_planned(cursor, require_snapshot):
            raise SettingsError(f"nothing is planned: {reason}", "`sink status` shows how far the copy is")
        every = made_by.not_of(cursor, profile.version)
    looked_at = marked = 0
    after = DocumentRef("", "")
    while page := _page(connection, profile, shop, after):
        differs = {one.ref: way for one, built in page if (way := _would(one, built, placeholder))}
        for alike, before, now in differs.values():
            found[alike].append((before, now))
        if execute:
            with transaction(connection) as cursor:
                marked += marks.look_anew(cursor, sorted(differs))
                made_by.note(cursor, [one for one, _ in page if one.ref not in differs], profile.version)
        looked_at += len(page)
        after = page[-1][0].ref
        progress(looked_at, every)
    if execute:
        with transaction(connection) as cursor:
            detail = f"{marked} of {looked_at} documents differ by profile {profile.version}"
            history.note(cursor, APPLYING, "rebuilt", detail, person)
    return Rebuild(looked_at, [_sum(alike, found[alike]) for alike in sorted(found, key=str)], marked)


def _page(connection: Connection, profile: Profile, shop: str, after: DocumentRef) -> list[tuple[Entry, Built | None]]:
    """Documents, and what the profile builds of them; None if it has no such type."""
    built: dict[DocumentRef, Built] = {}
    with reading(connection) as cursor:
        ones = made_by.page(cursor, profile.version, after, _PAGE)
        with names_of(cursor, shop):
            for name in {one.ref.type for one in ones} & profile.documents.keys():
                keys = [one.ref.key for one in ones if one.ref.type == name]
                built |= {
                    DocumentRef(name, key): one for key, one in build(cursor, profile.documents[name], keys).items()
                }
    return [(one, built.get(one.ref)) for one in ones]


_Way = tuple[Alike, Decimal | None, Decimal | None]


def _would(one: Entry, built: Built | None, placeholder: str) -> _Way | None:
    """What would happen to the document, with its money before and after; None if nothing would."""
    applied = from_json(one.applied or {})
    before, currency = _gross(applied), applied.fields.get("currency")
    which = Alike(one.ref.type, "hold", currency if isinstance(currency, str) else None)
    if built is None or isinstance(built, Invalid | Missing | NotReady):
        if applied.kind == "price" and isinstance(built, Missing | NotReady):
            return which._replace(would="remove"), None, None
        known = one.state in (State.HELD, State.GONE, State.NOT_READY) or applied.kind == "customer"
        return None if known else (which, before, before)
    identity = fingerprint(built)
    if one.fingerprint and identity and not same_identity(identity, one.fingerprint):
        return which, before, before
    desired = _record(built, applied, placeholder)
    differs = changes(desired, applied)
    if not differs:
        return None
    cancels = "cancel" in differs
    after = Decimal(0) if cancels and before is not None else _gross(desired)
    return which._replace(would="cancel" if cancels else "amend"), before, after


def _record(built: Document, applied: ErpRecord, placeholder: str) -> ErpRecord:
    """The document's record, with its present links and placeholder items."""
    if isinstance(built, SalesOrder):
        head: Fields = {"account": applied.fields.get("account"), "cancelled": built.status == "cancelled"}
        lines = applied.parts.get("line", {})
        items = {
            line.sku: placeholder
            for line in built.lines
            if placeholder and lines.get(line.key, {}).get("sku") == placeholder
        }
        return record(built, head, items)
    if isinstance(built, Customer):
        return record(built, {"number": applied.fields.get("number")})
    return record(built, {} if isinstance(built, Price) else {"order": applied.fields.get("order")})


def _gross(one: ErpRecord) -> Decimal | None:
    value = one.fields.get("gross")
    return value if isinstance(value, Decimal) else None


def _sum(alike: Alike, money: Sequence[tuple[Decimal | None, Decimal | None]]) -> Change:
    sides = [[side for side in both if side is not None] for both in zip(*money, strict=True)]
    before, after = (sum(side, Decimal(0)) if side else None for side in sides)
    return Change(alike, len(money), before, after)
