"""`sink offsets show` and `sink offsets reset`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Annotated

import typer

from schemas.model.errors import SettingsError
from sink import wiring
from sink.columns import in_columns
from sink.commands.options import REPAIR, Config, Execute, Json, settings_of, verbs
from sink.commands.output import answer
from sink.database import Connection
from sink.intake.consumer import SESSION_SECONDS
from sink.intake.offsets import Effect, GroupOffsets, Move, Offsets, Target
from sink.operations import offsets

_COUNTED = {
    Effect.REPLAY: "{} offsets are read again, which changes nothing in the ERP",
    Effect.GAP: "{} offsets are skipped: a gap, which `sink status` names until the offsets are set back before it",
    Effect.RESUME: "{} offsets are still to be read",
}
_PATIENCE = 1.5 * SESSION_SECONDS

app = verbs()
offsets_app = verbs("Where the sink resumes reading: Kafka's committed offsets.")
app.add_typer(offsets_app, name="offsets", rich_help_panel=REPAIR)


@offsets_app.command("show")
def _offsets_show(as_json: Json = False, config: Config = None) -> None:
    """Committed, available and staged offsets per partition.

    Example: `sink offsets show`
    """
    settings = settings_of(config)
    given = (wiring.middle(settings), wiring.group(settings))
    answer(as_json, lambda: offsets.show(*given), lambda: show(*given))


@offsets_app.command("reset")
def _offsets_reset(
    to: Annotated[str, typer.Option(help="earliest, latest, or a time with its zone: 2026-11-23T08:00:00+01:00")],
    execute: Execute = False,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """Resets the consumer offsets.

    Going back changes nothing in the ERP. Going forward leaves a gap, which `sink status` names.

    Example: `sink offsets reset --to earliest`
    """
    settings = settings_of(config)
    target = target_of(to)
    given = (wiring.middle(settings), wiring.group(settings), target, execute)
    answer(as_json, lambda: {"executed": execute, "moves": moved(*given)}, lambda: reset(*given))


def show(connection: Connection, group: GroupOffsets) -> Iterator[str]:
    """The offsets of each partition."""
    yield from shown(offsets.show(connection, group))


def reset(connection: Connection, group: GroupOffsets, target: Target, execute: bool) -> Iterator[str]:
    """What a reset would do; `execute` does it."""
    planned = offsets.plan(connection, group, target)
    yield from moves(planned)
    if not execute:
        yield "nothing was changed; --execute does it"
        return
    if group.members():
        yield f"a sink is still in the group; one that was killed leaves in {SESSION_SECONDS} s: waiting"
    group.reset(planned, patience=_PATIENCE)
    yield "done; next: start `sink run`"


def moved(connection: Connection, group: GroupOffsets, target: Target, execute: bool) -> Sequence[Move]:
    """The same for programs: what a reset would do to each partition; `execute` does it."""
    planned = offsets.plan(connection, group, target)
    if execute:
        group.reset(planned, patience=_PATIENCE)
    return planned


def target_of(text: str) -> Target:
    """The target that `--to` names. SettingsError if it names none."""
    if text == "earliest":
        return "earliest"
    if text == "latest":
        return "latest"
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"--to {text} is neither earliest, latest nor a time", "write a time like 2026-11-23T08:00:00+01:00"
        ) from None


def shown(parts: Sequence[Offsets]) -> Iterator[str]:
    """A table of offsets, and the lag."""
    names = ("partition", "committed", "lowest", "end", "staged", "lag")
    yield from in_columns(names, ((p.partition, p.committed, p.low, p.high, p.staged, p.lag) for p in parts))
    yield f"lag: {sum(part.lag for part in parts)} offsets"


def moves(planned: Sequence[Move]) -> Iterator[str]:
    """The partitions that a reset changes, and sums by effect."""
    changed = [move for move in planned if move.effect is not Effect.NOTHING]
    rows = [(m.partition, m.committed, m.target, m.offsets, m.effect.value) for m in changed]
    if rows:
        yield from in_columns(("partition", "committed", "new", "offsets", "effect"), rows)
    for effect, text in _COUNTED.items():
        if any(move.effect is effect for move in changed):
            yield text.format(sum(move.offsets for move in changed if move.effect is effect))
    yield f"{len(planned) - len(changed)} of {len(planned)} partitions stay as they are"
