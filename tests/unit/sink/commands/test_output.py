"""Results as JSON: objects by name, whatever kind of record they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from sink.commands.output import said
from sink.documents.refs import DocumentRef


class _Named(NamedTuple):
    ref: DocumentRef
    amount: Decimal


@dataclass(frozen=True)
class _Found:
    named: list[_Named]
    at: datetime
    counts: dict[tuple[str, str], int]


def test_records_are_objects_amounts_text_and_times_iso() -> None:
    found = _Found(
        [_Named(DocumentRef("order", "17"), Decimal("1.10"))], datetime(2026, 1, 2, tzinfo=UTC), {("a", "b"): 2}
    )
    (line,) = said(found, ["for people"], as_json=True)
    assert json.loads(line) == {
        "named": [{"ref": {"type": "order", "key": "17"}, "amount": "1.10"}],
        "at": "2026-01-02T00:00:00Z",
        "counts": {"a b": 2},
    }
    assert list(said(found, ["for people"], as_json=False)) == ["for people"]
