"""Topics: their names, and the settings they are made with."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

import structlog

from capture.kafka.cluster import Cluster, Making
from schemas.model.commits import index_topic
from schemas.model.errors import SettingsError
from schemas.writing.envelope import topic_name

log = structlog.get_logger("capture")
_LEGAL: Final = re.compile(r"[A-Za-z0-9._-]{1,249}")
_VERSION: Final = re.compile(r"\.v\d+$")
_KAFKAS: Final = frozenset({"__consumer_offsets", "__transaction_state", "__share_group_state"})
_AT_ONCE: Final = 200  # topics in one call: a broker makes some hundred in a second
_COMPACT: Final = {"cleanup.policy": "compact"}
_POSITION: Final = {
    "cleanup.policy": "compact",
    "retention.ms": "-1",
    # The last segment is never compacted, and every start reads it: a small one keeps starts short.
    "segment.bytes": "8388608",
    "segment.ms": "600000",
    "min.cleanable.dirty.ratio": "0.1",
}


class Route(NamedTuple):
    """Renames topics whose whole name the expression matches, as Debezium's ByLogicalTableRouter does."""

    expression: re.Pattern[str]
    replacement: str


class Group(NamedTuple):
    """Settings for topics whose whole name one of the expressions matches; None: the default. Source: KIP-158, "Kafka
    Connect should allow source connectors to set topic-specific settings for new topics"."""

    include: tuple[re.Pattern[str], ...]
    partitions: int | None
    replication: int | None
    config: Mapping[str, str]


class UnnamedError(SettingsError):
    """A table whose name allows no topic of its own. Only that table waits."""


class NewTopic(NamedTuple):
    """A topic that does not exist yet."""

    name: str
    making: Making


class Topics:
    """The topics of one prefix, made before their first use."""

    def __init__(
        self,
        cluster: Cluster,
        prefix: str,
        default: Making,
        groups: Sequence[Group] = (),
        routes: Sequence[Route] = (),
    ) -> None:
        self._cluster = cluster
        self._prefix = prefix
        self._default = default
        self._groups = groups
        self._routes = routes
        self._known: dict[str, int] = {}
        self._tables: dict[str, str] = {}  # by topic
        self._folded: dict[str, str] = {}  # topic by its name as Kafka's metrics have it
        self._others: dict[str, str] = {}  # the same of those that were there already
        self.position = f"ordertap.{prefix}.position"
        self.commits = index_topic(prefix)
        self.former_position = f"{prefix}.position"
        """The topic where earlier captures have the position. It is no longer made, and may be deleted once it was
        read."""
        self.transaction = f"{prefix}.transaction"
        self.notification = f"{prefix}.notification"
        self.heartbeat = f"__debezium-heartbeat.{prefix}"
        self.own = (self.position, self.commits, self.transaction, self.notification, self.heartbeat)

    def of(self, table: str) -> str:
        """The topic of a table (schema.table). UnnamedError if that is no valid name, or another table's topic;
        SettingsError if a route caused it."""
        usual = topic_name(self._prefix, table)
        name = usual
        for route in self._routes:
            if found := route.expression.fullmatch(usual):
                name = found.expand(route.replacement)
                break
        refused = UnnamedError if name == usual else SettingsError
        if not _LEGAL.fullmatch(name) or name in (".", ".."):
            hint = "letters, digits, dots, _ and -, 249 at the most; see topic_routing"
            raise refused(f"table {table}: {name} is not a valid topic name", hint)
        other = self._tables.setdefault(name, table)
        if other != table or name in (*self.own, self.former_position):
            whose = f"table {other}'s" if other != table else "capture's own"
            raise refused(
                f"table {table}: topic {name} is {whose}, and rows of two tables may have the same key",
                "give each a topic of its own in topic_routing; partitions of one table share a topic by"
                " publish_via_partition_root of the publication",
            )
        if like := self._like(name):
            whose = f"of table {self._tables[like]}" if like in self._tables else "which already exists"
            raise refused(
                f"table {table}: topic {name} and topic {like}, {whose}, differ by . and _ only, and Kafka treats "
                "them as the same",
                "give one of them another topic in topic_routing",
            )
        return name

    def _like(self, name: str) -> str | None:
        """An existing topic whose name differs by . and _ alone. Kafka makes no such topic, because its metrics have _
        for both."""
        folded = name.replace(".", "_")
        other = self._folded.setdefault(folded, name)
        if other == name and name not in self._known:
            other = self._others.get(folded, name)
        return None if other == name else other

    def of_each(self, tables: Iterable[str]) -> tuple[dict[str, str], dict[str, SettingsError]]:
        """The topics of tables, and the errors of those that can have none. SettingsError for a wrong route."""
        self.look()
        named: dict[str, str] = {}
        unnamed: dict[str, SettingsError] = {}
        for table in tables:
            try:
                named[table] = self.of(table)
            except UnnamedError as error:
                unnamed[table] = error
        return named, unnamed

    def table(self, topic: str) -> str | None:
        """The table that a topic was named for."""
        return self._tables.get(topic)

    def look(self) -> None:
        """Looks which topics exist, to avoid names that are too alike."""
        self._known = self._cluster.partitions()
        self._others = {name.replace(".", "_"): name for name in self._known}

    def has(self, topic: str) -> bool:
        """Whether a topic is one of this prefix, or of a table that was asked for."""
        outside = (self.position, self.commits)
        return topic.startswith(f"{self._prefix}.") or topic in outside or topic in self._tables

    def writes(self, topic: str) -> bool:
        """Whether capture writes to a topic, not counting topics named by outbox messages."""
        return self.has(topic) or topic in self.own

    def taken(self, topic: str) -> bool:
        """Whether a topic is capture's own, Kafka's, or belongs to a known table (….v2 and so on included)."""
        ours = (*self.own, self.former_position)
        return topic in ours or topic in _KAFKAS or topic in self._tables or _VERSION.sub("", topic) in self._tables

    def create(
        self,
        topics: Iterable[str],
        stopping: Callable[[], bool] = lambda: False,
        refused: dict[str, SettingsError] | None = None,
    ) -> list[str]:
        """Makes our own topics and these if they are missing, some hundred per call. Returns what it made.

        `stopping()` is asked between calls, and ends it early. `refused` takes the errors of single topics, except our
        own, which are raised.
        """
        missing = self.missing(topics)
        made: list[str] = []
        for first in range(0, len(missing), _AT_ONCE):
            if stopping():
                break
            some = missing[first : first + _AT_ONCE]
            done = self._cluster.create_topics({one.name: one.making for one in some}, refused)
            if own := [refused[name] for name in self.own if name in refused] if refused else []:
                raise own[0]
            made += [one.name for one in some if one.name in done]
            if len(missing) > _AT_ONCE:
                log.info("making topics", made=first + len(some), of=len(missing))
            self._known |= {one.name: one.making.partitions for one in some if one.name in done}
        if len(made) < len(missing):  # somebody else made them meanwhile, maybe otherwise
            self.look()
        return made

    def missing(self, topics: Iterable[str]) -> list[NewTopic]:
        """The topics that `create` would make."""
        self.look()
        return [one for one in self._wanted(topics) if one.name not in self._known]

    def _wanted(self, topics: Iterable[str]) -> list[NewTopic]:
        own = (_POSITION, *[self._default.config] * 3, _COMPACT)
        ours = [NewTopic(n, Making(1, self._default.replication, c)) for n, c in zip(self.own, own, strict=True)]
        return ours + [NewTopic(name, self.making(name)) for name in topics]

    def making(self, topic: str) -> Making:
        """The settings for a table's topic: from the first group that matches, and the rest by default."""
        group = self.group(topic)
        if group is None:
            return self._default
        partitions, replication, config = self._default
        return Making(group.partitions or partitions, group.replication or replication, {**config, **group.config})

    def group(self, topic: str) -> Group | None:
        """The first group that matches a topic."""
        return next((one for one in self._groups if any(each.fullmatch(topic) for each in one.include)), None)

    def partitions(self, topic: str) -> int:
        """How many partitions a topic of records has. Makes it if it is new."""
        if topic not in self._known:
            making = self.making(topic)
            made = self._cluster.create_topics({topic: making})
            self._known[topic] = making.partitions if made else self._cluster.partitions().get(topic, making.partitions)
        return self._known[topic]
