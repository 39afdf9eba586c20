"""What a change does to a staged row: pure rules over (generation, commit LSN, ordinal).

A newer change wins; an unchanged TOAST value keeps the old one; a value that never came is `unseen`, which is not NULL;
an older change may still fill what was never seen. Deletes leave a marked row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, Final

from schemas.change import Change, Stamp
from schemas.lsn import LSN

WHOLE, OLD_HALF, NEW_HALF = 0, 1, 2
PARKED_OP: Final = "parked"
_HALVES: Final = {None: WHOLE, "old": OLD_HALF, "new": NEW_HALF}


@dataclass(frozen=True, slots=True)
class RowChange:
    """One change of one row: what is staged of a Change. `values` are the columns that were sent.

    `op` is Debezium's (c, u, d, r, t) or `parked` for a record that could not be read. `half` tells the two records of
    a key change apart, which share one ordinal. `columns` gives PostgreSQL's type of each column of the record.
    """

    table: str
    op: str
    stamp: Stamp
    half: int
    transaction_id: str | None
    size: Mapping[str, int] | None
    snapshot: str | None
    key: dict[str, Any] | None
    values: dict[str, Any]
    columns: Mapping[str, str]

    @property
    def order(self) -> tuple[Stamp, int]:
        """Changes are applied in this order."""
        return self.stamp, self.half


def row_change(change: Change) -> RowChange:
    """What to stage of a change."""
    values = dict(change.after or {})
    if change.op == "d":
        # Debezium shows zeros for the columns that the log does not carry; ours says which ones those are.
        ours = ":" in (change.transaction_id or "")
        values = {**(change.before or {} if ours else {}), **(change.key or {})}
    return RowChange(
        change.table,
        change.op,
        change.stamp,
        _HALVES[change.key_change],
        change.transaction_id,
        change.size,
        change.snapshot,
        change.key,
        values,
        change.columns,
    )


def text(value: Any) -> Any:
    """A value as text that PostgreSQL reads as its input; lists stay lists, None stays None."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return format(value, "f") if value.is_finite() else str(value)
    if isinstance(value, datetime):
        return value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return f"{value.days} days {value.seconds}.{value.microseconds:06d} seconds"
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, list):
        return [text(item) for item in value]
    return json.dumps(value) if isinstance(value, dict) else str(value)


def identity(key: Mapping[str, Any]) -> tuple[str, ...]:
    """The key's values in a form in which equal keys are equal."""
    return tuple(
        text(value.normalize()) if isinstance(value, Decimal) and value.is_finite() else text(value)
        for value in key.values()
    )


def to_json(change: RowChange) -> str:
    """The row of a change that waits in the inbox."""
    content = {
        "key": None if change.key is None else {name: text(value) for name, value in change.key.items()},
        "values": {name: text(value) for name, value in change.values.items()},
        "columns": dict(change.columns),
    }
    return json.dumps(content, separators=(",", ":"))


def from_json(
    table: str, op: str, stamp: tuple[int, int, int], half: int, transaction_id: str, row: dict[str, Any]
) -> RowChange:
    """A change from the inbox: values are text, which PostgreSQL reads as well."""
    generation, lsn, ordinal = stamp
    return RowChange(
        table,
        op,
        Stamp(generation, LSN(lsn), ordinal),
        half,
        transaction_id,
        None,
        None,
        row["key"],
        row["values"],
        _columns(tuple(row["columns"].items())),
    )


@lru_cache(1024)
def _columns(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """One object for all rows with the same columns."""
    return dict(items)


@dataclass(slots=True)
class StagedRow:
    """The state of a staged row while a batch is applied; `values` are the columns to write, the others stay."""

    key: dict[str, Any]
    stamp: Stamp | None = None
    exists: bool = False
    deleted: bool = False
    unseen: set[str] = field(default_factory=set)
    filled: dict[str, Stamp] = field(default_factory=dict)
    snapshot: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def apply(self, change: RowChange) -> None:
        """Takes a change in, if it is newer; fills what was never seen, if it is older."""
        if change.snapshot is not None:
            self.snapshot = change.snapshot
        if self.stamp is not None and change.stamp <= self.stamp and not self._replaced(change):
            if change.stamp < self.stamp and change.op != "d":
                self._fill(change)
        elif change.op == "d":
            self.deleted, self.stamp = True, change.stamp
            if not self.exists and not self.values:
                self.values.update(change.values)
        else:
            self._write(change)

    def _replaced(self, change: RowChange) -> bool:
        """Whether the row became free by the other half of the same key change (keys that swap in one statement)."""
        return change.half == NEW_HALF and self.deleted and change.stamp == self.stamp

    def _write(self, change: RowChange) -> None:
        missing = set(change.columns) - set(change.values)
        if self.stamp is None or self.deleted:  # nothing of another life of this key may show through
            self.values.update(dict.fromkeys(missing))
            self.unseen = missing
        else:
            self.unseen -= set(change.values)
            # What is kept is as old as the row was: a change between the two, if it comes late, knows it better.
            self.filled |= dict.fromkeys(missing - self.unseen - self.filled.keys(), self.stamp)
        self.values.update(change.values)
        self.filled = {name: stamp for name, stamp in self.filled.items() if name in missing}
        self.stamp, self.deleted = change.stamp, False

    def _fill(self, change: RowChange) -> None:
        for name, value in change.values.items():
            known = self.filled.get(name)
            if name in self.unseen or (known is not None and known < change.stamp):
                self.values[name] = value
                self.filled[name] = change.stamp
                self.unseen.discard(name)


def widen(old: str, new: str) -> str:
    """A PostgreSQL type that holds the values of both; records of an older schema may come late."""
    if old == new:
        return old
    for ladder in _LADDERS:
        if old in ladder and new in ladder:
            return max(old, new, key=ladder.index)
    if _numeric(old) and _numeric(new):
        return "numeric"
    return "text"


_LADDERS: Final = (
    ("smallint", "integer", "bigint"),
    ("real", "double precision"),
    ("time(3)", "time"),
    ("date", "timestamp(3)", "timestamp"),
)


def _numeric(kind: str) -> bool:
    return kind in _LADDERS[0] or kind.startswith("numeric")
