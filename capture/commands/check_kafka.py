"""`capture check`: the broker, its topics, our rights there, and the schema registry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from capture.commands.findings import Finding, Level, Looks
from capture.kafka import broker
from capture.kafka.broker import Brokers, Topic
from capture.kafka.errors import NotAllowedError
from capture.kafka.producer import CLIENT_LIMIT
from capture.plan import Plan
from schemas.model.errors import OrdertapError, SettingsError

_TOPIC_RIGHTS: Final = ("READ", "WRITE", "DESCRIBE")
_DAY_MS: Final = 86_400_000
_STANDSTILL_MS: Final = 7 * _DAY_MS
"""Warns if the index is kept for less than a week: a stopped sink is noticed within a week."""


def kafka_findings(plan: Plan, tables: Sequence[str]) -> Looks:
    """Checks the broker, our rights, and existing topics: our own and those in `tables`. Returns whether the position
    is known, or known not to exist."""
    cluster = plan.cluster
    try:
        found_brokers = broker.brokers(cluster)
        yield Finding("ok", f"Kafka answers at {cluster.servers}, brokers: {found_brokers.number}")
        existing = broker.topics(cluster, [*plan.topics.own, *tables])
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
        return False
    sees_all = yield from _creation(plan, found_brokers, tables)
    for name, topic in existing.items():
        yield from _topic(plan, name, topic)
    yield from _other_names(plan, tables)
    yield _transactions(plan)
    position = existing.get(plan.topics.position)
    return sees_all if position is None else "READ" in position.allowed


def _other_names(plan: Plan, tables: Sequence[str]) -> Iterator[Finding]:
    """What a consumer that subscribes by a pattern should know about the tables' topics."""
    begin = f"{plan.prefix}."
    for name in tables:
        if not name.startswith(begin):
            yield Finding("ok", f"topic {name} is routed: subscribers to {begin}* do not read it")
    for name in broker.topics(plan.cluster, [f"{name}.v2" for name in tables]):
        first = name.removesuffix(".v2")
        said = f"topic {name} continues {first} after an incompatible schema: subscribers to {begin}* read both,"
        yield Finding("ok", f"{said} readers of {first} alone see no more changes of its table")


def _kafka_acls(plan: Plan, rest: str) -> str:
    user = plan.cluster.options.get("sasl.username", "<our user>")
    return f"kafka-acls.sh --bootstrap-server {plan.cluster.servers} --add --allow-principal User:{user} {rest}"


def _creation(plan: Plan, found_brokers: Brokers, tables: Sequence[str]) -> Looks:
    """Tries topics that seem to be missing, without making them: a user without rights on a topic does not see it.
    Returns whether they really are missing."""
    missing = plan.topics.missing(tables)
    if not missing:
        return True
    wanted = max(one.making.replication for one in missing)
    said = f"new topics get {wanted} replicas, and the number of brokers is {found_brokers.number}"
    if wanted > found_brokers.number:
        yield Finding(
            "BAD", said, "lower topic_creation_default_replication_factor (or that of a group), or add brokers"
        )
        return False
    refused: dict[str, SettingsError] = {}
    try:
        would = plan.cluster.create_topics({one.name: one.making for one in missing}, refused, dry_run=True)
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
        return False
    yield from _refusals(plan, refused)
    for name in [one.name for one in missing if one.name not in would and one.name not in refused]:
        rights = _kafka_acls(plan, f"--operation Describe --operation Read --operation Write --topic {name}")
        yield Finding("BAD", f"topic {name} exists, but our user may not see it", rights)
    if len(would) < len(missing):
        return False
    names = [one.name for one in missing]
    first = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
    yield Finding("ok", f"{len(names)} topics will be made, by `capture init` or the first run: {first}")
    return True


def _refusals(plan: Plan, refused: dict[str, SettingsError]) -> Iterator[Finding]:
    """What Kafka says of each topic that it would not make. Where rights lack, one finding has them all."""
    lacking = [name for name, error in refused.items() if isinstance(error, NotAllowedError)]
    if lacking:
        rest = "--operation Create --operation Describe --operation Read --operation Write"
        begin = f"{plan.prefix}."
        topics = [
            f"{begin} --resource-pattern-type prefixed",
            *(name for name in lacking if not name.startswith(begin)),
        ]
        acls = [_kafka_acls(plan, f"{rest} --topic {topic}") for topic in topics]
        yield Finding("BAD", refused[lacking[0]].message, " && ".join(acls))
    for name, error in refused.items():
        if name not in lacking:
            table = plan.topics.table(name)
            yield Finding("BAD", f"table {table}: {error.message}" if table else error.message, error.hint)


def _topic(plan: Plan, name: str, topic: Topic) -> Iterator[Finding]:
    lacking = [right for right in _TOPIC_RIGHTS if right not in topic.allowed]
    if lacking:
        rights = " ".join(f"--operation {right.capitalize()}" for right in lacking)
        said = f"topic {name}: our user may not {', '.join(right.lower() for right in lacking)}"
        yield Finding("BAD", said, _kafka_acls(plan, f"{rights} --topic {name}"))
    if name in plan.topics.own and topic.partitions != 1:
        said = f"topic {name} has {topic.partitions} partitions: order needs exactly one"
        yield Finding("BAD", said, f"delete the topic and let `capture init` make it ({_delete(plan, name)})")
    problems = list(_settings(plan, name, topic))
    yield from problems
    if not lacking and not any(problem.level == "BAD" for problem in problems):
        yield Finding("ok", f"topic {name}: {topic.partitions} partitions, {topic.replicas} replicas")


def _delete(plan: Plan, name: str) -> str:
    return f"kafka-topics.sh --bootstrap-server {plan.cluster.servers} --delete --topic {name}"


def _alter(plan: Plan, name: str, config: str) -> str:
    start = f"kafka-configs.sh --bootstrap-server {plan.cluster.servers} --alter --entity-type topics"
    return f"{start} --entity-name {name} --add-config {config}"


def _settings(plan: Plan, name: str, topic: Topic) -> Iterator[Finding]:
    policy = topic.config.get("cleanup.policy", "")
    if name == plan.topics.position and policy not in ("", "compact"):
        said = f"topic {name} has cleanup.policy {policy}: the position would expire"
        yield Finding("BAD", said, _alter(plan, name, "cleanup.policy=compact,retention.ms=-1"))
    if name == plan.topics.commits:
        yield from _index(plan, name, topic)
    if name not in plan.topics.own and "compact" in policy:
        yield from _compacted(plan, name, policy)
    yield from _differences(plan, name, topic)
    least = int(topic.config.get("min.insync.replicas", 1))
    if topic.replicas < least:
        said = f"topic {name} has {topic.replicas} replicas, and min.insync.replicas is {least}: nothing can be written"
        yield Finding("BAD", said, _alter(plan, name, f"min.insync.replicas={topic.replicas}"))
    limit = int(topic.config.get("max.message.bytes", CLIENT_LIMIT))
    ours = int(plan.cluster.options.get("message.max.bytes", CLIENT_LIMIT))
    if limit < ours:
        said = f"topic {name} accepts records up to {limit} bytes, and capture sends up to {ours}"
        yield Finding("warn", said, _alter(plan, name, f"max.message.bytes={ours + 100_000}"))


def _index(plan: Plan, name: str, topic: Topic) -> Iterator[Finding]:
    """Whether the index is kept long enough. A sink that is stopped for longer cannot know what it missed."""
    if "compact" in topic.config.get("cleanup.policy", ""):
        said = f"topic {name} has cleanup.policy {topic.config['cleanup.policy']}: readers of the index need all of it"
        yield Finding("BAD", said, _alter(plan, name, "cleanup.policy=delete"))
    kept_ms, kept_bytes = int(topic.config.get("retention.ms", -1)), int(topic.config.get("retention.bytes", -1))
    if kept_bytes >= 0:
        said = f"topic {name} keeps {kept_bytes} bytes, so it is unknown how long a sink may be stopped"
        yield Finding("warn", said, _alter(plan, name, "retention.bytes=-1"))
    if kept_ms < 0:
        return
    days = kept_ms / _DAY_MS
    said = f"topic {name} keeps the index of commits for {days:.1f} days: no sink may be stopped for longer"
    level: Level = "ok" if kept_ms >= _STANDSTILL_MS else "warn"
    longer = _alter(plan, name, f"retention.ms={_STANDSTILL_MS}")
    yield Finding(level, said, longer if level == "warn" else "")


def _compacted(plan: Plan, name: str, policy: str) -> Iterator[Finding]:
    if "t" not in plan.selection.skipped:
        said = f"topic {name} has cleanup.policy {policy}: Kafka refuses records without a key, such as a TRUNCATE"
        yield Finding("BAD", said, f"set skipped_operations: [t], or {_alter(plan, name, 'cleanup.policy=delete')}")
    if not plan.tombstones:
        said = f"topic {name} has cleanup.policy {policy}: without tombstones the last record of a deleted row stays"
        yield Finding("warn", said, "set tombstones_on_delete: true")
    said = f"topic {name} has cleanup.policy {policy}: a sink that is set back misses older changes"
    yield Finding("warn", said, _alter(plan, name, "cleanup.policy=delete"))


def _differences(plan: Plan, name: str, topic: Topic) -> Iterator[Finding]:
    """How a topic differs from its group in topic_creation_groups, which counts for new topics only."""
    group = None if name in plan.topics.own else plan.topics.group(name)
    if group is None:
        return
    if group.partitions not in (None, topic.partitions):
        said = f"topic {name} has {topic.partitions} partitions, its group in topic_creation_groups {group.partitions}"
        yield Finding("warn", said, "more would move keys to other partitions; a new topic gets as many")
    other = {key: value for key, value in group.config.items() if topic.config.get(key, value) != value}
    if other:
        said = f"topic {name} differs from its group in topic_creation_groups: {', '.join(other)}"
        yield Finding("warn", said, _alter(plan, name, ",".join(f"{key}={value}" for key, value in other.items())))


def _transactions(plan: Plan) -> Finding:
    """Tries a transaction under an id of its own, so that it fences no running capture. A right on the prefix covers
    both."""
    try:
        broker.try_transactions(plan.cluster, f"{plan.transactional_id}-check")
    except NotAllowedError as error:
        rest = f"--operation Write --operation Describe --transactional-id {plan.transactional_id}"
        return Finding("BAD", error.message, _kafka_acls(plan, f"{rest} --resource-pattern-type prefixed"))
    except OrdertapError as error:
        return Finding("BAD", error.message, error.hint)
    return Finding("ok", f"transactions may be written as {plan.transactional_id}…")


def registry_findings(plan: Plan, schemas: Sequence[tuple[str, dict[str, Any]]]) -> Iterator[Finding]:
    """Checks the registry. `schemas`: those that a start would register. Registers nothing."""
    if plan.as_json:
        yield Finding("ok", "records are JSON: there is no schema registry to ask")
        return
    try:
        plan.registry.check()
    except OrdertapError as error:
        yield Finding("BAD", error.message, error.hint)
        return
    yield Finding("ok", "the schema registry answers")
    if schemas:
        yield Finding("ok", f"the registry accepts {len(schemas)} schemas of these tables")
