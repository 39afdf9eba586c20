"""`capture adopt --from-debezium`: continues where a Debezium connector stopped, on its slot, without a snapshot.

Debezium's offset is a JSON object, in Kafka Connect's offsets topic or from its REST API. `lsn_commit`: the end of the
last transaction that was sent as a whole. `lsn_proc`: the last event. `snapshot`: it was still copying.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from capture.changes.own_records import OwnRecords
from capture.commands.proposal import Proposal
from capture.kafka import broker
from capture.kafka.producer import TransactionalProducer
from capture.plan import Plan
from capture.position import Position, first_position
from capture.postgres import catalogue
from capture.postgres.replication import Replication, Slot, System, slot_state
from capture.snapshot.initial import announce_without_data
from schemas.model.errors import DataError, SettingsError
from schemas.model.lsn import LSN

_NOT_YET = "Kafka Connect writes it when a connector is stopped, or every offset.flush.interval.ms: start and stop it"
_READ_ANEW = "have capture take its own snapshot instead: another slot_name, then capture run"


class Offset(NamedTuple):
    """Where Debezium stood. `copying`: its snapshot was not complete. `idle`: it has sent no change since the
    snapshot."""

    commit: LSN | None
    event: LSN | None
    copying: bool = False
    idle: bool = False


class Start(NamedTuple):
    """Where capture continues, and whether Debezium may have sent part or all of the next transaction."""

    lsn: LSN
    partly_sent: bool


def parse_offset(content: Any) -> Offset:
    """Reads Debezium's offset from parsed JSON; DataError for anything else."""
    try:
        snapshot = str(content.get("snapshot", "false")).lower() not in ("false", "none")
        copying = snapshot and str(content.get("last_snapshot_record", "false")).lower() != "true"
        commit, event = content.get("lsn_commit"), content.get("lsn_proc") or content.get("lsn")
        idle = not commit and not content.get("lsn_proc")  # from the snapshot, or from a heartbeat after it
        offset = Offset(commit and LSN(int(commit)), event and LSN(int(event)), copying, idle)
    except (AttributeError, TypeError, ValueError):
        offset = Offset(None, None)
    if offset.event is None and offset.commit is None:
        raise DataError(
            "the offset is not a Debezium PostgreSQL connector's: it has neither lsn_commit nor lsn_proc nor lsn",
            "take it from the offsets topic, or from GET /connectors/NAME/offsets of Kafka Connect",
        )
    return offset


def from_rest(text: str, prefix: str) -> Offset:
    """The offset in the answer of Kafka Connect's REST API, or a bare offset. Source: KIP-875, "First-class offsets
    support in Kafka Connect"."""
    try:
        content = json.loads(text)
    except ValueError:
        raise DataError("the file with the offset is not JSON", "GET /connectors/NAME/offsets gives it") from None
    if not isinstance(content, dict) or "offsets" not in content:
        return parse_offset(content)
    servers: dict[Any, Any] = {}
    for one in content["offsets"]:
        servers[one.get("partition", {}).get("server")] = one.get("offset")
    return _chosen(servers, prefix, "the file with the offsets")


def from_topic(records: Iterable[tuple[bytes | None, bytes | None]], connector: str, prefix: str) -> Offset:
    """The newest offset of a connector in Kafka Connect's offsets topic."""
    servers: dict[Any, Any] = {}
    others: set[str] = set()
    for key, value in records:
        try:
            name, partition = json.loads(key or b"")
            server = partition["server"]
        except (ValueError, TypeError, KeyError):  # from another kind of connector
            continue
        if name == connector:
            servers[server] = None if value is None else _offset_of(value)
        else:
            others.add(str(name))
    if not servers:
        known = f" (it has {', '.join(sorted(others))})" if others else ""
        raise SettingsError(
            f"the offsets topic has no offset of connector {connector}{known}",
            f"give the connector's name with --connector. If it is right: {_NOT_YET}",
        )
    return _chosen(servers, prefix, f"connector {connector}")


def _offset_of(value: bytes) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        raise DataError("the connector's offset in the offsets topic is not JSON", "use --offsets FILE") from None


def _chosen(servers: Mapping[Any, Any], prefix: str, where: str) -> Offset:
    found = servers.get(prefix)
    if not servers:
        raise SettingsError(f"{where} has no offset", _NOT_YET)
    if found is None:
        raise SettingsError(
            f"{where} has no offset for topic.prefix {prefix}, only for {', '.join(map(str, servers))}",
            "set topic_prefix to Debezium's topic.prefix, so that readers of the topics continue",
        )
    return parse_offset(found)


def start_of(offset: Offset, slot: Slot | None, name: str, database: str, trust_slot: bool) -> Start:
    """Where streaming loses nothing and repeats least. SettingsError if something would be missing."""
    if offset.copying:
        raise SettingsError("Debezium's snapshot is not complete", "let it finish, then stop it; or " + _READ_ANEW)
    if slot is None or slot.confirmed_flush_lsn is None:
        raise SettingsError(f"there is no slot {name}", "set slot_name to Debezium's slot.name; or " + _READ_ANEW)
    if slot.active_pid is not None:
        raise SettingsError(f"slot {name} is in use (process {slot.active_pid})", "stop the connector first")
    if slot.plugin != "pgoutput" or slot.database != database:
        raise SettingsError(
            f"slot {name} is for {slot.plugin} in database {slot.database}, not for pgoutput in {database}", _READ_ANEW
        )
    if slot.wal_status == "lost":
        raise SettingsError(f"slot {name} was invalidated: the log behind it is gone", _READ_ANEW)
    confirmed = slot.confirmed_flush_lsn
    reached = max(offset.commit or LSN(0), offset.event or LSN(0))
    if confirmed > reached and not trust_slot:
        raise SettingsError(
            f"slot {name} is at {confirmed}, ahead of Debezium's offset {reached}: changes between may not be in Kafka",
            "if there were none (lsn.flush.mode connector_and_driver moves an idle slot so), use --trust-slot; else "
            + _READ_ANEW,
        )
    start = LSN(max(offset.commit or LSN(0), confirmed))
    # The first event of a transaction lies where the commit before it ends, and may be the last one, too.
    return Start(start, not offset.idle and offset.event is not None and offset.event >= start)


class Adoption(Proposal):
    """The position that takes a slot over."""

    def __init__(self, plan: Plan, offset: Offset, trust_slot: bool, now: int) -> None:
        """`now`: seconds since 1970. SettingsError names what stands in the way."""
        self._offset = offset
        self._trust_slot = trust_slot
        self._now = now
        super().__init__(plan)

    def _look(self) -> None:
        plan = self._plan
        if not self._leadership.acquire():
            raise SettingsError("capture is running: it holds the leadership", "stop it first")
        if plan.position() is not None:
            raise SettingsError(
                f"topic {plan.topics.position} has a position of {plan.name} already",
                "`capture run` continues from it; `capture drop` deletes it",
            )
        connection = self._leadership.connection
        slot = slot_state(connection, plan.options.slot)
        self._start = start_of(self._offset, slot, plan.options.slot, plan.server.database, self._trust_slot)
        assert slot is not None  # noqa: S101  start_of says so
        self._slot = slot
        every = catalogue.published_tables(connection, plan.publication)
        relations = [one.relation for one in every if plan.selection.table(one.relation.table)]
        self._tables = [relation.table for relation in relations]
        if not self._tables:
            raise SettingsError(
                f"publication {plan.publication} does not exist or has none of the tables",
                "set publication_name to Debezium's publication.name",
            )
        plan.selection.check_used(relations)
        named, self._unnamed = plan.topics.of_each(self._tables)
        self._topics = frozenset(named.values())
        counts = {name: count for name, count in plan.cluster.partitions().items() if name in self._topics}
        self._written = any(broker.ends(plan.cluster, counts).values())

    def lines(self) -> Iterator[str]:
        name = self._plan.options.slot
        yield f"slot {name} continues at {self._start.lsn} (it is at {self._slot.confirmed_flush_lsn})"
        yield f"tables: {', '.join(self._tables)}; none is read again"
        for error in self._unnamed.values():
            yield f"{error.message}: it is not captured; {error.hint}"
        if self._start.partly_sent:
            yield "Debezium has sent changes of the next transaction: they are sent a second time"
        yield "if it was killed: what it sent after its last offset is sent a second time, too"
        if self._written:
            yield "the topics have records of Debezium's: ours follow them, with the headers that order them"
        yield "never start the connector again on this slot: what one of the two reads, the other misses"

    def execute(self) -> Iterator[str]:
        plan = self._plan
        plan.topics.create(self._topics)
        replication = Replication(plan.server)
        try:
            system = replication.identify()
        finally:
            replication.close()
        producer = TransactionalProducer(plan.cluster, plan.transactional_id)
        own = OwnRecords(plan.name, plan.prefix, plan.topics, plan.registry.register, plan.frame)
        announce_without_data(own, self._position(system), plan.position_writer(producer, None))
        yield "done: start `capture run`"

    def _position(self, system: System) -> Position:
        """The position to continue from. If the topics have records, its generation comes from the clock, so that our
        records win."""
        plan = self._plan
        generation = self._now if self._written else 1
        identity = (system.identifier, system.timeline, plan.options.slot)
        fresh = first_position(generation, *identity, self._start.lsn, plan.settings_hash)
        return fresh._replace(stopped_lsn=self._slot.confirmed_flush_lsn)
