"""`sink held`: each document that waits for someone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sink.ledger.documents import Held
from sink.planning import ways_out


def lines(found: Sequence[Held]) -> Iterator[str]:
    """Each with its reason and the next step."""
    for one in found:
        since = f" since {one.since.astimezone():%Y-%m-%d %H:%M %Z}" if one.since else ""
        yield f"{one.type} {one.key}{f' ({one.number})' if one.number else ''}  {one.state}{since}"
        yield f"    {one.reason}\n    next: {one.next_step}"
        for command in ways_out.commands(one.check, f"{one.type} {one.key}"):
            yield f"    or {command}"
    yield f"{len(found)} held or waiting"
    if found:
        yield "after mending: `sink retry TYPE KEY`, or `sink retry --all`"
