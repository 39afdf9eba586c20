"""The view of a running demo: figures from the databases and events in plain words, drawn live or line by line."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import psycopg2
import psycopg2.errors
import psycopg2.extensions
from rich.console import Console, Group, RenderableType
from rich.constrain import Constrain
from rich.live import Live
from rich.padding import Padding
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

UNFINISHED = ("due", "settling", "waits", "retry")
NAMES = {
    "sales_order": "order",
    "return_order": "return",
    "temporary_price": "temporary price",
}
_SLOT = "FROM pg_replication_slots WHERE database = current_database() AND NOT temporary"
VERBS = {"create": "is in the ERP", "amend": "is changed in the ERP", "cancel": "is cancelled in the ERP"}


@dataclass
class Figures:
    """Figures from the databases. `lag`: age in seconds of the oldest change that is on its way to the ERP, 0 if none
    is."""

    placed: int = 0
    lag: float = 0.0
    documents: dict[str, dict[str, int]] = field(default_factory=dict)  # type → state → count

    def of(self, state: str) -> int:
        """The number of documents in a state."""
        return sum(states.get(state, 0) for states in self.documents.values())

    @property
    def unfinished(self) -> int:
        return sum(self.of(state) for state in UNFINISHED)

    def done(self, *types: str) -> int:
        """The number of documents of these types that are done."""
        return sum(self.documents.get(type_, {}).get("done", 0) for type_ in types)


class Watcher:
    """Reads the figures and the ledger's history. Its connections only read."""

    def __init__(self, shop_url: str, middle_url: str, orders_table: str, ledger: str) -> None:
        self._shop, self._middle = _connect(shop_url), _connect(middle_url)
        self._orders = orders_table
        self._document, self._history = f"{ledger}.document", f"{ledger}.history"
        self._last_event = 0

    def figures(self) -> Figures:
        """The present figures."""
        placed = _rows(self._shop, f"SELECT count(*) FROM {self._orders}")[0][0]  # noqa: S608  (a name of ours)
        waiting = "marked > seen OR state IN ('due', 'settling', 'retry')"
        oldest = "coalesce(max(extract(epoch FROM clock_timestamp() - marked_at)), 0)::float"
        lag = _rows(self._middle, f"SELECT {oldest} FROM {self._document} WHERE {waiting}")  # noqa: S608
        figures = Figures(placed, lag[0][0] if lag else 0.0)
        state = "CASE WHEN marked > seen THEN 'due' ELSE state END"
        counted = f"SELECT type, {state}, count(*) FROM {self._document}"  # noqa: S608
        for type_, state, count in _rows(self._middle, f"{counted} GROUP BY 1, 2"):
            figures.documents.setdefault(type_, {})[state] = count
        return figures

    def events(self) -> list[str]:
        """Events in the ERP since the last call, in plain words, oldest first."""
        rows = _rows(
            self._middle,
            f"SELECT h.id, h.type, coalesce(d.number, h.key), h.event, h.detail FROM {self._history} h"  # noqa: S608
            f" LEFT JOIN {self._document} d USING (type, key) WHERE h.id > %s ORDER BY h.id",
            self._last_event,
        )
        if rows:
            self._last_event = rows[-1][0]
        return [in_plain_words(*row[1:]) for row in rows]

    def log_end(self) -> str:
        """The end of the shop's log, as PostgreSQL writes it."""
        return str(_rows(self._shop, "SELECT pg_current_wal_insert_lsn()")[0][0])

    def captured(self, lsn: str) -> bool:
        """Whether the shop's log up to here is in Kafka."""
        rows = _rows(
            self._shop,
            f"SELECT confirmed_flush_lsn >= %s::pg_lsn {_SLOT}",
            lsn,
        )
        return bool(rows and rows[0][0])

    def close(self) -> None:
        """Closes the connections."""
        self._shop.close()
        self._middle.close()


def in_plain_words(type_: str, number: str, event: str, detail: str) -> str:
    """A row of the ledger's history as a sentence."""
    what = f"{NAMES.get(type_, type_)} {number}"
    if event == "held":
        return f"{what} is held: {detail}"
    if event == "retry":
        return f"{what} is tried again: {detail}"
    return f"{what} {VERBS.get(event, event)}"


def _connect(url: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(url, application_name="ordertap demo")
    connection.set_session(readonly=True, autocommit=True)
    return connection


def _rows(connection: psycopg2.extensions.connection, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """The rows; none before the sink has made its tables."""
    with connection.cursor() as cursor:
        try:
            cursor.execute(statement, parameters or None)
        except (psycopg2.errors.UndefinedTable, psycopg2.errors.InvalidSchemaName):
            return []
        return cursor.fetchall()


class View:
    """A live view on a terminal. Elsewhere one line per event, and figures every five seconds."""

    def __init__(self, console: Console, orders: int, shop: str) -> None:
        self._console, self._orders, self._shop = console, orders, shop
        self._shop_events: deque[str] = deque(maxlen=9)
        self._erp_events: deque[str] = deque(maxlen=9)
        self._phase = "the shop is open"
        self._figures = Figures()
        self._said_at = 0.0
        self._live = Live(console=console, refresh_per_second=5, transient=True) if console.is_terminal else None

    def __enter__(self) -> View:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def phase(self, words: str) -> None:
        """Says what is going on."""
        self._phase = words
        if not self._live:
            self._console.print(words, markup=False, highlight=False)

    def show(self, figures: Figures, shop: list[str], erp: list[str]) -> None:
        """Shows new figures and events."""
        self._figures = figures
        self._shop_events.extend(shop)
        self._erp_events.extend(erp)
        if self._live:
            # Room for the ^C that a terminal echoes: it would wrap, and the top line would stay when the view ends.
            self._live.update(Constrain(self.picture(), self._console.width - 2))
            return
        if time.monotonic() - self._said_at > 5:
            self._said_at = time.monotonic()
            self._console.print(self._line(), markup=False, highlight=False, soft_wrap=True)

    def _line(self) -> str:
        figures = self._figures
        last = f"; shop: {self._shop_events[-1]}" if self._shop_events else ""
        last += f"; ERP: {self._erp_events[-1]}" if self._erp_events else ""
        return (
            f"placed {figures.placed}, in the ERP {figures.done('sales_order')}, on the way {figures.unfinished}, "
            f"held {figures.of('held')}, lag {figures.lag:.1f} s{last}"
        )

    def picture(self) -> RenderableType:
        """The live view as it is."""
        figures = self._figures
        top = Table.grid(expand=True)
        for _ in range(5):
            top.add_column(justify="center")
        held = figures.of("held")
        top.add_row(
            *(Text(words, style="dim") for words in ("orders placed", "in the ERP", "on the way", "held", "lag"))
        )
        top.add_row(
            Text(str(figures.placed), style="bold cyan"),
            Text(str(figures.done("sales_order")), style="bold green"),
            Text(str(figures.unfinished), style="bold yellow"),
            Text(str(held), style="bold red" if held else "bold"),
            Text(f"{figures.lag:.1f} s", style="bold"),
        )
        events = Table.grid(expand=True, padding=(0, 1))
        events.add_column(ratio=1)
        events.add_column(ratio=1)
        events.add_row(
            _listed("in the shop", self._shop_events, "cyan"), _listed("in the ERP", self._erp_events, "green")
        )
        bar = ProgressBar(total=max(1, self._orders), completed=min(figures.placed, self._orders))
        title = f"[bold]ordertap[/]  shop ({self._shop}) ▶ capture ▶ Kafka ▶ sink ▶ ERP"
        # A bar ends no line; padding does.
        return Panel(Group(top, Padding(bar, 0), events), title=title, subtitle=self._phase, border_style="blue")


def _listed(title: str, events: deque[str], colour: str) -> Panel:
    lines = [*events, *[""] * (9 - len(events))]
    return Panel(Text("\n".join(lines), no_wrap=True, overflow="ellipsis"), title=title, border_style=colour)
