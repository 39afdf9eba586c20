"""Looks for the account that the ERP has of a new customer already: by his number, verified e-mail or tax id."""

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
from sink.erp.kinds import BY_HAND, ErpRef
from sink.ledger import accounts, documents, standings
from sink.ledger.documents import Entry
from sink.ledger.outcomes import Outcome
from sink.planning.policy import Check, Hold

_NAMED: Final = 5
"""So many of several accounts are named to a person."""


class Match(NamedTuple):
    """What came of the look for a customer's account. `account`: what his orders are booked to; None: it is open."""

    outcome: Outcome
    account: ErpRef | None = None


class _Way(NamedTuple):
    """By which field of the ERP's accounts a customer is looked for, and by which value."""

    name: str
    field: str
    value: str

    @property
    def identity(self) -> str:
        """What is the same of two customers who may be one. A hash: the ledger needs no copy of an e-mail."""
        return hashlib.blake2b(f"{self.field} {self.value.lower()}".encode(), digest_size=16).hexdigest()


class Matching:
    """Each customer is asked for once, before he has an account: what is found is kept in the ledger, for ever."""

    def __init__(
        self,
        connection: Connection,
        erp: Erp,
        rules: Rules,
        own: Callable[[Entry], ErpRef],
        build: Callable[[Collection[DocumentRef]], Mapping[DocumentRef, object]],
    ) -> None:
        """`own`: what the ERP would know a customer by; `build`: documents as the shop has them."""
        self._connection = connection
        self._erp = erp
        self._rules = rules
        self._own = own
        self._build = build

    def of(self, new: Mapping[DocumentRef, tuple[Entry, Customer]]) -> dict[DocumentRef, Match]:
        """New customers who get no account of their own now; all others may be created.

        One that may be the same as another new one, who is on his way to the ERP, waits for that one and is looked for
        then. A question to the ERP for each of the ways that a customer can be found by, up to the first that does.
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
        # Nothing wakes who waits for one that comes no more.
        again = self._rules.recheck_seconds
        return {ref: Match(Outcome.waits(other, states.get(other), again)) for ref, other in others.items()}

    def _match(self, one: Entry, customer: Customer) -> Match | None:
        for way in _ways(customer):
            hits = self._hits(way)
            if self._own(one) in hits:
                return None  # made for him: the planner says what that means
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
        if way.field == "number":  # those that a sink made have numbers that it gave, which mean nothing in a shop
            return {ref: hit for ref, hit in found.items() if ref.external.startswith(BY_HAND)}
        return self._proved(found) if way.field == "email" else found

    def _find(self, field: str, value: str) -> Sequence[Found]:
        try:
            return self._erp.find("customer", {field: value})
        except SettingsError:  # an ERP whose accounts have no such field
            return []

    def _proved(self, found: Mapping[ErpRef, Found]) -> dict[ErpRef, Found]:
        """Without accounts of customers of this shop who have not proved that the e-mail is theirs."""
        with transaction(self._connection) as cursor:
            ours = standings.by_external(cursor, {ref.external for ref in found})
        built = self._build({ref for ref, _ in ours.values()}) if ours else {}
        doubtful = {key for key, (ref, _) in ours.items() if not _is_verified(built.get(ref))}
        return {ref: hit for ref, hit in found.items() if ref.external not in doubtful}


def _ways(customer: Customer) -> Iterator[_Way]:
    """In the order in which they count."""
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
