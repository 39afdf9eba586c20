"""Ways to break bytes."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

_TOKENS: Final = (
    b"", b"\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x00\x00\x00\x00", b"\x80", b"\xed\xa0\x80", b"{", b"}",
    b"[" * 2000, b'"', b"\\", b"\\N", b"\t", b"\n", b",", b":", b"-", b".", b"NULL", b"null", b"NaN", b"Infinity",
    b"infinity", b"1e999", b"9" * 30, b"9" * 5000, b" BC", b"+00", b"00", b"=>", b'{"a":', b"(", b")", b"_", b"e",
    b"n", b"t", b"u", b"N", b"K", b"O",
)  # fmt: skip


def mutate(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    """The data with one to four things done to it."""
    for _ in range(rng.randint(1, 4)):
        data = rng.choice(_WAYS)(rng, data, corpus)
    return data


def _at(rng: random.Random, data: bytes) -> int:
    return rng.randint(0, len(data))


def _flip(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    if not data:
        return data
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]


def _replace(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(rng, data)
    fresh = rng.randbytes(rng.randint(1, 4))
    return data[:at] + fresh + data[at + len(fresh) :]


def _cut(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted((_at(rng, data), _at(rng, data)))
    return rng.choice((data[:start], data[start:], data[:start] + data[end:]))


def _repeat(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    start, end = sorted((_at(rng, data), _at(rng, data)))
    return data[:end] + data[start:end] * rng.randint(1, 3) + data[end:]


def _insert(rng: random.Random, data: bytes, _: Sequence[bytes]) -> bytes:
    at = _at(rng, data)
    return data[:at] + rng.choice(_TOKENS) + data[at:]


def _splice(rng: random.Random, data: bytes, corpus: Sequence[bytes]) -> bytes:
    other = rng.choice(corpus)
    return data[: _at(rng, data)] + other[_at(rng, other) :]


_WAYS: Final[tuple[Callable[[random.Random, bytes, Sequence[bytes]], bytes], ...]] = (
    _flip, _flip, _replace, _cut, _repeat, _insert, _insert, _splice,
)  # fmt: skip
