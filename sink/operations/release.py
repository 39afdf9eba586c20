"""`sink release`, but for `--mass`, which is in `brake`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from schemas.model.errors import SettingsError
from sink.database import Connection, Cursor, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import decisions, documents, history, listed, marks
from sink.ledger.decisions import Asked
from sink.ledger.listed import HeldGroup
from sink.operations.accept import currency_of, to_decide
from sink.planning.decisions import Decisions, disputed_from_json
from sink.planning.policy import Check, Disputed
from sink.planning.ways_out import WAYS, Way

_EXAMPLES = 5


class Released(NamedTuple):
    """The check, and why it held the document. `fields`: those changed in the ERP that the shop's values will
    overwrite, and their currency if they have one."""

    check: str
    reason: str
    fields: tuple[Disputed, ...] = ()
    currency: str | None = None


class ReleasedAll(NamedTuple):
    """What a check holds, by reason, and how many were released; 0 in a dry run."""

    check: str
    held: Sequence[HeldGroup]
    released: int


def let_pass(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> Released:
    """Lets the held version pass its check; its next change is checked again. Values that were changed in the ERP are
    overwritten. `execute` does it. SettingsError if the check cannot be released (`planning.ways_out`)."""
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])  # no worker can take it from here on
        found = to_decide(decisions.asked(cursor, ref), ref, Way.RELEASE)
        if not found.version:
            raise SettingsError(f"{ref} could not be built", f"`sink retry {ref}`, then try again")
        if execute:
            _note(cursor, ref, found, person)
        fields = disputed_from_json(found.fields) if found.check == Check.CHANGED else ()
        return Released(found.check or "", found.reason or "", fields, currency_of(found))


def let_all_pass(connection: Connection, check: str, person: str, execute: bool) -> ReleasedAll:
    """The same for all documents that a check holds, one by one. The brake counts what is sent. SettingsError if the
    check cannot be released, or holds nothing."""
    can = [str(one) for one, found in WAYS.items() if Way.RELEASE in found]
    if check not in can:
        raise SettingsError(f"`sink release` cannot clear check {check!r}", f"use one of: {', '.join(can)}")
    with transaction(connection) as cursor:
        held, refs = listed.held(cursor, check, _EXAMPLES), decisions.held_for(cursor, check)
    if not held:
        raise SettingsError(f"nothing is held for check `{check}`", "`sink held` says what is held, and for what")
    released = 0
    for ref in refs if execute else ():
        with transaction(connection) as cursor:
            marks.look_at(cursor, [ref])
            found = decisions.asked(cursor, ref)
            if found and found.state == "held" and found.check == check and found.version and not found.under_way:
                _note(cursor, ref, found, person)
                released += 1
    return ReleasedAll(check, held, released)


def _note(cursor: Cursor, ref: DocumentRef, found: Asked, person: str) -> None:
    fields = disputed_from_json(found.fields)
    said = Decisions.from_json(found.decisions).releasing(found.check or "", found.version, fields)
    documents.save(cursor, ref, decisions=said.to_json())
    history.note(cursor, ref, "released", found.reason or "", person)
