"""Sends commands so that each is done once: intent, call, outcome, each written before the next begins."""

from __future__ import annotations

from dataclasses import asdict

import structlog

from sink.apply.rules import Rules
from sink.database import Connection, transaction
from sink.documents.records import from_json, to_json
from sink.erp.contract import Command, ConflictError, Erp, HoldError, Key, Probe
from sink.ledger import documents, leases
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease
from sink.ledger.outcomes import Intent, Outcome
from sink.staging.position import note_acted

log = structlog.get_logger()


class Sending:
    """Every transaction of it proves the lease and extends it."""

    def __init__(self, connection: Connection, erp: Erp, rules: Rules) -> None:
        self._connection = connection
        self._erp = erp
        self._rules = rules

    def settle(self, lease: Lease, one: Entry) -> None:
        """A command of which the reply was lost: asked for before anything else is done."""
        if one.intent is None:
            return
        intent, kind = one.intent, from_json(one.intent.record).kind
        key = Key(one.external(self._rules.shop), intent.revision)
        answer = self._erp.probe(kind, intent.verb, key)
        if answer is Probe.UNCLEAR:
            raise HoldError(
                f"the ERP cannot say whether a {intent.verb} was done", "look it up there, then `sink retry`"
            )
        if answer is Probe.DONE:
            observed = self._erp.observe(kind, key.external)
            self._applied(lease, one, intent, observed.reference if observed else one.reference or "")
        else:
            self._intend(lease, one, None)

    def send(self, lease: Lease, one: Entry, command: Command, in_erp: int) -> None:
        """Has the ERP do a command. `in_erp`: the revision that the ERP shows.

        A ledger from a backup counts from an older one; the ERP would take the next ones for done already.
        """
        revision = max(one.revision, in_erp) + 1
        intent = Intent(command.verb, to_json(command.record), revision, one.marked, one.identity)
        self._intend(lease, one, intent)
        try:
            done = self._erp.apply(command, Key(one.external(self._rules.shop), revision))
        except (HoldError, ConflictError):  # nothing was changed: there is no outcome to wait for
            self._intend(lease, one, None)
            raise
        self._applied(lease, one, intent, done.reference)

    def _intend(self, lease: Lease, one: Entry, intent: Intent | None) -> None:
        columns = {"intent": None} if intent is None else {"intent": asdict(intent), "revision": intent.revision}
        with transaction(self._connection) as cursor:
            leases.renew(cursor, lease, self._rules.lease_seconds)
            documents.save(cursor, one.ref, **columns)
            if intent is not None:
                note_acted(cursor)
        one.intent = intent
        one.revision = one.revision if intent is None else intent.revision

    def _applied(self, lease: Lease, one: Entry, intent: Intent, reference: str) -> None:
        with transaction(self._connection) as cursor:
            leases.renew(cursor, lease, self._rules.lease_seconds)
            documents.write(cursor, lease, one, Outcome.applied(intent, reference))
        log.info("done in the ERP", verb=intent.verb, document=str(one.ref), reference=reference)
