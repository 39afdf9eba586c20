"""Searches the ERP for an account that a new customer may already have: by number, verified e-mail or tax id."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from schemas.model.errors import SettingsError
from sink.apply.rules import Rules
from sink.database import Connection, transaction
from sink.documents.models import Customer
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found
from sink.erp.kinds import BY_HAND, ErpRef, Milestone
from sink.ledger import accounts, documents, standings
from sink.ledger.documents import Entry
from sink.ledger.outcomes import Outcome
from sink.planning.policy import Check, Hold

_NAMED: Final = 5
"""Accounts named in a hold."""


class Match(NamedTuple):
    """What the search for a customer's account found. `account`: the one that orders are booked to; None: undecided."""

    outcome: Outcome
    account: ErpRef | None = None


class _Way(NamedTuple):
    """A search: `name` for people, the field of the ERP's accounts, and the value."""

    name: str
    field: str
    value: str

    @property
    def identity(self) -> str:
        """Equal for two customers who may be one. A hash, so that the ledger keeps no copy of an e-mail."""
        return hashlib.blake2b(f"{self.field} {self.value.lower()}".encode(), digest_size=16).hexdigest()


class Matching:
    """Searches once per customer, before there is an account. The ledger keeps what was found for good."""

    def __init__(
        self,
        connection: Connection,
        erp: Erp,
        rules: Rules,
        own: Callable[[Entry], ErpRef],
        build: Callable[[Collection[DocumentRef]], Mapping[DocumentRef, object]],
    ) -> None:
        """`own`: a customer's own key in the ERP; `build`: documents from the copy of the shop."""
        self._connection = connection
        self._erp = erp
        self._rules = rules
        self._own = own
        self._build = build

    def of(self, new: Mapping[DocumentRef, tuple[Entry, Customer]]) -> dict[DocumentRef, Match]:
        """New customers who get no account of their own now; all others may be created.

        A customer who may be the same as another new one waits until that one is in the ERP, and is searched for then.
        Costs up to one query per search, and stops at the first that finds something.
        """
        found = self._waits(new) if self._rules.apply else {}
        for ref, (one, customer) in new.items():
            match = None if ref in found else self._match(one, customer)
            if match is not None:
                found[ref] = match
        return found

    def _waits(self, new: Mapping[DocumentRef, tuple[Entry, Customer]]) -> dict[DocumentRef, Match]:
        wanted = {ref: [way.identity for way in _ways(customer)] for ref, (_, customer) in new.items()}
        with transaction(self._connection) as cursor:
            others = accounts.claim(cursor, {ref: some for ref, some in wanted.items() if some})
            states = {ref: one.state for ref, one in documents.entries_of(cursor, set(others.values())).items()}
        # Nothing wakes a customer whose other never arrives.
        again = self._rules.recheck_seconds
        return {ref: Match(Outcome.waits(other, states.get(other), again)) for ref, other in others.items()}

    def _match(self, one: Entry, customer: Customer) -> Match | None:
        for way in _ways(customer):
            hits = self._hits(way)
            if self._own(one) in hits:
                return None  # the customer's own account is there: the planner decides
            if len(hits) > 1:
                return Match(self._rules.held(_several(one.ref, way, [*hits.values()])))
            for ref, hit in hits.items():
                return self._found(ref, f"{hit.observed.reference or ref.external}, by its {way.name}")
        return None

    def _found(self, ref: ErpRef, told: str) -> Match:
        if self._rules.apply:
            return Match(Outcome.shares(ref.external, told), ref)
        return Match(Outcome.planned(f"share the account {told}"), ref)

    def _hits(self, way: _Way) -> dict[ErpRef, Found]:
        found = {hit.ref: hit for hit in self._find(way.field, way.value)}
        if way.field == "number":  # accounts made by a sink have numbers that the shop does not know
            return {ref: hit for ref, hit in found.items() if ref.external.startswith(BY_HAND)}
        return self._proved(found) if way.field == "email" else found

    def _find(self, field: str, value: str) -> Sequence[Found]:
        try:
            found = self._erp.find("customer", {field: value})
            return [hit for hit in found if hit.observed.milestone is not Milestone.CANCELLED]
        except SettingsError:  # accounts there have no such field
            return []

    def _proved(self, found: Mapping[ErpRef, Found]) -> dict[ErpRef, Found]:
        """Leaves out accounts of this shop's customers whose e-mail is not verified."""
        with transaction(self._connection) as cursor:
            ours = standings.by_external(cursor, {ref.external for ref in found})
        built = self._build({ref for ref, _ in ours.values()}) if ours else {}
        doubtful = {key for key, (ref, _) in ours.items() if not _is_verified(built.get(ref))}
        return {ref: hit for ref, hit in found.items() if ref.external not in doubtful}


def _ways(customer: Customer) -> Iterator[_Way]:
    """The customer's searches; the first that finds something decides."""
    if customer.number:
        yield _Way("number", "number", customer.number)
    if customer.email and customer.email_verified:
        yield _Way("verified e-mail", "email", customer.email)
    if customer.tax_id:
        yield _Way("tax id", "tax_id", customer.tax_id)


def _is_verified(built: object) -> bool:
    return isinstance(built, Customer) and bool(built.email_verified)


def _several(ref: DocumentRef, way: _Way, hits: Sequence[Found]) -> Hold:
    names = ", ".join(sorted(hit.observed.reference or hit.ref.external for hit in hits)[:_NAMED])
    step = f"`sink accept account {ref} NUMBER --person NAME` says which, or merge them in the ERP"
    reason = f"the ERP has {len(hits)} accounts by this {way.name}: {names}"
    return Hold(reason, step, "master data", Check.SEVERAL_ACCOUNTS)
