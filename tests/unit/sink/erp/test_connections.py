"""How late a COMMIT may take effect on each server, and what ends it."""

import pytest

from sink.erp.sql.connections import limits, settles_within


@pytest.mark.parametrize("dialect", ["postgresql", "sqlite"])
def test_where_a_frozen_process_cannot_commit_late_nobody_waits(dialect: str) -> None:
    assert settles_within(dialect, 20.0) == 0


@pytest.mark.parametrize(
    ("dialect", "limit"), [("mariadb", "idle_write_transaction_timeout"), ("mysql", "wait_timeout")]
)
@pytest.mark.parametrize("timeout", [0.5, 20.0, 20.9])
def test_the_server_ends_an_idle_transaction_before_anyone_asks_what_became_of_it(
    dialect: str, limit: str, timeout: float
) -> None:
    name, _, seconds = str(limits(f"{dialect}+driver://host/erp", timeout)["init_command"]).partition(" = ")
    assert name == f"SET SESSION {limit}"
    assert int(seconds) < settles_within(dialect, timeout)


def test_of_a_server_that_is_not_known_the_time_of_a_call_is_waited_for() -> None:
    assert settles_within("mssql", 20.0) > 20
