"""Makes encoders for relation versions, with registered schemas, and deals with schemas that the registry refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

import structlog

from schemas.model.errors import OrdertapError, SettingsError
from schemas.model.relation import ColumnFacts, Relation, TableFacts
from schemas.registry.registry import IncompatibleError
from schemas.types.kind import Schema
from schemas.types.type_table import DEFAULT_MODES, Modes
from schemas.writing.codec import Codec, Encoder, compile_codec
from schemas.writing.column_rules import NO_RULES, ColumnRules
from schemas.writing.envelope import adjust_name
from schemas.writing.json_output import JsonEncoder, TextOf

log = structlog.get_logger("capture")

Policy = Literal["stop", "version", "park"]
_MOST_VERSIONS: Final = 100


class Bound(NamedTuple):
    """A table's topic and encoder."""

    topic: str
    partitions: int
    encoder: Encoder


class ParkedError(SettingsError):
    """The table's changes are not written until `capture signal snapshot` brings it back."""

    def __init__(self, table: str, message: str, remedy: str = "make the registry accept the schema") -> None:
        super().__init__(message, f"{remedy}, then: capture signal snapshot {table}")
        self.table = table


class Versions:
    """Compiles relation versions. Remembers what it learnt about a table (NULLs although the catalogue has NOT
    NULL)."""

    def __init__(
        self,
        topic_of: Callable[[str], str],
        as_text: frozenset[str],
        facts: Callable[[Relation], TableFacts],
        register: Callable[[str, Schema], int],
        latest: Callable[[str], Schema | None],
        partitions: Callable[[str], int],
        policy: Policy = "stop",
        modes: Modes = DEFAULT_MODES,
        rules: Callable[[Relation], ColumnRules] = lambda _relation: NO_RULES,
        text_of: TextOf | None = None,
    ) -> None:
        """`topic_of` names a table's topic; `facts` asks the catalogue; `register` (subject, schema) and `latest`
        (subject) the registry; `partitions` makes a topic when it is new, and counts its partitions; `rules` says what
        is done with a table's columns; with `text_of` records are JSON text."""
        self._topic_of = topic_of
        self._as_text = as_text
        self._facts = facts
        self._register = register
        self._latest = latest
        self._partitions = partitions
        self._policy = policy
        self._modes = modes
        self._rules = rules
        self._text_of = text_of
        self._nullable: dict[str, frozenset[str]] = {}
        self._keys: dict[str, tuple[str, ...]] = {}
        self._told: set[tuple[str, str, str]] = set()
        self._ahead: dict[Relation, tuple[TableFacts, Codec]] = {}

    def ahead(self, relations: Iterable[Relation]) -> list[tuple[str, Schema]]:
        """Compiles relation versions for the next bind() of each. Returns their schemas, (subject, schema), so that
        they can be registered together. What goes wrong here is left to bind()."""
        schemas: list[tuple[str, Schema]] = []
        for relation in relations:
            with suppress(OrdertapError):
                _, codec = self._ahead[relation] = self._first(self._topic_of(relation.table), relation)
                schemas += _schemas(codec)
        return schemas

    def forget(self) -> None:
        """Forgets what was compiled ahead, since the catalogue may say something else by now."""
        self._ahead.clear()

    def bind(self, relation: Relation) -> Bound:
        """An encoder whose schemas are registered. When the registry refuses them, this raises SettingsError with the
        columns that clash (`stop`), goes on with the next topic and subject that takes them, `….v2` and so on
        (`version`), or raises ParkedError (`park`). ParkedError also where Kafka takes no topic of this name.
        """
        first: SettingsError | None = None
        topics = self._topics(relation.table)
        named = next(topics)
        facts, codec = self._ahead.pop(relation) if relation in self._ahead else self._first(named, relation)
        for topic in (named, *topics):
            if topic != named:
                codec = self._compile(topic, relation, facts)
            try:
                codec, ids = self._registered(codec, relation, facts)
            except IncompatibleError as error:
                codec = self._compile(topic, relation, self._as_registered(codec, facts))
                first = first or self._clash(relation.table, error, codec)
                continue
            if first is not None:
                log.warning("table continues in another topic", table=relation.table, topic=topic, reason=first.message)
            self._tell_of_key(relation.table, codec.key_columns)
            encoder = codec.bind(*ids) if self._text_of is None else JsonEncoder(codec, self._text_of)
            return Bound(topic, self._counted(relation.table, topic), encoder)
        assert first is not None  # noqa: S101  there is always a first topic
        raise ParkedError(relation.table, first.message) if self._policy == "park" else first

    def _first(self, topic: str, relation: Relation) -> tuple[TableFacts, Codec]:
        """What the catalogue says of a table, and its codec before the registry is asked."""
        facts = self._with_key(relation, self._facts(relation))
        return facts, self._compile(topic, relation, facts)

    def _counted(self, table: str, topic: str) -> int:
        """The number of partitions of the topic, once it exists. If Kafka refuses to make it, its table is parked."""
        try:
            return self._partitions(topic)
        except SettingsError as error:
            raise ParkedError(table, error.message, error.hint) from None

    def _with_key(self, relation: Relation, facts: TableFacts) -> TableFacts:
        """The facts with the key that the table's records had last, even for a table that is gone. If that key is a
        unique index, a further index of any name does not change the key, since the registry would refuse another
        key."""
        rules = self._rules(relation)
        if rules.key or (facts.primary_key is not None and len(facts.unique_indexes) < 2):
            return facts
        last = self._latest(f"{self._topic_of(relation.table)}-key") or {}
        names = {adjust_name(column.name): column.name for column in relation.columns}
        key = tuple(names.get(field["name"], field["name"]) for field in last.get("fields", ()))
        if facts.primary_key is not None:
            indexes = sorted(facts.unique_indexes, key=lambda columns: columns != key)
            return replace(facts, unique_indexes=tuple(indexes))
        unflagged = relation.replica_identity == "d" and not any(column.key for column in relation.columns)
        if unflagged or not (rules.excluded | rules.masks.keys()).isdisjoint(key):  # no primary key can be like that
            return replace(facts, primary_key=(), unique_indexes=(key,))
        return replace(facts, primary_key=key)

    def _tell_of_key(self, table: str, key: tuple[str, ...]) -> None:
        was = self._keys.setdefault(table, key)
        if was != key:
            self._keys[table] = key
            hint = "readers identify rows by their key: read the table again with capture signal snapshot"
            log.warning("key of a table has changed", table=table, was=list(was), key=list(key), next=hint)

    def _registered(self, codec: Codec, relation: Relation, facts: TableFacts) -> tuple[Codec, tuple[int | None, int]]:
        """The codec and its schemas' ids, in the first form that the registry takes. IncompatibleError if it takes
        none."""
        try:
            return codec, self._ids(codec)
        except IncompatibleError:
            codec = self._compile(codec.topic, relation, self._as_registered(codec, facts))
        try:
            return codec, self._ids(codec)
        except IncompatibleError:
            codec = self._compile(codec.topic, relation, self._as_registered(codec, facts, without_default=True))
        return codec, self._ids(codec)

    def _ids(self, codec: Codec) -> tuple[int | None, int]:
        *key, value = [self._register(*schema) for schema in _schemas(codec)]
        return (key[0] if key else None), value

    def _as_registered(self, codec: Codec, facts: TableFacts, without_default: bool = False) -> TableFacts:
        """The facts with NOT NULL as the registry has it, and without it for a column that it does not have.

        No reader needs to hear of SET NOT NULL, which BACKWARD refuses, as it does a new column that is NOT NULL and
        has lost its default by now; a column that is gone by now was what it was; and DROP NOT NULL, which FORWARD
        refuses, matters with the first NULL (WidenError). `without_default`: nor NOT NULL for a column whose default is
        gone, as an array's is: BACKWARD_TRANSITIVE asks for one where an older schema has no such column.
        """
        known = _columns(self._latest(f"{codec.topic}-value") or {})
        columns = dict(facts.columns)
        for column, name in zip(codec.layout.columns, codec.field_names, strict=True):
            was = known.get(name or "", {"type": []})
            not_null = not isinstance(was["type"], list)
            if without_default and "default" in was and not column.field.has_default:
                not_null = False
            columns[column.name] = replace(columns.get(column.name, ColumnFacts()), not_null=not_null)
        return replace(facts, columns=columns)

    def widen(self, relation: Relation, column: str) -> Bound:
        """The same, with a column that had a NULL because the catalogue is ahead of the stream."""
        self._nullable[relation.table] = self._nullable.get(relation.table, frozenset()) | {column}
        log.info("column is nullable in the stream", table=relation.table, column=column)
        return self.bind(relation)

    def check(self, relation: Relation) -> None:
        """SettingsError or DataError if the table cannot be written as the settings say. Registers nothing."""
        self._compile(self._topic_of(relation.table), relation, self._facts(relation))

    def _topics(self, table: str) -> Iterator[str]:
        try:
            topic = self._topic_of(table)
        except SettingsError as error:  # of a table that was made while we run: it alone waits
            raise ParkedError(table, error.message, error.hint) from None
        yield topic
        if self._policy == "version":
            yield from (f"{topic}.v{number}" for number in range(2, _MOST_VERSIONS))

    def _compile(self, topic: str, relation: Relation, facts: TableFacts) -> Codec:
        text = frozenset(name.rpartition(".")[2] for name in self._as_text if name.rpartition(".")[0] == relation.table)
        nullable = self._nullable.get(relation.table, frozenset())
        rules = self._rules(relation)
        codec = compile_codec(topic, relation, facts, nullable=nullable, text=text, modes=self._modes, rules=rules)
        for column, type_name in codec.unknown_types:
            if (relation.table, column, type_name) not in self._told:
                self._told.add((relation.table, column, type_name))
                log.warning("type travels as text", table=relation.table, column=column, type=type_name)
        return codec

    def _clash(self, table: str, error: IncompatibleError, codec: Codec) -> SettingsError:
        new = codec.value_schema if error.subject.endswith("-value") else codec.key_schema
        differences = clash(self._latest(error.subject) or {}, new or {})
        hint = f"{error.hint}; or set incompatible_schema: version (topic ….v2) or park (this table waits)"
        return SettingsError(f"table {table}: {error.message}; {', '.join(differences) or 'no column differs'}", hint)


def _schemas(codec: Codec) -> list[tuple[str, Schema]]:
    """The schemas of a table's keys, if it has them, and of its values, each with its subject."""
    key = [] if codec.key_schema is None else [(f"{codec.topic}-key", codec.key_schema)]
    return [*key, (f"{codec.topic}-value", codec.value_schema)]


def clash(old: Schema, new: Schema) -> list[str]:
    """For people: how the columns of two schemas (of keys, or envelopes) differ."""
    before, after = _columns(old), _columns(new)
    said = [f"column {name} is gone" for name in before if name not in after]
    said += [
        f"column {name} is new" + ("" if "default" in field else " and has no default")
        for name, field in after.items()
        if name not in before
    ]
    said += [
        f"column {name} was {_type(before[name])}, is {_type(field)}"
        for name, field in after.items()
        if name in before and _type(before[name]) != _type(field)
    ]
    return said


def _columns(schema: Schema) -> dict[str, Any]:
    fields = {field["name"]: field for field in schema.get("fields", ())}
    if "before" in fields and "source" in fields:  # an envelope: the row is in it
        return _columns(fields["before"]["type"][1])
    return fields


def _type(field: Any) -> str:
    """A type in words: `int`, `string or null`, `io.debezium.time.Date`."""
    shown = field["type"] if isinstance(field, dict) and "name" in field else field
    if isinstance(shown, list):
        kinds = [_type(part) for part in shown if part != "null"]
        return " or ".join([*kinds, "null"]) if "null" in shown else " or ".join(kinds)
    if isinstance(shown, dict):
        return str(shown.get("connect.name") or shown.get("name") or _type(shown["type"]))
    return str(shown)
