"""What the commands of the sink print: columns for the eye, and the next step where there is one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from sink.intake.evidence import PARKED, Gap, Partition
from sink.intake.offsets import Effect, Move, Offsets
from sink.ledger.documents import Held

_STATES = ("done", "due", "settling", "retry", "waits", "held", "planned", "not ready", "ignored", "gone")
_NEXT_FOR_GAP = "set the offsets back to before it: `sink offsets reset --to earliest`"
_NEXT_FOR_PARKED = (
    "it is kept in ordertap.parked; mend what wrote it, or the registry, and set the offsets back to before it"
)
_COUNTED = {
    Effect.REPLAY: "{} offsets are read again, which changes nothing in the ERP",
    Effect.GAP: "{} offsets are skipped: a gap that `sink status` names until the offsets are set back over it",
    Effect.RESUME: "{} offsets are still to be read",
}


class Parked(NamedTuple):
    """A record that could not be read."""

    topic: str
    partition: int
    offset: int
    reason: str


def status(
    complete: bool,
    counts: Mapping[tuple[str, str], int],
    gaps: Sequence[Gap],
    parked: Sequence[Parked],
    waiting_commits: Sequence[tuple[str, str]] = (),
) -> Iterator[str]:
    """Documents by type and state, then what a person should look at; `waiting_commits`: transaction id, since when."""
    yield "snapshot: " + ("complete" if complete else "not complete, nothing is planned yet")
    yield from _documents(counts)
    yield from _gaps(gaps, parked)
    if waiting_commits:
        oldest, since = waiting_commits[0]
        yield f"{len(waiting_commits)} shop commits are not here as a whole, the oldest ({oldest}) since {since}"
        yield "    next: that is normal for seconds; if it stays, read the topics again: `sink offsets reset`"
    waiting = sum(count for (_, state), count in counts.items() if state in ("held", "waits"))
    if waiting:
        yield f"{waiting} held or waiting; next: `sink held` says why and what to do"
    if any(state == "planned" for _, state in counts):
        yield "mode is plan: nothing is sent; next: set mode: apply when the plan is what you want"


def _documents(counts: Mapping[tuple[str, str], int]) -> Iterator[str]:
    if not counts:
        yield "no documents yet"
        return
    states = [state for state in _STATES if any(found == state for _, found in counts)]
    rows = [(type_, *(counts.get((type_, state), 0) for state in states)) for type_ in sorted({t for t, _ in counts})]
    yield from table(("document", *states), rows)


def _gaps(gaps: Sequence[Gap], parked: Sequence[Parked]) -> Iterator[str]:
    for gap in gaps:
        if gap.cause != PARKED:
            offsets = f"offsets {gap.range.start} to {gap.range.until - 1}"
            yield f"gap ({gap.cause}): {place(gap.partition)} {offsets}\n    next: {_NEXT_FOR_GAP}"
    for one in parked:
        where = f"{one.topic} [{one.partition}] offset {one.offset}"
        reason = one.reason.removeprefix(f"{where}: ")
        yield f"parked: {where}: {reason}\n    next: {_NEXT_FOR_PARKED}"


def held(found: Sequence[Held]) -> Iterator[str]:
    """Each with its reason and the next step."""
    for one in found:
        since = f" since {one.since.astimezone():%Y-%m-%d %H:%M %Z}" if one.since else ""
        yield f"{one.type} {one.key}{f' ({one.number})' if one.number else ''}  {one.state}{since}"
        yield f"    {one.reason}\n    next: {one.next_step}"
    yield f"{len(found)} held or waiting"
    if found:
        yield "after mending: `sink retry TYPE KEY`, or `sink retry --all`"


def offsets(parts: Sequence[Offsets]) -> Iterator[str]:
    """Committed, available and staged offsets of each partition."""
    names = ("partition", "committed", "lowest", "end", "staged", "lag")
    yield from table(names, ((place(p.partition), p.committed, p.low, p.high, p.staged, p.lag) for p in parts))
    yield f"lag: {sum(part.lag for part in parts)} offsets"


def moves(planned: Sequence[Move]) -> Iterator[str]:
    """What a reset does: the partitions that it changes, and the sums."""
    changed = [move for move in planned if move.effect is not Effect.NOTHING]
    rows = [(place(m.partition), m.committed, m.target, m.offsets, m.effect.value) for m in changed]
    if rows:
        yield from table(("partition", "committed", "new", "offsets", "effect"), rows)
    for effect, text in _COUNTED.items():
        if any(move.effect is effect for move in changed):
            yield text.format(sum(move.offsets for move in changed if move.effect is effect))
    yield f"{len(planned) - len(changed)} of {len(planned)} partitions stay as they are"


def place(partition: Partition) -> str:
    """As operators write it."""
    return f"{partition.topic} [{partition.number}]"


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Columns as wide as they need; numbers to the right, and `-` for nothing."""
    cells = [list(names), *([("-" if cell is None else str(cell)) for cell in row] for row in rows)]
    right = [all(row[i].lstrip("-").isdigit() or row[i] == "-" for row in cells[1:]) for i in range(len(names))]
    widths = [max(len(row[i]) for row in cells) for i in range(len(names))]
    for row in cells:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True))
        yield "  ".join(padded).rstrip()
