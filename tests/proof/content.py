"""Replays the topics into tables, and compares them with the shop's."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import psycopg2
import psycopg2.extras

from tests.proof.records import Record, changes
from tests.proof.rules import Finding, Snapshot, snapshots

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001  (timestamp without time zone)
Row = dict[str, Any]
NEVER_SENT = "never sent"
"""Stands for a value that no record has yet, because an update left it alone. A later snapshot's row must bring it."""
KEYLESS_PARTITION = 0  # rows without a key lie there


def replay(records: Iterable[Record], prefix: str) -> dict[str, dict[str, Row]]:
    """The tables that a reader of the topics has in the end: rows by their key (as JSON)."""
    records = list(records)
    completed = snapshots(records, prefix)
    return {table: _replay_table(table, rows, completed) for table, rows in changes(records, prefix).items()}


def _replay_table(table: str, records: list[Record], completed: list[Snapshot]) -> dict[str, Row]:
    if all(each.key is None for each in records):
        return _replay_keyless(table, records, completed)
    rows: dict[str, Row] = {}
    moved: dict[str, Row] = {}  # by their former key
    origin: dict[str, Record] = {}
    for each in sorted(records, key=_place):
        if each.op == "t":
            gone = [key for key, source in origin.items() if source.partition == each.partition]
        elif each.op in ("d", "tombstone"):
            gone = [str(each.key)]
        else:
            gone = []
            before = rows.get(str(each.key), {}) if each.old_key is None else moved.pop(each.old_key, {})
            rows[str(each.key)] = _new_row(each, before)
            origin[str(each.key)] = each
        if (each.op, each.key_change) == ("d", "old"):
            moved[str(each.key)] = rows.get(str(each.key), {})
        for key in gone:
            rows.pop(key, None)
            origin.pop(key, None)
    return {key: row for key, row in rows.items() if not _left_over(table, origin[key], completed)}


def _place(record: Record) -> tuple[Any, ...]:
    """A record's place across all partitions, by its stamp: a row may move from one partition to another."""
    return (record.stamp or (0, 0, 0), record.key_change == "new", record.partition, record.offset)


def _replay_keyless(table: str, records: list[Record], completed: list[Snapshot]) -> dict[str, Row]:
    """Replays a table without key. Rows are told apart by all that they hold, and equal ones are counted."""
    rows: list[tuple[str, Row]] = []
    for each in sorted(records, key=lambda record: (record.partition, record.offset)):
        if each.op == "t" and each.partition == KEYLESS_PARTITION:
            rows = []
        value = each.value or {"before": None, "after": None}
        if value["before"] is not None:
            old = checksum(_columns(value["before"], each))
            rows.pop(next(at for at, (known, _) in enumerate(rows) if known == old))
        if value["after"] is not None and not _left_over(table, each, completed):
            row = _columns(value["after"], each)
            rows.append((checksum(row), row))
    return dict(_numbered(rows))


def _columns(values: Row, record: Record) -> Row:
    return {name: python_value(value, record.types.get(name, "")) for name, value in values.items()}


def _numbered(rows: Iterable[tuple[str, Row]]) -> Iterator[tuple[str, Row]]:
    """Gives each row a key: its checksum, and its number among equal rows."""
    seen: Counter[str] = Counter()
    for known, row in rows:
        seen[known] += 1
        yield f"#{known[:16]}/{seen[known]}", row


def _new_row(record: Record, before: Row) -> Row:
    after = record.value["after"] if record.value else {}
    return {
        name: before.get(name, NEVER_SENT)
        if name in record.unchanged
        else python_value(value, record.types.get(name, ""))
        for name, value in after.items()
    }


def _left_over(table: str, record: Record, completed: list[Snapshot]) -> bool:
    """Whether a row came only from a first snapshot that was given up or later replaced."""
    whole = [one for one in completed if table in one.tables]
    if record.stamp is None or not whole:
        return False
    last = whole[-1]
    older = record.stamp < (last.generation, last.lsn, 0)
    first = record.op == "r" and record.value is not None and record.value["source"]["snapshot"] != "incremental"
    given_up = first and record.transaction.get("snapshot") not in {one.id for one in completed}
    return given_up or (older and record.transaction.get("snapshot") != last.id)


def python_value(value: Any, connect_type: str) -> Any:
    """A record's value as psycopg2 shows the column. ValueError for a type that the proof does not know."""
    if value is None or not connect_type:
        return value
    if connect_type not in _PYTHON:
        raise ValueError(f"the proof does not know {connect_type}")
    return _PYTHON[connect_type](value)


_PYTHON: Mapping[str, Callable[[Any], Any]] = {
    "org.apache.kafka.connect.data.Decimal": Decimal,
    "io.debezium.data.VariableScaleDecimal": lambda value: Decimal(
        int.from_bytes(value["value"], "big", signed=True)
    ).scaleb(-value["scale"]),
    "io.debezium.time.ZonedTimestamp": dt.datetime.fromisoformat,
    "io.debezium.time.MicroTimestamp": lambda micros: _EPOCH + dt.timedelta(microseconds=micros),
    "io.debezium.time.Timestamp": lambda millis: _EPOCH + dt.timedelta(milliseconds=millis),
    "io.debezium.time.Date": lambda days: dt.date(1970, 1, 1) + dt.timedelta(days=days),
    "io.debezium.data.Json": json.loads,
    "io.debezium.data.Uuid": str,
    "io.debezium.data.Enum": str,
}


def shop_tables(dsn: str, tables: Iterable[str]) -> dict[str, list[Row]]:
    """All rows of these tables, in one REPEATABLE READ."""
    connection = psycopg2.connect(dsn)
    try:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor(cursor_factory=psycopg2.extras.RealDictCursor) as cursor:
            found = {}
            for table in tables:
                name = ".".join(f'"{part}"' for part in table.split("."))
                cursor.execute("SELECT relkind = 'p' AS parted FROM pg_class WHERE oid = %s::regclass", [name])
                only = "" if (row := cursor.fetchone()) and row["parted"] else "ONLY "  # heirs are tables of their own
                cursor.execute(f"SELECT * FROM {only}{name}")
                found[table] = [dict(row) for row in cursor.fetchall()]
            return found
    finally:
        connection.close()


def check_content(played: Mapping[str, Mapping[str, Row]], shop: Mapping[str, list[Row]]) -> list[Finding]:
    """Checks that every table's rows have the shop's checksums. Findings name keys, never values."""
    found = []
    for table, rows in shop.items():
        ours = {key: checksum(row) for key, row in played.get(table, {}).items()}
        if any(key.startswith("#") for key in ours):
            theirs = {key: checksum(row) for key, row in _numbered((checksum(row), row) for row in rows)}
        else:
            theirs = {_key(row, ours): checksum(row) for row in rows}
        found += [Finding("lost", f"{table} {key} is not in the topics") for key in sorted(theirs.keys() - ours.keys())]
        found += [Finding("wrong", f"{table} {key} is gone in the shop") for key in sorted(ours.keys() - theirs.keys())]
        changed = [key for key in sorted(ours.keys() & theirs.keys()) if ours[key] != theirs[key]]
        found += [Finding("wrong", f"{table} {key} differs from the shop's") for key in changed]
    return found


def _key(row: Row, examples: Mapping[str, str]) -> str:
    """The row's key as Kafka writes it: its columns are those of any key seen."""
    names = sorted(json.loads(next(iter(examples)))) if examples else sorted(row)
    return json.dumps({name: row[name] for name in names}, sort_keys=True, default=str)


def checksum(row: Row) -> str:
    """A digest of a row's columns and values. Equal numbers are equal at any scale."""
    text = json.dumps({name: _plain(value) for name, value in row.items()}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}" if value.is_finite() else str(value)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return value.astimezone(dt.UTC).isoformat()
    if isinstance(value, dt.date):
        return value.isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value
