"""Types of columns and texts of their values: edge cases, and a seeded generator where a type has many forms."""

from __future__ import annotations

import json
import math
import random
import struct
from collections.abc import Callable
from typing import Final

Make = Callable[[random.Random], str]
Values = tuple[tuple[str, ...], Make]
"""Edge cases of a type, and a maker of more values."""

SETUP: Final = """
    CREATE TYPE mood AS ENUM ('sad', 'so, so', 'happy "ß"', '');
    CREATE DOMAIN amount AS numeric(10,2) CHECK (value > -1000);
    CREATE DOMAIN amounts AS amount;
    CREATE DOMAIN moods AS mood;
    CREATE DOMAIN tags AS text[];
    CREATE DOMAIN instant AS timestamp(3);
    CREATE TYPE pair AS (a int, b text);
    CREATE TYPE nested AS (p pair, m mood[], n numeric(8,3));
    CREATE TYPE span AS RANGE (subtype = float8, subtype_diff = float8mi);
    CREATE DOMAIN spans AS span;
"""
EXTENSIONS: Final = ("citext", "hstore", "ltree", "isn", "vector", "cube")
"""citext, hstore and ltree are also the types of domains: emails, labels, paths."""

_CHARACTERS: Final = (
    "aZ0 \t\n\r\v\b\f\\\"'{}[](),;:<>=&|!*@#$%~`?/N\x01\x1f\x7fäß€\u200b\u2028\ufeff\U0001d11e\U0010ffff"
)


def _any_text(rng: random.Random) -> str:
    return "".join(rng.choice(_CHARACTERS) for _ in range(rng.randrange(12)))


def _word(rng: random.Random) -> str:
    return "".join(rng.choice("abcXYZ09_") for _ in range(rng.randrange(1, 8)))


def _integer(bits: int) -> Make:
    return lambda rng: str(rng.getrandbits(rng.randrange(1, bits)) * rng.choice((1, -1)))


def _digits(rng: random.Random, most: int) -> str:
    return "".join(rng.choice("0123456789") for _ in range(rng.randrange(most + 1)))


def _numeric(whole: int, fraction: int) -> Make:
    return lambda rng: f"{rng.choice('-+')}{_digits(rng, whole) or 0}.{_digits(rng, fraction)}"


def _double(rng: random.Random) -> str:
    (number,) = struct.unpack("<d", rng.randbytes(8))
    return repr(number) if math.isfinite(number) else "NaN"


def _single(rng: random.Random) -> str:
    (number,) = struct.unpack("<f", rng.randbytes(4))
    return repr(number) if math.isfinite(number) else "Infinity"


def _date(first: int, last: int) -> Make:
    def make(rng: random.Random) -> str:
        year = rng.choice((rng.randint(first, last), rng.randint(1, 9999), rng.randint(1900, 2100), rng.randint(-3, 3)))
        era = " BC" if year <= 0 else ""
        return f"{year if year > 0 else 1 - year:04d}-{rng.randint(1, 12):02d}-{rng.randint(1, 28):02d}{era}"

    return make


def _clock(rng: random.Random) -> str:
    fraction = rng.choice(("", f".{rng.randrange(1_000_000):06d}", ".5", ".000001"))
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}{fraction}"


def _offset(rng: random.Random) -> str:
    return rng.choice(("+00", "+02", "-11:30", "+05:45", "+01:02:03", "-15:59:59", "+14"))


def _timestamp(first: int = -4700, last: int = 294_275, zone: bool = False) -> Make:
    day = _date(first, last)

    def make(rng: random.Random) -> str:
        shown, _, era = day(rng).partition(" ")
        return f"{shown} {_clock(rng)}{_offset(rng) if zone else ''}{' ' + era if era else ''}"

    return make


def _interval(years: int) -> Make:
    def make(rng: random.Random) -> str:
        sign = lambda most: rng.choice((-1, 1)) * rng.randrange(most)  # noqa: E731
        parts = [f"{sign(years)} years" if years else "", f"{sign(30) if years else 0} months", f"{sign(40)} days"]
        return " ".join(parts) + f" {rng.choice('-+')}{_clock(rng)}"

    return make


def _quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(make: Make) -> Make:
    """One-dimensional arrays of such values, some NULL, some with a lower bound."""

    def text(rng: random.Random) -> str:
        items = ["NULL" if rng.random() < 0.2 else _quoted(make(rng)) for _ in range(rng.randrange(6))]
        bound = f"[{rng.randrange(-3, 9)}:{{}}]=" if items and rng.random() < 0.2 else ""
        if bound:
            low = int(bound[1 : bound.index(":")])
            bound = bound.format(low + len(items) - 1)
        return bound + "{" + ",".join(items) + "}"

    return text


def _json(rng: random.Random) -> str:
    def value(depth: int) -> object:
        simple = (_any_text(rng), rng.randrange(-(10**6), 10**6), rng.random(), True, None)
        if depth == 0 or rng.random() < 0.5:
            return rng.choice(simple)
        if rng.random() < 0.5:
            return [value(depth - 1) for _ in range(rng.randrange(4))]
        return {_any_text(rng): value(depth - 1) for _ in range(rng.randrange(4))}

    return json.dumps(value(3), ensure_ascii=rng.random() < 0.5, indent=rng.choice((None, 1)))


def _bytea(rng: random.Random) -> str:
    return "\\x" + rng.randbytes(rng.randrange(20)).hex()


def _bits(fewest: int, most: int) -> Make:
    return lambda rng: "".join(rng.choice("01") for _ in range(rng.randint(fewest, most)))


def _uuid(rng: random.Random) -> str:
    return rng.randbytes(16).hex()


def _octets(count: int) -> Make:
    return lambda rng: ":".join(f"{byte:02x}" for byte in rng.randbytes(count))


def _inet(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return ".".join(str(byte) for byte in rng.randbytes(4)) + rng.choice(("", "/24", "/0", "/32"))
    return ":".join(rng.randbytes(2).hex() for _ in range(8)) + rng.choice(("", "/64", "/127"))


def _range(make: Callable[[random.Random], int], shown: Callable[[int], str] = str) -> Make:
    def text(rng: random.Random) -> str:
        low, high = sorted((make(rng), make(rng)))
        bounds = rng.choice((f"{shown(low)},{shown(high)}", f",{shown(high)}", f"{shown(low)},", ","))
        return "empty" if rng.random() < 0.1 else f"{rng.choice('[(')}{bounds}{rng.choice('])')}"

    return text


def _multirange(one: Make) -> Make:
    return lambda rng: "{" + ",".join(one(rng) for _ in range(rng.randrange(4))) + "}"


_small_range: Final = _range(lambda rng: rng.randint(-1000, 1000))
_day_range: Final = _range(lambda rng: rng.randint(1, 9999), lambda year: f"{year:04d}-02-03")


def _hstore(rng: random.Random) -> str:
    pairs = [
        f"{_quoted(_any_text(rng))}=>{'NULL' if rng.random() < 0.3 else _quoted(_any_text(rng))}"
        for _ in range(rng.randrange(4))
    ]
    return ", ".join(pairs)


def _composite(rng: random.Random) -> str:
    return f"({rng.randrange(9)},{_quoted(_any_text(rng))})"


def _one_of(*texts: str) -> Make:
    return lambda rng: rng.choice(texts)


def _point(rng: random.Random) -> str:
    return f"({_double(rng)},{_double(rng)})"


_MOODS: Final = ("sad", "so, so", 'happy "ß"', "")
_TIME: Final = ("00:00:00", "24:00:00", "23:59:59.999999")
_ENDS: Final = ("infinity", "-infinity")

TYPES: Final[dict[str, Values]] = {
    "boolean": (("t", "f"), _one_of("t", "f")),
    "smallint": (("-32768", "32767", "0"), _integer(15)),
    "integer": (("-2147483648", "2147483647", "63", "64", "-64", "-65", "8191", "8192"), _integer(31)),
    "bigint": (("-9223372036854775808", "9223372036854775807", "134217727", "134217728"), _integer(63)),
    "oid": (("0", "4294967295"), lambda rng: str(rng.getrandbits(32))),
    "real": (("NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1e-45", "7.038531e-26"), _single),
    "double precision": (("NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308"), _double),
    "numeric": (("NaN", "Infinity", "-Infinity", "0", "0.000", "-0.10", "1e400", "-1.7e131071", "1e-16383"),
                _numeric(60, 40)),
    "numeric(12,2)": (("NaN", "0", "0.01", "-0.01", "1.27", "1.28", "-1.29", "9999999999.99"), _numeric(10, 2)),
    "numeric(5,0)": (("NaN", "-99999", "0"), _numeric(5, 0)),
    "numeric(38,10)": (("NaN", "1234567890123456789012345678.0123456789"), _numeric(28, 10)),
    "numeric(1000,500)": (("NaN", "-1e-500", "9e499"), _numeric(500, 500)),
    "numeric(5,-2)": (("NaN", "12300", "-4550", "9999900"), _integer(20)),
    "numeric(1000,-999)": (("NaN", "9e1998", "-1e999"), _one_of("1e1000")),
    "numeric(3,5)": (("NaN", "0.00999", "-0.00001"), lambda rng: f"0.00{rng.randrange(999):03d}"),
    "money": (("92233720368547758.07", "-92233720368547758.08", "0"), _numeric(15, 2)),
    "text": (("", "NULL", "{}", "\\N", "\\.", "__debezium_unavailable_value", "x" * 5000), _any_text),
    "varchar(12)": (("", " a "), _any_text),
    "char(6)": (("", "ab", "  x"), lambda rng: _word(rng)[:6]),
    '"char"': (("q", "", "\\"), _one_of("a", "~", " ")),
    "name": (("", "a name"), _word),
    "bytea": (("", "\\x", "\\x00", "\\x5c785c78"), _bytea),
    "uuid": (("00000000-0000-0000-0000-000000000000",), _uuid),
    "json": (("null", '{"a": 1,  "a":[1,2]}', '"\\u0041"', "\n1 "), _json),
    "jsonb": (("null", "[]", "1e400", '{"a": 1, "a": 2}'), _json),
    "xml": (("<r><a>1</a></r>", "", "text &amp; <b/>"), _one_of("<r>€</r>")),
    "date": ((*_ENDS, "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31"),
             _date(-4700, 5_874_000)),
    "time": (_TIME, _clock),
    "time(0)": (_TIME[:2], _clock),
    "time(3)": (_TIME[:2], _clock),
    "time(6)": (_TIME, _clock),
    "time with time zone": (("24:00:00+00", "00:00:00-15:59:59"), lambda rng: _clock(rng) + _offset(rng)),
    "timetz(3)": (("24:00:00+00",), lambda rng: _clock(rng) + _offset(rng)),
    "timestamp": ((*_ENDS, "4714-11-24 00:00:00 BC", "9999-12-31 23:59:59.999999", "10000-01-01 00:00:00",
                   "294247-01-10 04:00:54.775806", "294247-01-10 04:00:54.775807", "294247-01-10 04:00:54.775808",
                   "294276-12-31 23:59:59.999999"), _timestamp()),
    "timestamp(0)": ((*_ENDS, "294276-12-31 23:59:59", "0044-03-15 12:00:00 BC"), _timestamp()),
    "timestamp(3)": ((*_ENDS, "294276-12-31 23:59:59", "1969-12-31 23:59:59.999"), _timestamp()),
    "timestamp(6)": (_ENDS, _timestamp()),
    "timestamptz": ((*_ENDS, "0001-12-31 12:00:00.25+00 BC", "294276-12-31 23:59:59.999999+00",
                     "0001-01-01 00:00:00+00", "4714-11-24 00:00:00+00 BC"), _timestamp(zone=True)),
    "timestamptz(3)": (_ENDS, _timestamp(zone=True)),
    "interval": (("0", "1 day", "-1 day -02:03:04.000001", "3 days -04:05:06", "-00:00:01", "100000000 days"),
                 _interval(0)),
    "interval day to second(3)": (("0", "-1 day +00:00:00.001"), _interval(0)),
    "bit(1)": (("0", "1"), _bits(1, 1)),
    "bit(11)": (("00000000001", "10000000000"), _bits(11, 11)),
    "bit(64)": (("1" * 64, "0" * 64), _bits(64, 64)),
    '"bit"': (("", "1", "0010"), _bits(0, 9)),  # of any length, as from CREATE TABLE AS
    "bit varying(12)": (("", "0010", "10"), _bits(0, 12)),
    "bit varying": (("", "0" * 100), _bits(0, 70)),
    "inet": (("192.168.0.1/24", "::1", "::ffff:1.2.3.4"), _inet),
    "cidr": (("10.0.0.0/8", "::/0"), _one_of("192.168.100.128/25", "2001:db8::/32")),
    "macaddr": (("08:00:2b:01:02:03",), _octets(6)),
    "macaddr8": (("08:00:2b:ff:fe:01:02:03",), _octets(8)),
    "int4range": (("empty", "(,)", "[1,5)"), _small_range),
    "int8range": (("empty", "[9223372036854775806,9223372036854775807)"), _small_range),
    "numrange": (("empty", "[1.10,2.200]", "[-Infinity,NaN]"), _small_range),
    "daterange": (("empty", "[-infinity,infinity]"), _day_range),
    "tsrange": (('["2024-01-01 00:00:00.5",infinity)', "[-infinity,)"), _day_range),
    "tstzrange": (("empty", '["2024-01-01 00:00:00+02",)'), _day_range),
    "int4multirange": (("{}", "{[1,2),(,0)}"), _multirange(_small_range)),
    "nummultirange": (("{}", "{[1.1,2.20)}"), _multirange(_small_range)),
    "datemultirange": (("{}",), _multirange(_day_range)),
    "tstzmultirange": (("{}", '{["2024-01-01 00:00:00+02",)}'), _multirange(_day_range)),
    "span": (("empty", "[0.1,1e300)"), _small_range),
    "spans": (("empty", "[0.1,1e300)"), _small_range),
    "point": (("(0,0)", "(NaN,Infinity)", "(-0,-Infinity)"), _point),
    "line": (("{1,-1,0}",), _one_of("{0.5,2,3}")),
    "lseg": (("[(0,0),(1,1)]",), _one_of("[(0.1,0),(1,-1)]")),
    "box": (("(1,1),(0,0)",), _one_of("(2,2),(0.5,-1)")),
    "path": (("[(0,0),(1,1)]", "((0,0),(1,1))"), _one_of("((0,0),(1,0.1))")),
    "polygon": (("((0,0),(1,1),(2,0))",), _one_of("((0,0),(1,1),(2,0.5))")),
    "circle": (("<(0,0),1>",), _one_of("<(0.1,0.2),3>")),
    "pg_lsn": (("0/0", "FFFFFFFF/FFFFFFFF"), lambda rng: f"{rng.getrandbits(32):X}/{rng.getrandbits(32):X}"),
    "tsvector": (("", "'a' 'b''c':1A,2"), _one_of("'fat':2,4B 'rat':5")),
    "tsquery": (("'a' & 'b'",), _one_of("'a' <-> !'b'")),
    "jsonpath": (("$",), _one_of('$."a"[*]?(@ > 1)')),
    "xid": (("0", "4294967295"), lambda rng: str(rng.getrandbits(32))),
    "xid8": (("18446744073709551615",), lambda rng: str(rng.getrandbits(64))),
    "tid": (("(0,0)",), _one_of("(12,3)")),
    "pg_snapshot": (("10:20:10,14",), _one_of("1:1:")),
    "regclass": (("pg_class",), _one_of("pg_type")),
    "regtype": (("integer",), _one_of("timestamp with time zone")),
    "int2vector": (("", "1 2 3"), _one_of("-1 7")),
    "oidvector": (("", "1 2 3"), _one_of("4294967295")),
    "mood": (_MOODS, _one_of(*_MOODS)),
    "moods": (_MOODS, _one_of(*_MOODS)),
    "amount": (("12.3", "-999.99"), _numeric(2, 2)),
    "amounts": (("12.34",), _numeric(2, 2)),
    "instant": ((*_ENDS, "2024-01-01 00:00:00.001"), _timestamp()),
    "pair": (('(1,"a b")', "(,)", '(,"")'), _composite),
    "nested": (('("(1,a)","{sad,\\"so, so\\"}",1.5)', "(,,)"), _one_of('("(,)",{},NaN)')),
    "citext": (("CiText", ""), _any_text),
    "hstore": (("", '"a"=>NULL', '"NULL"=>"NULL"'), _hstore),
    "ltree": (("", "Top.Science"), lambda rng: f"{_word(rng)}.{_word(rng)}"),
    "isbn": (("978-0-393-04002-9",), _one_of("0-306-40615-2")),
    "vector(3)": (("[1,2,3]",), _one_of("[0.5,-1,1e10]")),
    "cube": (("(1, 2),(3, 4)",), _one_of("(0.1)")),
    "emails": (("Ann@example.com",), _any_text),
    "labels": (("", '"a"=>NULL'), _hstore),
    "paths": (("Top.Science",), _word),
}  # fmt: skip

INTERVALS_WITH_MONTHS: Final[Values] = (
    ("178000000 years -11 mons", "-178000000 years", "1 mon", "-1 mon +1 day -00:00:00.000001", "infinity"),
    _interval(10_000_000),
)
NO_ARRAY: Final = ("int2vector", "oidvector")


def array_types() -> dict[str, Values]:
    """Arrays of all of these, and domains over arrays and arrays of domains."""
    found = {}
    for name, (edges, make) in TYPES.items():
        if name not in NO_ARRAY:
            comma = ";" if name == "box" else ","
            texts = tuple(_quoted(edge) for edge in edges)
            every = make if name != "box" else None
            more = array(make) if every else _one_of("{NULL}")
            found[f"{name}[]"] = (("{}", "{NULL}", "{" + comma.join(texts) + "}"), more)
    found["tags"] = (("{}", '{a,NULL,"NULL",""}'), array(_any_text))
    found["tags[]"] = (("{}", '{"{a,NULL}",NULL}'), _one_of('{"{}"}'))
    return found


def texts_of(values: Values, count: int, rng: random.Random) -> list[str | None]:
    """`count` values, NULL and the edge cases first."""
    edges, make = values
    made: list[str | None] = [None, *edges]
    made += [make(rng) for _ in range(count - len(made))]
    return made[:count]
