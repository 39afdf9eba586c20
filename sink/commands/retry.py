"""`sink retry`: another look at what is held."""

from __future__ import annotations

from schemas.errors import SettingsError
from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.operations import holds


def which(type_: str, key: str, every: bool) -> DocumentRef | None:
    """The document that was named, None for all; SettingsError when neither or both were."""
    if every == bool(type_) or bool(type_) != bool(key):
        raise SettingsError("say which document, or --all", "sink retry sales_order 17, or sink retry --all")
    return None if every else DocumentRef(type_, key)


def line(connection: Connection, ref: DocumentRef | None) -> str:
    """How many it is done for."""
    return f"{holds.retry(connection, ref)} to be looked at again"
