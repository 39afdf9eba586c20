"""The version of a document that a person's decision is about."""

from __future__ import annotations

import hashlib

from sink.documents.models import Missing, NotReady, Part


def version_of(built: object) -> str:
    """A document's version: it differs after each change of content. "" for a document that could not be built."""
    match built:
        case Missing():
            return "missing"
        case NotReady():
            return "not ready"
        case Part():
            return hashlib.sha256(f"{type(built).__name__} {built.model_dump_json()}".encode()).hexdigest()[:16]
    return ""
