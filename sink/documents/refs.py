"""What a document is called."""

from __future__ import annotations

from typing import NamedTuple


class DocumentRef(NamedTuple):
    """A document by its name in the profile and the shop's key."""

    type: str
    key: str

    def __str__(self) -> str:
        return f"{self.type} {self.key}"
