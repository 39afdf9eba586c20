"""`sink accept`: what a person takes upon himself, said before it is done."""

from __future__ import annotations

from collections.abc import Iterator

from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.operations import accept

_DRY = "nothing was changed; --execute does it"


def gap(connection: Connection, table: str, topic: str, person: str, execute: bool) -> Iterator[str]:
    """What is missing and is taken for complete; `topic` is the table's."""
    yield from accept.accept_gaps(connection, table, topic, person, execute)
    taken = "is taken" if execute else "would be taken"
    yield f"{table} {taken} for complete as it is, and documents that were held for it go to the ERP"
    yield "held documents are looked at again" if execute else _DRY


def snapshot(connection: Connection, person: str, execute: bool) -> Iterator[str]:
    """That planning begins."""
    accept.accept_snapshot(connection, person, execute)
    taken = "is taken" if execute else "would be taken"
    yield f"the copy {taken} for complete without the end of a first snapshot, and planning begins"
    if not execute:
        yield _DRY


def document(connection: Connection, type_: str, key: str, person: str, execute: bool) -> Iterator[str]:
    """What it is taken for."""
    ref = DocumentRef(type_, key)
    what = accept.accept_document(connection, ref, person, execute).value
    yield f"{ref} {'is' if execute else 'would be'} taken for {what}"
    if not execute:
        yield _DRY
