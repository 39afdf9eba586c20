"""`capture status` for people."""

from typing import Any

import pytest

from capture.commands.status import lines

NOTHING: dict[str, Any] = {
    "running": False,
    "sessions": [],
    "position": None,
    "lag_bytes": None,
    "lag_seconds": None,
    "slot": None,
    "rate": None,
    "snapshot": None,
    "on_demand": None,
    "parked": [],
    "tables": {},
    "health": None,
}


def test_a_parked_table_is_named_with_what_brings_it_back() -> None:
    shown = list(lines({**NOTHING, "parked": ["public.a"], "problems": []}))
    assert "parked     public.a is not written; capture signal snapshot public.a brings it back" in shown


def test_a_slot_that_is_lost_holds_nothing() -> None:
    slot = {
        "name": "tap",
        "confirmed_lsn": "0/1",
        "wal_status": "lost",
        "wal_held_bytes": None,
        "wal_budget_bytes": None,
    }
    assert "WAL held   none" in lines({**NOTHING, "slot": slot, "problems": []})


def test_a_server_that_does_not_answer_is_not_said_to_have_nothing() -> None:
    snapshot = {"id": "s", "state": "completed", "tables": 0, "tables_done": 0}
    away = {**NOTHING, "running": None, "lag_seconds": 7.0, "snapshot": snapshot, "problems": ["PostgreSQL is away"]}
    shown = list(lines(away))
    assert shown[0] == "running    not known, see below"
    assert "lag        at most 7.0 s" in shown
    assert "snapshot   completed" in shown


@pytest.mark.parametrize(
    ("problems", "position"), [([], "none yet: capture has not run"), (["Kafka is away"], "not known, see below")]
)
def test_what_could_not_be_asked_is_not_said_to_be_absent(problems: list[str], position: str) -> None:
    shown = list(lines({**NOTHING, "problems": problems}))
    assert f"position   {position}" in shown
    assert ("slot       none" in shown) is (not problems)
    assert [line for line in shown if line.startswith("problem")] == [f"problem    {one}" for one in problems]
