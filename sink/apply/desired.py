"""What the ERP should have of each document, or why it gets nothing now. Works on many documents of a kind at once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias

from schemas.model.errors import SettingsError
from sink.apply.matching import Match, Matching
from sink.apply.rules import NotPlannedError, Rules
from sink.database import Connection, names_of, reading, transaction
from sink.documents import totals
from sink.documents.build import build
from sink.documents.models import (
    Built,
    Customer,
    Document,
    Invalid,
    Missing,
    NotReady,
    Price,
    Refund,
    ReturnOrder,
    SalesOrder,
)
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF, fingerprint, from_json, may_be_same, record, same_identity, worth
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found
from sink.erp.kinds import ErpRecord, ErpRef, Fields, Kind, Milestone
from sink.ledger import accounts, blocked, documents, history, marks
from sink.ledger.documents import Entry
from sink.ledger.history import Place
from sink.ledger.outcomes import Outcome, State
from sink.planning.decisions import Decisions
from sink.planning.policy import Check, Hold
from sink.staging import own_rows
from sink.staging.gaps import FILLED_BY, TableGap, table_gaps
from sink.staging.position import copied_until, load_position, why_not_planned

_READ_AGAIN = "read it again: `sink offsets reset` to before it, or `capture signal snapshot` of its table"

_NUMBERS_TRIED: Final = 20
_HEARTBEATS: Final = 30.0
"""Seconds after a time by which the copy has mostly passed it: capture writes a heartbeat every few."""

ANOTHER_IDENTITY: Final = (
    "number, date or buyer no longer match what was sent under this key: the shop seems to have reused it"
)


class Wanted(NamedTuple):
    """The record that the ERP should have, and the ERP's order that it belongs to. `record` None: the shop has deleted
    the document, or has set it back to an unfinished state (`taken_back`) after the ERP got it. `after`: a new buyer,
    who has to be sent first."""

    record: ErpRecord | None
    order: Found | None = None
    taken_back: bool = False
    after: Entry | None = None

    @property
    def nothing(self) -> bool:
        """Whether the ERP should have no valid document: none at all, or a cancelled one."""
        return self.record is None or bool(self.record.fields.get("cancelled"))


class Around(NamedTuple):
    """What the documents of a batch refer to. `entries`: the ledger's entries of buyers and orders; `coming`: new
    buyers, sent with their orders; `here`: all documents of the batch; `numbers`: account numbers of new buyers, by
    key; `matched`: what the search for an existing account found; `unknown`: SKUs that the ERP's item master lacks;
    `orders`: the ERP's orders."""

    entries: Mapping[DocumentRef, Entry]
    coming: Mapping[DocumentRef, Entry]
    here: Collection[DocumentRef]
    numbers: Mapping[str, str]
    matched: Mapping[DocumentRef, Match]
    unknown: Collection[str]
    orders: Mapping[ErpRef, Found]


class OnlyCancelled(NamedTuple):
    """A cancelled order that is built from a table with missing changes: only the cancellation is certain. `hold`
    applies if the ERP never got the order."""

    order: SalesOrder
    hold: Hold


Known: TypeAlias = Built | Hold | OnlyCancelled


class Desired:
    """Reads the copy of the shop, the ledger's other documents, and the ERP's items and orders."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules) -> None:
        self._connection = connection
        self._profile = profile
        self._erp = erp
        self._rules = rules
        self._matching = Matching(connection, erp, rules, self.in_erp, self.build)
        self._collective: ErpRef | None = None
        self.place: Place | None = None  # where the copy stood when documents were built last

    def kind(self, ref: DocumentRef) -> Kind:
        """The kind of ERP record that it becomes."""
        return KIND_OF[self._profile.documents[ref.type].model]

    def in_erp(self, one: Entry) -> ErpRef:
        """Its key in the ERP."""
        kind, series = self.kind(one.ref), self._profile.documents[one.ref.type].series
        stem = f"{kind}.{series}" if series else kind
        return ErpRef(kind, one.external_key(f"{self._rules.shop}/{stem}/{one.ref.key}"))

    def account_of(self, buyer: Entry) -> ErpRef:
        """The account that the buyer's orders are booked to: the buyer's own, or a shared one."""
        return ErpRef("customer", buyer.account) if buyer.account else self.in_erp(buyer)

    def build(self, refs: Collection[DocumentRef]) -> Mapping[DocumentRef, Known]:
        """Builds documents, all as of one commit of the shop. A document with missing changes becomes a Hold, or an
        OnlyCancelled. NotPlannedError if the copy may not be acted on."""
        found: dict[DocumentRef, Built] = {}
        with reading(self._connection) as cursor:
            position = load_position(cursor)
            if reason := why_not_planned(cursor, self._rules.require_snapshot, position):
                raise NotPlannedError(reason, "it starts by itself; `sink status` shows how far the copy is")
            as_of = copied_until(cursor)
            with names_of(cursor, self._rules.shop):
                for name in sorted({ref.type for ref in refs}):
                    keys = [ref.key for ref in refs if ref.type == name]
                    for key, built in build(cursor, self._profile.documents[name], keys, as_of).items():
                        found[DocumentRef(name, key)] = built
            unreadable = blocked.reasons(cursor, refs)
            gaps = table_gaps(cursor)
            lacks = {ref: self._lacks(ref, unreadable, gaps) for ref in found}
            cancelled = [ref for ref, one in found.items() if lacks[ref] and _is_cancelled(one)]
            open_again = own_rows.doubtful(cursor, self._profile, cancelled, gaps)
            self.place = Place(position.stamp.generation, position.stamp.commit_lsn)
        return {ref: _certain(built, lacks[ref], ref in open_again) for ref, built in found.items()}

    def buyers(self, built: Iterable[Known]) -> set[DocumentRef]:
        """The buyers of the orders. Empty with `customers: collective`."""
        if self._rules.customers == "collective":
            return set()
        name = self._profile.of_model("Customer")[0].name if self._profile.of_model("Customer") else ""
        orders = (one for one in built if isinstance(one, SalesOrder))
        return {DocumentRef(name, order.customer) for order in orders if order.customer is not None}

    def wanted(self, ones: Sequence[Entry], built: Mapping[DocumentRef, Known]) -> list[Wanted | Outcome]:
        """What the ERP should have of each document, in the given order. Buyers come in one call with their orders."""
        found = [self._of(one, built[one.ref]) for one in ones]
        pairs = list(zip(ones, found, strict=True))
        left = [(entry, one) for entry, one in pairs if not isinstance(one, Outcome | Wanted)]
        around = self._around(left, {one.ref for one in ones})
        wanted = [
            one if isinstance(one, Outcome | Wanted) else self._wanted(entry, one, around) for entry, one in pairs
        ]
        return [_cancelled(one, built[one.ref], want) for one, want in zip(ones, wanted, strict=True)]

    def is_early(self, one: Entry, built: Known) -> bool:
        """Whether it is an order placed before `start_at` that the ERP never got and that nobody has linked."""
        start = self._rules.start_at
        left = not (one.applied or one.revision or one.linked)
        return left and start is not None and isinstance(built, SalesOrder) and built.placed_at < start

    def needs_buyer(self, one: Entry, built: Known) -> bool:
        """Whether it is an order whose buyer has to be in the ERP. One that is left out, or was cancelled before the
        ERP got it, needs none; nor does a cancelled one that was typed in there, and has a buyer of its own."""
        void = _is_cancelled(built) and (not one.applied or bool(one.linked))
        return isinstance(built, SalesOrder) and not (void or self.is_early(one, built))

    def _lacks(
        self, ref: DocumentRef, unreadable: Mapping[DocumentRef, str], gaps: Collection[TableGap]
    ) -> Hold | None:
        """The hold of a document that reads a parked record, or a table with a gap."""
        if ref in unreadable:
            return Hold(unreadable[ref], _READ_AGAIN, "data", Check.GAP)
        for gap in gaps:
            if gap.table in self._profile.documents[ref.type].reads:
                return Hold(f"{gap.table}: {gap.detail}", f"`{FILLED_BY.format(table=gap.table)}`", "data", Check.GAP)
        return None

    def _of(self, one: Entry, built: Known) -> Document | Wanted | Outcome:
        """The document, or the outcome if it is clear without a look around that there is nothing to send."""
        one.built, one.made_by = built, self._profile.version
        if isinstance(built, OnlyCancelled):
            return self._only_cancelled(one, built)
        if one.account and not isinstance(built, Missing):
            return Outcome.shares(one.account)  # the account is not theirs alone, so the ERP keeps its own data
        match built:
            case NotReady(until):
                return _not_ready(one, until)
            case Invalid():
                return self._rules.settling(Hold(built.reason, built.next_step, "data", Check.INVALID), one)
            case Hold():
                return self._rules.settling(built, one)
            case Missing():
                one.identity, one.shown = None, None
                return Wanted(None)
        one.identity, one.shown, one.money = fingerprint(built), getattr(built, "number", None), worth(built)
        if self.is_early(one, built):
            return Outcome.early()
        if isinstance(built, Customer) and (self._rules.customers == "collective" or not one.needed):
            return Outcome.done()
        return self._refused(one, built) or built

    def _only_cancelled(self, one: Entry, built: OnlyCancelled) -> Outcome | Wanted:
        """The order as the ERP last got it, but cancelled."""
        one.identity, one.shown, one.money = fingerprint(built.order), built.order.number, worth(built.order)
        kept = one.applied and self._refused(one, built.order)
        return _cancelled(one, built.order, kept or self._rules.settling(built.hold, one))

    def _refused(self, one: Entry, document: Document) -> Outcome | None:
        """The outcome of a document that fails a check which needs no look into the ERP: identity or totals."""
        seen = fingerprint(document)
        if one.fingerprint and seen and not self._is_same(one, document, seen, one.fingerprint):
            step = "was the shop restored from a backup? Compare both orders in shop and ERP; if they are the same:"
            verb = f"`sink accept document {one.ref} --person NAME`"
            return self._rules.held(Hold(ANOTHER_IDENTITY, f"{step} {verb}", check=Check.IDENTITY))
        if isinstance(document, SalesOrder) and document.status == "open":
            problem = totals.problem(document)
        else:
            problem = totals.refund_problem(document) if isinstance(document, Refund) else None
        if problem is None or Check.TOTALS in Decisions.from_json(one.decisions).passes(one.version):
            return None
        return self._rules.settling(Hold(problem, "correct the order in the shop", "data", Check.TOTALS), one)

    def _is_same(self, one: Entry, document: Document, seen: str, sent: str) -> bool:
        """Whether it is the document that was sent. An order is the same if its buyer has another key but the same
        account."""
        if same_identity(seen, sent):
            return True
        forgotten = f"{seen.rpartition('|')[0]}|"
        if not isinstance(document, SalesOrder) or not document.customer or not same_identity(forgotten, sent):
            return False
        ref = DocumentRef(self._profile.of_model("Customer")[0].name, document.customer)
        with transaction(self._connection) as cursor:
            buyer = documents.entries_of(cursor, [ref]).get(ref)
        account = one.written.fields.get("account") if one.written else None
        return buyer is not None and buyer.arrived and self.account_of(buyer) == account

    def _around(self, looked_at: Sequence[tuple[Entry, Document]], here: Collection[DocumentRef]) -> Around:
        """Looks up what the documents refer to, in a few queries for all. Gives new buyers their account numbers, for
        good, and notes which buyers are needed, in `mode: plan`, too. `here`: all of the batch, also those with an
        outcome."""
        found = [document for _, document in looked_at]
        if self._rules.customers == "collective" and self._collective is None:
            matches = self._erp.find("customer", {"number": self._rules.collective_account})
            open_ = (found.ref for found in matches if found.observed.milestone is not Milestone.CANCELLED)
            self._collective = next(open_, None)
        buyers = self.buyers(found)
        parents = {self._order_of(one) for one in found if isinstance(one, ReturnOrder | Refund)}
        come = {entry.ref: (entry, one) for entry, one in looked_at if isinstance(one, Customer) and not entry.applied}
        matched = self._matching.of(come) if self._rules.customers == "match" else {}
        new = {ref: entry for ref, (entry, _) in come.items() if ref not in matched}
        with transaction(self._connection) as cursor:
            entries = {**documents.entries_of(cursor, (buyers | parents) - new.keys()), **new}
            keys = [ref.key for ref in new]
            numbers = accounts.account_numbers(cursor, self._rules.shop, self._rules.account_prefix, keys)
        numbers |= self._taken({ref.key: entry for ref, entry in new.items() if entry.revision}, numbers)
        needed = self.buyers(one for entry, one in looked_at if self.needs_buyer(entry, one))
        unmet = [ref for ref in sorted(needed & entries.keys()) if not entries[ref].needed]
        if unmet:  # another worker has them, or they come later in this batch
            with transaction(self._connection) as cursor:
                marks.need(cursor, unmet)
        orders = [self.in_erp(entries[ref]) for ref in sorted(parents & entries.keys()) if entries[ref].applied]
        seen = self._erp.observe(orders)
        skus = {line.sku for one in found if isinstance(one, SalesOrder) for line in one.lines}
        skus |= {one.sku for one in found if isinstance(one, Price)}
        found_orders = {ref: Found(ref, seen[ref]) for ref in seen}
        return Around(entries, new, here, numbers, matched, self._erp.unknown_items(skus), found_orders)

    def _taken(self, refused: Mapping[str, Entry], numbers: Mapping[str, str]) -> dict[str, str]:
        """New numbers for customers whose number another account has in the ERP, such as one of a shop with the same
        range. Only customers whose create has failed are looked up: a query for each would slow all down."""
        found: dict[str, str] = {}
        for key, one in refused.items():
            number = numbers[key]
            for _ in range(_NUMBERS_TRIED):
                if not self._is_another(number, self.in_erp(one)):
                    break
                with transaction(self._connection) as cursor:
                    history.note(cursor, one.ref, "renumbered", f"{number} is a different account in the ERP")
                    number = accounts.next_number(cursor, self._rules.shop, self._rules.account_prefix, key)
                found[key] = number
        return found

    def _is_another(self, number: str, ref: ErpRef) -> bool:
        """Whether the ERP has an account of this number that is not the customer's, even a closed one."""
        try:
            return any(found.ref != ref for found in self._erp.find("customer", {"number": number}))
        except SettingsError:  # accounts there have no number, so the create failed for another reason
            return False

    def _wanted(self, one: Entry, document: Document, around: Around) -> Wanted | Outcome:
        match document:
            case Customer():
                if match := around.matched.get(one.ref):
                    return match.outcome
                # Orders are booked to the number that the ERP has. It stays, whichever rule gave it.
                number = one.written.fields["number"] if one.written else around.numbers[document.key]
                return Wanted(record(document, {"number": number}))
            case SalesOrder():
                return self._order(one, document, around)
            case ReturnOrder() | Refund():
                return self._part_of_order(document, around)
        return self._lacking({document.sku}, around) or Wanted(record(document, {}))

    def _order(self, one: Entry, order: SalesOrder, around: Around) -> Wanted | Outcome:
        account = self._account(one, order, around)
        if isinstance(account, Outcome):
            return account
        skus = {line.sku for line in order.lines}
        placeholder = self._rules.policy.placeholder
        if not placeholder and (lacking := self._lacking(skus, around)):
            return lacking
        items = dict.fromkeys(skus & {*around.unknown}, placeholder)
        head: Fields = {"account": account, "cancelled": order.status == "cancelled"}
        return Wanted(record(order, head, items), after=around.coming.get(self._buyer(order)))

    def _buyer(self, order: SalesOrder) -> DocumentRef:
        return DocumentRef(self._profile.of_model("Customer")[0].name, order.customer or "")

    def _account(self, one: Entry, order: SalesOrder, around: Around) -> ErpRef | Outcome:
        """The account that an order is booked to, or the outcome while there is none."""
        if self._rules.customers == "collective":
            step = "make it in the ERP, or correct collective_account; the sink looks again by itself"
            reason = f"the ERP has no account {self._rules.collective_account}"
            lacking = Hold(reason, step, "master data", Check.NO_ACCOUNT)
            return self._collective or self._rules.held(lacking)
        if order.customer is None:
            kept = one.written.fields["account"] if one.written else None
            if isinstance(kept, ErpRef):  # erased in the shop; the ERP keeps what it has
                return kept
            step = "set `customers: collective`, or correct it in the shop"
            return self._rules.held(Hold("the order has no buyer", step, "data", Check.NO_BUYER))
        ref = self._buyer(order)
        buyer, match = around.entries.get(ref), around.matched.get(ref)
        if match and match.account:
            return match.account
        if buyer is None or not (buyer.arrived or ref in around.coming or self._is_planned_before(buyer, around)):
            return self._waits(ref, buyer)
        return self.account_of(buyer)

    def _is_planned_before(self, buyer: Entry, around: Around) -> bool:
        """Whether the buyer is planned. A buyer in the same batch does not count, because it is planned after this."""
        return buyer.ref not in around.here and self._is_planned(buyer)

    def _part_of_order(self, document: ReturnOrder | Refund, around: Around) -> Wanted | Outcome:
        """A return or refund, with its order in the ERP, which it is measured against."""
        ref = self._order_of(document)
        sold = around.entries.get(ref)
        if sold is not None and sold.state in (State.IGNORED, State.EARLY):
            return Outcome.ignored() if sold.state is State.IGNORED else Outcome.early()
        if sold is not None and sold.applied is None and sold.state is State.DONE:
            return Outcome.unneeded(ref)
        if sold is None or not (sold.applied or self._is_planned(sold)):
            return self._waits(ref, sold)
        if sold.state is State.HELD and sold.check == Check.IDENTITY:
            return self._of_another(ref)
        order = self.in_erp(sold)
        return Wanted(record(document, {"order": order}), around.orders.get(order))

    def _of_another(self, order: DocumentRef) -> Outcome:
        """The hold of a return or refund whose order is held for its identity: it goes on once a person has decided."""
        step = f"see `sink held` for {order}; the sink looks again by itself"
        again = self._rules.recheck_seconds
        return Outcome.held(f"its order: {ANOTHER_IDENTITY}", step, "decision", again, Check.ITS_ORDER)

    def _is_planned(self, other: Entry) -> bool:
        """Whether, in `mode: plan`, that document is planned or about to be. It then counts as done."""
        if self._rules.apply:
            return False
        return other.state is State.PLANNED or (other.dirty and other.state not in (State.HELD, State.WAITS))

    def _waits(self, ref: DocumentRef, other: Entry | None) -> Outcome:
        return self._rules.waits(ref, other.state if other else None)

    def _order_of(self, document: ReturnOrder | Refund) -> DocumentRef:
        return DocumentRef(self._profile.of_model("SalesOrder")[0].name, document.order)

    def _lacking(self, skus: Collection[str], around: Around) -> Outcome | None:
        unknown = sorted({*skus} & {*around.unknown})
        if not unknown:
            return None
        step = "make the item in the ERP; the sink looks again by itself"
        reason = f"the ERP has no item {', '.join(unknown[:5])}"
        return self._rules.held(Hold(reason, step, "master data", Check.UNKNOWN_ITEM))


def _not_ready(one: Entry, until: datetime | None) -> Wanted | Outcome:
    if until is not None:
        return Outcome.not_ready(until, max(0.0, (until - datetime.now(UTC)).total_seconds()) + _HEARTBEATS)
    return Wanted(None, taken_back=True) if one.applied else Outcome.not_ready()


def _cancelled(one: Entry, built: Known, found: Wanted | Outcome) -> Wanted | Outcome:
    """Lets a cancellation pass. If a cancelled order waits for something else, this is the order as the ERP last got
    it, but cancelled. If the ledger does not know that the ERP has it, the plan looks there first, and makes nothing.
    Everything else stays as found."""
    order = built.order if isinstance(built, OnlyCancelled) else built
    kept = isinstance(found, Outcome) and found.state in (State.HELD, State.SETTLING, State.WAITS)
    if not (kept and isinstance(order, SalesOrder) and order.status == "cancelled"):
        return found
    if not one.applied:
        return found if isinstance(built, OnlyCancelled) else Wanted(record(order, {"cancelled": True}))
    if one.fingerprint and one.identity and not may_be_same(one.identity, one.fingerprint):
        return found
    last = from_json(one.applied)
    return Wanted(replace(last, fields={**last.fields, "cancelled": True}))


def _certain(built: Built, lacks: Hold | None, may_be_open_again: bool) -> Known:
    """What was built, or the hold if a change of it is missing. A cancellation stays certain, unless the missing change
    may have taken it back."""
    if lacks is None:
        return built
    if isinstance(built, SalesOrder) and _is_cancelled(built) and not may_be_open_again:
        return OnlyCancelled(built, lacks)
    doubt = "; it is cancelled, but the cancellation may have been undone" if may_be_open_again else ""
    return lacks._replace(reason=f"{lacks.reason}{doubt}")


def _is_cancelled(built: Known) -> bool:
    return isinstance(built, SalesOrder) and built.status == "cancelled"
