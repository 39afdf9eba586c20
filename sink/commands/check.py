"""`sink check`: what `operations.check` finds, part by part."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import typer

from schemas.model.errors import ExitCode
from sink import wiring
from sink.commands.options import RUN, Config, Json, settings_of, verbs
from sink.commands.output import said, say
from sink.operations import check
from sink.operations.check import PartCheck

app = verbs()
_SILENT_SECONDS: Final = 5.0


@app.command("check", rich_help_panel=RUN)
def _check(as_json: Json = False, config: Config = None) -> None:
    """Checks each part, and says how to fix what is wrong.

    The parts are profile, middle layer, ERP, its master data, registry, topics, shop.

    Example: `sink check -c config.yaml`
    """
    bad = 0
    found: list[PartCheck] = []
    looks = {part: told(part, look) for part, look in wiring.looks(settings_of(config)).items()}
    for look in check.check(looks):
        bad += look.error is not None
        found.append(look)
        say([] if as_json else [line(look)])
    say(said(report(found), [f"{bad} to fix" if bad else "all is well"], as_json))
    raise typer.Exit(ExitCode.FAILED if bad else 0)


def told(part: str, look: Callable[[], object]) -> Callable[[], object]:
    """The look, which says on stderr what it waits for if it takes long."""

    def aloud() -> object:
        words = f"...  {part}: still waiting for an answer"
        timer = threading.Timer(_SILENT_SECONDS, typer.echo, (words,), {"err": True})
        timer.daemon = True
        timer.start()
        try:
            return look()
        finally:
            timer.cancel()

    return aloud


def line(one: PartCheck) -> str:
    """For people."""
    if one.error is None:
        found = [f"\nnote {one.part}: {advice.message}\n     fix: {advice.hint}" for advice in one.advice]
        return f"ok   {one.part}" + "".join(found)
    return f"BAD  {one.part}: {one.error.message}\n     fix: {one.error.hint}"


class CheckReport(NamedTuple):
    """All parts, for programs."""

    well: bool
    parts: Sequence[Mapping[str, object]]


def report(found: Sequence[PartCheck]) -> CheckReport:
    """The findings, with each error as message and remedy."""
    parts = [
        {
            "part": one.part,
            "error": one.error and one.error.message,
            "fix": one.error and one.error.hint,
            "advice": [{"message": advice.message, "fix": advice.hint} for advice in one.advice],
        }
        for one in found
    ]
    return CheckReport(all(one.error is None for one in found), parts)
