"""Kafka keys and values to lines of COPY, by code compiled once for each schema. Pure.

A decoder reads the row of a record, and of the rest only where `source` begins, which shows whether a record was cut
short or shifted. It checks neither UTF-8 nor the ranges of numbers: COPY refuses what is not a value of the column's
type, and the caller then finds the row. NULL is `\\x02`: COPY … FROM STDIN (NULL E'\\x02'). PostgreSQL compares it with
a field before it removes escapes, so a text with just that character, written as `\\002`, is not NULL. Source: Avro
specification, "Binary Encoding"; PostgreSQL manual, "COPY", section "Text Format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cached_property
from typing import Any, Final, NamedTuple, TypeAlias

from schemas.model.errors import DataError
from schemas.reading.json_text import avro_bytes
from schemas.reading.values import ColumnValue, Convert, column_value
from schemas.types.kind import Schema
from sink.intake import copy_text
from sink.intake.copy_text import NULL, WRITER_HINT, Read, Remembered, unescaped
from sink.intake.decoder_code import Column, Form, Tools, compiled, key_source, row_source
from sink.intake.jsonb import refuse_unfit


class Neither(Enum):
    """Its one value, NEITHER, stands for a record with neither `before` nor `after`."""

    NEITHER = 0


NEITHER: Final = Neither.NEITHER

Line: TypeAlias = Callable[[bytes, int, bytes], bytes | Neither | None]
KeyLine: TypeAlias = Callable[[bytes, int], bytes]

_POSTGRESQL: Final = "io.debezium.connector.postgresql.Source"
_CONNECTOR: Final = b"\x14postgresql"
_LIMITS: Final = re.compile(r"\([\d, -]+\)")
_FIXED: Final = re.compile(r"\b(bit|char|character)(?=\()")
_ANY_LENGTH: Final = {"bit": "varbit", "char": "bpchar", "character": "bpchar"}
"""Types whose length is 1 if none is given → the same type with any length."""
_MOST_SETS: Final = 256


def staged_type(name: str) -> str:
    """The PostgreSQL type to stage a type as, without its limits. The shop may change those, and we do not need them.
    numeric(p,s) → numeric, timestamp(3) → timestamp, bit(8) → varbit, and arrays likewise.
    """
    return _LIMITS.sub("", _FIXED.sub(lambda found: _ANY_LENGTH[found[1]], name))


class Field(NamedTuple):
    """A column: its name, how it is read into a line, and its value as the reader gives it for any other use."""

    name: str
    value: ColumnValue
    column: Column
    read: Read
    exact: bool


class Decoder:
    """Decodes records of one value schema, an envelope.

    `columns` are the names of the row's fields with the PostgreSQL types to stage them as, in the order of the line.
    """

    def __init__(self, topic: str, fields: Sequence[Field], branches: tuple[int, int], connector: bytes) -> None:
        self.columns: Mapping[str, str] = {field.name: staged_type(field.value.type) for field in fields}
        self._fields = fields
        self._branches = branches
        self._connector = connector
        self._tools = _tools(topic, fields)
        self._without: dict[frozenset[str], Line] = {}
        self.line: Line = self._compile(())
        """`line(b, i, tail)`: the row `after` of the Kafka value `b`, whose Avro bytes begin at `i`, as a line of COPY:
        `v0\\tv1\\t…\\ttail\\n`. `tail` is the text of further columns, at least one, escaped, with tabs between.

        None for a delete (`before` and no `after`), NEITHER where there is none of both. DataError, without values, for
        bytes that do not fit the schema, for a text with the character NUL, and for JSON that jsonb cannot hold.
        """

    def line_without(self, unchanged: frozenset[str]) -> Line:
        """The same with NULL in these columns, whose values were not sent: what stands there may be none of the type.

        Names that are no columns are passed over.
        """
        line = self._without.get(unchanged)
        if line is None:
            if len(self._without) >= _MOST_SETS:
                self._without.clear()
            skipped = [index for index, name in enumerate(self.columns) if name in unchanged]
            line = self._without[unchanged] = self._compile(skipped)
        return line

    def _compile(self, skipped: Sequence[int]) -> Line:
        columns = [field.column for field in self._fields]
        source = row_source(columns, skipped, self._branches, self._connector)
        line: Line = compiled(source, columns, self._tools, NEITHER=NEITHER)
        return line


class KeyDecoder:
    """Decodes keys of one key schema.

    `columns` are the names of the key's fields with the PostgreSQL types to stage them as, in the order of the line.
    `canonical` is False if PostgreSQL may call two keys equal whose bytes differ.
    """

    def __init__(self, topic: str, fields: Sequence[Field], schema: Schema) -> None:
        self.columns: Mapping[str, str] = {field.name: staged_type(field.value.type) for field in fields}
        self._schema = schema
        self.canonical = all(field.exact for field in fields)
        columns = [field.column for field in fields]
        self.line: KeyLine = compiled(key_source(columns), columns, _tools(topic, fields))
        """`line(b, i)`: the key `b`, whose Avro bytes begin at `i`, as text of COPY: `v0\\tv1`, with nothing behind.
        DataError as Decoder.line."""

    def texts(self, b: bytes, i: int) -> dict[str, str]:
        """The same by column, not escaped: PostgreSQL's text."""
        cells = self.line(b, i).split(b"\t")
        return {name: unescaped(cell).decode() for name, cell in zip(self.columns, cells, strict=True)}

    def texts_of_json(self, key: bytes) -> dict[str, str]:
        """The same of a key as Connect's JSON, as in the headers of a change of key."""
        return self.texts(self._avro(key), 0)

    @cached_property
    def _avro(self) -> Callable[[bytes], bytes]:
        return avro_bytes(self._schema)


def compile_decoder(schema: Schema) -> Decoder:
    """The decoder for an envelope's schema, ours or that of Debezium's connector. DataError for any other."""
    topic = schema.get("namespace", "")
    try:
        names = [field["name"] for field in schema["fields"]]
        before, _, source = (field["type"] for field in schema["fields"][:3])
        if names[:3] != ["before", "after", "source"] or source["fields"][0]["type"] != "string":
            raise _no_schema(schema)
        row = next(index for index, branch in enumerate(before) if branch != "null")
        fields = _fields(topic, before[row]["fields"])
    except (*copy_text.FAILURES, StopIteration):
        raise _no_schema(schema) from None
    connector = _CONNECTOR if source.get("connect.name") == _POSTGRESQL else b""
    return Decoder(topic, fields, (2 * row, 2 - 2 * row), connector)


def compile_key_decoder(schema: Schema) -> KeyDecoder:
    """The decoder for a key's schema. DataError for one that no connector writes."""
    topic = schema.get("namespace", "")
    try:
        return KeyDecoder(topic, _fields(topic, schema["fields"]), schema)
    except (*copy_text.FAILURES, StopIteration):
        raise _no_schema(schema) from None


def _no_schema(schema: Schema) -> DataError:
    name = f"{schema.get('namespace', '')}.{schema.get('name')}"
    return DataError(f"schema {name}: not that of a table's records", WRITER_HINT)


def _shape(branch: Any) -> str:
    return str(branch["type"] if isinstance(branch, dict) else branch)


def _fields(topic: str, fields: Sequence[Schema]) -> list[Field]:
    named: dict[str, Any] = {}
    readers: dict[str, Read] = {}
    found = []
    for field in fields:
        name, avro = field["name"], field["type"]
        value, read = column_value(avro, named), copy_text.reader(avro, readers)
        column = _straight(avro, value) or Column(Form.OTHER, _other(topic, name, value, read), step=read)
        found.append(Field(name, value, column, read, _is_exact(avro, value)))
    return found


def _straight(avro: Any, value: ColumnValue) -> Column | None:
    """How a column of a common type is read; None for all others."""
    present = null = None
    if isinstance(avro, list):
        if len(avro) != 2 or avro.count("null") != 1:
            return None
        null = 2 * avro.index("null")
        present = 2 - null
        avro = avro[present // 2]
    kind = avro if isinstance(avro, str) else avro["type"]
    name = "" if isinstance(avro, str) else avro.get("connect.name", "")
    found = _FORMS[kind](value, name, avro) if kind in _FORMS else None
    if found is None:
        return None
    form, show = found
    return Column(form, show, present, null, ready=show is copy_text.shown_bytea)


Found: TypeAlias = tuple[Form, Any]


def _boolean(_value: ColumnValue, _name: str, _avro: Any) -> Found:
    return Form.BOOLEAN, None


def _integer(value: ColumnValue, name: str, _avro: Any) -> Found:
    if value.convert is None:
        return Form.INTEGER, None
    show = copy_text.shown(value.convert)
    if name == "io.debezium.time.MicroTimestamp":
        return Form.NUMBER, copy_text.micro_timestamp(show)
    return Form.NUMBER, copy_text.number(Remembered(show).__getitem__ if value.type == "date" else show)


def _single(_value: ColumnValue, _name: str, _avro: Any) -> Found:
    return Form.FOUR, Remembered(lambda content: copy_text.shown(None)(copy_text.single(content, 0)[0]))


def _double(_value: ColumnValue, _name: str, _avro: Any) -> Found:
    return Form.EIGHT, Remembered(lambda content: copy_text.shown(None)(copy_text.double(content, 0)[0]))


def _string(value: ColumnValue, name: str, _avro: Any) -> Found:
    if value.convert is None:
        return Form.JSON if value.type == "jsonb" else Form.TEXT, None
    show = copy_text.shown_string(value.convert)
    return Form.ZONED if name == "io.debezium.time.ZonedTimestamp" else Form.SIZED, show


def _bytes(value: ColumnValue, name: str, avro: Any) -> Found:
    if value.convert is None:
        return Form.SIZED, copy_text.shown_bytea
    if name == "io.debezium.data.Bits":
        return Form.SIZED, copy_text.shown(value.convert)
    scale, precision = int(avro.get("scale", 0)), int(avro.get("precision", 64))
    return Form.REMEMBERED, Remembered(copy_text.shown_decimal(value.convert, scale, precision))


_FORMS: Final[dict[str, Callable[[ColumnValue, str, Any], Found]]] = {
    "boolean": _boolean,
    "int": _integer,
    "long": _integer,
    "float": _single,
    "double": _double,
    "string": _string,
    "bytes": _bytes,
}


def _other(topic: str, name: str, value: ColumnValue, read: Read) -> Read:
    """Reads a value of any type and makes its text; NULL for a missing value."""
    convert: Convert = value.convert or (copy_text.json_text if value.type == "jsonb" else _as_it_is)
    columns = {name: value.type}

    def show(b: bytes, i: int) -> tuple[bytes, int]:
        found, i = read(b, i)
        if found is None:
            return NULL, i
        made = convert(found)
        refuse_unfit(topic, columns, {name: made})
        return copy_text.text(made).encode(), i

    return show


def _as_it_is(value: Any) -> Any:
    return value


def _is_exact(avro: Any, value: ColumnValue) -> bool:
    """Whether equal values have equal bytes. Floats, decimals of any scale, times with zones, JSON, and numbers as text
    do not."""
    branches = avro if isinstance(avro, list) else [avro]
    kind = next(_shape(branch) for branch in branches if branch != "null")
    return kind in ("boolean", "int", "long", "bytes") or (kind == "string" and value.type in ("text", "uuid"))


def _tools(topic: str, fields: Sequence[Field]) -> Tools:
    names = [field.name for field in fields]
    ready = [field.column.ready for field in fields]

    def careful(values: Sequence[bytes]) -> bytes:
        for name, value in zip(names, values, strict=True):
            if 0 in value:
                hint = "write it without that character in the shop: PostgreSQL text cannot hold it"
                raise DataError(f"topic {topic}, column {name}: a text with the character NUL", hint)
        shown = zip(values, ready, strict=True)
        return b"\t".join(value if value is NULL or done else copy_text.escaped(value) for value, done in shown)

    def refuse(column: int, value: bytes) -> None:
        refuse_unfit(topic, {names[column]: "jsonb"}, {names[column]: value.decode()})

    def broken(b: bytes, error: Exception) -> DataError:
        return DataError(f"{topic}: not what its schema says ({type(error).__name__}, {len(b)} bytes)", WRITER_HINT)

    return Tools(careful, refuse, broken)
