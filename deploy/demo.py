"""A shop, Kafka and an ERP on this machine, with orders flowing between them; at the end both sides are compared."""

from __future__ import annotations

import argparse
import fcntl
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import FrameType

from rich.console import Console

from deploy.demo_erp import ERPS
from deploy.demo_stage import SHOPS, Stage
from deploy.demo_view import View, Watcher
from deploy.embedded import PartError

LOOK_SECONDS = 0.4
STILL_SECONDS = 120.0
TRICKLE_SECONDS = 1.5
STOPPED = 130
PREFIX, LOCK = "ordertap-demo-", "in-use"


class Demo:
    """One run from the first order to the comparison."""

    def __init__(self, stage: Stage, watcher: Watcher, view: View) -> None:
        self._stage, self._watcher, self._view = stage, watcher, view
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._documents: dict[str, dict[str, int]] = {}
        self._went_on = 0.0

    def sell(self, orders: int, seed: int, pause: float) -> None:
        """Runs the shop until `orders` orders are placed, and shows it. PartError if the simulator fails."""
        shop = self._stage.open_shop(orders, seed, pause)
        reader = threading.Thread(target=self._read, args=(shop,), daemon=True)
        reader.start()
        try:
            while shop.poll() is None:
                self._look()
        except KeyboardInterrupt:
            shop.kill()
            raise
        finally:
            shop.wait()
            reader.join()
        if shop.returncode:
            raise PartError(
                f"the shop's simulator ended with {shop.returncode}: see {self._stage.folder}/simulator.log"
            )

    def _read(self, shop: subprocess.Popen[str]) -> None:
        for line in shop.stdout or ():
            self._lines.put(line.rstrip())

    def _look(self) -> int:
        """Shows the figures. Returns how many documents are on the way."""
        said = [restart for program in self._stage.programs if (restart := program.look_after())]
        shop = []
        while not self._lines.empty():
            shop.append(self._lines.get())
        figures = self._watcher.figures()
        self._view.show(figures, shop, [*self._watcher.events(), *said])
        time.sleep(LOOK_SECONDS)
        if figures.documents != self._documents:
            self._documents, self._went_on = figures.documents, time.monotonic()
        return figures.unfinished

    def compare(self) -> tuple[int, str]:
        """Waits until everything has arrived, then compares shop and ERP. Returns the exit code and output of `sink
        reconcile`. It gives up where they differ and nothing has gone on for a while."""
        self._view.phase("waiting until everything is through")
        end = self._watcher.log_end()
        self._went_on = time.monotonic()
        while True:
            self._settle(end)
            code, picture = self._stage.try_command("sink", "reconcile")
            if code == 0 or self._stands_still():
                return code, picture

    def _settle(self, end: str) -> None:
        """Returns when the log up to `end` is in Kafka and nothing has been on the way for 1.5 s."""
        quiet = 0
        while quiet < 4 and not self._stands_still():
            on_the_way = self._look()
            quiet = quiet + 1 if on_the_way == 0 and self._watcher.captured(end) else 0

    def _stands_still(self) -> bool:
        return time.monotonic() > self._went_on + STILL_SECONDS


def main() -> int:
    """The command line; returns the exit code."""
    options = _options(sys.argv[1:])
    for how in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(how, _stop)
    console = Console()
    folder = _folder(options.keep)
    try:
        with ExitStack() as stack:
            if not options.keep:
                stack.callback(_take_away, folder)
                _clear_others(folder, stack)
            else:
                stack.callback(console.out, f"data, settings and logs are in {folder}", highlight=False)
            return _run(options, folder, console, stack)
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return STOPPED
    except (PartError, OSError) as error:
        sys.stderr.write(f"demo: {error}\n")
        return 1


def _run(options: argparse.Namespace, folder: Path, console: Console, stack: ExitStack) -> int:
    began = time.monotonic()

    def say(words: str) -> None:
        console.print(f"{time.monotonic() - began:5.1f} s  {words}", markup=False, highlight=False, soft_wrap=True)

    stage = Stage(folder, SHOPS[options.shop], options.erp, say)
    with console.status("starting; Ctrl-C stops it"):
        stage.build(stack)
    say(f"in a second shell: .venv/bin/sink status --config {stage.config}  (or held, list, show ...)")
    say(stage.erp.where())
    watcher = Watcher(stage.shop_url, stage.middle_url, stage.shop.orders, f"ordertap_{stage.shop.name}")
    stack.callback(watcher.close)
    with View(console, options.orders, options.shop) as view:
        demo = Demo(stage, watcher, view)
        demo.sell(options.orders, options.seed, stage.shop.pause)
        if not options.once:
            _trickle(demo, view, options.seed + 1)
        code, picture = demo.compare()
    uncounted = "Neither side counts orders that were not paid, or were cancelled before the ERP got them."
    console.print(uncounted, style="dim", soft_wrap=True)
    if summary := stage.erp.summary():
        console.print(summary, markup=False, highlight=False)
    console.print(picture.rstrip(), markup=False, highlight=False, soft_wrap=True)
    return min(code, 1)


def _trickle(demo: Demo, view: View, seed: int) -> None:
    view.phase("orders continue slowly; Ctrl-C stops it and compares shop and ERP")
    try:
        demo.sell(10**9, seed, TRICKLE_SECONDS)
    except KeyboardInterrupt:
        view.phase("the shop closes")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./deploy/demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--once", action="store_true", help="stop by itself; exit code 0 only if shop and ERP agree")
    parser.add_argument("--orders", type=_count, default=200, help="how many orders the shop sells (default 200)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same day (default 1)")
    parser.add_argument("--shop", choices=sorted(SHOPS), default="sample", help="sample, or a real django-oscar")
    parser.add_argument(
        "--erp", choices=sorted(ERPS), default="sql", help="sql: tables in a database, or a real Tryton"
    )
    parser.add_argument(
        "--keep", metavar="FOLDER", type=Path, help="a new folder for data, settings and logs; it is kept"
    )
    return parser.parse_args(arguments)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError("a number of 1 or more")
    return int(text)


def _folder(kept: Path | None) -> Path:
    """Makes a folder that everybody may enter, because PostgreSQL does not run as root. SystemExit with a next step if
    it cannot be that of `--keep`."""
    if kept is None:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    else:
        folder = kept.resolve()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            empty = not any(folder.iterdir())
        except OSError as error:
            raise SystemExit(f"demo: {kept}: {error.strerror}\n  next: name a new folder") from error
        if not empty:
            raise SystemExit(f"demo: {kept} is not empty\n  next: name a new folder")
    folder.chmod(0o755)
    return folder


def _take_away(folder: Path) -> None:
    """The lock last, and not while anything is left: what is half made may still be written to (Tryton, where the demo
    is stopped before it is up), and the next demo takes that away."""
    for one in folder.iterdir():
        if one.is_dir():
            shutil.rmtree(one, ignore_errors=True)
        elif one.name != LOCK:
            one.unlink(missing_ok=True)
    if {one.name for one in folder.iterdir()} <= {LOCK}:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_others(folder: Path, stack: ExitStack) -> None:
    """Takes away what demos have left that were killed: a running one holds the lock in its folder. The file gets its
    name once it is locked, or another demo that starts now would take this folder for one of a killed demo."""
    ours = folder / f"{LOCK}.new"
    fcntl.flock(stack.enter_context(ours.open("w")), fcntl.LOCK_EX)
    ours.rename(folder / LOCK)
    for left in folder.parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError), left.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent, ignore_errors=True)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
