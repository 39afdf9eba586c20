"""Tryton for the tests, set up in the background while other tests run. The end of a run says which ERPs were tried."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pytest

from deploy.embedded import PartError, Postgres
from deploy.tryton.environment import environment
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from tests.erp_contract.sql_target import MARIADB
from tests.erp_contract.tryton_data import TrytonData
from tests.erp_contract.tryton_target import READS, TrytonTarget
from tests.faults.rpc_proxy import RpcProxy

ERPS = ("postgresql", "sqlite", "mariadb", "in memory", "tryton")
CONTRACT = "tests/erp_contract/test_"
NOT_TRIED = "Tryton could not be set up: "
NO_MARIADB = "MariaDB: ORDERTAP_TEST_MARIADB names no server"
_setting_up: list[threading.Thread] = []
_failed: list[PartError] = []


def pytest_collection_finish(session: pytest.Session) -> None:
    """Starts the set-up if a test needs it. In a thread of its own, because the processes end with the thread that
    starts them."""
    if session.config.option.collectonly or not any(_wants(item) for item in session.items):
        return
    thread = threading.Thread(target=_set_up, name="setting up Tryton", daemon=True)
    _setting_up.append(thread)
    thread.start()


def _wants(item: pytest.Item) -> bool:
    return "tryton" in item.nodeid.partition("[")[2] or "tryton_environment" in getattr(item, "fixturenames", ())


def _set_up() -> None:
    try:
        environment(lambda _: None)
    except PartError as error:
        _failed.append(error)


@pytest.fixture(scope="session")
def tryton_environment() -> None:
    """Waits until it is set up. If that is not possible, the tests that need it are skipped and named at the end."""
    for thread in _setting_up:
        thread.join()
    if _failed:
        pytest.skip(f"{NOT_TRIED}{_failed[0]}")


@pytest.fixture(scope="session")
def tryton(tryton_environment: None, parts_folder: Path, postgres: Postgres) -> Iterator[Tryton]:
    """The running server, with a company's data and no documents."""
    with Tryton(parts_folder / "tryton", postgres, lambda _: None) as server:
        yield server


@pytest.fixture
def bare_tryton(tryton_environment: None, tmp_path: Path, postgres: Postgres) -> Iterator[Tryton]:
    """A server with a company but no web shop, for this test alone."""
    database = f"bare_{uuid4().hex[:8]}"
    with Tryton(tmp_path / "tryton", postgres, lambda _: None, database=database, web_shop=False) as server:
        yield server


@pytest.fixture(scope="session")
def tryton_data(tryton: Tryton) -> Iterator[TrytonData]:
    """Access to what has come into its database since it was set up."""
    data = TrytonData(tryton.postgres.dsn(tryton.database))
    yield data
    data.close()


@pytest.fixture
def tryton_place(tryton: Tryton, tryton_data: TrytonData) -> Iterator[TrytonTarget]:
    """Tryton for the contract tests: adapter, clerk, hooks around calls."""
    made = TrytonTarget(tryton, tryton_data)
    yield made
    made.close()


@pytest.fixture
def tryton_proxy(tryton: Tryton) -> Iterator[RpcProxy]:
    """Stands before it, and does to single calls what networks do."""
    with RpcProxy(tryton.url, READS) as made:
        yield made


@pytest.fixture
def tryton_clerk(tryton: Tryton) -> Screen:
    """A person's client, with all rights."""
    return Screen(tryton.url, tryton.database, tryton.clerk, tryton.clerk_password)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints on which ERPs the contract suite ran, and which were left out and why."""
    ran, why = _tried(
        [
            report
            for outcome in ("passed", "failed", "error", "skipped")
            for report in terminalreporter.stats.get(outcome, ())
            if isinstance(report, pytest.TestReport)
        ]
    )
    if ran or why:
        terminalreporter.write_line(f"ERPs of the contract suite: {', '.join(ran) or 'none'}")
    for reason in why:
        terminalreporter.write_line(f"NOT tried: {reason}")


def _tried(reports: Sequence[pytest.TestReport]) -> tuple[list[str], list[str]]:
    counts: dict[str, int] = {}
    reasons: dict[str, None] = {}
    for report in reports:
        text = report.longreprtext if not isinstance(report.longrepr, tuple) else report.longrepr[2]
        if report.skipped and NOT_TRIED in text:
            reasons[text.partition(NOT_TRIED)[2]] = None
        elif report.when == "call" and report.nodeid.startswith(CONTRACT):
            for name in ERPS:
                if f"[{name}" in report.nodeid:
                    counts[name] = counts.get(name, 0) + 1
    why = [f"Tryton: {reason}" for reason in reasons]
    if not MARIADB and counts.keys() & {"postgresql", "sqlite"}:
        why.append(NO_MARIADB)
    return [f"{name} ({count} tests)" for name, count in counts.items()], why
