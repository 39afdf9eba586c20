"""One start and what follows: end what a crash left open, check the position, take a snapshot, stream the log.

Any error ends the session, and the next one begins anew.
"""

from __future__ import annotations

import gc
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from capture.changes.heartbeats import Beats, Heartbeats
from capture.changes.makers import Makers
from capture.changes.messages import refuse_taken
from capture.changes.own_records import OwnRecords
from capture.changes.versions import ParkedError
from capture.checks import REPAIR, another_log, repaired
from capture.kafka import broker
from capture.kafka.hanging import abort_hanging, end_hanging, find_hanging
from capture.kafka.producer import TransactionalProducer
from capture.kafka.writer import COMMIT_PATIENCE, Writer
from capture.metrics import Metrics
from capture.own_messages import OwnMessages
from capture.plan import Plan
from capture.position import Heartbeat, Position
from capture.postgres import catalogue
from capture.postgres.replication import (
    Leadership,
    Replication,
    Slot,
    System,
    any_bytes,
    drop_slot,
    keepalive_seconds,
    slot_state,
)
from capture.snapshot.chunk_reader import ChunkReader
from capture.snapshot.incremental import Incremental
from capture.snapshot.initial import Source, StoppedError, begin_without_data, chosen, cost, take_snapshot
from capture.snapshot.modes import next_step, unfinished, with_rest
from capture.snapshot.workers import fence
from capture.stream import Stream
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from schemas.writing.codec import SourceOrigin

log = structlog.get_logger("capture")

_AFTER_INITIAL_ONLY = "snapshot_mode initial continues from the slot, which keeps the log; `capture drop` releases it"
_AT_ONCE = 50  # tables whose schemas are registered together
_HEARTBEAT_ROOM = 1024  # bytes of the log that a heartbeat fits into


def _new_id() -> str:
    return uuid.uuid4().hex[:12]


@dataclass
class Lifetime:
    """What one process keeps beyond a session."""

    beats: Beats = field(default_factory=lambda: Beats(_new_id()))
    started: bool = False  # reached snapshot, stream or standby: errors from here on are retried
    snapshot_taken: bool = False
    ended: bool = False  # nothing is left to do

    def start(self) -> None:
        """A snapshot, the stream or standing by has begun, so an error that ends it may pass."""
        self.started = True

    def took_snapshot(self) -> None:
        """The snapshot is taken. Further starts of this process do not take it again."""
        self.snapshot_taken = True

    def end(self) -> None:
        """Nothing is left to do: there will be no other start."""
        self.ended = True


class Session:
    """What the leader holds from one start to its end."""

    def __init__(
        self, plan: Plan, leadership: Leadership, lifetime: Lifetime, metrics: Metrics, stopping: Callable[[], bool]
    ) -> None:
        """Fences former writers, reads the position, then makes the topics. Each call of `stopping` also counts
        as a sign of life."""
        self._plan = plan
        self._leadership = leadership
        self._lifetime = lifetime
        self._metrics = metrics
        self._stopping = stopping
        self._stream: Stream | None = None
        self._published = self._find_published()
        plan.registry.check()
        # Raises where another connector writes here, before anything is made or ended.
        last = plan.position(settled=False)
        parked = () if last is None else last.parked
        names = [name for one in self._published if (name := one.relation.table) not in parked]
        topics, without = plan.topics.of_each(names)
        refuse_taken(plan.outbox, plan.topics.taken)  # now that the tables' are known
        # All of this before the topics: a broker that makes thousands of them takes long over its first transaction,
        # and knows no end of a topic whose log is not there yet.
        self._producer = TransactionalProducer(plan.cluster, plan.transactional_id)
        self._end_hanging()
        self._found = plan.position()
        self._committed = plan.position_writer(self._producer, self._found)
        without |= self._make_topics(topics)
        if stopping():
            raise StoppedError
        self._own = OwnRecords(plan.name, plan.prefix, plan.topics, plan.registry.register, plan.frame)
        self._origin = SourceOrigin(plan.prefix, plan.server.database, plan.version)
        self._facts = catalogue.Facts(leadership.connection)
        self._tables = plan.tables(
            self._facts,
            plan.registry.register,
            plan.topics.partitions,
            () if self._found is None else self._found.parked,
            any_bytes(leadership.connection),
        )
        for name, error in without.items():
            self._tables.park(ParkedError(name, error.message, error.hint))
        self._tables.account(table.relation.table for table in self._published)
        limit = plan.record_limit
        self._chunks = ChunkReader(plan.server, plan.publication, self._tables, self._origin, plan.chunk_rows, limit)
        self._replication = Replication(plan.server, plan.failover)

    def run(self) -> None:
        """Runs until a clean stop or an error."""
        try:
            durable = self._snapshot_and_stream()
        finally:
            self._replication.close()
        if durable is not None:
            self._note_stop(durable)

    def reread(self, plan: Plan) -> None:
        """Changes limits, times and the server for chunks now. The rest is for the next session."""
        self._plan = self._plan._replace(server=plan.server, limits=plan.limits, options=plan.options)
        self._chunks.ask(plan.server)
        if self._stream is not None:
            self._stream.reread(plan.options, plan.limits)

    def _make_topics(self, topics: Mapping[str, str]) -> dict[str, SettingsError]:
        """Makes the missing topics (by table). Returns the errors of tables whose topic Kafka refuses. If it refuses
        all, something else is wrong, and the first error is raised."""
        refused: dict[str, SettingsError] = {}
        self._made = self._plan.topics.create(topics.values(), self._stopping, refused)
        if topics and len(refused) == len(topics):
            raise next(iter(refused.values()))
        return {table: refused[topic] for table, topic in topics.items() if topic in refused}

    def _end_hanging(self) -> None:
        """Ends what a broker that came back has left open. Before the position is read and before anything is
        written."""
        plan = self._plan
        if not find_hanging(plan.cluster, plan.topics.writes):
            return
        position = plan.position(settled=False)
        if position is not None and position.snapshot is not None and unfinished(position):
            workers = fence(plan.cluster, plan.transactional_id, position.snapshot.workers)
            done = {plan.topics.of(table) for table in position.snapshot.tables_done}
            left = [place for place in find_hanging(plan.cluster, plan.topics.writes) if place.topic not in done]
            for worker in workers:
                abort_hanging(worker, left)
        if hanging := find_hanging(plan.cluster, plan.topics.writes):
            slot = slot_state(self._leadership.connection, plan.options.slot)
            confirmed = None if slot is None else slot.confirmed_flush_lsn
            topics, key = (plan.topics.position, plan.topics.commits), plan.name.encode()
            end_hanging(plan.cluster, self._producer, hanging, *topics, key, position, confirmed)

    def _find_published(self) -> list[catalogue.Published]:
        plan = self._plan
        every = catalogue.published_tables(self._leadership.connection, plan.publication)
        published = [table for table in every if plan.selection.table(table.relation.table)]
        if not published:
            missing = plan.selection.missing(table.relation.table for table in every)
            raise self._not_published(missing if every else ())
        catalogue.refuse_namesakes(published)
        return published

    def _not_published(self, missing: Iterable[str]) -> SettingsError:
        named = ", ".join(missing)
        return SettingsError(
            f"publication {self._plan.publication} of database {self._plan.server.database} "
            + (f"does not have {named}" if named else "does not exist or has no tables"),
            "capture check says what is missing and prints the SQL for a DBA; capture init makes it",
        )

    def _snapshot_and_stream(self) -> Position | None:
        """Does what the settings and the position ask for. Returns the durable position when asked to stop, None when
        all is done."""
        mode = self._plan.snapshot.mode
        system = self._replication.identify()
        self._check_lists()
        slot = slot_state(self._leadership.connection, self._plan.options.slot)
        reason = self._plan.problem(self._found, system, slot, self._replication.history)
        if reason is not None and REPAIR in reason.hint:
            reason.hint += f"; {cost(self._leadership.connection, self._published, self._plan.snapshot)}"
        position = self._rest(reason)
        step = next_step(mode, position, reason, self._lifetime.snapshot_taken)
        if step == "snapshot":
            self._tables.unpark(self._tables.parked)  # the snapshot reads them anew, or no table's old state counts
            position = self._take_snapshot(self._beginning(position, system, reason))
            self._lifetime.took_snapshot()
        if step == "end" or mode == "initial_only":
            self._lifetime.end()
        if self._lifetime.ended or position is None:
            log.info("the snapshot is complete: ending", slot=self._plan.options.slot, next=_AFTER_INITIAL_ONLY)
            return None
        if step == "stream":
            self._tell_uncopied(position)
        self._account(position)
        if position.timeline != system.timeline:
            self._lifetime.beats.another_run(_new_id())  # numbers that the standby never got are no gap
        position = position._replace(settings=self._plan.settings_hash, timeline=system.timeline, stopped_lsn=None)
        position = position._replace(parked=tuple(sorted(self._tables.parked)))
        self._committed.write((), position)  # tells readers of the index the state of every table
        return self._run_stream(position)

    def _check_lists(self) -> None:
        """SettingsError for rules on columns that a table needs, and for new entries that match nothing.

        Such an entry may be misspelt, and the values that it should hide would be seen. An entry that once matched
        something may outlive it: if the shop has dropped a table, that is no reason to stop, and the log may still have
        its rows.
        """
        plan, position = self._plan, self._found
        relations = [one.relation for one in self._published]
        new = position is None or unfinished(position) or position.settings != plan.settings_hash
        if missing := plan.selection.missing(relation.table for relation in relations):
            if new:
                raise self._not_published(missing)
            log.warning("settings match no published table", entries=missing)
        if not plan.selection.has_rules:
            return
        checked = [relation for relation in relations if relation.table not in self._tables.parked]
        self._facts.ahead(checked)
        for relation in checked:
            self._tables.check(relation)
        if new:
            plan.selection.check_used(relations)
        elif unused := plan.selection.unused(relations):
            log.warning("settings match no captured column or table", entries=unused)

    def _rest(self, problem: SettingsError | None) -> Position | None:
        """The position. If a crash ended the snapshot and its rest can be read on demand, that rest is in the
        position's demand."""
        plan, position = self._plan, self._found
        if position is None or position.snapshot is None or not unfinished(position):
            return position
        fence(plan.cluster, plan.transactional_id, position.snapshot.workers)
        keyed = {
            table.relation.table: table.relation.table not in plan.snapshot.overrides
            and catalogue.has_key(self._leadership.connection, table.relation, plan.selection.rules(table.relation))
            for table in chosen(self._published, plan.snapshot)
            if table.relation.table not in self._tables.parked
        }
        rest = None if plan.snapshot.mode == "initial_only" else with_rest(position, problem, keyed)
        if rest is None:
            log.info("the snapshot starts over", snapshot=position.snapshot.id)
            return position
        left = [name for name, _ in rest.demand.requests[0].tables]
        log.info("the snapshot continues while streaming", snapshot=position.snapshot.id, tables=left)
        return rest

    def _beginning(self, position: Position | None, system: System, reason: SettingsError | None) -> Position:
        """The position from which a snapshot begins; in a new generation if Kafka has an older copy."""
        name, settings = self._plan.options.slot, self._plan.settings_hash
        if (
            position is not None
            and unfinished(position)
            and not another_log(position, system, self._replication.history)
        ):
            fresh = position._replace(settings=settings, system_identifier=system.identifier, stopped_lsn=None)
            return fresh._replace(timeline=system.timeline, slot=name)
        if reason is not None:
            log.warning("a new snapshot is needed", reason=reason.message, mode=self._plan.snapshot.mode)
        lost = reason is not None or (position is None and self._written())
        return repaired(position, system, name, settings, first=int(time.time()) if lost else 1)

    def _written(self) -> bool:
        """Whether the topics have records although there is no position: slot and position were lost together. What is
        written now must win over these records, whatever their generation."""
        counts = {name: count for name, count in self._plan.cluster.partitions().items() if self._plan.topics.has(name)}
        for name in self._made:
            counts.pop(name, None)
        written = sorted(name for name, end in broker.ends(self._plan.cluster, counts).items() if end)
        if written:
            log.warning("topics have records, but there is no position: a new generation begins", topics=len(written))
        return bool(written)

    def _take_snapshot(self, position: Position) -> Position:
        """Takes the snapshot; with `no_data` only makes the slot. Returns the position to stream from."""
        plan, stops = self._plan, self._stopping
        replication, own, committed = self._replication, self._own, self._committed
        self._metrics.stands("snapshot")
        self._lifetime.start()
        if plan.snapshot.mode == "no_data":
            drop_slot(self._leadership.connection, plan.options.slot)
            return begin_without_data(replication, plan.options.slot, own, position, committed, stops)
        source = Source(
            plan.server,
            replication,
            plan.options.slot,
            plan.publication,
            plan.cluster,
            plan.transactional_id,
            plan.selection.table,
            self._metrics.writes,
        )
        published, tables, origin = self._published, self._tables, self._origin
        self._facts.ahead([one.relation for one in published])
        try:
            self._register_ahead()
            return take_snapshot(source, plan.snapshot, published, tables, own, origin, position, committed, stops)
        finally:
            self._facts.ahead([])
            self._tables.forget()

    def _register_ahead(self) -> None:
        """Registers the schemas of the tables that the snapshot reads, many together."""
        relations = [one.relation for one in chosen(self._published, self._plan.snapshot)]
        for first in range(0, len(relations), _AT_ONCE):
            if self._stopping():
                raise StoppedError
            some = relations[first : first + _AT_ONCE]
            self._plan.registry.register_all(self._tables.ahead(some))
            if len(relations) > _AT_ONCE:
                log.info("registering schemas", tables=first + len(some), of=len(relations))

    def _tell_uncopied(self, position: Position) -> None:
        """Warns of tables that have rows and never had a record in Kafka, because they were published while capture was
        down."""
        plan = self._plan
        if plan.snapshot.mode == "no_data":
            return
        awaited = {name for request in position.demand.requests for name, _ in request.tables}
        left_out = awaited | self._tables.parked
        meant = [one.relation for one in chosen(self._published, plan.snapshot) if one.relation.table not in left_out]
        topics = {relation.table: plan.topics.of(relation.table) for relation in meant}
        ends = broker.ends(plan.cluster, {topic: plan.topics.partitions(topic) for topic in topics.values()})
        for relation in meant:
            if not ends[topics[relation.table]] and catalogue.has_pages(self._leadership.connection, relation):
                hint = f"capture signal snapshot {relation.table}"
                log.warning("table has rows, but Kafka has none of them", table=relation.table, next=hint)

    def _account(self, position: Position) -> None:
        """Notes tables that no snapshot has read or will read: they begin without a copy, at their next change."""
        index, requests = self._committed.index, position.demand.requests
        if index.accounted is None:  # no snapshot was wanted, or an earlier version took it
            index.account(one.relation.table for one in self._published)
        read = {name for request in requests for name, _ in request.scope}
        read |= {name for request in requests if request.first is not None for name in request.first[1]}
        self._tables.account((index.accounted or frozenset()) | read)

    def _run_stream(self, position: Position) -> Position:
        """Streams until asked to stop. Returns the durable position."""
        beat = position.heartbeat
        begin = position.end_lsn if beat is None else LSN(max(0, beat.lsn - _HEARTBEAT_ROOM))
        slot_name = self._plan.options.slot
        self._replication.start(slot_name, begin, self._plan.publication)
        slot = slot_state(self._leadership.connection, slot_name)  # until now a dead reader's walsender may move it
        again = slot is not None and slot.confirmed_flush_lsn is not None and slot.confirmed_flush_lsn <= begin
        self._lifetime.start()
        self._metrics.stands("streaming")
        self._metrics.writes()
        self._metrics.parks(tuple(sorted(self._tables.parked)))
        self._metrics.restarted()
        log.info("streaming", slot=slot_name, lsn=str(position.end_lsn), generation=position.generation)
        writer = Writer(self._committed, position, self._plan.limits)
        try:
            stream = self._make_stream(writer, beat if again else None)
            gc.collect()
            gc.freeze()  # objects from here on are short-lived or permanent, and make no cycles
            gc.set_threshold(100_000, 50, 100)
            self._stream = stream
            return stream.run(self._stopping)
        finally:
            self._stream = None
            writer.close()
            self._chunks.close()
            gc.unfreeze()

    def _make_stream(self, writer: Writer, awaited: Heartbeat | None) -> Stream:
        plan, leadership, metrics, position = self._plan, self._leadership, self._metrics, writer.durable
        options = plan.options._replace(keepalive=keepalive_seconds(leadership.setting("wal_sender_timeout")))
        heartbeats = Heartbeats(leadership, options.slot, self._lifetime.beats, options.heartbeat, awaited, metrics)
        unknown = leadership.open_transactions()
        chunks = self._chunks
        incremental = Incremental(position.demand, chunks.read, chunks.name, self._own, position.generation, unknown)
        makers = Makers(self._tables, plan.messages(leadership.in_utf8), self._own, self._origin, plan.record_limit)
        own_messages = OwnMessages(options.slot, options.signal_key, makers, heartbeats, incremental, metrics)
        return Stream(self._replication, writer, makers, own_messages, options, metrics)

    def _note_stop(self, durable: Position) -> None:
        """Notes the slot's LSN after a clean stop, so that the next start sees whether somebody else moved it."""
        slot = _left(self._leadership, self._plan.options.slot)
        if slot is not None and slot.confirmed_flush_lsn is not None:
            noted = durable._replace(stopped_lsn=slot.confirmed_flush_lsn)
            self._committed.write((), noted, timeout=min(COMMIT_PATIENCE, self._plan.limits.stall))
        log.info("stopped cleanly", lsn=str(durable.end_lsn))


def _left(leadership: Leadership, name: str) -> Slot | None:
    """The slot once our walsender is gone. Until then it may still take in what we confirmed last."""
    deadline = time.monotonic() + 2.0
    slot = slot_state(leadership.connection, name)
    while slot is not None and slot.active_pid is not None and time.monotonic() < deadline:
        time.sleep(0.02)
        slot = slot_state(leadership.connection, name)
    return None if slot is None or slot.active_pid is not None else slot
