"""`sink brake`, and what `sink release --mass` prints."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sink import wiring
from sink.columns import in_columns
from sink.commands.options import LOOK, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.erp.money import money
from sink.ledger.brake import Example, Waiting
from sink.operations import brake
from sink.operations.brake import BrakeStanding, MassReleased
from sink.planning.brake import Brake

app = verbs()


@app.command("brake", rich_help_panel=LOOK)
def _brake(as_json: Json = False, config: Config = None) -> None:
    """Shows what waits because the shop changed too much at once.

    Also shows the brake's limits and counters.

    Example: `sink brake`
    """
    settings = settings_of(config)
    found = brake.show(wiring.middle(settings), wiring.rules(settings).brake)
    answer(as_json, lambda: found, lambda: lines(found))


def lines(found: BrakeStanding) -> Iterator[str]:
    """Counters with their limits, and what waits."""
    for one in found.counters:
        since = f"since {one.counts_since.astimezone():%Y-%m-%d %H:%M %Z}"
        yield f"{one.kind}: {one.counted} changed {since}; {_limit(one.kind, found.limits)}"
        if one.stopped_at:
            yield f"    stopped {one.stopped_at.astimezone():%Y-%m-%d %H:%M %Z}: {one.reason}"
    yield from _waiting(found.waiting, found.examples)
    if found.waiting:
        yield "next: undo it in the shop, or `sink release --mass --person NAME` to release it"


def released(found: MassReleased) -> Iterator[str]:
    """What would pass or passes."""
    yield from _waiting(found.waiting, found.examples)
    if not found.released:
        yield "nothing was changed; --execute releases them once, and restarts the count"
        return
    yield f"{found.released} documents released once; the count starts again"


def _limit(kind: str, limits: Brake) -> str:
    within = f"within {limits.seconds:g} s"
    if kind == "orders":
        return f"up to {limits.orders} pass {within}"
    size = f"removed or changed by more than {limits.percent:g} %"
    return f"up to {limits.prices}, or {limits.share:g} % of the list, pass {within} ({size})"


def _waiting(waiting: Sequence[Waiting], examples: Sequence[Example]) -> Iterator[str]:
    if not waiting:
        yield "nothing waits"
        return
    heads = ("waits", "document", "would", "currency", "in the ERP", "after it")
    rows = [
        (one.documents, one.type, one.verb, one.currency or "", *(money(sum_, one.currency) for sum_ in one[-2:]))
        for one in waiting
    ]
    yield from in_columns(heads, rows)
    yield "largest changes:"
    for one in examples:
        name = f"{one.type} {one.key}{f' ({one.number})' if one.number else ''}"
        sums = (
            f" {money(one.before, one.currency)} to {money(one.after, one.currency)} {one.currency or ''}"
            if one.before is not None
            else ""
        )
        yield f"    {name}: {one.verb}{sums.rstrip()}"
