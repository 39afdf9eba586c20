"""Which version of a document a person's word is about."""

from __future__ import annotations

import hashlib

from sink.documents.models import Missing, NotReady, Part


def version_of(built: object) -> str:
    """Of a document as it was built: another one after each change of what it says. "": it could not be built."""
    match built:
        case Missing():
            return "missing"
        case NotReady():
            return "not ready"
        case Part():
            return hashlib.sha256(f"{type(built).__name__} {built.model_dump_json()}".encode()).hexdigest()[:16]
    return ""
