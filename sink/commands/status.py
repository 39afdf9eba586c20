"""`sink status`: the copy, documents by type and state, gaps, lag, and next steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sink import wiring
from sink.columns import in_columns
from sink.commands.options import LOOK, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.database import Connection
from sink.intake.evidence import PARKED, Gap
from sink.intake.offsets import GroupOffsets
from sink.ledger.documents import TELLS_AT
from sink.ledger.outcomes import State
from sink.operations import offsets, status
from sink.operations.status import SinkStatus
from sink.staging.gaps import FILLED_BY
from sink.staging.parked import ParkedRecord
from sink.staging.position import Copy

_NEXT_FOR_GAP = (
    "set the offsets back to before it: `sink offsets reset --to earliest`, or read its table again:"
    " `capture signal snapshot TABLE`"
)
_NEXT_FOR_PARKED = (
    "it is kept in table parked; fix its writer or the registry, then set the offsets back to before it,"
    " or read its table again: `capture signal snapshot TABLE`; a later complete record of its row ends it, too"
)

app = verbs()


@app.command("status", rich_help_panel=LOOK)
def _status(as_json: Json = False, config: Config = None) -> None:
    """How many documents are in which state, gaps, and the lag.

    Example: `sink status --json`
    """
    settings = settings_of(config)
    connection, consumers = wiring.middle(settings), wiring.group(settings)
    asked = (settings.require_snapshot, wiring.profile(settings).version)
    answer(
        as_json,
        lambda: found(connection, consumers, *asked),
        lambda: lines(connection, consumers, *asked),
    )


def lines(connection: Connection, group: GroupOffsets, require_snapshot: bool, version: str) -> Iterator[str]:
    """What the middle layer knows comes first, because Kafka may be away."""
    yield from told(status.status(connection, require_snapshot, version))
    yield f"lag: {sum(part.lag for part in offsets.show(connection, group))} offsets"


def found(connection: Connection, group: GroupOffsets, require_snapshot: bool, version: str) -> Mapping[str, object]:
    """The same for programs: `status` and `partitions`."""
    return {
        "status": status.status(connection, require_snapshot, version),
        "partitions": offsets.show(connection, group),
    }


def told(seen: SinkStatus) -> Iterator[str]:
    """The status for people, with next steps."""
    yield from _copy(seen.copy)
    if seen.control.paused:
        yield f"applying is paused {seen.control.paused}\n    next: `sink resume --person NAME`"
    for reason in seen.control.stopped.values():
        yield f"{reason}: the others wait"
        yield "    next: `sink brake` shows them, `sink release --mass --person NAME` releases them"
    if seen.not_planned:
        yield f"nothing is planned: {seen.not_planned}"
    yield from _documents(seen.counts)
    for gap in seen.table_gaps:
        yield f"gap ({gap.cause}): {gap.table}: {gap.detail}\n    next: `{FILLED_BY.format(table=gap.table)}`"
    yield from _gaps(seen.gaps, seen.parked)
    waiting = sum(count for (_, state), count in seen.counts.items() if state in (State.HELD, State.WAITS))
    if waiting:
        yield f"{waiting} held or waiting; next: `sink held` says why and what to do"
    if seen.stuck:
        yield f"{seen.stuck} failed {TELLS_AT} times or more; next: `sink held --cause retry` says why: look at them"
    if seen.of_another_profile:
        count = seen.of_another_profile
        yield f"{count} documents were made by another profile: `sink rebuild --person NAME` says what would change"
    if any(state == State.PLANNED for _, state in seen.counts):
        yield "mode is plan: nothing is sent; next: `sink plan`, then `sink go-live --person NAME`"


def _copy(copy: Copy) -> Iterator[str]:
    """The copy's position, and what it waits for."""
    made = copy.committed_at and f", the shop as of {copy.committed_at.astimezone():%Y-%m-%d %H:%M:%S %Z}"
    where = f"{copy.stamp.commit_lsn} (generation {copy.stamp.generation})"
    yield f"copy: {copy.state} at {where}" + (made or "")
    if copy.waits_for:
        since = f" since {copy.reached_at.astimezone():%H:%M:%S %Z}" if copy.reached_at else ""
        yield f"    waits{since}: {copy.waits_for}"


def _documents(counts: Mapping[tuple[str, str], int]) -> Iterator[str]:
    if not counts:
        yield "no documents yet"
        return
    states = [state for state in State if any(found == state for _, found in counts)]
    rows = [(type_, *(counts.get((type_, state), 0) for state in states)) for type_ in sorted({t for t, _ in counts})]
    yield from in_columns(("document", *states), rows)


def _gaps(gaps: Sequence[Gap], parked: Sequence[ParkedRecord]) -> Iterator[str]:
    for gap in gaps:
        if gap.cause != PARKED:
            offsets = f"offsets {gap.range.start} to {gap.range.until - 1}"
            yield f"gap ({gap.cause}): {gap.partition} {offsets}\n    next: {_NEXT_FOR_GAP}"
    for one in parked:
        where = f"{one.topic} [{one.partition}] offset {one.offset}"
        reason = one.reason.removeprefix(f"{where}: ")
        yield f"parked: {where}: {reason}\n    next: {_NEXT_FOR_PARKED}"
