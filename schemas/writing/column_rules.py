"""What is left out of a table's records, and what replaces values that must not be seen.

A mask is part of a column's kind: there is no way to write the column without it. Names and results are Debezium's.
Source: Debezium's PostgreSQL connector, `column.mask.with.<n>.chars`, `column.truncate.to.<n>.chars`,
`column.mask.hash.v2.<algorithm>.with.salt.<salt>`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple, TypeAlias

from schemas.model.errors import SettingsError
from schemas.model.relation import Column, ColumnFacts, Relation
from schemas.types.encoders import sized
from schemas.types.kind import CALL_CODE, Kind, string

Algorithm: TypeAlias = Literal[
    "MD5", "SHA-1", "SHA-224", "SHA-256", "SHA-384", "SHA-512", "SHA3-224", "SHA3-256", "SHA3-384", "SHA3-512"
]
"""Java's names of the algorithms, as Debezium's options have them."""
_PYTHON_NAMES: Final[dict[Algorithm, str]] = {
    "MD5": "md5", "SHA-1": "sha1", "SHA-224": "sha224", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512",
    "SHA3-224": "sha3_224", "SHA3-256": "sha3_256", "SHA3-384": "sha3_384", "SHA3-512": "sha3_512",
}  # fmt: skip
_LENGTHS: Final = {1042: 4, 1043: 4}  # char(n), varchar(n): typmod minus n
_TSVECTOR: Final = string("io.debezium.data.TsVector").avro  # a plain text with a name


@dataclass(frozen=True, slots=True)
class Asterisks:
    """`length` asterisks in place of any value, NULL included."""

    length: int


@dataclass(frozen=True, slots=True)
class Truncated:
    """The first `length` characters (code points) of the value."""

    length: int


@dataclass(frozen=True, slots=True)
class Hashed:
    """The hash of salt and UTF-8 text, in hexadecimal, cut to the column's length if it has one. NULL stays NULL."""

    algorithm: Algorithm
    salt: bytes = field(repr=False)


Mask: TypeAlias = Asterisks | Truncated | Hashed


class ColumnRules(NamedTuple):
    """What the settings say about one table's columns, by name. `excluded`: left out; they may not be in the key.
    `unlisted`: left out unless they are in the key. `key`: the columns of the record's key; empty: the table's own key.
    `typed`: columns whose schema tells their PostgreSQL type. `commented`: the schema has all comments."""

    excluded: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()
    masks: Mapping[str, Mask] = {}
    key: tuple[str, ...] = ()
    typed: frozenset[str] = frozenset()
    commented: bool = False

    @property
    def hidden(self) -> frozenset[str]:
        """The columns that no record shows as they are."""
        return self.excluded | self.unlisted | self.masks.keys()


NO_RULES: Final = ColumnRules()


def chosen_key(relation: Relation, names: tuple[str, ...]) -> tuple[int, ...]:
    """The indexes of the columns that the settings choose for the key. SettingsError if a column does not exist, or if
    old rows in the log do not have it: nobody would see a change of the key, and a delete would have no key."""
    position = {column.name: index for index, column in enumerate(relation.columns)}
    missing = [name for name in names if name not in position]
    if missing:
        raise SettingsError(
            f"message_key_columns: table {relation.table} does not have {', '.join(missing)}", "correct the entry"
        )
    unseen = [name for name in names if not relation.columns[position[name]].key]
    if unseen and relation.replica_identity != "n":
        raise SettingsError(
            f"message_key_columns: the log does not have the old {', '.join(unseen)} of table {relation.table}, "
            "so a change of the key would not be seen",
            f"ALTER TABLE {relation.table} REPLICA IDENTITY FULL (or an index of these columns), and let capture read "
            "past it before you set this",
        )
    return tuple(position[name] for name in names)


def kept_columns(relation: Relation, rules: ColumnRules, key: frozenset[int]) -> tuple[int, ...]:
    """The indexes of the columns that records have. SettingsError if a rule would leave out or hide the key: in Kafka
    the key identifies the row, and in the position it says which rows were read last."""
    for index in sorted(key):
        name = relation.columns[index].name
        if name in rules.excluded:
            raise SettingsError(
                f"column {relation.table}.{name} is of the table's key: it cannot be left out",
                "take it out of column_exclude_list",
            )
        if name in rules.masks:
            raise SettingsError(
                f"column {relation.table}.{name} is of the table's key: it cannot be masked, hashed or truncated",
                "take it out of that setting, or the table out of table_include_list",
            )
    return tuple(
        index
        for index, column in enumerate(relation.columns)
        if index in key or column.name not in rules.excluded | rules.unlisted
    )


def masked(kind: Kind, mask: Mask, relation: Relation, column: Column, facts: ColumnFacts) -> Kind:
    """The kind of a masked column. SettingsError if the column does not travel as plain text."""
    if kind.avro == _TSVECTOR:
        kind = replace(kind, avro="string")
    if kind.avro != "string":
        raise SettingsError(
            f"column {relation.table}.{column.name} is not text: only text can be masked, hashed or truncated",
            "name it in columns_as_text, too, or leave it out with column_exclude_list",
        )
    length = _text_length(column, facts)
    if isinstance(mask, Truncated):
        if length is not None and length <= mask.length:
            return kind
        return _with(kind, _truncation(mask.length), {"truncateLength": str(mask.length)})
    if isinstance(mask, Asterisks):
        return _with(kind, _asterisks(mask.length), {"masked": "true"})
    return _with(kind, _hash(mask, length), {"masked": "true"})


def _with(kind: Kind, encode: Callable[[bytes], bytes], parameters: dict[str, str]) -> Kind:
    avro = {"type": "string", "connect.parameters": parameters}
    return replace(kind, avro=avro, encode=encode, code=CALL_CODE)


def _asterisks(length: int) -> Callable[[bytes], bytes]:
    shown = sized(b"*" * length)

    def encode(text: bytes) -> bytes:
        if not isinstance(text, bytes):
            raise TypeError  # no value, or one that was not sent: not for an encoder
        return shown

    return encode


def _truncation(length: int) -> Callable[[bytes], bytes]:
    def encode(text: bytes) -> bytes:
        return sized(text if len(text) <= length else text.decode()[:length].encode())

    return encode


def _hash(mask: Hashed, length: int | None) -> Callable[[bytes], bytes]:
    salted = hashlib.new(_PYTHON_NAMES[mask.algorithm], mask.salt, usedforsecurity=False)

    def encode(text: bytes) -> bytes:
        of_value = salted.copy()
        of_value.update(text)
        return sized(of_value.hexdigest()[:length].encode())

    return encode


def _text_length(column: Column, facts: ColumnFacts) -> int | None:
    """n of a varchar(n) or char(n), also for a domain."""
    for oid, typmod in ((column.type_oid, column.typmod), (facts.base_oid, facts.base_typmod)):
        if oid in _LENGTHS:
            return typmod - _LENGTHS[oid] if typmod >= _LENGTHS[oid] else None
    return None
