"""The help of `sink` has groups, one line and an example per verb; and programs can read every answer."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from sink.__main__ import app
from sink.commands.output import decided
from sink.operations.release import Released

PANELS = {"Run", "Look", "Decide: dry runs without --execute; retry, pause, resume act at once", "Repair"}
NO_ANSWER = {"run"}


def _commands() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    for name, one in group.commands.items():
        for other, inner in getattr(one, "commands", {"": one}).items():
            yield f"{name} {other}".strip(), inner


COMMANDS = dict(_commands())


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_verb_says_what_it_does_in_a_line_and_gives_an_example(name: str) -> None:
    first, _, rest = (COMMANDS[name].help or "").partition("\n")
    assert 0 < len(first) <= 64
    assert f"`sink {name}" in rest


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_verb_answers_programs_with_json(name: str) -> None:
    options = {option for one in COMMANDS[name].params for option in one.opts}
    assert ("--json" in options) is (name not in NO_ANSWER)


def test_the_verbs_are_in_groups() -> None:
    group: Any = typer.main.get_command(app)
    assert {one.rich_help_panel for one in group.commands.values()} == PANELS


def test_what_changes_something_for_good_is_a_dry_run_first_and_has_a_name() -> None:
    accepts = {name: one for name, one in COMMANDS.items() if name.startswith("accept ")}
    assert len(accepts) == 4
    for one in accepts.values():
        options = {option for param in one.params for option in param.opts}
        assert {"--execute", "--person"} <= options


@pytest.mark.parametrize("name", ["pause", "resume", "go-live", "rebuild", "release", "ignore price 1"])
def test_a_person_has_a_name(name: str) -> None:
    ended = CliRunner().invoke(app, [*name.split(), "--person", " "])
    assert ended.exit_code == 2
    assert "say your name" in ended.output


def test_whether_it_was_done_is_the_first_that_programs_read() -> None:
    said = {"check": "totals", "reason": "wrong", "fields": (), "currency": None}
    assert decided(False, Released("totals", "wrong")) == {"executed": False, **said}
