"""The pages: links lead somewhere, and commands exist."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer.main

from capture.__main__ import app as capture
from sink.__main__ import app as sink
from sink.ledger.outcomes import State
from sink.planning.ways_out import WAYS, Way

ROOT = Path(__file__).parents[2]
PAGES = [path for path in sorted(ROOT.rglob("*.md")) if ".venv" not in path.parts]
NAMES = [str(path.relative_to(ROOT)) for path in PAGES]
PROGRAMS = {"capture": typer.main.get_command(capture), "sink": typer.main.get_command(sink)}
LONGEST_README = 150


def without_code(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """What links may lead to in a page: its headings, as GitHub names them."""
    titles = re.findall(r"^#+ (.*)$", without_code(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands() -> Iterator[tuple[str, str]]:
    """(page, line) of each shell line that begins with one of our commands."""
    for path in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                if line.split(" ", 1)[0] in PROGRAMS:
                    yield str(path.relative_to(ROOT)), line


def test_there_are_pages_and_commands_in_them() -> None:
    assert {"README.md", "capture/README.md", "sink/README.md", "schemas/README.md"} <= {*NAMES}
    assert len(list(commands())) > 20


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)]+)\)", without_code(page.read_text("utf-8"))):
        if link.startswith("https://"):
            continue  # tests need no network
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize(("page", "line"), list(commands()))
def test_commands_are_ones_that_exist(page: str, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed as when it is typed, and not run."""
    monkeypatch.chdir(tmp_path)
    for file in ("config.yaml", "typed-in.csv"):
        (tmp_path / file).touch()
    name, *words = shlex.split(line, comments=True)
    command: click.Command = PROGRAMS[name]
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group):
        assert words, f"{page}: no verb in {line}"
        found = command.get_command(context, words.pop(0))
        assert found is not None, f"{page}: no such verb in {line}"
        command = found
    command.make_context(command.name, words)


def rows_of_table(page: str, first: str) -> dict[str, list[str]]:
    """The table on a page whose first column has this title: first cell → the other cells."""
    text = (ROOT / page).read_text("utf-8")
    (table,) = re.findall(rf"^\| {first} \|.*\n\|[- |]+\|\n((?:\|.*\n)+)", text, re.MULTILINE)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {one.strip("`"): others for one, *others in cells}


def test_the_page_has_each_state() -> None:
    assert list(rows_of_table("sink/README.md", "state")) == [str(state) for state in State]


def test_the_page_has_each_check_with_the_verbs_that_end_it() -> None:
    said = {check: verbs for check, (_, _, verbs) in rows_of_table("sink/README.md", "check").items()}
    assert said == {
        str(check): ", ".join(way for way in Way if way in ways and way is not Way.RETRY)
        for check, ways in WAYS.items()
    }


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= LONGEST_README
