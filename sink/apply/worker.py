"""Takes one shop order with all its documents and makes the ERP agree with it, whatever dies on the way."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

import structlog

from schemas.errors import SettingsError
from sink.apply.desired import Desired, Found, NotPlannedError
from sink.apply.rules import Rules
from sink.apply.sending import Sending
from sink.database import Connection, transaction
from sink.documents.profile import Profile
from sink.documents.records import from_json
from sink.erp.contract import ConflictError, Erp, HoldError, RetryError, SlowDownError, StopError
from sink.erp.kinds import Kind
from sink.ledger import binding, documents, leases, marks
from sink.ledger.documents import Entry
from sink.ledger.leases import Lease, LeaseLostError
from sink.ledger.outcomes import Outcome
from sink.planning.planner import Hold, plan

log = structlog.get_logger()
_ORDER: Final[dict[Kind, int]] = {"customer": 0, "order": 1, "return": 2, "refund": 3, "price": 4}
_LONGEST_BACKOFF: Final = 300.0


class Worker:
    """One applying thread: its own connection to the middle layer, the ERP shared."""

    def __init__(self, connection: Connection, profile: Profile, erp: Erp, rules: Rules, owner: str) -> None:
        self._connection = connection
        self._erp = erp
        self._rules = rules
        self._owner = owner
        self._desired = Desired(connection, profile, erp, rules)
        self._sending = Sending(connection, erp, rules)
        self._bound = False

    def step(self) -> bool:
        """Does what is to be done for one unit; False when none is due.

        RetryError and StopError come through where the ERP as a whole cannot be used; the unit stays due. What
        concerns one document alone is kept with it, and does not.
        """
        if not self._bound:
            self.check()
        with transaction(self._connection) as cursor:
            lease = leases.lease(cursor, self._owner, self._rules.lease_seconds)
        if lease is None:
            return False
        try:
            self._unit(lease)
        except LeaseLostError:
            log.warning("another worker has taken over", unit=lease.unit)
            return True
        except NotPlannedError:
            return False
        finally:
            if not self._connection.closed:
                with transaction(self._connection) as cursor:
                    leases.release(cursor, lease)
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

    def _unit(self, lease: Lease) -> None:
        """First what was sent and never answered, then each document, those that others refer to first."""
        with transaction(self._connection) as cursor:
            found = documents.entries(cursor, lease.unit)
        found.sort(key=lambda one: (_ORDER[self._desired.kind(one.ref)], len(one.ref.key), one.ref.key))
        if not all(self._tried(lease, one, partial(self._sending.settle, lease, one)) for one in found):
            return
        built = self._desired.build([one.ref for one in found])
        for one in found:
            if not self._tried(lease, one, partial(self._look, lease, one, built[one.ref])):
                return

    def _look(self, lease: Lease, one: Entry, built: Found) -> None:
        """Has the ERP agree with one document."""
        wanted = self._desired.of(one, built)
        if isinstance(wanted, Outcome):
            self._write(lease, one, wanted)
            return
        desired, applied = wanted.record, from_json(one.applied) if one.applied else None
        # A ledger from a backup may not know of a document that the ERP has; it knows that it sent something.
        known = applied or (desired if one.revision else None)
        observed = self._erp.observe(known.kind, one.external(self._rules.shop)) if known else None
        commands = plan(desired, applied, observed, self._rules.policy, wanted.order)
        if isinstance(commands, Hold):
            self._write(lease, one, self._rules.held(commands))
        elif not commands:
            self._write(lease, one, Outcome.gone() if desired is None else Outcome.done())
        elif not self._rules.apply:
            steps = ", ".join(f"{command.verb} {command.record.kind}" for command in commands)
            self._write(lease, one, Outcome.planned(steps))
        else:
            for command in commands:
                self._sending.send(lease, one, command, observed.revision if observed else 0)

    def _tried(self, lease: Lease, one: Entry, act: Callable[[], None]) -> bool:
        """False when nothing more may be sent for the unit, since nobody knows whether this document's call was done.

        An error is written to the document, with a time to look again, so that the others get their turn.
        """
        try:
            act()
        except HoldError as error:
            self._write(lease, one, self._rules.held(Hold(error.message, error.hint, error.cause)))
        except StopError as error:
            again, attempts = _backoff(one)
            self._write(lease, one, Outcome.retry(error.message, again, attempts, error.hint))
            raise
        except RetryError as error:
            self._retry(lease, one, error)
        return one.intent is None

    def _retry(self, lease: Lease, one: Entry, error: RetryError) -> None:
        """An outage is not the document's fault: it stays due and counts nothing."""
        if self._reachable(error):
            self._write(lease, one, Outcome.retry(error.message, *_backoff(one)))
            return
        with suppress(LeaseLostError):
            self._write(lease, one, Outcome.retry(error.message, 0.0, one.attempts))
        raise error

    def _reachable(self, error: RetryError) -> bool:
        """Whether a call failed for its document alone: then the ERP answers another question."""
        if isinstance(error, ConflictError | SlowDownError):
            return isinstance(error, ConflictError)
        try:
            self._erp.check()
        except RetryError:
            return False
        return True

    def _write(self, lease: Lease, one: Entry, outcome: Outcome) -> None:
        with transaction(self._connection) as cursor:
            documents.write(cursor, lease, one, outcome)


def _backoff(one: Entry) -> tuple[float, int]:
    """Seconds to rest after one more attempt, doubling, and how many attempts that makes."""
    attempts = one.attempts + 1
    rest = min(_LONGEST_BACKOFF, 0.5 * 2.0 ** min(attempts, 12))
    return rest * random.uniform(0.5, 1.5), attempts  # noqa: S311  jitter
