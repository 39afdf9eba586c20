"""Snapshots on demand: what a signal asks for, and how far the work has got (part of the position). Pure."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple, get_args

from schemas.model.lsn import LSN

SIGNAL_PREFIX: Final = "ordertap.signal"
"""The prefix of the logical messages that `capture signal` writes."""

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)
"""Errors that reading somebody else's JSON may raise."""

SignalType = Literal["execute-snapshot", "pause-snapshot", "resume-snapshot", "stop-snapshot"]
Tables = tuple[tuple[str, str | None], ...]
"""(schema.table, SQL condition or None)."""


class Signal(NamedTuple):
    """What an operator asks of the reader of a slot; the types are Debezium's.

    Anybody in the shop may write such a message, and capture's role runs the condition. So `code` shows that the author
    knows capture's key.
    """

    slot: str
    id: str
    type: SignalType
    tables: tuple[str, ...] = ()
    condition: str | None = None
    code: str = ""

    def signed(self, key: bytes) -> Signal:
        """The same signal with its code (RFC 2104)."""
        return self._replace(code=self._code(key))

    def is_signed(self, key: bytes) -> bool:
        """Whether its code was made with this key."""
        return hmac.compare_digest(self.code.encode(errors="replace"), self._code(key).encode())

    def _code(self, key: bytes) -> str:
        return hmac.new(key, json.dumps(self._replace(code="")).encode(), "sha256").hexdigest()

    def dump(self) -> str:
        """The content of the logical message."""
        return json.dumps(self._asdict())


def parse_signal(content: bytes, slot: str) -> Signal | None:
    """The signal, if it is for this slot; None for another slot's, and for anything else under the prefix."""
    try:
        found = json.loads(content)
        signal = Signal(**{**found, "tables": tuple(found["tables"])})
    except UNREADABLE:
        return None
    texts = [signal.id, signal.code, *signal.tables, *([] if signal.condition is None else [signal.condition])]
    sound = signal.type in get_args(SignalType) and all(isinstance(one, str) for one in texts)
    return signal if sound and signal.slot == slot else None


class Request(NamedTuple):
    """A snapshot on demand of the tables in `scope`, asked for by the signal at `lsn`. `tables` are still to be read,
    the first of them from behind `key`; `rows` says how many rows of each table were written. `first` is the initial
    snapshot whose rest this is: its id, and the rows of the tables that it had done. `unparked` are tables that were
    parked until the signal, and are parked again if they are not read whole.
    """

    id: str
    lsn: LSN
    scope: Tables
    tables: Tables
    key: tuple[str, ...] | None = None
    rows: Mapping[str, int] = {}
    first: tuple[str, Mapping[str, int]] | None = None
    unparked: tuple[str, ...] = ()


class Demand(NamedTuple):
    """The queued snapshots, the first of which is being read, and the id of the last signal taken."""

    requests: tuple[Request, ...] = ()
    paused: bool = False
    signal: str | None = None

    @property
    def unread(self) -> frozenset[str]:
        """Tables that a signal unparked and that are not completely read yet."""
        return frozenset(name for request in self.requests for name, _ in request.tables if name in request.unparked)

    @property
    def tables_left(self) -> int:
        """How many tables are not completely read yet."""
        return sum(len(request.tables) for request in self.requests)

    def shown(self) -> dict[str, Any] | None:
        """Its JSON form in the position; None if there never was a demand."""
        return None if self == Demand() else self._asdict() | {"requests": [r._asdict() for r in self.requests]}


def parse_demand(content: Any) -> Demand:
    """The reverse of shown(). Raises one of UNREADABLE for anything else."""
    if content is None:
        return Demand()
    requests = tuple(
        Request(
            request["id"],
            LSN(request["lsn"]),
            _tables(request["scope"]),
            _tables(request["tables"]),
            None if request["key"] is None else tuple(request["key"]),
            dict(request["rows"]),
            None if request["first"] is None else (str(request["first"][0]), dict(request["first"][1])),
            tuple(request.get("unparked", ())),
        )
        for request in content["requests"]
    )
    return Demand(requests, bool(content["paused"]), content["signal"])


def _tables(content: list[list[Any]]) -> Tables:
    return tuple((str(name), None if condition is None else str(condition)) for name, condition in content)
