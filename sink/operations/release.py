"""A person's word that one version of a document may pass the check that holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from schemas.errors import SettingsError
from sink.database import Connection, transaction
from sink.documents.refs import DocumentRef
from sink.ledger import decisions, documents, history, marks
from sink.operations.accept import to_decide
from sink.planning.decisions import Decisions
from sink.planning.ways_out import Way


class Released(NamedTuple):
    """The check, and why it held."""

    check: str
    reason: str


def let_pass(connection: Connection, ref: DocumentRef, person: str, execute: bool) -> Released:
    """Lets the version that is held pass; the next change of it is checked again. `execute` does it; SettingsError
    where the check is none that can be passed (`planning.ways_out`)."""
    with transaction(connection) as cursor:
        if execute:
            marks.look_at(cursor, [ref])  # nobody else has it from here on
        found = to_decide(decisions.asked(cursor, ref), ref, Way.RELEASE)
        if not found.version:
            raise SettingsError(f"{ref} was not read as a whole", f"`sink retry {ref}`, then again")
        released = Released(found.check or "", found.reason or "")
        if execute:
            said = Decisions.from_json(found.decisions)
            said = replace(said, released={**said.released, released.check: found.version})
            documents.save(cursor, ref, decisions=said.to_json())
            history.note(cursor, ref, "released", released.reason, person)
        return released
