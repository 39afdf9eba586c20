"""A position in PostgreSQL's write-ahead log."""

from __future__ import annotations

import re

from schemas.model.errors import DataError

_LSN_TEXT = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")


class LSN(int):
    """A byte position in the log, 64 bit unsigned, shown as PostgreSQL shows it: `16/B374D848`.

    Source: PostgreSQL manual, "pg_lsn Type".
    """

    @classmethod
    def parse(cls, text: str) -> LSN:
        """Parses `16/B374D848`. DataError for anything else."""
        if not _LSN_TEXT.fullmatch(text):
            raise DataError(f"not a log position: {text!r}", "write it as PostgreSQL does, for example 16/B374D848")
        high, low = text.split("/")
        return cls(int(high, 16) << 32 | int(low, 16))

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN({self})"
