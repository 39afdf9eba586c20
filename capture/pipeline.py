"""The start sequence and what follows it: leadership, producer, position, checks, snapshot, stream. Every error of the
connection, every abort and every fence ends in this sequence again."""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog
from tenacity import wait_exponential_jitter

from capture.changes.heartbeats import Beats, Heartbeats
from capture.changes.messages import Messages, Route, refuse_taken
from capture.changes.own_records import OwnRecords
from capture.changes.stream import INTERNAL, Options, Stream
from capture.changes.tables import Tables
from capture.changes.transaction import RecordLimit
from capture.changes.versions import Policy, Versions
from capture.checks import another_log, not_ours, problem, repaired
from capture.kafka import broker
from capture.kafka.cluster import Cluster
from capture.kafka.errors import FencedError
from capture.kafka.hanging import abort_hanging, end_hanging, find_hanging
from capture.kafka.position import Position, parse_position
from capture.kafka.producer import CLIENT_LIMIT, TransactionalProducer
from capture.kafka.topics import Topics
from capture.kafka.writer import Limits, Writer
from capture.metrics import Metrics
from capture.on_demand.chunk_reader import ChunkReader
from capture.on_demand.incremental import Incremental
from capture.postgres import catalogue
from capture.postgres.replication import (
    Leadership,
    Replication,
    Server,
    Slot,
    SlotInUseError,
    System,
    drop_slot,
    keepalive_seconds,
    slot_state,
)
from capture.selection import Selection
from capture.snapshot.initial import PositionWriter, Source, StoppedError, begin_without_data, chosen, take_snapshot
from capture.snapshot.modes import SnapshotOptions, next_step, unfinished, with_rest
from capture.snapshot.workers import fence
from schemas import wire
from schemas.codec import SourceOrigin
from schemas.envelope import Schema
from schemas.errors import SettingsError, UnavailableError
from schemas.json_output import JsonRegistry
from schemas.lsn import LSN
from schemas.registry import Registry
from schemas.relation import Relation, TableFacts
from schemas.type_modes import Modes
from schemas.wire import Frame

log = structlog.get_logger("capture")

_STANDBY_PAUSE = 1.0
_RAN_WELL = 10.0  # seconds: what ends a run of this length is news, so that the next start comes soon
_AFTER_INITIAL_ONLY = "snapshot_mode initial streams on from the slot, which keeps the log; capture drop lets it go"
_HEARTBEAT_ROOM = 1024  # bytes of the log that a heartbeat fits into
_SLOT_PATIENCE = 90.0  # a dead reader's walsender may live on for wal_sender_timeout (a minute by default)


class Plan(NamedTuple):
    """Everything that the settings say, in plain values."""

    name: str
    prefix: str
    server: Server
    publication: str
    selection: Selection
    as_text: frozenset[str]
    modes: Modes
    tombstones: bool
    park_oversized: bool
    message_prefixes: tuple[str, ...]
    outbox: tuple[Route, ...]
    incompatible_schema: Policy
    snapshot: SnapshotOptions
    failover: bool
    chunk_rows: int
    cluster: Cluster
    topics: Topics
    registry: Registry
    limits: Limits
    options: Options
    settings_hash: str
    version: str

    @property
    def transactional_id(self) -> str:
        """Of the stream's producer; those of the snapshot's begin so. Topics tell shops on one Kafka apart."""
        return f"ordertap-{self.prefix}-{self.name}"

    @property
    def as_json(self) -> bool:
        """Whether records are JSON text, with no schema registry."""
        return isinstance(self.registry, JsonRegistry)

    @property
    def record_limit(self) -> RecordLimit:
        """What Kafka's client takes."""
        largest = int(self.cluster.options.get("message.max.bytes", CLIENT_LIMIT))
        return RecordLimit(largest, self.park_oversized, self.as_json)

    @property
    def frame(self) -> Frame:
        """What makes keys and values of Avro bytes."""
        return self.registry.frame if isinstance(self.registry, JsonRegistry) else wire.frame


class Capture:
    """One connector; `run` lasts until `stopping()`."""

    def __init__(
        self, plan: Plan, metrics: Metrics, stopping: Callable[[], bool], sleep: Callable[[float], object]
    ) -> None:
        self._plan = plan
        self._metrics = metrics
        self._stopping = stopping
        self._sleep = sleep
        self._beats = Beats(_run_id())
        self._started = False
        self._taken = False  # whether this process has taken a snapshot
        self._ended = False
        self._stream_now: Stream | None = None
        self._led = False

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
        backoff = wait_exponential_jitter(initial=0.5, max=10)
        attempt = 0
        first_try = time.monotonic()
        while not self._stopping() and not self._ended:
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
                log.info("stopped before the snapshot was complete", next="start again; the slot keeps the log")
                return
            gc.collect()  # ends the threads of a producer that is of no use any more
            attempt = 1 if time.monotonic() - began > _RAN_WELL else attempt + 1
            if not self._stopping() and not self._ended:
                self._sleep(backoff(_Attempt(attempt)))  # type: ignore[arg-type]

    def _stops(self) -> bool:
        """Asked between the parts of what lasts long, so that it also says that we live."""
        self._metrics.turned()
        return self._stopping()

    def _say_again(self, error: UnavailableError) -> None:
        if self._stopping():
            log.warning("stopped", reason=error.message, next="start again: what is not in Kafka is read once more")
            return
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
            self._metrics.leading = True
            published = self._published(leadership)
            plan.registry.check()
            topics = [plan.topics.of(table.relation.table) for table in published]
            refuse_taken(plan.outbox, plan.topics.taken)
            plan.topics.create(topics)
            producer = TransactionalProducer(plan.cluster, plan.transactional_id)
            self._end_hanging(leadership, producer)
            value = plan.cluster.last_value(plan.topics.position, plan.name.encode())
            self._led = True
            self._from_position(leadership, producer, published, None if value is None else parse_position(value))
        except FencedError as error:
            raise _fenced(error, leadership) from None
        finally:
            self._metrics.leading = False
            leadership.close()

    def _lead(self, leadership: Leadership) -> bool:
        """Waits for the leadership; False when asked to stop meanwhile."""
        while not leadership.acquire():
            if self._led:
                self._led = False
                log.warning("fenced: another copy took the lead while this one was away; nothing more was written")
            if self._metrics.state != "standby":
                log.info("another copy leads: standing by", slot=self._plan.options.slot)
            self._metrics.state = "standby"
            self._metrics.turned()
            self._started = True
            self._sleep(_STANDBY_PAUSE)
            if self._stopping():
                return False
        return True

    def _end_hanging(self, leadership: Leadership, producer: TransactionalProducer) -> None:
        """Before the position is read and anything is written: what a broker that came back has left open."""
        plan, key = self._plan, self._plan.name.encode()
        if not find_hanging(plan.cluster, plan.topics.writes):
            return
        value = plan.cluster.last_value(plan.topics.position, key, settled=False)
        position = None if value is None else parse_position(value)
        if position is not None and position.snapshot is not None and unfinished(position):
            workers = fence(plan.cluster, plan.transactional_id, position.snapshot.workers)
            done = {plan.topics.of(table) for table in position.snapshot.tables_done}
            left = [place for place in find_hanging(plan.cluster, plan.topics.writes) if place.topic not in done]
            for worker in workers:
                abort_hanging(worker, left)
        if hanging := find_hanging(plan.cluster, plan.topics.writes):
            slot = slot_state(leadership.connection, plan.options.slot)
            confirmed = None if slot is None else slot.confirmed_flush_lsn
            end_hanging(plan.cluster, producer, hanging, plan.topics.position, key, position, confirmed)

    def _published(self, leadership: Leadership) -> list[catalogue.Published]:
        plan = self._plan
        every = catalogue.published_tables(leadership.connection, plan.publication)
        published = [table for table in every if plan.selection.table(table.relation.table)]
        if not published:
            missing = plan.selection.missing(table.relation.table for table in every)
            raise self._not_published(missing if every else ())
        catalogue.refuse_namesakes(published)
        return published

    def _from_position(
        self,
        leadership: Leadership,
        producer: TransactionalProducer,
        published: list[catalogue.Published],
        position: Position | None,
    ) -> None:
        plan = self._plan
        replication = Replication(plan.server, plan.failover)
        try:
            system = replication.identify()
            slot = slot_state(leadership.connection, plan.options.slot)
            committed = PositionWriter(producer, plan.topics.position, plan.name.encode(), 30.0)
            own = OwnRecords(plan.name, plan.prefix, plan.topics, plan.registry.register, plan.frame)
            origin = SourceOrigin(plan.prefix, plan.server.database, plan.version)
            tables = self._tables(leadership, () if position is None else position.parked)
            tables.published = frozenset(table.relation.table for table in published)
            self._check_lists(tables, published, position)
            problem = self._problem(position, system, slot, replication)
            position = self._rest(leadership, published, position, problem)
            step = next_step(plan.snapshot.mode, position, problem, self._taken)
            if step == "snapshot":
                tables.unpark(tables.parked)  # it reads them, or what was before counts for none of the tables
                beginning = self._beginning(position, system, problem, replication.history)
                position = self._first(leadership, replication, published, tables, own, origin, beginning, committed)
                self._taken = True
            self._ended = step == "end" or plan.snapshot.mode == "initial_only"
            if self._ended or position is None:
                log.info("the snapshot is complete: ending", slot=plan.options.slot, next=_AFTER_INITIAL_ONLY)
                return
            if step == "stream":
                self._tell_uncopied(leadership, published, position)
            if position.timeline != system.timeline:
                self._beats.run = _run_id()  # the numbers of those that the standby never got are no gap
            position = position._replace(settings=plan.settings_hash, timeline=system.timeline)
            committed.write((), position._replace(stopped_lsn=None))
            position = position._replace(stopped_lsn=None)
            durable = self._stream(leadership, replication, producer, tables, own, origin, position)
        finally:
            replication.close()
        self._note_stop(leadership, committed, durable)

    def _tell_uncopied(self, leadership: Leadership, published: list[catalogue.Published], position: Position) -> None:
        """Warns of tables that have rows and never had a record in Kafka: published while capture was down."""
        plan = self._plan
        if plan.snapshot.mode == "no_data":
            return
        awaited = {name for request in position.demand.requests for name, _ in request.tables}
        meant = [one.relation for one in chosen(published, plan.snapshot) if one.relation.table not in awaited]
        topics = {relation.table: plan.topics.of(relation.table) for relation in meant}
        ends = broker.ends(plan.cluster, {topic: plan.topics.partitions(topic) for topic in topics.values()})
        for relation in meant:
            if not ends[topics[relation.table]] and catalogue.has_pages(leadership.connection, relation):
                hint = f"capture signal snapshot {relation.table}"
                log.warning("table has rows, and Kafka none of them", table=relation.table, next=hint)

    def _not_published(self, missing: Iterable[str]) -> SettingsError:
        named = ", ".join(missing)
        return SettingsError(
            f"publication {self._plan.publication} of database {self._plan.server.database} "
            + (f"does not have {named}" if named else "does not exist or has no tables"),
            "capture check says what is missing and prints the SQL for a DBA; capture init makes it",
        )

    def _check_lists(self, tables: Tables, published: list[catalogue.Published], position: Position | None) -> None:
        """SettingsError for rules on columns that a table cannot keep, and for new entries that meet nothing.

        Such an entry may be misspelt, and the values that it was for would be seen. One that has met something may
        outlive it: a table that the shop dropped is no reason to stop, and the log may still have its rows.
        """
        plan = self._plan
        relations = [one.relation for one in published]
        new = position is None or unfinished(position) or position.settings != plan.settings_hash
        if missing := plan.selection.missing(relation.table for relation in relations):
            if new:
                raise self._not_published(missing)
            log.warning("settings mean no published table", entries=missing)
        if not plan.selection.has_rules:
            return
        for one in published:
            tables.check(one.relation)
        if new:
            plan.selection.check_used(relations)
        elif unused := plan.selection.unused(relations):
            log.warning("settings mean no captured column or table", entries=unused)

    def _rest(
        self,
        leadership: Leadership,
        published: list[catalogue.Published],
        position: Position | None,
        problem: SettingsError | None,
    ) -> Position | None:
        """The position, of a snapshot that a crash ended with what is left to read, if that can be read."""
        plan = self._plan
        if position is None or position.snapshot is None or not unfinished(position):
            return position
        fence(plan.cluster, plan.transactional_id, position.snapshot.workers)
        keyed = {
            table.relation.table: table.relation.table not in plan.snapshot.overrides
            and catalogue.has_key(leadership.connection, table.relation)
            for table in chosen(published, plan.snapshot)
            if table.relation.table not in position.parked
        }
        rest = None if plan.snapshot.mode == "initial_only" else with_rest(position, problem, keyed)
        if rest is None:
            log.info("the snapshot begins again as a whole", snapshot=position.snapshot.id)
            return position
        left = [name for name, _ in rest.demand.requests[0].tables]
        log.info("the snapshot goes on while streaming", snapshot=position.snapshot.id, tables=left)
        return rest

    def _problem(
        self, position: Position | None, system: System, slot: Slot | None, replication: Replication
    ) -> SettingsError | None:
        """Why the position cannot be streamed from; raised when there is a slot without one."""
        plan = self._plan
        if position is None:
            if slot is None:
                return None
            raise not_ours(plan.options.slot, plan.topics.position, plan.name)
        return problem(position, system, slot, plan.options.slot, plan.settings_hash, replication.history)

    def _beginning(
        self,
        position: Position | None,
        system: System,
        problem: SettingsError | None,
        history: Callable[[int], str],
    ) -> Position:
        """The position that a snapshot begins with: in a new generation when an older copy is in Kafka."""
        name, settings = self._plan.options.slot, self._plan.settings_hash
        if position is not None and unfinished(position) and not another_log(position, system, history):
            fresh = position._replace(settings=settings, system_identifier=system.identifier, stopped_lsn=None)
            return fresh._replace(timeline=system.timeline)
        if problem is not None:
            log.warning("a new snapshot is needed", reason=problem.message, mode=self._plan.snapshot.mode)
        lost = problem is not None or (position is None and self._written())
        return repaired(position, system, name, settings, first=int(time.time()) if lost else 1)

    def _written(self) -> bool:
        """Whether the topics have records though there is no position: slot and position were lost together.

        What is written now must win over them, whatever generation they have.
        """
        counts = {name: count for name, count in self._plan.cluster.partitions().items() if self._plan.topics.has(name)}
        written = sorted(name for name, end in broker.ends(self._plan.cluster, counts).items() if end)
        if written:
            log.warning("topics have records, but there is no position: a new generation begins", topics=len(written))
        return bool(written)

    def _first(
        self,
        leadership: Leadership,
        replication: Replication,
        published: list[catalogue.Published],
        tables: Tables,
        own: OwnRecords,
        origin: SourceOrigin,
        position: Position,
        committed: PositionWriter,
    ) -> Position:
        """The snapshot, or with `no_data` the slot alone."""
        plan = self._plan
        self._metrics.state = "snapshot"
        self._started = True
        if plan.snapshot.mode == "no_data":
            drop_slot(leadership.connection, plan.options.slot)
            return begin_without_data(replication, plan.options.slot, own, position, committed, self._stops)
        source = Source(
            plan.server,
            replication,
            plan.options.slot,
            plan.publication,
            plan.cluster,
            plan.transactional_id,
            plan.selection.table,
        )
        return take_snapshot(source, plan.snapshot, published, tables, own, origin, position, committed, self._stops)

    def _tables(self, leadership: Leadership, parked: Iterable[str]) -> Tables:
        plan = self._plan
        return plan_tables(
            plan,
            lambda relation: catalogue.table_facts(leadership.connection, relation),
            plan.registry.register,
            plan.topics.partitions,
            parked,
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
    ) -> Position:
        """Streams until asked to stop; the durable position."""
        plan = self._plan
        options = plan.options._replace(keepalive=keepalive_seconds(leadership.setting("wal_sender_timeout")))
        beat = position.heartbeat
        begin = position.end_lsn if beat is None else LSN(max(0, beat.lsn - _HEARTBEAT_ROOM))
        replication.start(options.slot, begin, plan.publication)
        slot = slot_state(leadership.connection, options.slot)  # until now the walsender of a dead reader may move it
        again = slot is not None and slot.confirmed_flush_lsn is not None and slot.confirmed_flush_lsn <= begin
        self._started = True
        self._metrics.state = "streaming"
        self._metrics.parked = tuple(sorted(tables.parked))
        self._metrics.restarted()
        log.info("streaming", slot=options.slot, lsn=str(position.end_lsn), generation=position.generation)
        writer = Writer(producer, plan.topics.position, plan.name.encode(), position, plan.limits)
        awaited = beat if again else None
        heartbeats = Heartbeats(leadership, options.slot, self._beats, options.heartbeat, awaited, self._metrics)
        name = uuid.uuid4().hex[:12]
        chunks = ChunkReader(plan.server, plan.publication, tables, origin, name, plan.chunk_rows, plan.record_limit)
        unknown = leadership.open_transactions()
        incremental = Incremental(position.demand, chunks.read, name, own, position.generation, unknown)
        register, partitions = plan.registry.register, plan.topics.partitions
        prefixes, taken = plan.message_prefixes, plan.topics.taken
        messages = Messages(plan.prefix, prefixes, plan.outbox, INTERNAL, register, partitions, taken, plan.frame)
        stream = Stream(
            replication,
            writer,
            tables,
            own,
            origin,
            position,
            heartbeats,
            incremental,
            messages,
            plan.record_limit,
            options,
            self._metrics,
        )
        gc.collect()
        gc.freeze()  # what lives from here on is short-lived or here for good, and makes no cycles
        gc.set_threshold(100_000, 50, 100)
        try:
            self._stream_now = stream
            return stream.run(self._stopping)
        finally:
            self._stream_now = None
            writer.close()
            chunks.close()
            gc.unfreeze()

    def _note_stop(self, leadership: Leadership, committed: PositionWriter, durable: Position) -> None:
        """After a clean stop nobody else may move the slot: its LSN is noted to see it."""
        slot = _left(leadership, self._plan.options.slot)
        if slot is not None and slot.confirmed_flush_lsn is not None:
            committed.write((), durable._replace(stopped_lsn=slot.confirmed_flush_lsn))
        log.info("stopped cleanly", lsn=str(durable.end_lsn))


def plan_tables(
    plan: Plan,
    facts: Callable[[Relation], TableFacts],
    register: Callable[[str, Schema], int],
    partitions: Callable[[str], int],
    parked: Iterable[str] = (),
) -> Tables:
    """The tables as the settings want them; see Versions for the three functions."""
    latest, policy = plan.registry.latest, plan.incompatible_schema
    versions = Versions(
        plan.topics.of,
        plan.as_text,
        facts,
        register,
        latest,
        partitions,
        policy,
        plan.modes,
        plan.selection.rules,
        plan.as_json,
    )
    return Tables(plan.selection, plan.tombstones, versions, parked)


class _Attempt(NamedTuple):
    """What tenacity's wait functions look at."""

    attempt_number: int


def _run_id() -> str:
    return uuid.uuid4().hex[:12]


def _fenced(error: FencedError, leadership: Leadership) -> UnavailableError:
    """Kafka says the same of a replaced producer and of a transaction that lasted too long: who leads knows."""
    if not leadership.held():
        return error
    return UnavailableError(
        f"the broker gave up our transaction, which lasted too long ({error.message})",
        "nothing of it can be read; capture is still the leader and starts again from its position",
    )


def _left(leadership: Leadership, name: str) -> Slot | None:
    """The slot once our walsender is gone: until then it may still take in what we confirmed last."""
    deadline = time.monotonic() + 2.0
    slot = slot_state(leadership.connection, name)
    while slot is not None and slot.active_pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        slot = slot_state(leadership.connection, name)
    return None if slot is None or slot.active_pid is not None else slot
