"""The life of `capture run`: it waits for the leadership, holds a session, and starts again after an error that
passes."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import structlog

from capture.kafka.errors import FencedError
from capture.metrics import Metrics
from capture.plan import Plan
from capture.postgres.replication import Leadership, SlotInUseError
from capture.session import Lifetime, Session
from capture.snapshot.initial import StoppedError
from schemas.model.errors import UnavailableError
from schemas.process.backoff import backoff

log = structlog.get_logger("capture")

_STANDBY_PAUSE = 1.0
_RAN_WELL = 10.0  # seconds: after a run of this length an error is new, and the next start comes soon
_SLOT_PATIENCE = 90.0  # a dead reader's walsender may live on for wal_sender_timeout (a minute by default)


class Capture:
    """One connector; `run` lasts until `stopping()`."""

    def __init__(
        self, plan: Plan, metrics: Metrics, stopping: Callable[[], bool], sleep: Callable[[float], object]
    ) -> None:
        self._plan = plan
        self._metrics = metrics
        self._stopping = stopping
        self._sleep = sleep
        self._lifetime = Lifetime()
        self._session: Session | None = None
        self._led = False

    def reread(self, plan: Plan) -> None:
        """Takes new settings: limits and times at once, connections from the next one. Called by `stopping`, in its
        thread. Names, and whatever shapes records, must be the same."""
        self._plan = plan
        self._metrics.beats_every(plan.options.heartbeat)
        if self._session is not None:
            self._session.reread(plan)

    def run(self) -> None:
        """Starts, and starts again after errors that pass. The first start raises its error."""
        attempt = 0
        first_try = time.monotonic()
        while not self._stopping() and not self._lifetime.ended:
            began = time.monotonic()
            try:
                self._once()
            except SlotInUseError as error:
                if not self._lifetime.started and time.monotonic() - first_try > _SLOT_PATIENCE:
                    raise
                self._say_again(error)
            except UnavailableError as error:
                if not self._lifetime.started:
                    raise
                self._say_again(error)
            except StoppedError:
                log.info("stopped before the snapshot was complete", next="start again; the slot keeps the log")
                return
            gc.collect()  # ends the threads of a producer that is no longer used
            attempt = 1 if time.monotonic() - began > _RAN_WELL else attempt + 1
            if not self._stopping() and not self._lifetime.ended:
                self._sleep(backoff(attempt, 0.5, longest=10.0, spread=1.0))

    def _stops(self) -> bool:
        """Asked between the parts of long work, so this also counts as a sign of life."""
        self._metrics.turned()
        return self._stopping()

    def _say_again(self, error: UnavailableError) -> None:
        if self._stopping():
            log.warning("stopped", reason=error.message, next="start again: what is not in Kafka is read again")
            return
        again = self._metrics.start_failed(error.message, error.hint)
        self._metrics.turned()
        told = log.error if again else log.warning
        told("starting again", reason=error.message, next=error.hint)

    def _once(self) -> None:
        """One start, until a clean stop or an error."""
        leadership = Leadership(self._plan.server, self._plan.options.slot)
        try:
            if not self._lead(leadership):
                return
            self._metrics.leads(True)
            if self._metrics.state == "standby":
                self._metrics.stands("starting")
            self._session = Session(self._plan, leadership, self._lifetime, self._metrics, self._stops)
            self._led = True
            self._session.run()
        except FencedError as error:
            raise _fenced(error, leadership) from None
        finally:
            self._session = None
            self._metrics.leads(False)
            leadership.close()

    def _lead(self, leadership: Leadership) -> bool:
        """Waits for the leadership. False if meanwhile asked to stop, or to use another server."""
        server = self._plan.server
        while not leadership.acquire():
            if self._led:
                self._led = False
                log.warning(
                    "fenced: another copy took the lead while this one was away, or the server has not ended our own "
                    "session yet; nothing more was written"
                )
            if self._metrics.state != "standby":
                log.info("another copy leads: standing by", slot=self._plan.options.slot)
            self._metrics.stands("standby")
            self._metrics.turned()
            self._lifetime.start()
            self._sleep(_STANDBY_PAUSE)
            if self._stopping() or self._plan.server != server:  # SIGHUP may have changed it
                return False
        return True


def _fenced(error: FencedError, leadership: Leadership) -> UnavailableError:
    """Kafka says the same of a replaced producer and of a transaction that took too long. The lock tells which it
    was."""
    if not leadership.held():
        return error
    return UnavailableError(
        f"the broker gave up our transaction, which lasted too long ({error.message})",
        "nothing of it can be read; capture is still the leader and starts again from its position",
    )
