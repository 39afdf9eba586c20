"""`sink held`: what waits, by cause and reason, with its money."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated

import typer

from sink import wiring
from sink.commands.options import LOOK, Cause, Config, Json, settings_of, verbs
from sink.commands.output import answer
from sink.erp.money import money
from sink.ledger.documents import TELLS_AT
from sink.ledger.listed import HeldGroup, Listed
from sink.operations import holds
from sink.planning import ways_out

_CAUSES: Mapping[str, str] = {
    "decision": "held for a decision",
    "data": "held for the shop's data",
    "master data": "held for the ERP's master data; checked again automatically",
    "waits": "waits for other documents",
    "retry": "retried automatically",
}

app = verbs()


@app.command("held", rich_help_panel=LOOK)
def _held(
    cause: Cause = "",
    limit: Annotated[int, typer.Option(min=0, help="How many documents for each reason.")] = 20,
    as_json: Json = False,
    config: Config = None,
) -> None:
    """What is held or waits, by cause and reason, with its money.

    Documents that are tried again are listed, too.

    Example: `sink held --cause decision --limit 5`
    """
    found = holds.held(wiring.middle(settings_of(config)), cause, limit)
    answer(as_json, lambda: found, lambda: lines(found))


def lines(found: Sequence[HeldGroup]) -> Iterator[str]:
    """Causes, their reasons, and each reason's documents and next step. Sums at the end."""
    for cause in dict.fromkeys(group.cause for group in found):
        groups = [group for group in found if group.cause == cause]
        yield f"{_CAUSES[cause]}: {_sum(groups)}"
        for group in groups:
            yield from _group(group)
    yield f"{_sum(found)} held, waiting or tried again" if found else "nothing is held"
    if found:
        yield "once fixed: `sink retry TYPE KEY`, or `sink retry --all`; everything about one: `sink show TYPE KEY`"
        yield "the commands after `or` are dry runs; --execute does it"


def _group(group: HeldGroup) -> Iterator[str]:
    yield f"  {group.documents} x {group.reason}  {money_text(group.money)}".rstrip()
    if group.stuck:
        yield f"    {group.stuck} of them failed {TELLS_AT} times or more: someone must look at them"
    steps = {one.next_step for one in group.first if one.next_step}
    if len(steps) == 1:
        document = str(group.first[0].ref) if group.documents == 1 else "TYPE KEY"
        yield f"    next: {ways_out.addressed(steps.pop(), document)}"
    for one in group.first:
        yield f"    {named(one)}{f'  since {at(one.since)}' if one.since else ''}{_tries(one)}"
        if one.reason != group.reason:
            yield f"        {one.reason}"
        if one.next_step in steps:
            yield f"        next: {ways_out.addressed(one.next_step, str(one.ref))}"
        for command in ways_out.commands(one.check, str(one.ref), one.in_erp):
            yield f"        or {command}"
    if group.documents > len(group.first):
        yield f"    and {group.documents - len(group.first)} more; --limit shows them"


def _tries(one: Listed) -> str:
    if one.state != "retry":
        return ""
    again = f", the next try at {at(one.next_try)}" if one.next_try else ""
    return f"  tried {one.attempts} times{again}" if one.attempts else f"  not tried while the ERP is away{again}"


def _sum(groups: Sequence[HeldGroup]) -> str:
    count = sum(group.documents for group in groups)
    total: dict[str, Decimal] = {}
    for group in groups:
        for currency, amount in group.money.items():
            total[currency] = total.get(currency, Decimal(0)) + amount
    without = sum(group.without_money for group in groups)
    of_these = f" ({without} of them without an amount)" if without and total else ""
    return f"{count} document{'' if count == 1 else 's'}{', ' if total else ''}{money_text(total)}{of_these}"


def money_text(amounts: Mapping[str, Decimal]) -> str:
    """`119.00 EUR + 4.14 USD`, "" for none."""
    return " + ".join(f"{money(amount, currency)} {currency}" for currency, amount in sorted(amounts.items()))


def named(one: Listed) -> str:
    """`sales_order 17 (SO-1001)  119.00 EUR`."""
    number = f" ({one.number})" if one.number else ""
    amount = "" if one.gross is None else f"  {money(one.gross, one.currency)} {one.currency or ''}".rstrip()
    return f"{one.ref}{number}{amount}"


def at(moment: datetime) -> str:
    """A time for people, in the zone of this machine."""
    return f"{moment.astimezone():%Y-%m-%d %H:%M:%S %Z}"
