"""One document that cannot be read is found among many that can."""

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
    """What `read` finds for keys, in their order: for all together, unless a value keeps them from being read. Then by
    halves, until what cannot be read stands by itself; of that `alone` is what is found. Without keys, nothing."""
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
    """A document of which a value cannot be read. Nothing is known of it, so it has no stamp."""
    problem = f"the ERP's rows of it cannot be read: {error.message}"
    return Observed(ErpRecord(kind, {}), milestone=None, reference="", stamp="", problem=problem)
