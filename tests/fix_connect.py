"""What Debezium's JDBC sink needs, from Maven Central; the end of a run says so where it could not be tried."""

from __future__ import annotations

import pytest

from deploy.embedded import PartError
from tests.consumers.connect import plugins

NOT_TRIED = "Debezium's JDBC sink could not be tried: "


@pytest.fixture(scope="session")
def connect_plugins() -> None:
    """They are on this machine; where they cannot be had, what needs them is left out, and named at the end."""
    try:
        plugins()
    except PartError as error:
        pytest.skip(f"{NOT_TRIED}{error}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Once, however many tests wanted it."""
    skipped = (report.longrepr for report in terminalreporter.stats.get("skipped", ()))
    texts = [why[2] for why in skipped if isinstance(why, tuple) and NOT_TRIED in why[2]]
    for why in dict.fromkeys(text.partition(NOT_TRIED)[2] for text in texts):
        terminalreporter.write_line(f"NOT tried: Debezium's JDBC sink: {why}")
