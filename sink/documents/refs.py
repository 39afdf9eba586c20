"""What a document is called."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class DocumentRef(NamedTuple):
    """A document by its name in the profile and the shop's key."""

    type: str
    key: str

    def __str__(self) -> str:
        return f"{self.type} {self.key}"


def as_arrays(refs: Iterable[DocumentRef]) -> tuple[list[str], list[str]]:
    """Types and keys, for `(type, key) IN (SELECT * FROM unnest(%s::text[], %s::text[]))`: one parameter for each,
    whatever their number, and none are as good as some."""
    every = list(refs)
    return [ref.type for ref in every], [ref.key for ref in every]
