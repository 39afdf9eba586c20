"""Lives of orders, the same for the same seed: what buyers and staff do to each, and what a clerk does to it in the
ERP.

Pure: the acts themselves are in `histories_shop` and `histories_clerk`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, NamedTuple

Who = Literal["shop", "clerk"]
Figures = tuple[object, object]
"""An order's net and tax."""

_CHANGES: Final = (("edit", 6), ("discount", 3), ("price", 4), ("temporary price", 2), ("merge", 1))
_CLERK: Final = (("edits", 3), ("delivers", 3), ("invoices", 3), ("credits", 2))
_WITH_CLERK: Final = 0.35
_SEEN: Final = 0.6  # share of orders that are in the ERP before they change; the others change on their way
_ENDS: Final = (("stays", 3), ("comes back", 6), ("cancel", 2), ("delete", 1))


class Act(NamedTuple):
    """Something that one person does."""

    who: Who
    name: str


@dataclass
class History:
    """The life of one order. `order`: its key in the shop, once it is placed. `left`: the acts still to come. A clerk's
    act waits until the order is in the ERP."""

    number: int
    left: list[Act]
    order: int | None = None
    returns: list[int] = field(default_factory=list)  # asked for, in this order
    received: list[int] = field(default_factory=list)


@dataclass
class Book:
    """What was done, by the order's key. It is kept outside shop and ERP, because a deleted order tells nothing any
    more."""

    done: dict[int, set[str]] = field(default_factory=dict)
    figures: dict[int, set[Figures]] = field(default_factory=dict)
    """Each net and tax that shop or clerk have given an order."""
    orders: dict[int, int] = field(default_factory=dict)
    """return → its order"""
    customers: set[str] = field(default_factory=set)
    """Everyone who ever bought."""
    given: dict[int, Decimal] = field(default_factory=dict)
    """What the clerk gave back by hand, without tax, by order."""

    def note(self, order: int, name: str, figures: Figures | None = None) -> None:
        """Notes an act, and what the order came to by it."""
        self.done.setdefault(order, set()).add(name)
        if figures is not None:
            self.figures.setdefault(order, set()).add(figures)

    def gave(self, order: int, amount: Decimal) -> None:
        """Notes money that the clerk gave back."""
        self.given[order] = self.given.get(order, Decimal(0)) + amount


def histories(seed: int, count: int) -> list[History]:
    """`count` histories that have not begun."""
    return [History(number, _life(random.Random(f"{seed}/{number}"))) for number in range(count)]


def _life(chance: random.Random) -> list[Act]:
    """An order is bought and paid first; a clerk's acts may come at any time after that."""
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
    """How an order ends. Goods come back one by one, and mostly money, not always in that order."""
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
