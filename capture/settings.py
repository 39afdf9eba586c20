"""What can be set for capture: option names are Debezium's where the meaning is the same."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import make_dataclass
from os import cpu_count
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator

from capture.debezium import INSTEAD
from capture.selection import Lists, parse_key
from schemas.model.change import UNAVAILABLE
from schemas.types.type_modes import BinaryMode, DecimalMode, Modes, TimeMode
from schemas.writing.column_rules import Algorithm, Asterisks, Hashed, Mask, Truncated

REREAD_AT_ONCE: Final = frozenset(
    {"log_level", "log_json", "linger_ms", "max_batch_size", "max_batch_bytes", "stall_seconds"}
    | {"heartbeat_interval_ms"}
)
"""Settings that SIGHUP changes at once."""
REREAD_TO_CONNECT: Final = frozenset(
    {"database_hostname", "database_port", "database_user", "database_password", "bootstrap_servers", "kafka"}
    | {"database_sslmode", "database_sslrootcert", "database_sslcert", "database_sslkey", "database_sslpassword"}
    | {"schema_registry_url", "schema_registry"}
)
"""Settings that SIGHUP changes for connections made afterwards."""
_SET_BY_CAPTURE: Final = frozenset(
    {"bootstrap.servers", "metadata.broker.list", "transactional.id", "enable.idempotence", "partitioner"}
    | {"group.id", "isolation.level", "enable.auto.commit", "enable.partition.eof", "delivery.report.only.error"}
)
"""Properties of librdkafka that exactly-once and the order within a partition depend on."""
_COLUMN_LISTS: Final = ("column_include_list", "column_exclude_list")


class TopicGroup(BaseModel):
    """Settings of new topics, like Kafka Connect's topic.creation.<group>; None: topic_creation_default_…."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    include: tuple[str, ...] = Field(description="regular expressions for whole names of topics", min_length=1)
    partitions: int | None = Field(None, ge=1)
    replication_factor: int | None = Field(None, ge=1)
    config: dict[str, str] = Field(default_factory=dict, description="any topic setting of Kafka: cleanup.policy…")

    @field_validator("include")
    @classmethod
    def _expressions(cls, include: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(map(_compiled, include))

    @field_validator("config", mode="before")
    @classmethod
    def _as_text(cls, config: Any) -> Any:
        return {name: _text(value) for name, value in config.items()} if isinstance(config, dict) else config


class TopicRoute(BaseModel):
    """Another name for a topic, as Debezium's topic routing (ByLogicalTableRouter) gives it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    topic_regex: str = Field(description="a regular expression for the whole usual name, <topic_prefix>.schema.table")
    topic_replacement: str = Field(description="the name instead; $1 or \\1 is what the first parentheses match")

    @field_validator("topic_regex")
    @classmethod
    def _expression(cls, expression: str) -> str:
        return _compiled(expression)

    @model_validator(mode="after")
    def _groups_are_there(self) -> TopicRoute:
        try:
            re.compile(f"(?:{self.topic_regex})|").sub(self.replacement, "")  # matches, whatever the expression
        except (re.error, IndexError) as error:
            raise ValueError(f"{self.topic_replacement}: does not fit {self.topic_regex} ({error})") from None
        return self

    @property
    def replacement(self) -> str:
        """topic_replacement in the notation of Python's re."""
        return re.sub(r"\$(\d+)", r"\\\1", self.topic_replacement)


class OutboxRoute(BaseModel):
    """Where logical messages with a prefix go, as Debezium's outbox event router sends the rows of an outbox table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prefix: str = Field(description="a regular expression for the whole prefix")
    topic: str = Field(description="may name fields of the content: outbox.event.{aggregatetype}", min_length=1)
    payload: Literal["json", "bytes"] = Field("json", description="json: of an object; bytes: the content is the value")
    payload_field: str = "payload"
    key_field: str = "aggregateid"
    header_fields: tuple[str, ...] = ("id", "type")

    @field_validator("prefix")
    @classmethod
    def _expression(cls, prefix: str) -> str:
        return _compiled(prefix)

    @model_validator(mode="after")
    def _fields_of_json(self) -> OutboxRoute:
        if self.payload == "bytes" and "{" in self.topic:
            raise ValueError("a topic with a field in braces needs payload: json")
        return self


class MaskHash(BaseModel):
    """Columns whose values are hashed, like Debezium's column.mask.hash.v2."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: tuple[str, ...] = Field(description="regular expressions for whole schema.table.column", min_length=1)
    algorithm: Algorithm = "SHA-256"
    salt: SecretStr = Field(min_length=1)

    @field_validator("columns")
    @classmethod
    def _expressions(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_qualified(column, "schema.table.column") for column in columns)


class Settings(BaseModel):
    """The part `capture` of the settings file. Times in ms unless the name says otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    INSTEAD: ClassVar[Mapping[str, str]] = INSTEAD

    name: str = Field(
        "ordertap", description="the connector's name: position key, transactional.id (slot_name decides who leads)"
    )
    topic_prefix: str = Field(description="the first part of every topic's name", pattern=r"^[A-Za-z0-9._-]+$")

    database_hostname: str = "localhost"
    database_port: int = Field(5432, ge=1, le=65535)
    database_user: str = "ordertap"
    database_password: SecretStr = SecretStr("")
    database_dbname: str
    database_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    database_sslrootcert: str = Field("", description="file with the authorities that verify-ca and verify-full trust")
    database_sslcert: str = Field("", description="file with our certificate")
    database_sslkey: str = Field("", description="file with its key, which only we may read")
    database_sslpassword: SecretStr = Field(SecretStr(""), description="of the key")
    slot_name: str = Field("ordertap", pattern=r"^[a-z0-9_]{1,63}$")
    slot_failover: bool = Field(False, description="PostgreSQL 17+: a new slot is copied to standbys that sync slots")
    publication_name: str = "ordertap"
    table_include_list: tuple[str, ...] = Field(
        (), description="regular expressions for whole schema.table; empty: all of the publication"
    )
    table_exclude_list: tuple[str, ...] = Field((), description="the same, of tables that are not captured")
    column_include_list: tuple[str, ...] = Field(
        (), description="regular expressions for whole schema.table.column; key columns are always captured"
    )
    column_exclude_list: tuple[str, ...] = Field((), description="the same, of columns that are left out of records")
    column_mask_with_length_chars: dict[str, Annotated[int, Field(ge=0)]] = Field(
        default_factory=dict,
        description="regular expression of columns: how many asterisks stand for any value",
        examples=["{public.customers.phone: 10}"],
    )
    column_truncate_to_length_chars: dict[str, Annotated[int, Field(ge=1)]] = Field(
        default_factory=dict,
        description="regular expression of columns: how many characters are kept",
        examples=["{public.reviews.body: 200}"],
    )
    column_mask_hash: tuple[MaskHash, ...] = Field((), description="columns whose values are hashed with a salt")
    column_propagate_source_type: tuple[str, ...] = Field(
        (), description="the same, of columns whose schema says their PostgreSQL type, length and scale"
    )
    include_schema_comments: bool = Field(False, description="comments of columns go into the schema, as doc")
    message_key_columns: tuple[str, ...] = Field(
        (), description="schema.table:column,column - the key of its records; the table is a regular expression"
    )
    skipped_operations: tuple[Literal["c", "u", "d", "t", "none"], ...] = Field(
        (), description="create, update, delete, truncate: changes that are not written"
    )

    snapshot_mode: Literal["initial", "initial_only", "no_data", "when_needed", "always"] = Field(
        "initial", description="when a start copies the tables, and what it does then"
    )
    snapshot_include_collection_list: tuple[str, ...] = Field(
        (), description="regular expressions for whole schema.table; empty: all captured ones"
    )
    snapshot_select_statement_overrides: dict[str, str] = Field(
        default_factory=dict,
        description="schema.table: a SELECT that the snapshot reads in place of the whole table",
        examples=["{public.orders: SELECT * FROM public.orders WHERE id > 100}"],
    )
    snapshot_max_threads: int = Field(
        default_factory=lambda: min(2, cpu_count() or 1), ge=1, le=64, description="processes that read; 1: this one"
    )
    snapshot_lock_timeout_ms: int = Field(10_000, ge=1, description="for a table that a schema change has locked")
    incremental_snapshot_chunk_size: int = Field(2048, ge=1, description="rows between two marks in the log")
    heartbeat_interval_ms: int = Field(5_000, ge=100)
    provide_transaction_metadata: bool = False
    tombstones_on_delete: bool = True
    message_prefix_include_list: tuple[str, ...] = Field(
        (), description="logical messages of these prefixes (regular expressions) go to <topic_prefix>.message"
    )
    outbox_routing: tuple[OutboxRoute, ...] = Field((), description="logical messages that go to topics of their own")
    columns_as_text: tuple[str, ...] = Field((), description="schema.table.column: carried as PostgreSQL's text")

    decimal_handling_mode: DecimalMode = Field("precise", description="numeric and money: decimal, text or double")
    time_precision_mode: TimeMode = Field("adaptive", description="date, time, timestamp: unit or ISO text")
    binary_handling_mode: BinaryMode = Field("bytes", description="bytea")
    interval_handling_mode: Literal["numeric", "string"] = Field("numeric", description="µs, or exact ISO text")
    hstore_handling_mode: Literal["json", "map"] = "json"
    money_fraction_digits: int = Field(2, ge=0, le=18, description="of money as decimal")
    special_numbers: Literal["null", "exact"] = Field(
        "null", description="NaN and infinities of numeric; of a key: exact"
    )
    unavailable_value_placeholder: str = Field(UNAVAILABLE, description="for a TOAST value not sent; hex:… for octets")

    bootstrap_servers: str
    kafka: dict[str, SecretStr] = Field(
        default_factory=dict, description="any librdkafka property", examples=["{security.protocol: SSL}"]
    )
    output: Literal["avro", "json"] = Field("avro", description="json: Debezium's records as JSON text, no registry")
    json_schemas_enable: bool = Field(
        False, validate_default=True, description="output json: each key and value is {schema, payload}, as Connect's"
    )
    schema_registry_url: str = Field("", validate_default=True, description="not needed with output json")
    schema_registry: dict[str, SecretStr] = Field(default_factory=dict, description="client options of the registry")
    incompatible_schema: Literal["stop", "version", "park"] = Field(
        "stop",
        description="the registry refuses a table's new schema: stop all, continue in topic ….v2, or leave it out",
    )
    oversized_record: Literal["stop", "park"] = Field(
        "stop", description="a record larger than message.max.bytes in `kafka`: stop all, or leave out its table"
    )
    topic_creation_default_partitions: int = Field(1, ge=1)
    topic_creation_default_replication_factor: int = Field(1, ge=1)
    topic_creation_default_retention_ms: int = Field(-1, ge=-1, description="-1: for ever")
    topic_creation_groups: tuple[TopicGroup, ...] = Field((), description="settings of some new topics; first match")
    topic_routing: tuple[TopicRoute, ...] = Field((), description="other names for tables' topics; first match")

    linger_ms: int = Field(5, ge=0, description="how long a Kafka transaction waits for more")
    max_batch_size: int = Field(4_000, ge=1, description="changes in one Kafka transaction")
    max_batch_bytes: int = Field(8_000_000, ge=1)
    stall_seconds: float = Field(
        10.0, gt=0, description="disconnect from the shop if Kafka commits nothing for this long"
    )

    health_host: str = "127.0.0.1"
    health_port: int = Field(8083, ge=0, le=65535, description="0: none")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @field_validator("kafka", "schema_registry", mode="before")
    @classmethod
    def _as_text(cls, options: Any) -> Any:
        """YAML's numbers and booleans as the text that the libraries want."""
        if not isinstance(options, dict):
            return options
        return {name: _text(value) for name, value in options.items()}

    @field_validator("kafka")
    @classmethod
    def _not_ours(cls, options: dict[str, SecretStr]) -> dict[str, SecretStr]:
        if ours := sorted(_SET_BY_CAPTURE & options.keys()):
            raise ValueError(f"{', '.join(ours)}: capture sets this itself (bootstrap.servers by bootstrap_servers)")
        return options

    @field_validator("table_include_list", "table_exclude_list", "snapshot_include_collection_list")
    @classmethod
    def _tables(cls, tables: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_qualified(table, "schema.table") for table in tables)

    @field_validator("column_include_list", "column_exclude_list", "column_propagate_source_type")
    @classmethod
    def _columns(cls, columns: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_qualified(column, "schema.table.column") for column in columns)

    @field_validator("column_mask_with_length_chars", "column_truncate_to_length_chars")
    @classmethod
    def _masked_columns(cls, masks: dict[str, int]) -> dict[str, int]:
        return {_qualified(column, "schema.table.column"): length for column, length in masks.items()}

    @field_validator("message_key_columns")
    @classmethod
    def _keys(cls, entries: tuple[str, ...]) -> tuple[str, ...]:
        for entry in entries:
            _qualified(parse_key(entry)[0], "schema.table")
        return entries

    @model_validator(mode="after")
    def _one_of_two_lists(self) -> Settings:
        for include, exclude in (("table_include_list", "table_exclude_list"), _COLUMN_LISTS):
            if getattr(self, include) and getattr(self, exclude):
                raise ValueError(f"{include} and {exclude}: only one of them can be set")
        if "none" in self.skipped_operations and len(self.skipped_operations) > 1:
            raise ValueError("skipped_operations: none cannot be combined with others")
        return self

    @field_validator("message_prefix_include_list")
    @classmethod
    def _expressions(cls, prefixes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_compiled(prefix) for prefix in prefixes)

    @field_validator("special_numbers", mode="before")
    @classmethod
    def _word(cls, choice: Any) -> Any:
        """YAML's null as the word `null`."""
        return "null" if choice is None else choice

    @field_validator("unavailable_value_placeholder")
    @classmethod
    def _readable(cls, placeholder: str) -> str:
        Modes(unavailable_value_placeholder=placeholder).placeholder.decode()
        return placeholder

    @field_validator("schema_registry_url")
    @classmethod
    def _needed(cls, url: str, others: ValidationInfo) -> str:
        if not url and others.data.get("output") == "avro":
            raise ValueError("missing; or set output: json, which needs no registry")
        return url

    @field_validator("json_schemas_enable")
    @classmethod
    def _of_json(cls, enabled: bool, others: ValidationInfo) -> bool:
        if enabled and others.data.get("output") == "avro":
            raise ValueError("only makes sense with output: json; the registry has the schemas of Avro")
        return enabled

    @field_validator("incompatible_schema")
    @classmethod
    def _of_a_registry(cls, policy: str, others: ValidationInfo) -> str:
        if policy != "stop" and others.data.get("output") == "json":
            raise ValueError(f"{policy} makes no sense with output: json: there is no registry that refuses a schema")
        return policy

    @property
    def modes(self) -> Modes:
        """How values travel if there is a choice."""
        return Modes(**{name: getattr(self, name) for name in Modes._fields})

    @property
    def lists(self) -> Lists:
        """Which tables and columns are captured."""
        asterisks, truncated = self.column_mask_with_length_chars, self.column_truncate_to_length_chars
        masks: list[tuple[str, str, Mask]] = [
            *(("column_mask_with_length_chars", entry, Asterisks(length)) for entry, length in asterisks.items()),
            *(("column_truncate_to_length_chars", entry, Truncated(length)) for entry, length in truncated.items()),
        ]
        for one in self.column_mask_hash:
            mask = Hashed(one.algorithm, one.salt.get_secret_value().encode())
            masks += [("column_mask_hash", entry, mask) for entry in one.columns]
        return Lists(
            self.table_include_list,
            self.table_exclude_list,
            self.column_include_list,
            self.column_exclude_list,
            tuple(masks),
            tuple(map(parse_key, self.message_key_columns)),
            tuple(sorted(set(self.skipped_operations) - {"none"})),
        )

    def record_hash(self) -> str:
        """A hash of the settings in position.SHAPES_RECORDS, kept with the position. A newer setting is in it only if
        it is not the default, so that older positions are still recognized."""
        shaping: tuple[object, ...] = (
            self.topic_prefix,
            self.table_include_list,
            self.tombstones_on_delete,
            self.columns_as_text,
        )
        if self.modes != Modes(special_numbers="null"):
            shaping = (*shaping, _as_hashed(self.modes))
        if self.lists != Lists(table_include_list=self.table_include_list):
            shaping = (*shaping, self.lists, [hashed.salt.get_secret_value() for hashed in self.column_mask_hash])
        if self.message_prefix_include_list or self.outbox_routing:
            shaping = (*shaping, self.message_prefix_include_list, self.outbox_routing)
        if self.topic_routing:
            shaping = (*shaping, self.topic_routing)
        if self.output != "avro":
            shaping = (*shaping, self.output)
        if self.json_schemas_enable:
            shaping = (*shaping, "json_schemas_enable")
        if self.provide_transaction_metadata:
            shaping = (*shaping, "transaction")
        if self.publication_name != "ordertap":
            shaping = (*shaping, "publication", self.publication_name)
        return hashlib.sha256(repr(shaping).encode()).hexdigest()[:16]


def _as_hashed(modes: Modes) -> object:
    """The modes as older positions know them: a later mode is left out of the repr while it has its default."""
    known = {name: value for name, value in modes._asdict().items() if (name, value) != ("special_numbers", "null")}
    return make_dataclass("Modes", known)(**known)


def _qualified(expression: str, form: str) -> str:
    if expression.count(".") < form.count("."):
        raise ValueError(f"{expression}: write {form}, for example public.{expression}")
    return _compiled(expression)


def _compiled(expression: str) -> str:
    try:
        re.compile(expression)
    except re.error as error:
        raise ValueError(f"{expression}: not a regular expression ({error})") from None
    return expression


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value
