"""Both ways of a row beside each other: the compiled one (schemas/writing/rowpath.pyx) makes the same bytes of a
message as the plain one, or ends in an error of the same class.

Tables of all usual types and of odd ones, values usual and odd, messages whole and broken. By itself:
`.venv/bin/python -m tests.fuzzing.rowpath --rows 10000000`.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.registry import wire
from schemas.writing import rowpath
from schemas.writing.codec import SourceOrigin, compile_codec
from schemas.writing.column_rules import Asterisks, ColumnRules, Hashed, Mask, Truncated
from tests.fuzzing.mutate import mutate

_ROWS_OF_A_TABLE: Final = 2_000
_CELLS: Final = 40  # of a column, made once
_MOST_SHOWN: Final = 20
_ORIGIN: Final = SourceOrigin("shop", "shop", "0.1.0")

_NUMBERS: Final = (
    b"0", b"-0", b"00", b"007", b"-7", b"-07", b"+7", b" 7", b"7 ", b"1_0", b"1_000", b"0001", b"-0001", b"--1", b"-",
    b"999", b"1000", b"-99", b"-100", b"8191", b"8192", b"127", b"128", b"-64", b"-65", b"2147483647", b"-2147483648",
    b"4294967295", b"9223372036854775807", b"-9223372036854775808", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551615", b"9999999999999999999", b"10000000000000000000", b"1" * 40, b"", b"x", b"\xd9\xa3", b"1e3",
)  # fmt: skip
_DECIMALS: Final = (
    b"0.00", b"-0.00", b"0.01", b"-0.01", b"1.27", b"1.28", b"-1.28", b"-1.29", b"327.67", b"327.68", b"-327.68",
    b"19.99", b"9999999999.99", b"-9999999999.99", b"9999999999999999.99", b"99999999999999999.99", b"NaN", b".50",
    b"1.5", b"1.500", b"1.", b"1", b"-.50", b"+1.50", b" 1.50", b"1..0", b"1_0.00", b"00.10", b"Infinity", b"-", b".",
    b"", b"0.000000000000000001", b"1.2x", b"x.20", b"-12345678901234.5678",
)  # fmt: skip
_TIMES: Final = (
    b"2024-02-29 10:34:56.789123+00", b"2024-02-29 10:34:56+00", b"1969-12-31 23:59:59.999999+00", b"infinity",
    b"-infinity", b"0044-03-15 10:00:00+00 BC", b"10000-01-01 00:00:00+00", b"2024-02-29 10:34:56+02", b"2024-02-29",
    b"2024-02-29 10:34:56.789", b"294276-12-31 23:59:59.999999", b"+00", b"x-xx+00", b"xxxx-+00", b"xxxx+00",
    b"2024-02-30 00:00:00", b"", b"24:00:00", b"12:30:00.5", b"12:30:00+00",
)  # fmt: skip
_TEXTS: Final = (
    b"", b"x", b"a name of usual length", b"x" * 63, b"x" * 64, b"y" * 8191, b"z" * 8192, b"\xc3\xa4", b"\xff",
)  # fmt: skip


class _Type(NamedTuple):
    """`values` gives a usual text; `odd` are the others."""

    oid: int
    values: Callable[[random.Random], bytes]
    odd: tuple[bytes, ...]
    typmods: tuple[int, ...] = (-1,)


def _integer(bits: int) -> Callable[[random.Random], bytes]:
    return lambda rng: b"%d" % rng.randint(-(1 << (size := rng.randint(1, bits))), (1 << size) - 1)


def _decimal(scale: int) -> Callable[[random.Random], bytes]:
    def values(rng: random.Random) -> bytes:
        whole = rng.choice(("", "-")) + str(rng.randint(0, 10 ** rng.randint(1, 15)))
        return f"{whole}.{rng.randint(0, 10**scale - 1):0{scale}d}".encode() if scale else whole.encode()

    return values


def _moment(rng: random.Random) -> bytes:
    day = f"{rng.randint(1, 9999):04d}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}"
    clock = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:{rng.randint(0, 59):02d}"
    return f"{day} {clock}{rng.choice(('', f'.{rng.randint(0, 999999):06d}'))}".encode()


def _text(rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(0, 40))


def _scaled(precision: int, scale: int) -> int:
    return (precision << 16 | scale & 0x7FF) + 4


_TYPES: Final = (
    _Type(20, _integer(63), _NUMBERS), _Type(23, _integer(31), _NUMBERS), _Type(21, _integer(15), _NUMBERS),
    _Type(26, lambda rng: b"%d" % rng.getrandbits(32), _NUMBERS),
    _Type(25, _text, _TEXTS), _Type(1043, _text, _TEXTS, (-1, 34)), _Type(1042, _text, _TEXTS, (14,)),
    _Type(16, lambda rng: rng.choice((b"t", b"f")), (b"", b"true", b"T", b"1", b"n")),
    _Type(1700, _decimal(2), _DECIMALS, (_scaled(12, 2), _scaled(30, 2), -1)),
    _Type(1700, _decimal(4), _DECIMALS, (_scaled(18, 4),)), _Type(1700, _decimal(18), _DECIMALS, (_scaled(20, 18),)),
    _Type(1700, _decimal(0), _DECIMALS, (_scaled(5, 0), _scaled(3, -2))),
    _Type(1184, lambda rng: _moment(rng) + b"+00", _TIMES, (-1, 3)), _Type(1114, _moment, _TIMES, (-1, 3)),
    _Type(1082, lambda rng: _moment(rng)[:10], _TIMES), _Type(1083, lambda rng: _moment(rng)[11:], _TIMES, (-1, 0)),
    _Type(2950, lambda rng: b"%032x" % rng.getrandbits(128), _TEXTS), _Type(3802, lambda _: b'{"a": 1}', _TEXTS),
    _Type(17, lambda rng: b"\\x" + rng.randbytes(rng.randint(0, 9)).hex().encode(), (b"", b"\\x0", b"x")),
    _Type(701, lambda rng: repr(rng.random()).encode(), (b"NaN", b"Infinity", b"1e999", b"x")),
    _Type(1007, lambda rng: b"{%d,NULL}" % rng.getrandbits(31), (b"{}", b"{", b"{{1},{2}}", b"{x}")),
    _Type(1009, lambda _: b'{a,"b c"}', (b"{}", b'{"', b"NULL")),
    _Type(1186, lambda rng: b"%d days 01:02:03" % rng.randint(-9, 9), (b"", b"x", b"infinity")),
    _Type(1560, lambda rng: b"10", (b"", b"2", b"1"), (1, 2)), _Type(99_999, _text, _TEXTS),
)  # fmt: skip


class Compared(NamedTuple):
    """How many rows became records, how many of them without the plain way's help, and where the ways differ."""

    records: int
    compiled: int
    findings: list[str]


class Ways(NamedTuple):
    """A table's two ways, and a message of one of its rows; `left` has an item for each row that was left to
    `plain`."""

    compiled: Callable[..., Any]
    plain: Callable[..., Any]
    left: list[None]
    message: Callable[[random.Random], bytes]


def table(rng: random.Random) -> Ways:
    """A table with one to twelve columns; some are masked, left out, nullable, or of the key."""
    types = [rng.choice(_TYPES) for _ in range(rng.randint(1, 12))]
    names = [f"c{number}" for number in range(len(types))]
    keyed = [rng.random() < 0.3 for _ in types]
    columns = [
        Column(name, one.oid, rng.choice(one.typmods), key) for name, one, key in zip(names, types, keyed, strict=True)
    ]
    relation = Relation(7, "public", "t", "d" if any(keyed) else "n", tuple(columns))
    key = [name for name, key in zip(names, keyed, strict=True) if key]
    rng.shuffle(key)
    default = [None, None, "5", "'x'::text"]
    facts = {name: ColumnFacts(not_null=rng.random() < 0.5, default=rng.choice(default)) for name in names}
    free = [column for column in columns if not column.key]
    masks: tuple[Mask, ...] = (Asterisks(3), Truncated(4), Hashed("SHA-256", b"salt"))
    rules = ColumnRules(
        excluded=frozenset(column.name for column in free if rng.random() < 0.1),
        masks={column.name: rng.choice(masks) for column in free if column.type_oid == 25 and rng.random() < 0.3},
    )
    codec = compile_codec("shop.public.t", relation, TableFacts(tuple(key), facts), rules=rules)
    key_head = wire.prefix(1) if codec.key_schema else None
    heads = (key_head, wire.prefix(2) + b"\x00\x02", codec.table_bytes)
    plain = codec.code.record(*heads)
    assert rowpath.takes(codec.layout.columns, codec.layout.key)
    left: list[None] = []

    def leave(data: bytes, prefix: Any, lsn: int, op: str) -> tuple[bytes | None, bytes]:
        left.append(None)
        return plain(data, prefix, lsn, op)

    compiled = rowpath.Record(codec.layout.columns, codec.layout.key, *heads, leave)

    head = b"I" + struct.pack(">IcH", 7, b"N", len(types))
    usual, odd = ([[_cell(rng, one, chance) for _ in range(_CELLS)] for one in types] for chance in (0.0, 0.12))

    def message(rng: random.Random) -> bytes:
        return head + b"".join(map(rng.choice, odd if rng.random() < 0.5 else usual))

    return Ways(compiled, plain, left, message)


def _cell(rng: random.Random, one: _Type, odd: float) -> bytes:
    chance = rng.random()
    if chance < odd / 2:
        return b"n" if chance < odd / 3 else b"u"
    text = rng.choice(one.odd) if chance < odd else one.values(rng)
    return b"t" + struct.pack(">I", len(text)) + text


def outcome(way: Callable[..., Any], *arguments: Any) -> Any:
    """The result of the call, or the class of its error."""
    try:
        return way(*arguments)
    except Exception as error:  # noqa: BLE001  whatever it is, the other way must end in the same
        return type(error)


def compare(rows: int, seed: int, progress: bool = False) -> Compared:
    """Writes this many rows both ways; half of the messages are broken."""
    rng = random.Random(seed)
    records, unaided, findings = 0, 0, list[str]()
    for done in range(0, rows, _ROWS_OF_A_TABLE):
        ways = table(rng)
        prefix = _ORIGIN.transaction(rng.getrandbits(32), rng.getrandbits(50), rng.getrandbits(40), rng.getrandbits(60))
        whole = [ways.message(rng) for _ in range(20)]
        for number in range(min(_ROWS_OF_A_TABLE, rows - done)):
            data = ways.message(rng) if number % 2 else mutate(rng, rng.choice(whole), whole)
            row = (data, prefix, rng.getrandbits(rng.choice((8, 32, 48, 63, 64))), rng.choice("cu"))
            ways.left.clear()
            made, expected = outcome(ways.compiled, *row), outcome(ways.plain, *row)
            records += isinstance(expected, tuple)
            unaided += not ways.left
            if made != expected:
                findings.append(f"{data[:400]!r}: {made!r:.300}, by the plain way {expected!r:.300}")
        if progress and done % 1_000_000 == 0:
            print(f"{done} rows, {len(findings)} differ", flush=True)
    return Compared(records, unaided, findings)


def main() -> int:
    """Exit code 1 where the ways differ."""
    parser = argparse.ArgumentParser(prog="tests.fuzzing.rowpath", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    records, compiled, findings = compare(options.rows, options.seed, progress=True)
    for finding in findings[:_MOST_SHOWN]:
        print(finding)
    print(f"row path: {options.rows} rows, {records} records, {compiled} of them compiled, {len(findings)} differ")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
