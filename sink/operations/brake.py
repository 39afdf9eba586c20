"""`sink brake` and `sink release --mass`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.ledger import brake, history
from sink.ledger.brake import Counter, Example, Waiting
from sink.ledger.history import Event
from sink.operations.control import APPLYING
from sink.planning.brake import MASSES, Brake

_EXAMPLES: Final = 10


class BrakeStanding(NamedTuple):
    """Limits, counters, what waits, and the examples that change most, as of one moment."""

    limits: Brake
    counters: Sequence[Counter]
    waiting: Sequence[Waiting]
    examples: Sequence[Example]


class MassReleased(NamedTuple):
    """What waits, and how many documents were released; 0 in a dry run."""

    waiting: Sequence[Waiting]
    examples: Sequence[Example]
    released: int


def show(connection: Connection, limits: Brake) -> BrakeStanding:
    """Reads limits, counters and what waits."""
    with transaction(connection) as cursor:
        counters = brake.counters(cursor, limits.seconds)
        return BrakeStanding(limits, counters, brake.waiting(cursor, MASSES), brake.examples(cursor, MASSES, _EXAMPLES))


def release_mass(connection: Connection, kind: str, person: str, execute: bool) -> MassReleased:
    """What the brake holds of a kind of changes, "" for all. `execute` lets it pass once, and starts the count again.

    SettingsError if there is no such kind, or the brake holds nothing of it.
    """
    if kind and kind not in MASSES:
        raise SettingsError(f"the brake knows no kind {kind!r}", f"use one of: {', '.join(MASSES)}")
    kinds = [kind] if kind else list(MASSES)
    with transaction(connection) as cursor:
        waiting, examples = brake.waiting(cursor, kinds), brake.examples(cursor, kinds, _EXAMPLES)
        stopped = [one for one in brake.counters(cursor, 0) if one.kind in kinds and one.stopped_at]
        if not waiting and not stopped:
            raise SettingsError("the brake holds nothing back", "`sink brake` says where its counters stand")
        if not execute:
            return MassReleased(waiting, examples, 0)
        refs = brake.release(cursor, kinds)
        history.note_all(cursor, [Event(ref, "released", "the brake passes it once", person=person) for ref in refs])
        history.note(cursor, APPLYING, "brake released", f"{', '.join(kinds)}: {len(refs)} documents", person)
    return MassReleased(waiting, examples, len(refs))
