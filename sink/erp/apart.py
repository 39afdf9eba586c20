"""Finds the one document that cannot be read among many that can."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from sink.erp.contract import HoldError, Observed
from sink.erp.kinds import ErpRecord, Kind

_Key = TypeVar("_Key")
_Found = TypeVar("_Found")


def apart(
    keys: Sequence[_Key], read: Callable[[Sequence[_Key]], _Found], alone: Callable[[_Key, HoldError], _Found]
) -> list[_Found]:
    """Reads the keys together, and returns what `read` finds, in their order. If a value cannot be read, it reads by
    halves until that key is alone; `alone` then says what to return for it."""
    if not keys:
        return []
    try:
        return [read(keys)]
    except HoldError as error:
        if len(keys) == 1:
            return [alone(keys[0], error)]
    half = len(keys) // 2
    return apart(keys[:half], read, alone) + apart(keys[half:], read, alone)


def unreadable(kind: Kind, error: HoldError) -> Observed:
    """A document with a value that cannot be read. Nothing is known of it, so it has no stamp."""
    problem = f"the ERP's rows of it cannot be read: {error.message}"
    return Observed(ErpRecord(kind, {}), milestone=None, reference="", stamp="", problem=problem)
