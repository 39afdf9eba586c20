"""`sink show`: an order or another document in shop and ERP, what differs, and its history."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from typing import Any, Final, NamedTuple

from schemas.model.errors import OrdertapError, SettingsError
from sink.database import Connection, Cursor, names_of, reading, transaction
from sink.documents.build import build
from sink.documents.models import Built, Document, Invalid, Missing, NotReady, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF, record
from sink.documents.refs import DocumentRef
from sink.erp.commands import ChangedField, unlike
from sink.erp.contract import Erp, Observed
from sink.erp.kinds import ErpRef, Fields, Kind, Milestone, same
from sink.ledger import documents, history, listed
from sink.ledger.documents import Entry
from sink.ledger.history import HistoryLine
from sink.ledger.listed import Listed
from sink.ledger.outcomes import why_not_ready
from sink.planning.decisions import Decisions
from sink.planning.policy import Disputed
from sink.staging import position
from sink.staging.position import Copy

_ORDER: Final[Sequence[Kind]] = ("order", "customer", "return", "refund", "price")


class InErp(NamedTuple):
    """The ERP's record, with the fields that this ERP gives back. `state`: in the ERP's own words; `problem`: why it
    cannot be planned on. `record`: the head's fields; `parts`: kind of child → key → fields."""

    key: str
    reference: str
    milestone: str | None
    state: str
    problem: str
    record: Mapping[str, Any]
    parts: Mapping[str, Mapping[str, Mapping[str, Any]]]


class Acceptance(NamedTuple):
    """Who accepted a difference, and when."""

    person: str
    at: datetime


class ShownDocument(NamedTuple):
    """`shop`: the document from the copy, or None and the reason in `not_built`. `erp` None: the ERP does not have it
    or was not asked. `differences`: `one` is the shop's side, `other` the ERP's; `accepted`: place among them →
    acceptance. `shares`: the customer shares the account with others, so it is not compared."""

    ledger: Listed
    shop: Mapping[str, Any] | None
    not_built: str
    erp: InErp | None
    differences: Sequence[ChangedField]
    history: Sequence[HistoryLine]
    shares: bool = False
    accepted: Mapping[int, Acceptance] = {}


class Unit(NamedTuple):
    """The documents of a unit, the order first. `erp_says`: why the ERP could not be asked, "" if it was."""

    copy: Copy
    erp_says: str
    documents: Sequence[ShownDocument]


def show(connection: Connection, profile: Profile, shop: str, erp: Callable[[], Erp], asked: Sequence[str]) -> Unit:
    """Finds a document by number or key, or by type and key, and shows its unit. Changes nothing.

    SettingsError if there is no such document, or several; UnavailableError if the middle layer is away. If the ERP
    cannot be asked, the result says so.
    """
    with transaction(connection) as cursor:
        _, unit = _which(asked, _found(cursor, profile, asked))
        entries = {one.ref: one for one in documents.entries(cursor, [unit])}
    built = built_of(connection, profile, shop, entries)
    with transaction(connection) as cursor:
        entries |= documents.entries_of(cursor, buyers_of(profile, built.values()))
    built |= built_of(connection, profile, shop, entries.keys() - built.keys())
    with transaction(connection) as cursor:
        ones = listed.listed_of(cursor, entries)
        stories = {one: history.lines(cursor, one) for one in entries}
        copy = position.show_copy(cursor)
    observed, erp_says = _observed(profile, erp, entries.values())
    shown = [
        _document(profile, ones[one], built.get(one), entries, observed.get(one), stories[one])
        for one in sorted(entries, key=lambda one: _place(profile, one))
    ]
    return Unit(copy, erp_says, shown)


def _found(cursor: Cursor, profile: Profile, asked: Sequence[str]) -> list[tuple[DocumentRef, str]]:
    """The documents that match, each with its unit."""
    if len(asked) == 1:
        return listed.named(cursor, asked[0], [*profile.documents])
    one = documents.entry(cursor, DocumentRef(*asked)) if len(asked) == 2 else None
    return [(one.ref, one.unit)] if one else []


def _which(asked: Sequence[str], found: Sequence[tuple[DocumentRef, str]]) -> tuple[DocumentRef, str]:
    if not found:
        raise SettingsError(
            f"there is no document {' '.join(asked)}",
            "give its number or key, or its type and key: `sink show sales_order 17`; `sink list` shows them",
        )
    if len({unit for _, unit in found}) > 1:
        verbs = ", ".join(f"`sink show {ref}`" for ref, _ in found[:5])
        raise SettingsError(f"{len(found)} documents have the number or key {asked[0]}", f"say which: {verbs}")
    return found[0]


def built_of(
    connection: Connection, profile: Profile, shop: str, refs: Iterable[DocumentRef]
) -> dict[DocumentRef, Built]:
    """Documents from the copy, as of one moment."""
    found: dict[DocumentRef, Built] = {}
    wanted = sorted(ref for ref in refs if ref.type in profile.documents)
    if not wanted:
        return found
    with reading(connection) as cursor, names_of(cursor, shop):
        for name in sorted({ref.type for ref in wanted}):
            keys = [ref.key for ref in wanted if ref.type == name]
            for key, one in build(cursor, profile.documents[name], keys).items():
                found[DocumentRef(name, key)] = one
    return found


def buyers_of(profile: Profile, built: Iterable[Built]) -> set[DocumentRef]:
    names = [rule.name for rule in profile.of_model("Customer")]
    keys = {one.customer for one in built if isinstance(one, SalesOrder) and one.customer is not None}
    return {DocumentRef(name, key) for name in names[:1] for key in keys}


def _place(profile: Profile, one: DocumentRef) -> tuple[bool, int, DocumentRef]:
    """Sorts: the order, its buyer, returns, refunds; types that the profile does not have last."""
    kind = kind_of(profile, one)
    return kind is None, _ORDER.index(kind) if kind else 0, one


def kind_of(profile: Profile, one: DocumentRef) -> Kind | None:
    return KIND_OF[profile.documents[one.type].model] if one.type in profile.documents else None


def _observed(
    profile: Profile, erp: Callable[[], Erp], entries: Collection[Entry]
) -> tuple[dict[DocumentRef, Observed], str]:
    """What the ERP shows of the documents, and why it could not be asked, "" if it could."""
    refs = {
        one.ref: ErpRef(kind, key)
        for one in entries
        if (key := one.account or one.external) is not None and (kind := kind_of(profile, one.ref)) is not None
    }
    try:
        with closing(erp()) as opened:
            seen = opened.observe(refs.values())
    except OrdertapError as error:
        return {}, error.message
    return {one: seen[ref] for one, ref in refs.items() if ref in seen}, ""


def _document(
    profile: Profile,
    one: Listed,
    built: Built | None,
    entries: Mapping[DocumentRef, Entry],
    seen: Observed | None,
    story: Sequence[HistoryLine],
) -> ShownDocument:
    entry = entries[one.ref]
    in_erp = _in_erp(entry.account or entry.external or "", seen) if seen else None
    match built:
        case None:
            not_built = "the profile no longer has a document of this name"
        case Invalid():
            not_built = built.reason
        case NotReady():
            not_built = why_not_ready(built.until)
        case Missing():
            not_built = "the shop does not have it"
        case _:
            differs = [] if seen is None or entry.account else _differences(profile, built, entries, seen)
            said = _accepted(Decisions.from_json(entry.decisions), differs, story)
            return ShownDocument(one, built.model_dump(), "", in_erp, differs, story, bool(entry.account), said)
    return ShownDocument(one, None, not_built, in_erp, [], story, bool(entry.account))


def _accepted(
    said: Decisions, differs: Sequence[ChangedField], story: Sequence[HistoryLine]
) -> Mapping[int, Acceptance]:
    """Who accepted a difference with these values, by its place. Accepting the whole document accepts all of them."""
    whole = [Acceptance(one.person, one.at) for one in story if one.event == "document accepted"] if said.kept else []
    found = dict.fromkeys(range(len(differs)), whole[-1]) if whole else {}
    for place, one in enumerate(differs):
        for field in said.fields:
            if field.at and _is_about(field, one):
                found[place] = Acceptance(field.by, datetime.fromisoformat(field.at))
    return found


def _is_about(field: Disputed, one: ChangedField) -> bool:
    if field[:2] != one[:2] or field.name not in ("", one.name):
        return False
    sides = ((field.ours, one.one), (field.theirs, one.other))
    if not one.name:
        return all((side is None) is (now is None) for side, now in sides)
    return all(isinstance(now, Mapping) or same((side or {}).get(one.name), now) for side, now in sides)


def _in_erp(key: str, seen: Observed) -> InErp:
    record = seen.record
    parts = {str(part): rows for part, rows in record.parts.items()}
    return InErp(key, seen.reference, seen.milestone, seen.state, seen.problem, record.fields, parts)


def _differences(
    profile: Profile, document: Document, entries: Mapping[DocumentRef, Entry], seen: Observed
) -> list[ChangedField]:
    """Differences in fields that both sides have. "Cancelled" is a state in the ERP and no field, so it is compared
    here."""
    found = list(unlike(record(document, links_of(profile, document, entries)), seen.record))
    wanted = isinstance(document, SalesOrder) and document.status == "cancelled"
    if seen.milestone is not None and wanted is not (seen.milestone is Milestone.CANCELLED):
        found.insert(0, ChangedField("", "", "cancelled", wanted, not wanted))
    return found


def links_of(profile: Profile, document: Document, entries: Mapping[DocumentRef, Entry]) -> Fields:
    """The ERP's keys of its buyer's account, or of its order."""
    match document:
        case SalesOrder():
            return _link("account", "customer", _entry(profile, "Customer", document.customer, entries))
        case ReturnOrder() | Refund():
            return _link("order", "order", _entry(profile, "SalesOrder", document.order, entries))
    return {}


def _link(name: str, kind: Kind, other: Entry | None) -> Fields:
    key = other and (other.account or other.external)
    return {name: ErpRef(kind, key)} if key else {}


def _entry(profile: Profile, model: str, key: str | None, entries: Mapping[DocumentRef, Entry]) -> Entry | None:
    rules = profile.of_model(model)
    return entries.get(DocumentRef(rules[0].name, key)) if rules and key is not None else None
