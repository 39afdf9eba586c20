"""Runs the demo and makes the README's picture of it, deploy/demo.svg: `.venv/bin/python -m deploy.picture`."""

from __future__ import annotations

import io
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from deploy.demo import Demo
from deploy.demo_stage import SHOPS, Stage
from deploy.demo_view import View, Watcher

PICTURE = Path(__file__).parent / "demo.svg"
ORDERS = 120
WIDTH = 120


def main() -> None:
    """Runs the demo until its orders are placed, and saves its view."""
    paper = Console(file=io.StringIO(), record=True, width=WIDTH)
    folder = Path(tempfile.mkdtemp(prefix="ordertap-picture-"))
    folder.chmod(0o755)  # PostgreSQL does not run as root
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stage = Stage(folder, SHOPS["sample"], "sql", print)
        stage.build(stack)
        watcher = Watcher(stage.shop_url, stage.middle_url, stage.shop.orders, f"ordertap_{stage.shop.name}")
        stack.callback(watcher.close)
        view = View(Console(file=io.StringIO()), ORDERS, stage.shop.name)
        Demo(stage, watcher, view).sell(ORDERS, seed=1, pause=stage.shop.pause)
        paper.print(view.picture())
    PICTURE.write_text(paper.export_svg(title="./deploy/demo"), "utf-8")
    print(f"{PICTURE} is new")


if __name__ == "__main__":
    main()
