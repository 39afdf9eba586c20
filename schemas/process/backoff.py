"""How long to wait before the next attempt."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 30


def backoff(attempt: int, first: float, longest: float, spread: float = 0.0) -> float:
    """Seconds after the failed attempt with this number (from 1): `first`, then twice as many each time.

    Up to `spread` seconds come on top, at random, so that those who failed together do not come back together. It is
    never more than `longest`.
    """
    wait = first * 2.0 ** min(attempt - 1, _MOST_DOUBLINGS)
    return min(longest, wait + random.uniform(0.0, spread))  # noqa: S311  no secret
