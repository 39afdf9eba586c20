"""The help of `sink` teaches: groups, one line for each verb, an example; and programs can read every answer."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from sink.__main__ import app

PANELS = {"Run", "Look", "Decide: a dry run first, and your name in the history", "Repair"}
NO_ANSWER = {"run", "offsets reset"}  # one stays, the other tells what it waits for


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
    assert len(accepts) == 3
    for one in accepts.values():
        options = {option for param in one.params for option in param.opts}
        assert {"--execute", "--person"} <= options
