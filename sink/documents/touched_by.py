"""`touched_by` of a document in a profile: SQL over the changed rows of a table gives the keys of documents.

An expression reads one changed row. A SELECT reads `changed`, the rows of one table before and after, and the shop's
other tables. NULL touches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sink.documents import sqltext

_COLUMN: Final = re.compile(r'"?([A-Za-z_]\w*)"?')
_QUALIFIED: Final = re.compile(r"([\w.]+)\.(\w+)")
_PATH: Final = re.compile(r"[\w.]+(\s*->\s*[\w.]+\.\w+)+|[\w.]+\s*<-\s*[\w.]+\.\w+")


@dataclass(frozen=True, slots=True)
class Touch:
    """How changed rows of `table` lead to document keys: `sql` is an expression over one row, or a SELECT."""

    table: str
    sql: str

    @property
    def selects(self) -> bool:
        """Whether it is a SELECT over `changed`."""
        return sqltext.is_select(self.sql)

    @property
    def column(self) -> str | None:
        """The column, if the expression is nothing but a column."""
        found = _COLUMN.fullmatch(self.sql.strip())
        return found[1] if found else None


def statements(given: Any) -> list[str]:
    """The SQL of one table: one text or a list of them. ValueError says what is wrong."""
    several = given if isinstance(given, list) else [given]
    if not several:
        raise ValueError("has no SQL")
    return [_statement(one) for one in several]


def _statement(given: Any) -> str:
    if not isinstance(given, str) or not given.strip():
        raise ValueError(f"{given!r} is not SQL text")
    text = given.strip().removesuffix(";")
    if _PATH.fullmatch(text):
        raise ValueError(f"{text!r} is a path, which is no longer read; write SQL: {_path('…', text)}")
    if found := _QUALIFIED.fullmatch(text):
        raise ValueError(f"{text!r}: an expression reads one row; write the column alone: {found[2]}")
    spoken = sqltext.spoken(text)
    if ";" in spoken:
        raise ValueError("has a `;`: one expression or one SELECT is one entry of a list")
    words = set(re.findall(r"\w+", spoken.lower()))
    if sqltext.is_select(text) and "changed" not in words:
        raise ValueError("the SELECT does not read `changed`, which has the changed rows")
    if not sqltext.is_select(text) and "select" in words:
        raise ValueError("an expression reads one row only; write it as SELECT … FROM changed …")
    return text


def rewritten(paths: Iterable[Any], root: str, key: str) -> str:
    """Rewrites the paths and arrows of earlier releases as SQL. It assumes that primary keys are called `id`."""
    found: dict[str, list[str]] = {}
    for path in paths:
        if isinstance(path, Mapping):
            entries = [(str(table), str(sql)) for table, sql in path.items()]
        else:
            text = str(path)
            entries = [(_first_table(text), _path(f"{root}.{key}", text))]
        for table, sql in entries:
            found.setdefault(table, []).append(sql)
    return "\n".join(f"      {table}: {_yaml(several)}" for table, several in found.items())


def _first_table(path: str) -> str:
    first = re.split(r"->|<-", path)[0].strip()
    return first if "<-" in path else first.rpartition(".")[0] or first


def _path(root: str, path: str) -> str:
    """One path as SQL; `root`: the root's table and key."""
    if "<-" in path:
        table, _, column = path.partition("<-")[2].strip().rpartition(".")
        key = root.rpartition(".")[2]
        return f"SELECT r.{key} FROM changed c JOIN {_bare(table)} r ON r.{column} = c.id"  # noqa: S608  text to read
    first, *rest = [part.strip().rpartition(".") for part in path.split("->")]
    if not rest:
        return first[2]
    joins, column, before = "", first[2], "c"
    for number, (table, _, next_column) in enumerate(rest, 1):
        joins += f" JOIN {_bare(table)} t{number} ON t{number}.id = {before}.{column}"
        column, before = next_column, f"t{number}"
    return f"SELECT {before}.{column} FROM changed c{joins}"  # noqa: S608  text to read


def _bare(table: str) -> str:
    return table.rpartition(".")[2]


def _yaml(several: list[str]) -> str:
    quoted = [f'"{sql}"' if re.search(r"[:#'\"{}\[\],&*]", sql) else sql for sql in several]
    return quoted[0] if len(quoted) == 1 else "[" + ", ".join(quoted) + "]"
