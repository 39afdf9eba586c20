"""Log lines about values that are something else in Kafka."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import structlog

from schemas.types.encoders import SPECIAL_NUMBER

log = structlog.get_logger("capture")


def tell_of(table: str, notes: Iterable[tuple[str, str]]) -> None:
    """Logs each note once per column. `notes`: a codec's, (column, what)."""
    for column, what in notes:
        if what == SPECIAL_NUMBER:
            _tell_of_null(table, column)


@cache
def _tell_of_null(table: str, column: str) -> None:
    hint = "to keep such values: special_numbers: exact, or decimal_handling_mode: string"
    log.warning(f"{SPECIAL_NUMBER} is null in Kafka, as in Debezium", table=table, column=column, next=hint)
