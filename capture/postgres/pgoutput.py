"""Decodes the messages of PostgreSQL's `pgoutput` plugin, protocol version 1: bytes in, frozen messages out. Pure.

Raises ProtocolError, and nothing else, for anything truncated or unknown. Source: PostgreSQL manual, "Logical
Replication Message Formats".
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

from schemas.model.change import UNCHANGED, Cell
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.model.relation import Column, Relation

_BEGIN = struct.Struct(">QqI")  # final LSN, commit time, xid
_COMMIT = struct.Struct(">xQQq")  # flags, commit LSN, end LSN, commit time
_ORIGIN = struct.Struct(">Q")
_COLUMN = struct.Struct(">Ii")  # type OID, type modifier
_MESSAGE = struct.Struct(">BQ")  # flags, LSN
_U32 = struct.Struct(">I")
_U16 = struct.Struct(">H")

POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 in µs since 1970: where PostgreSQL's timestamps begin."""


class ProtocolError(DataError):
    """The bytes are not what pgoutput version 1 sends."""


class Begin(NamedTuple):
    """A transaction begins. `commit_lsn`: of its commit record. `commit_us`: µs since 1970."""

    commit_lsn: LSN
    commit_us: int
    xid: int


class Commit(NamedTuple):
    """A transaction ends. `end_lsn`: where the log continues after it."""

    commit_lsn: LSN
    end_lsn: LSN
    commit_us: int


class Origin(NamedTuple):
    """The transaction came from another server (replication origin)."""

    lsn: LSN
    name: str


class Type(NamedTuple):
    """A type that is not built in."""

    oid: int
    schema: str
    name: str


class Insert(NamedTuple):
    relation_oid: int
    new: tuple[Cell, ...]


class Update(NamedTuple):
    """`old`: the old key (`old_kind` b"K"), the whole old row (b"O"), or None if the key did not change."""

    relation_oid: int
    old_kind: bytes | None
    old: tuple[Cell, ...] | None
    new: tuple[Cell, ...]


class Delete(NamedTuple):
    """`old`: the old key (`old_kind` b"K") or the whole old row (b"O")."""

    relation_oid: int
    old_kind: bytes
    old: tuple[Cell, ...]


class Truncate(NamedTuple):
    relation_oids: tuple[int, ...]


class LogicalMessage(NamedTuple):
    """A message of pg_logical_emit_message."""

    transactional: bool
    lsn: LSN
    prefix: str
    content: bytes


Message: TypeAlias = Begin | Commit | Origin | Type | Relation | Insert | Update | Delete | Truncate | LogicalMessage


Kind = TypeVar("Kind", bound=Message)


def decode(payload: bytes) -> Message:
    """Decodes one message. `payload`: as psycopg2 gives it with decode=False. Raises ProtocolError."""
    decoder = _DECODERS.get(payload[:1])
    if decoder is None:
        raise ProtocolError(f"pgoutput message of unknown kind {payload[:1]!r} ({len(payload)} bytes)", _HINT)
    try:
        message, end = decoder(payload)
    except (struct.error, IndexError, ValueError) as error:
        raise _broken(payload, type(error).__name__) from None
    if end != len(payload):
        raise _broken(payload, f"it should end at byte {end}")
    return message


def decode_as(kind: type[Kind], payload: bytes) -> Kind:
    """Decodes a message that has to be of this kind."""
    message = decode(payload)
    if not isinstance(message, kind):
        raise ProtocolError(f"pgoutput message of kind {payload[:1]!r}, not {kind.__name__}", _HINT)
    return message


def decode_begin(payload: bytes) -> Begin:
    """Decodes a message that is known to be a Begin."""
    if len(payload) != 1 + _BEGIN.size:
        raise _broken(payload, "its length")
    commit_lsn, commit_us, xid = _BEGIN.unpack_from(payload, 1)
    return Begin(LSN(commit_lsn), commit_us + POSTGRES_EPOCH_US, xid)


def decode_commit(payload: bytes) -> Commit:
    """Decodes a message that is known to be a Commit."""
    if len(payload) != 1 + _COMMIT.size:
        raise _broken(payload, "its length")
    commit_lsn, end_lsn, commit_us = _COMMIT.unpack_from(payload, 1)
    return Commit(LSN(commit_lsn), LSN(end_lsn), commit_us + POSTGRES_EPOCH_US)


_HINT = "check that the slot's plugin is pgoutput; if it is, report this with the server's version"


def _broken(payload: bytes, reason: str) -> ProtocolError:
    return ProtocolError(f"pgoutput message {payload[:1]!r} of {len(payload)} bytes is broken: {reason}", _HINT)


def _tuple(data: bytes, at: int) -> tuple[tuple[Cell, ...], int]:
    """TupleData: a count, then for each column `n`ull, `u`nchanged or `t`ext with a length. The stream's common rows do
    not come through here, but through schemas.writing.rowcode."""
    (count,) = _U16.unpack_from(data, at)
    at += 2
    cells: list[Cell] = []
    append = cells.append
    from_bytes = int.from_bytes
    size = len(data)
    for _ in range(count):
        kind = data[at]
        if kind == 116:  # t
            start = at + 5
            at = start + from_bytes(data[at + 1 : start], "big")
            if at > size:
                raise ValueError
            append(data[start:at])
        elif kind == 110:  # n
            append(None)
            at += 1
        elif kind == 117:  # u
            append(UNCHANGED)
            at += 1
        else:
            raise ValueError
    return tuple(cells), at


def _string(data: bytes, at: int) -> tuple[str, int]:
    """A name. If the database does not know its encoding, it may not be UTF-8: such bytes are shown as `\\xe4`."""
    end = data.index(0, at)
    return data[at:end].decode(errors="backslashreplace"), end + 1


def _begin(data: bytes) -> tuple[Message, int]:
    return decode_begin(data), len(data)


def _commit(data: bytes) -> tuple[Message, int]:
    return decode_commit(data), len(data)


def _origin(data: bytes) -> tuple[Message, int]:
    name, end = _string(data, 1 + _ORIGIN.size)
    return Origin(LSN(_ORIGIN.unpack_from(data, 1)[0]), name), end


def _type(data: bytes) -> tuple[Message, int]:
    schema, at = _string(data, 5)
    name, end = _string(data, at)
    return Type(_U32.unpack_from(data, 1)[0], schema, name), end


def _relation(data: bytes) -> tuple[Message, int]:
    schema, at = _string(data, 5)
    name, at = _string(data, at)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns = []
    for _ in range(count):
        key = bool(data[at] & 1)
        column, at = _string(data, at + 1)
        type_oid, typmod = _COLUMN.unpack_from(data, at)
        at += _COLUMN.size
        columns.append(Column(column, type_oid, typmod, key))
    return Relation(_U32.unpack_from(data, 1)[0], schema or "pg_catalog", name, identity, tuple(columns)), at


def _insert(data: bytes) -> tuple[Message, int]:
    if data[5] != 78:  # N
        raise ValueError
    new, end = _tuple(data, 6)
    return Insert(int.from_bytes(data[1:5], "big"), new), end


def _update(data: bytes) -> tuple[Message, int]:
    kind = data[5:6]
    old: tuple[Cell, ...] | None = None
    at = 5
    if kind in (b"K", b"O"):
        old, at = _tuple(data, 6)
    if data[at] != 78:  # N
        raise ValueError
    new, end = _tuple(data, at + 1)
    return Update(int.from_bytes(data[1:5], "big"), kind if old is not None else None, old, new), end


def _delete(data: bytes) -> tuple[Message, int]:
    kind = data[5:6]
    if kind not in (b"K", b"O"):
        raise ValueError
    old, end = _tuple(data, 6)
    return Delete(int.from_bytes(data[1:5], "big"), kind, old), end


def _truncate(data: bytes) -> tuple[Message, int]:
    (count,) = _U32.unpack_from(data, 1)
    end = 6 + 4 * count
    if end > len(data):
        raise ValueError
    return Truncate(struct.unpack_from(f">{count}I", data, 6)), end


def _message(data: bytes) -> tuple[Message, int]:
    flags, lsn = _MESSAGE.unpack_from(data, 1)
    prefix, at = _string(data, 1 + _MESSAGE.size)
    (length,) = _U32.unpack_from(data, at)
    end = at + 4 + length
    if end > len(data):
        raise ValueError
    return LogicalMessage(bool(flags & 1), LSN(lsn), prefix, data[at + 4 : end]), end


_DECODERS: dict[bytes, Callable[[bytes], tuple[Message, int]]] = {
    b"B": _begin,
    b"C": _commit,
    b"O": _origin,
    b"Y": _type,
    b"R": _relation,
    b"I": _insert,
    b"U": _update,
    b"D": _delete,
    b"T": _truncate,
    b"M": _message,
}
