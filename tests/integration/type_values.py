"""Types of columns and texts of their values: edge cases, and a hypothesis strategy for all others."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any, Final
from xml.sax.saxutils import escape

from hypothesis import strategies as st

Texts = st.SearchStrategy[str]
Values = tuple[tuple[str, ...], Texts]
"""Edge cases of a type, and a strategy for more values."""

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
"""citext, hstore and ltree are also the base types of domains: emails, labels, paths."""

_SPECIAL: Final = "aZ0 \t\n\r\v\b\f\\\"'{}[](),;:<>=&|!*@#$%~`?/N\x01\x1f\x7f\u200b\u2028\ufeff\U0010ffff"
_CHARACTERS: Final = st.sampled_from(_SPECIAL) | st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_ENDS: Final = ("infinity", "-infinity")


def _text(most: int = 20) -> Texts:
    """Every character that PostgreSQL accepts."""
    return st.text(_CHARACTERS, max_size=most)


_word: Final = st.text("abcXYZ09_", min_size=1, max_size=7)


def _integer(bits: int) -> Texts:
    return st.integers(-(2**bits), 2**bits - 1).map(str)


def _unsigned(bits: int) -> Texts:
    return st.integers(0, 2**bits - 1).map(str)


def _numeric(whole: int, fraction: int) -> Texts:
    """At most this many digits before and after the point, some of them zeros at the end."""

    def of_scale(scale: int) -> Texts:
        limit = 10 ** (whole + scale) - 1
        return st.integers(-limit, limit).map(lambda number: f"{number}e-{scale}")

    return st.integers(0, fraction).flatmap(of_scale) | st.just("NaN")


_single: Final = st.floats(width=32).map(repr)
_double: Final = st.floats().map(repr)
_money: Final = st.decimals(-(10**15), 10**15, places=2).map(str)


def _date(first: int, last: int) -> Texts:
    """Dates mostly of our time, a few of them BC or far off."""
    years = st.integers(-3, 3) | st.integers(first, last)
    far = st.builds("{1:04d}-{2:02d}-{3:02d}{0}".format, st.just(""), years, st.integers(1, 12), st.integers(1, 28))
    return st.dates().map(str) | far.map(_with_era)


def _with_era(day: str) -> str:
    """ISO counts years through zero: 0000 and -001 are 1 BC and 2 BC."""
    year, rest = int(day[:-6]), day[-6:]
    return day if year > 0 else f"{1 - year:04d}{rest} BC"


_clock: Final = st.times().map(str) | st.just("24:00:00")
_offset: Final = st.builds(
    "{}{:02d}:{:02d}:{:02d}".format, st.sampled_from("+-"), st.integers(0, 15), *[st.integers(0, 59)] * 2
)


def _timestamp(zone: bool = False) -> Texts:
    def shown(day: str, clock: str, offset: str) -> str:
        date, era, _ = day.partition(" BC")
        return f"{date} {clock}{offset}{era}"

    some = st.builds(shown, _date(-4700, 294_275), _clock, _offset if zone else st.just(""))
    return some | st.sampled_from(_ENDS)


def _interval(years: int) -> Texts:
    def some(most: int) -> st.SearchStrategy[int]:
        return st.integers(-most, most)

    hours = st.integers(0, 100_000).map("{}:00:01.5".format)
    parts = some(years), some(30 if years else 0), some(1_000_000), st.sampled_from("-+"), _clock | hours
    return st.builds("{} years {} months {} days {}{}".format, *parts)


def _quoted(item: str) -> str:
    return '"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array(values: Texts, comma: str = ",") -> Texts:
    """Arrays of such values, some NULL, some with a lower bound, some with two dimensions."""

    def text(items: list[str], low: int, nested: bool) -> str:
        shown = "{" + comma.join(items) + "}"
        if nested and len(items) % 2 == 0 and items:
            half = len(items) // 2
            rows = (comma.join(items[:half]), comma.join(items[half:]))
            return "{" + comma.join(f"{{{row}}}" for row in rows) + "}"
        return f"[{low}:{low + len(items) - 1}]={shown}" if low != 1 and items else shown

    items = st.lists(st.just("NULL") | values.map(_quoted), max_size=6)
    return st.builds(text, items, st.just(1) | st.integers(-3, 9), st.booleans())


def _json(numbers: st.SearchStrategy[Any]) -> Texts:
    leaves = st.none() | st.booleans() | numbers | _text()
    content = st.recursive(
        leaves, lambda part: st.lists(part, max_size=4) | st.dictionaries(_text(8), part, max_size=4), max_leaves=8
    )
    return st.builds(
        lambda value, ascii_only, indent: json.dumps(value, ensure_ascii=ascii_only, indent=indent),
        content, st.booleans(), st.sampled_from((None, 1)),
    )  # fmt: skip


_numbers: Final = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
_bytea: Final = st.binary(max_size=40).map(lambda content: f"\\x{content.hex()}")
_xml: Final = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn"]), max_size=20).map(
    lambda text: f"<r>{escape(text)}</r>"
)


def _bits(fewest: int, most: int) -> Texts:
    return st.text("01", min_size=fewest, max_size=most)


def _octets(count: int) -> Texts:
    return st.binary(min_size=count, max_size=count).map(lambda content: content.hex(":"))


_masked: Final = st.ip_addresses().flatmap(lambda ip: st.tuples(st.just(ip), st.integers(0, ip.max_prefixlen)))
_inet: Final = st.ip_addresses().map(str) | _masked.map(lambda pair: f"{pair[0]}/{pair[1]}")
_cidr: Final = _masked.map(lambda pair: str(ip_network(pair, strict=False)))


def _range(values: st.SearchStrategy[Any]) -> Texts:
    def text(some: tuple[Any, Any], no_low: bool, no_high: bool, brackets: str) -> str:
        low, high = sorted(some)
        return f"{brackets[0]}{'' if no_low else low},{'' if no_high else high}{brackets[1]}"

    brackets = st.sampled_from(("[)", "[]", "(]", "()"))
    some = st.builds(text, st.tuples(values, values), st.booleans(), st.booleans(), brackets)
    return some | st.just("empty")


def _multirange(one: Texts) -> Texts:
    return st.lists(one, max_size=4).map(lambda ranges: "{" + ",".join(ranges) + "}")


_small_range: Final = _range(st.integers(-(2**31), 2**31 - 2))
_float_range: Final = _range(st.floats(allow_nan=False))
_day_range: Final = _range(st.dates())
_moment_range: Final = _range(st.datetimes())
_hstore: Final = st.dictionaries(_text(8), st.none() | _text(8), max_size=4).map(
    lambda pairs: ", ".join(f"{_quoted(k)}=>{'NULL' if v is None else _quoted(v)}" for k, v in pairs.items())
)
_composite: Final = st.builds(lambda number, text: f"({number},{_quoted(text)})", _integer(31), _text())
_nested: Final = st.builds(
    lambda pair, moods, number: f"({_quoted(pair)},{_quoted(moods)},{number})",
    _composite, array(st.sampled_from(("sad", "so, so"))), _numeric(5, 3),
)  # fmt: skip


def _one_of(*texts: str) -> Texts:
    return st.sampled_from(texts)


_point: Final = st.builds("({},{})".format, _double, _double)


_MOODS: Final = ("sad", "so, so", 'happy "ß"', "")
_TIME: Final = ("00:00:00", "24:00:00", "23:59:59.999999")

TYPES: Final[dict[str, Values]] = {
    "boolean": (("t", "f"), _one_of("t", "f")),
    "smallint": (("-32768", "32767", "0"), _integer(15)),
    "integer": (("-2147483648", "2147483647", "63", "64", "-64", "-65", "8191", "8192"), _integer(31)),
    "bigint": (("-9223372036854775808", "9223372036854775807", "134217727", "134217728"), _integer(63)),
    "oid": (("0", "4294967295"), _unsigned(32)),
    "real": (("NaN", "Infinity", "-Infinity", "-0", "3.4028235e38", "1e-45", "7.038531e-26"), _single),
    "double precision": (("NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308"), _double),
    "numeric": (("NaN", "Infinity", "-Infinity", "0", "0.000", "-0.10", "1e400", "-1.7e131071", "1e-16383"),
                _numeric(200, 60) | st.sampled_from(("Infinity", "-Infinity"))),
    "numeric(12,2)": (("NaN", "0", "0.01", "-0.01", "1.27", "1.28", "-1.29", "9999999999.99"), _numeric(10, 2)),
    "numeric(5,0)": (("NaN", "-99999", "0"), _numeric(5, 0)),
    "numeric(38,10)": (("NaN", "1234567890123456789012345678.0123456789"), _numeric(28, 10)),
    "numeric(1000,500)": (("NaN", "-1e-500", "9e499"), _numeric(500, 500)),
    "numeric(5,-2)": (("NaN", "12300", "-4550", "9999900"), _integer(20)),
    "numeric(1000,-999)": (("NaN", "9e1998", "-1e999"), _one_of("1e1000")),
    "numeric(3,5)": (("NaN", "0.00999", "-0.00001"), st.integers(-999, 999).map("{}e-5".format)),
    "money": (("92233720368547758.07", "-92233720368547758.08", "0"), _money),
    "text": (("", "NULL", "{}", "\\N", "\\.", "__debezium_unavailable_value", "x" * 5000), _text(60)),
    "varchar(12)": (("", " a "), _text(12)),
    "char(6)": (("", "ab", "  x"), _text(6)),
    '"char"': (("q", "", "\\"), st.integers(1, 127).map(chr)),
    "name": (("", "a name"), _text(15)),
    "bytea": (("", "\\x", "\\x00", "\\x5c785c78"), _bytea),
    "uuid": (("00000000-0000-0000-0000-000000000000",), st.uuids().map(str)),
    "json": (("null", '{"a": 1,  "a":[1,2]}', '"\\u0041"', "\n1 ", '"\\u0000\\ud800"'), _json(_numbers)),
    "jsonb": (("null", "[]", "1e400", '{"a": 1, "a": 2}'), _json(_numbers)),
    "xml": (("<r><a>1</a></r>", "", "text &amp; <b/>"), _xml),
    "date": ((*_ENDS, "4713-01-01 BC", "0001-12-31 BC", "0001-01-01", "9999-12-31", "10000-01-01", "5874897-12-31"),
             _date(-4700, 5_874_000) | st.sampled_from(_ENDS)),
    "time": (_TIME, _clock),
    "time(0)": (_TIME[:2], _clock),
    "time(3)": (_TIME[:2], _clock),
    "time(6)": (_TIME, _clock),
    "time with time zone": (("24:00:00+00", "00:00:00-15:59:59"), st.builds(str.__add__, _clock, _offset)),
    "timetz(3)": (("24:00:00+00",), st.builds(str.__add__, _clock, _offset)),
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
    "cidr": (("10.0.0.0/8", "::/0"), _cidr),
    "macaddr": (("08:00:2b:01:02:03",), _octets(6)),
    "macaddr8": (("08:00:2b:ff:fe:01:02:03",), _octets(8)),
    "int4range": (("empty", "(,)", "[1,5)"), _small_range),
    "int8range": (("empty", "[9223372036854775806,9223372036854775807)"), _small_range),
    "numrange": (("empty", "[1.10,2.200]", "[-Infinity,NaN]"), _float_range),
    "daterange": (("empty", "[-infinity,infinity]"), _day_range),
    "tsrange": (('["2024-01-01 00:00:00.5",infinity)', "[-infinity,)"), _moment_range),
    "tstzrange": (("empty", '["2024-01-01 00:00:00+02",)'), _moment_range),
    "int4multirange": (("{}", "{[1,2),(,0)}"), _multirange(_small_range)),
    "nummultirange": (("{}", "{[1.1,2.20)}"), _multirange(_float_range)),
    "datemultirange": (("{}",), _multirange(_day_range)),
    "tstzmultirange": (("{}", '{["2024-01-01 00:00:00+02",)}'), _multirange(_moment_range)),
    "span": (("empty", "[0.1,1e300)"), _float_range),
    "spans": (("empty", "[0.1,1e300)"), _float_range),
    "point": (("(0,0)", "(NaN,Infinity)", "(-0,-Infinity)"), _point),
    "line": (("{1,-1,0}",), _one_of("{0.5,2,3}")),
    "lseg": (("[(0,0),(1,1)]",), _one_of("[(0.1,0),(1,-1)]")),
    "box": (("(1,1),(0,0)",), _one_of("(2,2),(0.5,-1)")),
    "path": (("[(0,0),(1,1)]", "((0,0),(1,1))"), _one_of("((0,0),(1,0.1))")),
    "polygon": (("((0,0),(1,1),(2,0))",), _one_of("((0,0),(1,1),(2,0.5))")),
    "circle": (("<(0,0),1>",), _one_of("<(0.1,0.2),3>")),
    "pg_lsn": (("0/0", "FFFFFFFF/FFFFFFFF"), st.builds("{:X}/{:X}".format, *[st.integers(0, 2**32 - 1)] * 2)),
    "tsvector": (("", "'a' 'b''c':1A,2"), _one_of("'fat':2,4B 'rat':5")),
    "tsquery": (("'a' & 'b'",), _one_of("'a' <-> !'b'")),
    "jsonpath": (("$",), _one_of('$."a"[*]?(@ > 1)')),
    "xid": (("0", "4294967295"), _unsigned(32)),
    "xid8": (("18446744073709551615",), _unsigned(64)),
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
    "nested": (('("(1,a)","{sad,\\"so, so\\"}",1.5)', "(,,)"), _nested),
    "citext": (("CiText", ""), _text()),
    "hstore": (("", '"a"=>NULL', '"NULL"=>"NULL"'), _hstore),
    "ltree": (("", "Top.Science"), st.lists(_word, max_size=4).map(".".join)),
    "isbn": (("978-0-393-04002-9",), _one_of("0-306-40615-2")),
    "vector(3)": (("[1,2,3]",), _one_of("[0.5,-1,1e10]")),
    "cube": (("(1, 2),(3, 4)",), _one_of("(0.1)")),
    "emails": (("Ann@example.com",), _text()),
    "labels": (("", '"a"=>NULL'), _hstore),
    "paths": (("Top.Science",), _word),
}  # fmt: skip

INTERVALS_WITH_MONTHS: Final[Values] = (
    ("178000000 years -11 mons", "-178000000 years", "1 mon", "-1 mon +1 day -00:00:00.000001", "infinity"),
    _interval(10_000_000),
)
NO_ARRAY: Final = ("int2vector", "oidvector")


def array_types() -> dict[str, Values]:
    """Arrays of all of these, domains over arrays, and arrays of domains."""
    found = {}
    for name, (edges, values) in TYPES.items():
        if name not in NO_ARRAY:
            comma = ";" if name == "box" else ","
            texts = tuple(_quoted(edge) for edge in edges)
            found[f"{name}[]"] = (("{}", "{NULL}", "{" + comma.join(texts) + "}"), array(values, comma))
    found["tags"] = (("{}", '{a,NULL,"NULL",""}'), array(_text(8)))
    found["tags[]"] = (("{}", '{"{a,NULL}",NULL}'), array(array(_text(8))))
    return found
