"""Tryton among people and networks: what its calls meet between two of ours."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from deploy.tryton.server import Tryton
from sink.erp.contract import ConflictError, NotDone, SlowDownError
from sink.erp.kinds import Milestone
from tests.erp_contract.records import REF, SALE, Sink, create
from tests.erp_contract.tryton_target import READS, TrytonTarget
from tests.faults.rpc_proxy import RpcProxy

ORDER = REF["order"]
PROCESSING = Milestone.PROCESSING
ALL_THE_WAY = {"goal": "processing"}


@pytest.fixture
def proxy(tryton: Tryton) -> Iterator[RpcProxy]:
    with RpcProxy(tryton.url, READS) as made:
        yield made


def test_a_clerk_who_presses_a_button_before_ours_leaves_the_order_that_we_made_ours(
    tryton_place: TrytonTarget,
) -> None:
    """A create that came to a draft and no further is told as that: the ledger must know of the draft."""
    sink = Sink(tryton_place.adapter(orders=ALL_THE_WAY))
    sink.seed("customer")
    seen: list[str] = []

    def clerk(moment: str) -> None:
        seen.append(moment)
        if len(seen) == 5:  # an address, the sale, and before its first button
            tryton_place.clerk.edits(ORDER, "payment_means", "cash")

    with tryton_place.hooked(clerk):
        (result,) = sink.apply(replace(create(SALE, ORDER), goal=PROCESSING))
    assert isinstance(result, NotDone), result
    assert isinstance(result.error, ConflictError)
    assert result.reached is not None, "a draft is there"
    assert result.reached.record == sink.see(ORDER).record


def test_a_rate_limit_asks_for_a_rest_and_holds_nothing(tryton_place: TrytonTarget, proxy: RpcProxy) -> None:
    sink = Sink(tryton_place.adapter(url=proxy.url))
    sink.seed("customer")
    proxy.faults[:] = ["rest"]
    (result,) = sink.apply(create(SALE, ORDER))
    assert isinstance(result, NotDone)
    assert isinstance(result.error, SlowDownError)
    assert result.error.seconds == 3
    sink.done(create(SALE, ORDER))
