"""`sink init`: what has to be in the ERP before the first document."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.model.errors import OrdertapError
from sink.erp.contract import Advice, ErpSetup, Lack, RetryError


class Init(NamedTuple):
    """`to_make`: what `sink init` can make; `by_hand`: what a person has to make. After `execute`, by message: `made`,
    and what the ERP `refused`."""

    to_make: Sequence[Advice]
    by_hand: Sequence[Advice]
    made: Sequence[str] = ()
    refused: Mapping[str, Advice] = {}


def init(setup: ErpSetup, execute: bool) -> Init:
    """Asks the ERP what it lacks. `execute` makes it one by one; a refusal stops only that one.

    RetryError if the ERP does not answer. What was made until then is no longer lacking the next time.
    """
    lacks = setup.lacks()
    to_make = [Advice(one.message, one.hint) for one in lacks if one.make]
    by_hand = [Advice(one.message, one.hint) for one in lacks if not one.make]
    if not execute:
        return Init(to_make, by_hand)
    made: list[str] = []
    refused: dict[str, Advice] = {}
    for lack in lacks:
        _make(lack, made, refused)
    return Init(to_make, by_hand, made, refused)


def _make(lack: Lack, made: list[str], refused: dict[str, Advice]) -> None:
    if lack.make is None:
        return
    try:
        lack.make()
    except RetryError:
        raise
    except OrdertapError as error:
        refused[lack.message] = Advice(error.message, error.hint)
    else:
        made.append(lack.message)
