"""The settings, in the form that the parts of capture take."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from pydantic import SecretStr

from capture.changes.messages import Messages, Route
from capture.changes.tables import Tables
from capture.changes.transaction import RecordLimit
from capture.changes.versions import Policy, Versions
from capture.checks import another_connector, not_ours, problem
from capture.kafka.cluster import Cluster, Making
from capture.kafka.index import Index
from capture.kafka.producer import CLIENT_LIMIT, Fields, TransactionalProducer
from capture.kafka.topics import Group, Topics
from capture.kafka.topics import Route as TopicRoute
from capture.kafka.writer import Limits, PositionWriter
from capture.own_messages import INTERNAL
from capture.position import (
    Position,
    accounted_key,
    is_accounted_key,
    is_moved,
    moved,
    parse_accounted,
    parse_position,
)
from capture.postgres.replication import Server, Slot, System
from capture.selection import Selection, patterns
from capture.settings import Settings
from capture.snapshot.modes import SnapshotOptions
from capture.stream import Options
from schemas.model.errors import SettingsError
from schemas.model.relation import Relation, TableFacts
from schemas.process.command_line import own_version
from schemas.reading.json_text import json_text
from schemas.registry import wire
from schemas.registry.registry import Registry, open_registry
from schemas.registry.wire import Frame
from schemas.types.kind import Schema
from schemas.types.type_modes import Modes
from schemas.writing.connect_schema import json_with_schema
from schemas.writing.json_output import JsonRegistry


class Plan(NamedTuple):
    """What the settings say, in plain values."""

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
        """The transactional id of the stream's producer. Those of the snapshot's producers begin with it. The prefix
        keeps shops on one Kafka apart."""
        return f"ordertap-{self.prefix}-{self.name}"

    @property
    def as_json(self) -> bool:
        """Whether records are JSON text, with no schema registry."""
        return isinstance(self.registry, JsonRegistry)

    @property
    def record_limit(self) -> RecordLimit:
        """The largest record that Kafka's client takes."""
        largest = int(self.cluster.options.get("message.max.bytes", CLIENT_LIMIT))
        return RecordLimit(largest, self.park_oversized, self.as_json)

    @property
    def frame(self) -> Frame:
        """Makes a Kafka key or value from Avro bytes."""
        return self.registry.frame if isinstance(self.registry, JsonRegistry) else wire.frame

    def position(self, settled: bool = True) -> Position | None:
        """The committed position, None before the first. `settled`: as in Cluster.last_values.

        SettingsError if another connector has one there: two connectors cannot share the index of commits, by which
        readers know that they have everything.
        """
        key = self.name.encode()
        found = self.cluster.last_values(self.topics.position, settled)
        if key not in found:  # not written since the upgrade: earlier versions have it in another topic
            former = self.cluster.last_values(self.topics.former_position, settled)
            found = {other: value for other, value in former.items() if not is_moved(value)} | found
        if others := {other for other in found if other != key and not is_accounted_key(other)}:
            raise another_connector(self.prefix, sorted(other.decode(errors="replace") for other in others))
        return parse_position(found[key]) if key in found else None

    def position_writer(self, producer: TransactionalProducer, found: Position | None) -> PositionWriter:
        """Writes the position and the index of commits. `found`: what position() returned."""
        key, topics = self.name.encode(), self.topics
        former = self.cluster.last_values(topics.former_position).get(key)
        left: Fields | None = None
        if former is not None and not is_moved(former):
            left = (topics.former_position, 0, key, moved(former, topics.position), [])
        accounted = self.cluster.last_values(topics.position).get(accounted_key(key))
        index = Index(topics.commits, key, found, topics.of, None if accounted is None else parse_accounted(accounted))
        alone = self.position if found is None else None
        return PositionWriter(producer, topics.position, key, index, former=left, alone=alone)

    def problem(
        self, position: Position | None, system: System, slot: Slot | None, history: Callable[[int], str]
    ) -> SettingsError | None:
        """Why a start could not stream from the position with this slot; see checks.problem."""
        name = self.options.slot
        if position is None:
            return None if slot is None else not_ours(name, self.topics.position, self.name)
        return problem(position, system, slot, name, self.settings_hash, history)

    def tables(
        self,
        facts: Callable[[Relation], TableFacts],
        register: Callable[[str, Schema], int],
        partitions: Callable[[str], int],
        parked: Iterable[str] = (),
        any_bytes: bool = False,
    ) -> Tables:
        """The tables as the settings want them. See Versions for the three functions, Tables for the rest."""
        latest, policy, rules = self.registry.latest, self.incompatible_schema, self.selection.rules
        topic_of, as_text = self.topics.of, self.as_text
        text_of = self.registry.text_of if isinstance(self.registry, JsonRegistry) else None
        versions = Versions(topic_of, as_text, facts, register, latest, partitions, policy, self.modes, rules, text_of)
        return Tables(self.selection, self.tombstones, versions, parked, any_bytes)

    def messages(self, in_utf8: Callable[[bytes], bytes]) -> Messages:
        """The shop's logical messages, with the outbox's topics. See Messages for the function."""
        register, partitions, taken = self.registry.register, self.topics.partitions, self.topics.taken
        chosen = self.message_prefixes, self.outbox, INTERNAL
        return Messages(self.prefix, *chosen, register, partitions, taken, self.frame, in_utf8)


def plan_of(settings: Settings) -> Plan:
    """The plan of these settings; connects to nothing. SettingsError for what contradicts itself."""
    cluster = Cluster(settings.bootstrap_servers, _shown(settings.kafka))
    return Plan(
        name=settings.name,
        prefix=settings.topic_prefix,
        server=Server(
            settings.database_hostname,
            settings.database_port,
            settings.database_user,
            settings.database_password.get_secret_value(),
            settings.database_dbname,
            settings.database_sslmode,
            settings.database_sslrootcert,
            settings.database_sslcert,
            settings.database_sslkey,
            settings.database_sslpassword.get_secret_value(),
        ),
        publication=settings.publication_name,
        selection=Selection(settings.lists, settings.column_propagate_source_type, settings.include_schema_comments),
        as_text=frozenset(settings.columns_as_text),
        modes=settings.modes,
        tombstones=settings.tombstones_on_delete,
        park_oversized=settings.oversized_record == "park",
        message_prefixes=settings.message_prefix_include_list,
        outbox=tuple(Route(**route.model_dump()) for route in settings.outbox_routing),
        incompatible_schema=settings.incompatible_schema,
        snapshot=SnapshotOptions(
            settings.snapshot_mode,
            settings.snapshot_max_threads,
            settings.snapshot_lock_timeout_ms,
            patterns(settings.snapshot_include_collection_list),
            settings.snapshot_select_statement_overrides,
        ),
        failover=settings.slot_failover,
        chunk_rows=settings.incremental_snapshot_chunk_size,
        cluster=cluster,
        topics=_topics(settings, cluster),
        registry=_registry(settings),
        limits=limits_of(settings),
        options=options_of(settings),
        settings_hash=settings.record_hash(),
        version=own_version(),
    )


def _registry(settings: Settings) -> Registry:
    if settings.output == "json":
        return JsonRegistry(json_with_schema if settings.json_schemas_enable else json_text)
    return open_registry(settings.schema_registry_url, _shown(settings.schema_registry))


def _topics(settings: Settings, cluster: Cluster) -> Topics:
    partitions, replication = (
        settings.topic_creation_default_partitions,
        settings.topic_creation_default_replication_factor,
    )
    kept = {"cleanup.policy": "delete", "retention.ms": str(settings.topic_creation_default_retention_ms)}
    groups = [
        Group(tuple(map(re.compile, one.include)), one.partitions, one.replication_factor, one.config)
        for one in settings.topic_creation_groups
    ]
    routes = [TopicRoute(re.compile(one.topic_regex), one.replacement) for one in settings.topic_routing]
    return Topics(cluster, settings.topic_prefix, Making(partitions, replication, kept), groups, routes)


def _shown(secrets: Mapping[str, SecretStr]) -> dict[str, str]:
    return {name: secret.get_secret_value() for name, secret in secrets.items()}


def limits_of(settings: Settings) -> Limits:
    """The writer's limits. SIGHUP changes them at once, as it does options_of()."""
    return Limits(settings.linger_ms / 1000, settings.max_batch_size, settings.max_batch_bytes, settings.stall_seconds)


def options_of(settings: Settings) -> Options:
    """The stream's options."""
    return Options(
        settings.slot_name,
        settings.heartbeat_interval_ms / 1000,
        1.0,
        settings.provide_transaction_metadata,
        settings.database_password,
    )
