"""The demo's view on a terminal: what it shows, and the room that it leaves."""

from __future__ import annotations

import io
import re

from rich.cells import cell_len
from rich.console import Console

from deploy.demo_view import Figures, View

WIDTH = 100


def test_both_sides_have_their_names_above_their_events() -> None:
    paper = Console(file=io.StringIO(), width=WIDTH)
    view = View(Console(file=io.StringIO()), 10, "sample")
    view.show(Figures(placed=3), ["order 1 was placed"], ["order 1 is in the ERP"])
    with paper.capture() as shown:
        paper.print(view.picture())
    lines = shown.get().splitlines()
    names = next(number for number, line in enumerate(lines) if "─ in the shop ─" in line)
    assert "─ in the ERP ─" in lines[names]
    assert "order 1 was placed" in lines[names + 1]
    assert "order 1 is in the ERP" in lines[names + 1]


def test_a_line_has_room_for_the_key_that_stops_the_demo() -> None:
    """The terminal echoes ^C behind the last line. If that wraps, the view cannot take itself away."""
    screen = io.StringIO()
    view = View(Console(file=screen, force_terminal=True, width=WIDTH, color_system=None), 10, "sample")
    with view:
        view.show(Figures(), [], [])
    lines = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line) for line in screen.getvalue().splitlines()]
    assert max(cell_len(line) for line in lines) == WIDTH - len("^C")
