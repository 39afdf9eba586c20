"""The help of both command lines is wrapped by the terminal alone, and both tell their release."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import pytest
import typer
import typer.main

from capture.__main__ import app as capture
from sink.__main__ import app as sink


def _helps(group: Any, name: str) -> Iterator[tuple[str, str]]:
    for verb, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from _helps(one, f"{name} {verb}")
        yield f"{name} {verb}", one.help


HELPS = dict(
    [*_helps(typer.main.get_command(capture), "capture"), *_helps(typer.main.get_command(sink), "sink")],
)


@pytest.mark.parametrize("name", sorted(HELPS))
def test_a_paragraph_of_help_has_no_line_ends_of_its_own(name: str) -> None:
    """Typer keeps them in all but the first paragraph, and then the terminal's come on top."""
    assert [each for each in HELPS[name].split("\n\n") if "\n" in each] == []


@pytest.mark.parametrize("program", ["capture", "sink"])
def test_a_program_tells_its_release(program: str) -> None:
    said = subprocess.run([sys.executable, "-m", program, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"{program} {version('ordertap')}")
