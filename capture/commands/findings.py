"""`capture check`: a finding, and quoting for the SQL that fixes it. Pure."""

from __future__ import annotations

from collections.abc import Generator
from typing import Literal, NamedTuple

Level = Literal["ok", "warn", "BAD"]


class Finding(NamedTuple):
    """One thing that was looked at. `remedy`: SQL or a command, "" if all is well. `BAD`: capture cannot work, or not
    correctly. `warn`: a risk that somebody may have chosen."""

    level: Level
    what: str
    remedy: str = ""


Looks = Generator[Finding, None, bool]
"""Yields findings, and returns whether what depends on them can be looked at."""


def found(ok: bool, what: str, remedy: str, otherwise: Level = "BAD") -> Finding:
    """A finding, with its remedy unless all is well."""
    return Finding("ok", what) if ok else Finding(otherwise, what, remedy)


def quoted(*parts: str) -> str:
    """A name as an SQL identifier; several parts have dots between them."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def quoted_table(table: str) -> str:
    """`schema.table` as SQL."""
    return quoted(*table.split(".", 1))


def literal(text: str) -> str:
    """A text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
