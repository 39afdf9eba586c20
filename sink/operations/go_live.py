"""`sink go-live`: a new shop sends nothing until a person has seen the plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, transaction
from sink.ledger import control, documents, history, listed
from sink.ledger.listed import PlannedSum
from sink.ledger.outcomes import State
from sink.operations.control import APPLYING
from sink.staging import position

_NEXT = "`sink pause` stops it again"


class GoesLive(NamedTuple):
    """The plan's sums; how many documents are held or wait, by cause; how many are not planned yet."""

    planned: Sequence[PlannedSum]
    held: Mapping[str, int]
    due: int


def go_live(connection: Connection, applies: bool, require_snapshot: bool, person: str, execute: bool) -> GoesLive:
    """What is planned. `execute` has it sent, and everything after it; running sinks see it at their next step.

    `applies`: the settings say `mode: apply`. SettingsError if the shop is live, the copy may not be acted on, or
    nothing is planned.
    """
    with transaction(connection) as cursor:
        if applies:
            raise SettingsError("the settings have mode: apply, which sends from the start", _NEXT)
        if (live := control.read(cursor).live) is not None:
            raise SettingsError(f"the shop is live {live}", _NEXT)
        if reason := position.why_not_planned(cursor, require_snapshot):
            raise SettingsError(f"nothing is planned: {reason}", "`sink status` shows how far the copy is")
        found = GoesLive(
            listed.planned_sums(cursor),
            listed.waiting(cursor),
            sum(count for (_, state), count in documents.counts(cursor).items() if state == State.DUE),
        )
        if not found.planned:
            raise SettingsError("nothing is planned", "start `sink run`; `sink status` then says what there is")
        if execute:
            control.say(cursor, "live", person)
            count = sum(one.commands for one in found.planned)
            history.note(cursor, APPLYING, "went live", f"{count} commands were planned", person)
        return found
