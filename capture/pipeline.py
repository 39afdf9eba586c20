"""The start sequence and what follows it: leadership, producer, position, checks, snapshot, stream. Every error of the
connection, every abort and every fence ends in this sequence again."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

import structlog
from tenacity import wait_exponential_jitter

from capture import catalogue
from capture.checks import REPAIR, check_position, check_timeline
from capture.incremental import Incremental
from capture.metrics import Metrics
from capture.own_records import OwnRecords
from capture.position import Position, SnapshotState, parse_position
from capture.producer import Cluster, Topics, TransactionalProducer
from capture.replication import (
    Leadership,
    Replication,
    Server,
    Slot,
    SlotInUseError,
    System,
    drop_slot,
    slot_state,
)
from capture.snapshot import Committed, Extent, Source, StoppedError, take_snapshot
from capture.stream import Beats, Options, Stream, first_position, keepalive_seconds
from capture.tables import Tables
from capture.watermark import ChunkReader
from capture.writer import Limits, Writer
from schemas.change import Stamp
from schemas.codec import SourceOrigin
from schemas.envelope import Schema, topic_name
from schemas.errors import SettingsError, UnavailableError
from schemas.records import COMPLETED
from schemas.registry import Registry
from schemas.relation import Relation, TableFacts
from schemas.type_modes import Modes

log = structlog.get_logger("capture")

_STANDBY_PAUSE = 1.0
_SLOT_PATIENCE = 90.0  # a dead reader's walsender may live on for wal_sender_timeout (a minute by default)


class Plan(NamedTuple):
    """Everything that the settings say, in plain values."""

    name: str
    prefix: str
    server: Server
    publication: str
    included: frozenset[str]
    as_text: frozenset[str]
    modes: Modes
    tombstones: bool
    snapshot_mode: str
    snapshot_threads: int
    lock_timeout_ms: int
    chunk_rows: int
    cluster: Cluster
    topics: Topics
    registry: Registry
    limits: Limits
    options: Options
    settings_hash: str
    version: str


class Capture:
    """One connector; `run` lasts until `stopping()`."""

    def __init__(
        self, plan: Plan, metrics: Metrics, stopping: Callable[[], bool], sleep: Callable[[float], object]
    ) -> None:
        self._plan = plan
        self._metrics = metrics
        self._stopping = stopping
        self._sleep = sleep
        self._beats = Beats(uuid.uuid4().hex[:12])
        self._started = False
        self._stream_now: Stream | None = None

    def reread(self, plan: Plan) -> None:
        """Other settings: limits and times from now on, connections from the next one. For `stopping`, in its thread.

        What shapes records, and names, must be the same.
        """
        self._plan = plan
        self._metrics.heartbeat_interval = plan.options.heartbeat
        if self._stream_now is not None:
            self._stream_now.reread(plan.options, plan.limits)

    def run(self) -> None:
        """Starts, and starts again after what passes; the first start does not insist: its error is raised."""
        backoff = wait_exponential_jitter(initial=0.5, max=30)
        attempt = 0
        first_try = time.monotonic()
        while not self._stopping():
            began = time.monotonic()
            try:
                self._once()
            except SlotInUseError as error:
                if not self._started and time.monotonic() - first_try > _SLOT_PATIENCE:
                    raise
                self._say_again(error)
            except UnavailableError as error:
                if not self._started:
                    raise
                self._say_again(error)
            except StoppedError:
                return
            gc.collect()  # ends the threads of a producer that is of no use any more
            attempt = 1 if time.monotonic() - began > 60 else attempt + 1
            if not self._stopping():
                self._sleep(backoff(_Attempt(attempt)))  # type: ignore[arg-type]

    def _stops(self) -> bool:
        """Asked between the parts of what lasts long, so that it also says that we live."""
        self._metrics.turned()
        return self._stopping()

    def _say_again(self, error: UnavailableError) -> None:
        self._metrics.state = "starting again: " + error.message
        self._metrics.turned()
        log.warning("starting again", reason=error.message, next=error.hint)

    def _once(self) -> None:
        """One start, up to a clean stop or an error."""
        plan = self._plan
        leadership = Leadership(plan.server, plan.options.slot)
        try:
            if not self._lead(leadership):
                return
            published = self._published(leadership)
            plan.topics.create([topic_name(plan.prefix, table.relation.table) for table in published])
            plan.registry.check()
            producer = TransactionalProducer(plan.cluster, f"ordertap-{plan.name}")
            value = plan.cluster.last_value(plan.topics.position, plan.name.encode())
            self._from_position(leadership, producer, published, None if value is None else parse_position(value))
        finally:
            leadership.close()

    def _lead(self, leadership: Leadership) -> bool:
        """Waits for the leadership; False when asked to stop meanwhile."""
        while not leadership.acquire():
            if self._metrics.state != "standby":
                log.info("another copy leads: standing by", slot=self._plan.options.slot)
            self._metrics.state = "standby"
            self._metrics.turned()
            self._started = True
            self._sleep(_STANDBY_PAUSE)
            if self._stopping():
                return False
        return True

    def _published(self, leadership: Leadership) -> list[catalogue.Published]:
        plan = self._plan
        every = catalogue.published_tables(leadership.connection, plan.publication)
        published = [table for table in every if not plan.included or table.relation.table in plan.included]
        missing = sorted(plan.included - {table.relation.table for table in every})
        if missing or not published:
            raise SettingsError(
                f"publication {plan.publication} of database {plan.server.database} "
                + (f"does not have {', '.join(missing)}" if missing and every else "does not exist or has no tables"),
                "capture init makes it, capture check prints the SQL for a DBA",
            )
        return published

    def _from_position(
        self,
        leadership: Leadership,
        producer: TransactionalProducer,
        published: list[catalogue.Published],
        position: Position | None,
    ) -> None:
        plan = self._plan
        replication = Replication(plan.server)
        try:
            system = replication.identify()
            slot = slot_state(leadership.connection, plan.options.slot)
            committed = Committed(producer, plan.topics.position, plan.name.encode(), 30.0)
            own = OwnRecords(plan.name, plan.prefix, plan.topics, plan.registry.register)
            origin = SourceOrigin(plan.prefix, plan.server.database, plan.version)
            tables = self._tables(leadership)
            if position is None or _unfinished(position):
                position = position or self._beginning(system, slot)
                position = position._replace(settings=plan.settings_hash)
                position = self._first(
                    leadership, replication, published, tables, own, origin, position, committed, system
                )
            else:
                check_position(position, system, slot, plan.options.slot, plan.settings_hash)
                if system.timeline != position.timeline:
                    check_timeline(position, system, replication.history(system.timeline))
                position = position._replace(settings=plan.settings_hash, timeline=system.timeline)
            committed.write((), position._replace(stopped_lsn=None))
            self._stream(leadership, replication, producer, tables, own, origin, position._replace(stopped_lsn=None))
        finally:
            replication.close()
        self._note_stop(leadership, committed)

    def _beginning(self, system: System, slot: Slot | None) -> Position:
        """Neither position nor slot: the first start. A slot alone is somebody else's, or its position is lost."""
        plan = self._plan
        if slot is not None:
            raise SettingsError(
                f"slot {plan.options.slot} exists, but topic {plan.topics.position} has no position of {plan.name}: "
                "it belongs to another reader, or the topic was lost and changes may be missing",
                "set another slot_name; or, if the slot is ours: " + REPAIR,
            )
        return first_position(1, system.identifier, system.timeline, plan.options.slot, system.lsn, plan.settings_hash)

    def _first(
        self,
        leadership: Leadership,
        replication: Replication,
        published: list[catalogue.Published],
        tables: Tables,
        own: OwnRecords,
        origin: SourceOrigin,
        position: Position,
        committed: Committed,
        system: System,
    ) -> Position:
        """The snapshot, or with `no_data` the slot alone."""
        plan = self._plan
        self._metrics.state = "snapshot"
        self._started = True
        position = position._replace(system_identifier=system.identifier, timeline=system.timeline, stopped_lsn=None)
        if plan.snapshot_mode == "no_data":
            committed.write((), position._replace(snapshot=SnapshotState("no_data", "running")))
            log.info("making the slot without a snapshot", slot=plan.options.slot)
            drop_slot(leadership.connection, plan.options.slot)
            point = replication.create_slot(plan.options.slot, self._stops)
            lsn = point.consistent_point
            position = position._replace(end_lsn=lsn, last_commit_lsn=lsn, snapshot=None)
            # Readers wait for a first copy: they are told that this one is complete, of no table.
            stamp = Stamp(position.generation, lsn, 0)
            done = own.snapshot(COMPLETED, stamp, str(uuid.uuid4()), [], time.time_ns() // 10**6, rows={})
            committed.write([done], position)
            return position
        source = Source(plan.server, replication, plan.options.slot, plan.lock_timeout_ms)
        extent = Extent(plan.name, plan.cluster, plan.snapshot_threads, {})
        return take_snapshot(source, extent, published, tables, own, origin, position, committed, self._stops)

    def _tables(self, leadership: Leadership) -> Tables:
        plan = self._plan
        return plan_tables(
            plan,
            lambda relation: catalogue.table_facts(leadership.connection, relation),
            plan.registry.register,
            plan.topics.partitions,
        )

    def _stream(
        self,
        leadership: Leadership,
        replication: Replication,
        producer: TransactionalProducer,
        tables: Tables,
        own: OwnRecords,
        origin: SourceOrigin,
        position: Position,
    ) -> None:
        plan = self._plan
        options = plan.options._replace(keepalive=keepalive_seconds(leadership.setting("wal_sender_timeout")))
        replication.start(options.slot, position.end_lsn, plan.publication)
        self._started = True
        self._metrics.state = "streaming"
        self._metrics.restarted()
        log.info("streaming", slot=options.slot, lsn=str(position.end_lsn), generation=position.generation)
        writer = Writer(producer, plan.topics.position, plan.name.encode(), position, plan.limits)
        name = uuid.uuid4().hex[:12]
        chunks = ChunkReader(plan.server, plan.publication, tables, origin, name, plan.chunk_rows)
        incremental = Incremental(position.demand, chunks.read, name, own, position.generation)
        stream = Stream(
            replication,
            leadership,
            writer,
            tables,
            own,
            origin,
            position,
            incremental,
            options,
            self._metrics,
            self._beats,
        )
        gc.collect()
        gc.freeze()  # what lives from here on is short-lived or here for good, and makes no cycles
        gc.set_threshold(100_000, 50, 100)
        try:
            self._stream_now = stream
            self._durable = stream.run(self._stopping)
        finally:
            self._stream_now = None
            writer.close()
            chunks.close()
            gc.unfreeze()

    def _note_stop(self, leadership: Leadership, committed: Committed) -> None:
        """After a clean stop nobody else may move the slot: its LSN is noted to see it."""
        slot = _left(leadership, self._plan.options.slot)
        if slot is not None and slot.confirmed_flush_lsn is not None:
            committed.write((), self._durable._replace(stopped_lsn=slot.confirmed_flush_lsn))
        log.info("stopped cleanly", lsn=str(self._durable.end_lsn))


def plan_tables(
    plan: Plan,
    facts: Callable[[Relation], TableFacts],
    register: Callable[[str, Schema], int],
    partitions: Callable[[str], int],
) -> Tables:
    """The tables as the settings want them; see Tables for the three functions."""
    return Tables(plan.prefix, plan.included, plan.as_text, plan.tombstones, facts, register, partitions, plan.modes)


class _Attempt(NamedTuple):
    """What tenacity's wait functions look at."""

    attempt_number: int


def _unfinished(position: Position) -> bool:
    return position.snapshot is not None and position.snapshot.state == "running"


def _left(leadership: Leadership, name: str) -> Slot | None:
    """The slot once our walsender is gone: until then it may still take in what we confirmed last."""
    deadline = time.monotonic() + 2.0
    slot = slot_state(leadership.connection, name)
    while slot is not None and slot.active_pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        slot = slot_state(leadership.connection, name)
    return None if slot is None or slot.active_pid is not None else slot
