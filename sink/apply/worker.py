"""Takes one shop order with all its documents and makes the ERP agree with it, whatever dies on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import structlog

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents import totals
from sink.documents.build import build
from sink.documents.models import Customer, Document, Invalid, Missing, NotReady, Refund, ReturnOrder, SalesOrder
from sink.documents.profile import DocumentRule, Profile
from sink.documents.records import KIND_OF, fingerprint, from_json, record, same_identity, to_json
from sink.documents.refs import DocumentRef
from sink.erp.contract import (
    Command,
    ConflictError,
    Erp,
    HoldError,
    Key,
    Observed,
    Probe,
    RetryError,
    SlowDownError,
    StopError,
)
from sink.erp.kinds import ErpRecord, Kind
from sink.ledger import accounts, binding, documents, history, leases, marks
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.planning.planner import Hold, Policy, plan

log = structlog.get_logger()
_ORDER: Final = {"customer": 0, "order": 1, "return": 2, "refund": 3, "price": 4}
_LONGEST_BACKOFF: Final = 300.0


@dataclass(frozen=True)
class Rules:
    """What the settings decide for the worker. Times in seconds."""

    shop: str
    policy: Policy
    apply: bool
    customers: accounts.Policy = "account_per_buyer"
    collective_account: str = ""
    placeholder_sku: str = ""
    settle_seconds: float = 30.0
    recheck_seconds: float = 60.0
    lease_seconds: float = 60.0


class _WaitsError(Exception):
    """A document depends on another that is not in the ERP yet."""

    def __init__(self, ref: str) -> None:
        super().__init__(ref)
        self.ref = ref


class _NothingError(Exception):
    """A return or refund of an order that was cancelled before the ERP heard of it: it needs none of them."""

    def __init__(self, ref: str) -> None:
        super().__init__(ref)
        self.ref = ref


class Worker:
    """One applying thread: its own connection to the middle layer, the ERP shared."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules, owner: str) -> None:
        self._connection = connection
        self._profile = profile
        self._erp = erp
        self._rules = rules
        self._owner = owner
        self._bound = False
        self._held: Lease | None = None

    def step(self) -> bool:
        """Does what is to be done for one unit; False when none is due.

        RetryError and StopError come through where the ERP as a whole cannot be used; the unit stays due. What
        concerns one document alone is kept with it, and does not.
        """
        if not self._bound:
            self.check()
        with transaction(self._connection) as cursor:
            held = leases.lease(cursor, self._owner, self._rules.lease_seconds)
        if held is None:
            return False
        self._held = held
        try:
            self._unit(held)
        except leases.LeaseLostError:
            log.warning("another worker has taken over", unit=held.unit)
            return True
        finally:
            if not self._connection.closed:
                with transaction(self._connection) as cursor:
                    leases.release(cursor, held)
        return True

    def check(self) -> None:
        """Whether the ERP can be used, and is ours: the first one that this middle layer wrote to is the only one."""
        identity = self._erp.check()
        try:
            with transaction(self._connection) as cursor:
                binding.bind(cursor, "erp", identity, "the ERP")
                if self._rules.apply:
                    marks.resume(cursor)
        except SettingsError as error:
            raise StopError(error.message, error.hint) from None
        self._bound = True

    def _unit(self, held: Lease) -> None:
        with transaction(self._connection) as cursor:
            found = documents.entries(cursor, held.unit)
        found.sort(key=lambda one: (_ORDER[KIND_OF[self._rule(one).model]], len(one.ref.key), one.ref.key))
        if not all(self._tried(one, partial(self._settle_intent, held, one)) for one in found):
            return
        built = self._build(found)
        for one in found:
            if not self._tried(one, partial(self._document, held, one, built[one.ref])):
                return

    def _tried(self, one: Entry, act: Callable[[], None]) -> bool:
        """False when nothing more may be sent for the unit, since nobody knows whether this document's call was done.

        An error is written to the document, with a time to look again, so that the others get their turn.
        """
        try:
            act()
        except HoldError as error:
            self._hold(one, Hold(error.reason, error.next_step, error.cause))
        except StopError as error:
            self._again(one, error.reason, error.next_step)
            raise
        except RetryError as error:
            self._retry(one, error)
        return one.intent is None

    def _retry(self, one: Entry, error: RetryError) -> None:
        """An outage is not the document's fault: it stays due and counts nothing."""
        if self._reachable(error):
            self._again(one, str(error))
            return
        with suppress(leases.LeaseLostError):
            self._keep(one, "retry", str(error), "the sink tries again by itself", None, 0.0)
        raise error

    def _again(self, one: Entry, reason: str, next_step: str = "the sink tries again by itself") -> None:
        one.attempts += 1
        again = min(_LONGEST_BACKOFF, 0.5 * 2.0 ** min(one.attempts, 12)) * random.uniform(0.5, 1.5)  # noqa: S311  jitter
        self._keep(one, "retry", reason, next_step, None, again)

    def _reachable(self, error: RetryError) -> bool:
        """Whether a call failed for its document alone: then the ERP answers another question."""
        if isinstance(error, ConflictError | SlowDownError):
            return isinstance(error, ConflictError)
        try:
            self._erp.check()
        except RetryError:
            return False
        return True

    def _rule(self, one: Entry) -> DocumentRule:
        return self._profile.documents[one.ref.type]

    def _build(self, found: list[Entry]) -> dict[DocumentRef, Document | NotReady | Missing | Invalid | Hold]:
        """All documents of the unit as of one moment, with what is not known for certain."""
        built: dict[DocumentRef, Any] = {}
        with transaction(self._connection, "REPEATABLE READ READ ONLY") as cursor:
            cursor.execute("SELECT set_config('search_path', quote_ident(%s), true)", (self._rules.shop,))
            for name in sorted({one.ref.type for one in found}):
                keys = [one.ref.key for one in found if one.ref.type == name]
                documents = build(cursor, self._profile.documents[name], keys)
                built |= {DocumentRef(name, key): document for key, document in documents.items()}
            cursor.execute(
                "SELECT type, key, reason FROM ordertap.blocked WHERE (type, key) IN %s",
                (tuple(tuple(one.ref) for one in found) or (("", ""),),),
            )
            next_step = "read it again: `sink offsets reset` to before it, or `capture repair`"
            for type_, key, reason in cursor.fetchall():
                built[DocumentRef(type_, key)] = Hold(reason, next_step, "data")
        return built

    def _document(self, held: Lease, one: Entry, built: Any) -> None:
        try:
            self._apply(held, one, built)
        except _WaitsError as error:
            self._keep(one, "waits", f"waits for {error.ref}", f"see `sink held` for {error.ref}", error.ref, None)
        except _NothingError as error:
            self._keep(one, "done", None, None, None, None)
            with transaction(self._connection) as cursor:  # should the shop open the order again, this one follows
                documents.save(cursor, one.ref, waits_for=error.ref)

    def _apply(self, held: Lease, one: Entry, built: Any) -> None:
        if isinstance(built, NotReady):
            built = self._not_ready(one)
        if built is None:
            self._keep(one, "not ready", "the shop has not finished it", "", None, None, None)
            return
        if isinstance(built, Invalid):
            self._hold(one, Hold(built.reason, "mend it in the shop, or the profile", "data"), settle=True)
            return
        if isinstance(built, Hold):
            self._hold(one, built, settle=True)
            return
        one.identity = None if isinstance(built, Missing) else fingerprint(built)
        one.shown = getattr(built, "number", None)
        applied = from_json(one.applied) if one.applied else None
        if isinstance(built, Missing):
            observed = self._observed(applied.kind, one) if applied else None
            self._carry_out(held, one, None, applied, observed, None)
            return
        if isinstance(built, Customer) and (self._rules.customers == "collective" or not one.needed):
            self._keep(one, "done", None, None, None, None, None)
            return
        reason = self._wrong(one, built)
        if reason is not None:
            self._hold(one, reason, settle=not isinstance(built, Customer) and reason.cause == "data")
            return
        desired, order = self._desired(one, built)
        observed = self._observed(desired.kind, one) if applied else None
        self._carry_out(held, one, desired, applied, observed, order)

    def _not_ready(self, one: Entry) -> Missing | Hold | None:
        """What a document that is not ready means: nothing before it was sent; a price is over then."""
        if not one.applied:
            return None
        if KIND_OF[self._rule(one).model] == "price":
            return Missing()
        reason = "the shop has taken it back to a state that is not ready; the ERP has it still"
        return Hold(reason, "settle it in the ERP, or make it ready in the shop, then `sink retry`")

    def _wrong(self, one: Entry, document: Document) -> Hold | None:
        """What keeps a document from the ERP whatever the ERP says."""
        seen = fingerprint(document)
        if one.fingerprint and seen and not same_identity(seen, one.fingerprint):
            return Hold(
                "number, date or buyer differ from what was sent under this key before: the shop uses the key again",
                "was the shop restored from a backup? Compare both orders in shop and ERP",
            )
        if isinstance(document, SalesOrder) and document.status == "open":
            problem = totals.problem(document)
        else:
            problem = totals.refund_problem(document) if isinstance(document, Refund) else None
        return None if problem is None else Hold(problem, "correct the order in the shop", "data")

    def _desired(self, one: Entry, document: Document) -> tuple[ErpRecord, Observed | None]:
        """The ERP's record, and the ERP's order where the document belongs to one."""
        match document:
            case Customer():
                with transaction(self._connection) as cursor:
                    account = accounts.account_key(self._rules.shop, document)
                    return record(document, {"number": accounts.account_number(cursor, account)}), None
            case SalesOrder():
                made = record(document, {"account": self._account(one, document)}, self._items(one, document))
                cancelled = {"cancelled": document.status == "cancelled"}
                return ErpRecord(made.kind, {**made.fields, **cancelled}, made.lines), None
            case ReturnOrder() | Refund():
                sold = self._order_of(document)
                observed = self._observed("order", sold)
                return record(document, {"order": sold.external(self._rules.shop)}), observed
            case _:
                self._check_items(one, {document.sku})
                return record(document, {}), None

    def _account(self, one: Entry, order: SalesOrder) -> str:
        if self._rules.customers == "collective":
            return self._rules.collective_account
        if order.customer is None and one.applied:  # erased in the shop; the ERP keeps what it has
            return str(from_json(one.applied).fields["account"])
        if order.customer is None:
            raise HoldError("the order has no buyer", "use `customers: collective`, or mend it in the shop", "data")
        rule = self._profile.of_model("Customer")[0]
        ref = DocumentRef(rule.name, order.customer)
        with transaction(self._connection) as cursor:
            marks.need(cursor, ref)
            buyer = documents.entry(cursor, ref)
        if buyer is None or buyer.applied is None:
            raise _WaitsError(str(ref))
        return str(from_json(buyer.applied).fields["number"])

    def _order_of(self, document: ReturnOrder | Refund) -> Entry:
        ref = DocumentRef(self._profile.of_model("SalesOrder")[0].name, document.order)
        with transaction(self._connection) as cursor:
            sold = documents.entry(cursor, ref)
        if sold is not None and sold.applied is None and sold.state == "done":
            raise _NothingError(str(ref))
        if sold is None or sold.applied is None:
            raise _WaitsError(str(ref))
        return sold

    def _items(self, one: Entry, order: SalesOrder) -> dict[str, str]:
        skus = {line.sku for line in order.lines}
        if not self._rules.placeholder_sku:
            self._check_items(one, skus)
            return {}
        return dict.fromkeys(self._erp.unknown_items(skus), self._rules.placeholder_sku)

    def _check_items(self, one: Entry, skus: set[str]) -> None:
        unknown = sorted(self._erp.unknown_items(skus))
        if unknown:
            reason = f"the ERP has no item {', '.join(unknown[:5])}"
            raise HoldError(reason, "make the item in the ERP; it is looked for again by itself", "master data")

    def _observed(self, kind: Kind, one: Entry) -> Observed | None:
        return self._erp.observe(kind, one.external(self._rules.shop))

    def _carry_out(
        self, held: Lease, one: Entry, desired: ErpRecord | None, applied: ErpRecord | None, observed: Observed | None,
        order: Observed | None,
    ) -> None:  # fmt: skip
        if applied is None and desired is not None and one.revision and observed is None:
            observed = self._observed(desired.kind, one)
        commands = plan(desired, applied, observed, self._rules.policy, order)
        if isinstance(commands, Hold):
            self._hold(one, commands)
            return
        if not commands:
            self._keep(one, "gone" if desired is None else "done", None, None, None, None, None)
            return
        if not self._rules.apply:
            steps = ", ".join(f"{command.verb} {command.record.kind}" for command in commands)
            self._keep(one, "planned", f"would {steps}", "set mode: apply", None, None, None)
            return
        for command in commands:
            self._send(held, one, command, observed.revision if observed else 0)

    def _send(self, held: Lease, one: Entry, command: Command, in_erp: int) -> None:
        """Intent, call, outcome: each in a transaction that proves the lease.

        A ledger from a backup counts from an older revision; the ERP would take the next ones for done already.
        """
        revision = max(one.revision, in_erp) + 1
        intent = {
            "verb": command.verb,
            "record": to_json(command.record),
            "revision": revision,
            "marked": one.marked,
            "fingerprint": one.identity,
        }
        with transaction(self._connection) as cursor:
            leases.renew(cursor, held, self._rules.lease_seconds)
            documents.save(cursor, one.ref, intent=intent, revision=revision)
        one.revision, one.intent = revision, intent
        try:
            done = self._erp.apply(command, Key(one.external(self._rules.shop), revision))
        except (HoldError, ConflictError):  # nothing was changed: there is no outcome to wait for
            with transaction(self._connection) as cursor:
                leases.renew(cursor, held, self._rules.lease_seconds)
                documents.save(cursor, one.ref, intent=None)
            one.intent = None
            raise
        self._outcome(held, one, intent, done.reference)

    def _outcome(self, held: Lease, one: Entry, intent: dict[str, Any], reference: str) -> None:
        made = from_json(intent["record"])
        columns: dict[str, Any] = {
            "intent": None, "reference": reference, "seen": intent["marked"], "state": "done", "number": _number(made),
            "applied": intent["record"],
            "desired": intent["record"], "fingerprint": one.fingerprint or intent["fingerprint"],
        }  # fmt: skip
        if intent["verb"] == "remove":
            # The key stays taken in the ERP: the same price, if it comes back, is a new one.
            columns |= {"applied": None, "state": "gone", "incarnation": one.incarnation + 1, "revision": 0}
        with transaction(self._connection) as cursor:
            leases.renew(cursor, held, self._rules.lease_seconds)
            documents.save(cursor, one.ref, **columns, **_CLEAR, attempts=0)
            cursor.execute(
                "UPDATE ordertap.document SET applied_at = clock_timestamp() WHERE type = %s AND key = %s", one.ref
            )
            history.note(cursor, one.ref, intent["verb"], reference)
            marks.wake(cursor, str(one.ref))
        one.applied, one.intent = columns["applied"], None
        log.info("done in the ERP", verb=intent["verb"], document=str(one.ref), reference=reference)

    def _settle_intent(self, held: Lease, one: Entry) -> None:
        """A command of which the reply was lost: asked for before anything else is done."""
        if one.intent is None:
            return
        made = from_json(one.intent["record"])
        key = Key(one.external(self._rules.shop), one.intent["revision"])
        answer = self._erp.probe(made.kind, one.intent["verb"], key)
        if answer is Probe.UNCLEAR:
            raise HoldError(
                f"the ERP cannot say whether a {one.intent['verb']} was done", "look it up there, then `sink retry`"
            )
        if answer is Probe.DONE:
            observed = self._erp.observe(made.kind, key.external)
            self._outcome(held, one, one.intent, observed.reference if observed else one.reference or "")
            return
        with transaction(self._connection) as cursor:
            leases.renew(cursor, held, self._rules.lease_seconds)
            documents.save(cursor, one.ref, intent=None)
        one.intent = None

    def _hold(self, one: Entry, hold: Hold, settle: bool = False) -> None:
        left = self._rules.settle_seconds - one.age
        if settle and left > 0:
            self._keep(one, "settling", hold.reason, hold.next_step, None, left)
            return
        again = self._rules.recheck_seconds if hold.cause == "master data" else None
        self._keep(one, "held", hold.reason, hold.next_step, None, again, hold.cause)
        if one.state != "held":
            with transaction(self._connection) as cursor:
                history.note(cursor, one.ref, "held", hold.reason)

    def _keep(
        self, one: Entry, state: str, reason: str | None, next_step: str | None, waits_for: str | None,
        again: float | None, cause: str | None = None,
    ) -> None:  # fmt: skip
        """Writes where a document stands; what was marked since it was read stays due."""
        attempts = one.attempts if state == "retry" else 0
        assert self._held is not None  # noqa: S101  a document is looked at under a lease
        with transaction(self._connection) as cursor:
            leases.prove(cursor, self._held)
            documents.save(
                cursor, one.ref, state=state, reason=reason or None, next_step=next_step or None, waits_for=waits_for,
                cause=cause or ("waits" if state == "waits" else None), attempts=attempts, seen=one.marked,
            )  # fmt: skip
            if one.shown:
                documents.save(cursor, one.ref, number=one.shown)
            documents.wait(cursor, one.ref, again)
            since = "coalesce(held_since, clock_timestamp())" if state in ("held", "waits") else "NULL"
            which = "WHERE type = %s AND key = %s"
            cursor.execute(f"UPDATE ordertap.document SET held_since = {since} {which}", one.ref)  # noqa: S608
            if waits_for:
                self._close_race(cursor, one, waits_for)

    def _close_race(self, cursor: Any, one: Entry, waits_for: str) -> None:
        """What it waits for may have been done between the look and this transaction."""
        type_, _, key = waits_for.partition(" ")
        other = documents.entry(cursor, DocumentRef(type_, key))
        documents.wait(cursor, one.ref, 0.0 if other and other.applied else self._rules.recheck_seconds)


_CLEAR: Final[dict[str, Any]] = {
    "reason": None, "next_step": None, "cause": None, "waits_for": None, "next_try": None, "held_since": None,
}  # fmt: skip


def _number(made: ErpRecord) -> str | None:
    value = made.fields.get("number")
    return None if value is None else str(value)
