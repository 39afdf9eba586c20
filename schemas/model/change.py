"""A change on its way through Kafka: its order (Stamp) and its headers."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from schemas.model.errors import DataError
from schemas.model.lsn import LSN

STAMP_HEADER: Final = "ordertap.stamp"
TRANSACTION_HEADER: Final = "ordertap.transaction"
UNCHANGED_HEADER: Final = "ordertap.unchanged"
NEW_KEY_HEADER: Final = "__debezium.newkey"
OLD_KEY_HEADER: Final = "__debezium.oldkey"
_SNAPSHOT: Final = b"snapshot:"

UNAVAILABLE: Final = "__debezium_unavailable_value"
"""Stands in a record for a TOAST value that PostgreSQL did not send, if the type can hold it."""


class Unchanged(enum.Enum):
    """The type of UNCHANGED, so that a type checker tells it from NULL."""

    UNCHANGED = "unchanged"


UNCHANGED: Final = Unchanged.UNCHANGED
"""A TOAST value that an update left alone and that the log does not carry. Not the same as None (NULL)."""

Cell: TypeAlias = bytes | Literal[Unchanged.UNCHANGED] | None
Cells: TypeAlias = Sequence[Cell]
"""A row as pgoutput sends it: PostgreSQL's text of each value, in the relation's order."""


class Stamp(NamedTuple):
    """The order of all changes.

    The generation grows with each repair after a loss or a restore, because LSNs may then start anew. The ordinal
    counts the changes of a source transaction from 1. A row of the first snapshot has the consistent point and 0, so it
    never wins over the stream. A row of a snapshot on demand has its chunk's high mark and 0, so it wins over what was
    before. A message outside transactions has its LSN and 0.
    """

    generation: int
    commit_lsn: LSN
    ordinal: int


class TransactionMark(NamedTuple):
    """The meaning of `ordertap.transaction`: the transaction (xid:LSN), or the snapshot that a row belongs to. `size`:
    the number of its changes by table, which only records of an earlier form have; there, None means that its
    TransactionEnd has it. Today the index of commits has these numbers (schemas.model.commits)."""

    transaction_id: str | None
    size: Mapping[str, int] | None
    snapshot: str | None


def stamp_header(stamp: Stamp) -> bytes:
    """The value of `ordertap.stamp`: `generation:commit LSN:ordinal`, decimal."""
    return b"%d:%d:%d" % stamp


def parse_stamp(value: bytes) -> Stamp:
    """Parses `ordertap.stamp`. DataError for anything else."""
    try:
        generation, commit_lsn, ordinal = map(int, value.split(b":"))
    except ValueError:
        generation = commit_lsn = ordinal = -1
    if not (0 <= generation < 1 << 63 and 0 <= commit_lsn < 1 << 64 and 0 <= ordinal < 1 << 63):
        raise DataError(f"header {STAMP_HEADER} is not generation:lsn:ordinal ({len(value)} bytes)")
    return Stamp(generation, LSN(commit_lsn), ordinal)


def transaction_header(xid: int, commit_lsn: int) -> bytes:
    """The value of `ordertap.transaction` for a streamed change: `xid:LSN`. It is not JSON, because Kafka Connect's
    default header converter would make a map of that, which stops other connectors."""
    return b"%d:%d" % (xid, commit_lsn)


def snapshot_header(snapshot_id: str) -> bytes:
    """The value of `ordertap.transaction` for a snapshot row: `snapshot:ID`."""
    return _SNAPSHOT + snapshot_id.encode()


def parse_transaction(value: bytes) -> TransactionMark:
    """Parses `ordertap.transaction`, in the earlier form, too. DataError for anything that the builders never wrote."""
    if value.startswith(_SNAPSHOT):
        return TransactionMark(None, None, value[len(_SNAPSHOT) :].decode(errors="replace"))
    if not value.startswith(b"{"):
        return TransactionMark(_transaction_id(value), None, None)
    return _earlier_mark(value)


def _transaction_id(value: bytes) -> str:
    try:
        xid, lsn = map(int, value.split(b":"))
    except ValueError:
        xid = lsn = -1
    if not (0 <= xid < 1 << 32 and 0 <= lsn < 1 << 64):
        raise DataError(f"header {TRANSACTION_HEADER} is not xid:lsn or snapshot:id ({len(value)} bytes)")
    return f"{xid}:{lsn}"


def _earlier_mark(value: bytes) -> TransactionMark:
    """The form from before the index, which topics still have: `{"id":"xid:LSN","size":{…}}`, or
    `{"snapshot":"ID"}`."""
    content = _json_header(TRANSACTION_HEADER, value)
    if not isinstance(content, dict) or not isinstance(content.get("size"), dict | None):
        raise DataError(f"header {TRANSACTION_HEADER} is not the expected JSON object")
    return TransactionMark(content.get("id"), content.get("size"), content.get("snapshot"))


def unchanged_header(columns: Sequence[str]) -> bytes:
    """The value of `ordertap.unchanged`: names of record fields whose values were not sent."""
    return _compact(list(columns))


def parse_unchanged(value: bytes) -> frozenset[str]:
    """Parses `ordertap.unchanged`. DataError if it is not a list of names."""
    content = _json_header(UNCHANGED_HEADER, value)
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise DataError(f"header {UNCHANGED_HEADER} is not a JSON list of names")
    return frozenset(content)


def _compact(content: object) -> bytes:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def _json_header(name: str, value: bytes) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise DataError(f"header {name} is not JSON ({len(value)} bytes)") from None
