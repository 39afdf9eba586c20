"""Many steps in one call to Tryton, which does all of them or none. The bad one is found, and the others are done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import TypeAlias, TypeVar

from sink.erp.contract import ConflictError, HoldError, RetryError, StopError
from sink.erp.tryton.errors import StaleError

_T = TypeVar("_T")
Failure: TypeAlias = RetryError | HoldError | StopError


def _none(_: object) -> Collection[int]:
    return ()


def together(
    items: Mapping[int, _T],
    call: Callable[[Mapping[int, _T]], object],
    moved: Callable[[Mapping[int, _T]], Collection[int]] = _none,
) -> dict[int, Failure]:
    """Makes one call with all items. Returns the items that were not done, by their numbers, with the reason.

    If Tryton refuses the call, `moved` is asked once which items have changed since their steps were planned. Those are
    conflicts, whatever words Tryton refused them in. The rest is tried again, and by halves if nothing has changed. An
    outage or an expired deadline applies to every item of the call.
    """
    if not items:
        return {}
    try:
        call(items)
    except (StaleError, HoldError) as error:
        return _apart(items, call, moved, error)
    except (RetryError, StopError) as error:
        return dict.fromkeys(items, error)
    return {}


def _apart(
    items: Mapping[int, _T],
    call: Callable[[Mapping[int, _T]], object],
    moved: Callable[[Mapping[int, _T]], Collection[int]],
    error: StaleError | HoldError,
) -> dict[int, Failure]:
    """Calls again without the items that have changed, or by halves if none has."""
    try:
        gone = moved(items)
    except (RetryError, StopError) as away:
        return dict.fromkeys(items, away)
    found: dict[int, Failure] = {number: ConflictError("it changed in the ERP meanwhile") for number in gone}
    rest = {number: item for number, item in items.items() if number not in found}
    if found:
        return found | together(rest, call, moved)
    if len(rest) == 1:
        return dict.fromkeys(rest, error)
    numbers = list(rest)
    half = len(numbers) // 2
    for some in (numbers[:half], numbers[half:]):
        found |= together({number: rest[number] for number in some}, call, moved)
    return found
