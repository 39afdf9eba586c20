"""Random network faults between sinks and their ERP."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence

from tests.faults.proxy import Proxy


class Weather:
    """A thread that makes proxies cut, delay, swallow and lose messages. The seed decides what and for how long.
    `holes`: seconds in which nothing passes; `faults`: counts by kind."""

    def __init__(self, proxies: Sequence[Proxy], seed: int, holes: tuple[float, ...]) -> None:
        self.faults: Counter[str] = Counter()
        self._proxies = proxies
        self._chance = random.Random(f"{seed}/weather")
        self.holes = holes
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._blow, name="weather", daemon=True)
        self._kinds: list[tuple[float, Callable[[Proxy], None]]] = [
            (3, self._cut),
            (3, self._lose_answer),
            (2, self._delay),
            (1, self._hole),
        ]

    def start(self) -> None:
        """Starts it."""
        self._thread.start()

    def finish(self) -> None:
        """Ends it: everything passes."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
        for proxy in self._proxies:
            proxy.calm()

    def _blow(self) -> None:
        while not self._over.wait(self._chance.uniform(0.5, 3.0)):
            kind = self._chance.choices(*zip(*((kind, weight) for weight, kind in self._kinds), strict=True))[0]
            self.faults[kind.__name__.strip("_")] += 1
            kind(self._chance.choice(self._proxies))

    def _cut(self, proxy: Proxy) -> None:
        proxy.end_all()

    def _lose_answer(self, proxy: Proxy) -> None:
        proxy.lose_answer()

    def _delay(self, proxy: Proxy) -> None:
        """Long enough for some calls to reach the server's time limits."""
        proxy.delay = self._chance.choice((0.02, 0.2, 1.0))
        self._over.wait(self._chance.uniform(1, 4))
        proxy.delay = 0.0

    def _hole(self, proxy: Proxy) -> None:
        with proxy.hole():
            self._over.wait(self._chance.choice(self.holes))
