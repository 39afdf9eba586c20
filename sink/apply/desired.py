"""What the ERP shall have of a document, or why it gets none now."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple, TypeAlias

from schemas.errors import OrdertapError
from sink.apply.rules import Rules
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
    Refund,
    ReturnOrder,
    SalesOrder,
)
from sink.documents.profile import Profile
from sink.documents.records import KIND_OF, fingerprint, from_json, record, same_identity
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, HoldError, Observed
from sink.erp.kinds import ErpRecord, Kind
from sink.ledger import accounts, blocked, documents, marks
from sink.ledger.documents import Entry
from sink.ledger.outcomes import Outcome, State
from sink.planning.planner import Hold
from sink.staging.gaps import FILLED_BY, TableGap, table_gaps
from sink.staging.position import why_not_planned

_READ_AGAIN = "read it again: `sink offsets reset` to before it, or `capture signal snapshot` of its table"


class NotPlannedError(OrdertapError):
    """The copy is not one to act on now."""


class Wanted(NamedTuple):
    """The ERP's record (None: the shop has the document no more), and the ERP's order that it belongs to."""

    record: ErpRecord | None
    order: Observed | None = None


class OnlyCancelled(NamedTuple):
    """An order that the shop has cancelled, and changes are missing of a table that it is made of: that it is cancelled
    is certain, and nothing else. `hold` is for one that the ERP never heard of."""

    order: SalesOrder
    hold: Hold


Found: TypeAlias = Built | Hold | OnlyCancelled


class Desired:
    """Reads the shop as staged, the ledger's other documents, and the ERP's items and orders."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules) -> None:
        self._connection = connection
        self._profile = profile
        self._erp = erp
        self._rules = rules

    def kind(self, ref: DocumentRef) -> Kind:
        """What the ERP keeps of it."""
        return KIND_OF[self._profile.documents[ref.type].model]

    def build(self, refs: Collection[DocumentRef]) -> Mapping[DocumentRef, Found]:
        """All documents of a unit as of one moment; held where not all that they are made of is known.

        NotPlannedError when the copy is not one to act on.
        """
        found: dict[DocumentRef, Found] = {}
        with reading(self._connection) as cursor:
            if reason := why_not_planned(cursor, self._rules.require_snapshot):
                raise NotPlannedError(reason, "it begins by itself; `sink status` shows how far the copy is")
            with names_of(cursor, self._rules.shop):
                for name in sorted({ref.type for ref in refs}):
                    keys = [ref.key for ref in refs if ref.type == name]
                    for key, built in build(cursor, self._profile.documents[name], keys).items():
                        found[DocumentRef(name, key)] = built
            unreadable = blocked.reasons(cursor, refs)
            gaps = table_gaps(cursor)
        return {ref: _certain(built, self._lacks(ref, unreadable, gaps)) for ref, built in found.items()}

    def _lacks(
        self, ref: DocumentRef, unreadable: Mapping[DocumentRef, str], gaps: Collection[TableGap]
    ) -> Hold | None:
        """What a document waits for because a change of what it is made of is missing."""
        if ref in unreadable:
            return Hold(unreadable[ref], _READ_AGAIN, "data")
        for gap in gaps:
            if gap.table in self._profile.documents[ref.type].reads:
                return Hold(f"{gap.table}: {gap.detail}", f"`{FILLED_BY.format(table=gap.table)}`", "data")
        return None

    def of(self, one: Entry, built: Found) -> Wanted | Outcome:
        """What is wanted of what was built; HoldError where a person must decide."""
        if isinstance(built, OnlyCancelled):
            return self._cancelled(one, built)
        if isinstance(built, NotReady):
            built = self._taken_back(one) if one.applied else built
        match built:
            case NotReady():
                return Outcome.not_ready()
            case Invalid():
                hold = Hold(built.reason, built.next_step, "data")
                return self._rules.settling(hold, one.age)
            case Hold():
                return self._rules.settling(built, one.age)
            case Missing():
                one.identity, one.shown = None, None
                return Wanted(None)
        one.identity, one.shown = fingerprint(built), getattr(built, "number", None)
        if isinstance(built, Customer) and (self._rules.customers == "collective" or not one.needed):
            return Outcome.done()
        return self._refused(one, built) or self._wanted(one, built)

    def _cancelled(self, one: Entry, built: OnlyCancelled) -> Wanted | Outcome:
        """The order as the ERP was last told of it, and cancelled."""
        if not one.applied:
            return self._rules.settling(built.hold, one.age)
        one.identity, one.shown = fingerprint(built.order), built.order.number
        last = from_json(one.applied)
        wanted = ErpRecord(last.kind, {**last.fields, "cancelled": True}, last.lines)
        return self._refused(one, built.order) or Wanted(wanted)

    def _taken_back(self, one: Entry) -> Missing | Hold:
        """What the ERP has of a document that is no longer ready: a price is over then."""
        if self.kind(one.ref) == "price":
            return Missing()
        reason = "the shop has taken it back to a state that is not ready; the ERP has it still"
        return Hold(reason, "settle it in the ERP, or make it ready in the shop, then `sink retry`")

    def _refused(self, one: Entry, document: Document) -> Outcome | None:
        """What keeps a document from the ERP whatever the ERP says."""
        seen = fingerprint(document)
        if one.fingerprint and seen and not same_identity(seen, one.fingerprint):
            hold = Hold(
                "number, date or buyer differ from what was sent under this key before: the shop uses the key again",
                "was the shop restored from a backup? Compare both orders in shop and ERP",
            )
            return self._rules.held(hold)
        if isinstance(document, SalesOrder) and document.status == "open":
            problem = totals.problem(document)
        else:
            problem = totals.refund_problem(document) if isinstance(document, Refund) else None
        if problem is None:
            return None
        return self._rules.settling(Hold(problem, "correct the order in the shop", "data"), one.age)

    def _wanted(self, one: Entry, document: Document) -> Wanted | Outcome:
        match document:
            case Customer():
                account = accounts.account_key(self._rules.shop, document)
                with transaction(self._connection) as cursor:
                    return Wanted(record(document, {"number": accounts.account_number(cursor, account)}))
            case SalesOrder():
                return self._order(one, document)
            case ReturnOrder() | Refund():
                return self._part_of_order(document)
            case _:
                self._check_items({document.sku})
                return Wanted(record(document, {}))

    def _order(self, one: Entry, order: SalesOrder) -> Wanted | Outcome:
        account = self._account(one, order)
        if isinstance(account, Outcome):
            return account
        made = record(order, {"account": account}, self._items(order))
        cancelled = {"cancelled": order.status == "cancelled"}
        return Wanted(ErpRecord(made.kind, {**made.fields, **cancelled}, made.lines))

    def _account(self, one: Entry, order: SalesOrder) -> str | Outcome:
        """The number of the account that an order is booked to; its buyer is wanted by it."""
        if self._rules.customers == "collective":
            return self._rules.collective_account
        if order.customer is None and one.applied:  # erased in the shop; the ERP keeps what it has
            return str(from_json(one.applied).fields["account"])
        if order.customer is None:
            raise HoldError("the order has no buyer", "use `customers: collective`, or mend it in the shop", "data")
        ref = DocumentRef(self._profile.of_model("Customer")[0].name, order.customer)
        with transaction(self._connection) as cursor:
            marks.need(cursor, ref)
            buyer = documents.entry(cursor, ref)
        if buyer is None or buyer.applied is None:
            return Outcome.waits(ref, self._rules.recheck_seconds)
        return str(from_json(buyer.applied).fields["number"])

    def _part_of_order(self, document: ReturnOrder | Refund) -> Wanted | Outcome:
        """A return or refund names its order in the ERP, and is measured against it."""
        ref = DocumentRef(self._profile.of_model("SalesOrder")[0].name, document.order)
        with transaction(self._connection) as cursor:
            sold = documents.entry(cursor, ref)
        if sold is not None and sold.applied is None and sold.state is State.DONE:
            return Outcome.unneeded(ref)
        if sold is None or sold.applied is None:
            return Outcome.waits(ref, self._rules.recheck_seconds)
        external = sold.external(self._rules.shop)
        return Wanted(record(document, {"order": external}), self._erp.observe("order", external))

    def _items(self, order: SalesOrder) -> dict[str, str]:
        """SKU → the item to book instead, for those that the ERP does not have."""
        skus = {line.sku for line in order.lines}
        if not self._rules.placeholder_sku:
            self._check_items(skus)
            return {}
        return dict.fromkeys(self._erp.unknown_items(skus), self._rules.placeholder_sku)

    def _check_items(self, skus: set[str]) -> None:
        unknown = sorted(self._erp.unknown_items(skus))
        if unknown:
            reason = f"the ERP has no item {', '.join(unknown[:5])}"
            raise HoldError(reason, "make the item in the ERP; it is looked for again by itself", "master data")


def _certain(built: Found, lacks: Hold | None) -> Found:
    """What was built, unless something of it is missing. A cancellation is certain all the same."""
    if lacks is None:
        return built
    if isinstance(built, SalesOrder) and built.status == "cancelled":
        return OnlyCancelled(built, lacks)
    return lacks
