"""Lives of orders, the same for the same seed: what buyers and staff do to each, and what a clerk does to it in the ERP
meanwhile. Pure: what an act does is for the shop (`histories_shop`) and for the clerk (`histories_clerk`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

Who = Literal["shop", "clerk"]
Figures = tuple[object, object]
"""Net and tax of an order."""

_CHANGES: Final = (("edit", 6), ("discount", 3), ("price", 4), ("temporary price", 2), ("merge", 1))
_CLERK: Final = (("edits", 3), ("delivers", 3), ("invoices", 3), ("credits", 2))
_WITH_CLERK: Final = 0.35
_SEEN: Final = 0.6  # of the orders are in the ERP before they are changed; the others change on their way to it
_ENDS: Final = (("stays", 3), ("comes back", 6), ("cancel", 2), ("delete", 1))


class Act(NamedTuple):
    """One thing that somebody does."""

    who: Who
    name: str


@dataclass
class History:
    """The life of one order. `order`: its key in the shop, once it is placed; `left`: what is still to be done, of
    which the clerk's acts wait until the order is in the ERP."""

    number: int
    left: list[Act]
    order: int | None = None
    returns: list[int] = field(default_factory=list)  # that were asked for, in their order
    received: list[int] = field(default_factory=list)


@dataclass
class Book:
    """What was done, kept beside shop and ERP, since a deleted order tells nothing any more. By the order's key."""

    done: dict[int, set[str]] = field(default_factory=dict)
    figures: dict[int, set[Figures]] = field(default_factory=dict)
    """Each net and tax that shop or clerk have given it."""
    orders: dict[int, int] = field(default_factory=dict)
    """return → its order"""
    customers: set[str] = field(default_factory=set)
    """All who ever bought."""

    def note(self, order: int, name: str, figures: Figures | None = None) -> None:
        """An act, and what the order came to by it."""
        self.done.setdefault(order, set()).add(name)
        if figures is not None:
            self.figures.setdefault(order, set()).add(figures)


def histories(seed: int, count: int) -> list[History]:
    """So many, not begun."""
    return [History(number, _life(random.Random(f"{seed}/{number}"))) for number in range(count)]


def _life(chance: random.Random) -> list[Act]:
    """Bought and paid at first; what the clerk does comes at any time after that."""
    acts = [Act("shop", name) for name in _some(chance, _CHANGES, chance.choice((0, 1, 1, 2, 3)))]
    acts += [Act("shop", name) for name in _end(chance)]
    if chance.random() < _WITH_CLERK:
        for name in _some(chance, _CLERK, chance.choice((1, 1, 2, 3))):
            acts.insert(chance.randint(0, len(acts)), Act("clerk", name))
    if chance.random() < _SEEN:
        acts.insert(0, Act("clerk", "sees"))
    if chance.random() < _SEEN / 2:
        acts.insert(chance.randint(0, len(acts)), Act("clerk", "sees"))
    gone = next((place for place, act in enumerate(acts) if act.name == "delete"), len(acts))
    return [Act("shop", "buy"), Act("shop", "pay"), *acts[: gone + 1]]


def _end(chance: random.Random) -> list[str]:
    """How it ends: goods come back one by one, and money mostly, not always in that order."""
    (end,) = _some(chance, _ENDS, 1)
    if end == "stays":
        return ["ship"]
    if end != "comes back":
        return [end]
    found = ["ship"]
    for _ in range(chance.choice((1, 1, 2, 3))):
        found += ["ask to return", "receive"]
        found += ["refund"] if chance.random() < 0.8 else []
    return found


def _some(chance: random.Random, weighed: Sequence[tuple[str, int]], count: int) -> list[str]:
    names, weights = zip(*weighed, strict=True)
    return chance.choices(names, weights, k=count)
