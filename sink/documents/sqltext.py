"""What the text of a profile's SQL tells by itself; only PostgreSQL really parses it.

Everything here looks at words. That is right for SQL as people write it, and errs on the safe side: a column with the
name of a table counts as that table.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

_SILENT: Final = re.compile(r"[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_CALLED: Final = re.compile(r"\bAS\s+\"?\w+", re.IGNORECASE)
_FROM: Final = re.compile(
    r"\b(?:FROM|JOIN)\s+(?:LATERAL\s+)?(?:\"?\w+\"?\.)?\"?(\w+)\"?(?:\s+(?:AS\s+)?(?!(?:ON|USING|WHERE|JOIN|LEFT|RIGHT|"
    r"FULL|INNER|CROSS|NATURAL|GROUP|ORDER|LIMIT|UNION|HAVING|WINDOW|EXCEPT|INTERSECT)\b)\"?(\w+)\"?)?",
    re.IGNORECASE,
)
_KEY_COLUMN: Final = re.compile(
    r"(?<![\w:.\"])(?:\"?(\w+)\"?\.)?\"?(\w+)\"?\s*=\s*ANY\s*\(\s*(?:SELECT\b[^=]*?\bunnest\s*\(\s*)?%\(keys\)s",
    re.IGNORECASE,
)
_EQUAL: Final = re.compile(r"\b(\w+)\.(\w+)\s*=\s*(\w+)\.(\w+)\b")


class Column(NamedTuple):
    """A column as the SQL names it. `table`: a bare name, or None if the text does not say which table."""

    table: str | None
    column: str


def spoken(sql: str) -> str:
    """The SQL without comments and literals."""
    return _SILENT.sub(" ", sql)


def is_select(sql: str) -> bool:
    """Whether it is a whole query rather than an expression."""
    return re.match(r"\s*(?:SELECT|WITH)\b", spoken(sql), re.IGNORECASE) is not None


def named(sql: str, names: Iterable[str]) -> set[str]:
    """The names that occur in the SQL as a word. An alias that the SQL itself gives (`AS name`) does not count."""
    words = {word.lower() for word in re.findall(r"\w+", _CALLED.sub(" ", spoken(sql)))}
    return {name for name in names if name.lower() in words}


def key_columns(sql: str) -> Iterator[Column]:
    """The columns that are compared with the keys: `WHERE column = ANY (%(keys)s…)`, without a cast or a function of
    the column. Parts of the keys are compared as `ANY (SELECT … FROM unnest(%(keys)s…))`."""
    text = spoken(sql)
    for found in _KEY_COLUMN.finditer(text):
        (alias, column), before = found.groups(), text[: found.start()]
        yield Column(_table_of(before, alias) if alias else _nearest(before), column)


def joined_columns(sql: str) -> Iterator[Column]:
    """The columns by which a SELECT joins other tables to `changed`, those of `changed`, too: `t.column = c.other`. By
    both, the files' SQL is likely to join."""
    text = spoken(sql)
    for left, left_column, right, right_column in _EQUAL.findall(text):
        tables = (_table_of(text, left), _table_of(text, right))
        if "changed" in tables:
            yield Column(tables[0], left_column)
            yield Column(tables[1], right_column)


def _table_of(text: str, alias: str) -> str | None:
    """The table behind an alias at the end of the text; None for a subquery."""
    tables = {called or table: table for table, called in _FROM.findall(text)}
    return tables.get(alias)


def _nearest(text: str) -> str | None:
    """The table of the last FROM, if nothing is joined to it."""
    found = list(re.finditer(r"\b(FROM|JOIN)\s+(?:\"?\w+\"?\.)?\"?(\w+)", text, re.IGNORECASE))
    return found[-1][2] if found and found[-1][1].upper() == "FROM" else None
