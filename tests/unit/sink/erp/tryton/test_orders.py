"""The addresses of many orders, made in one call, and what money is rounded to."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from typing import Any, cast

import pytest

from sink.erp.contract import HoldError, RetryError
from sink.erp.tryton.batches import Failure
from sink.erp.tryton.catalogue import MasterData, PartyAddress
from sink.erp.tryton.doing import Wanted
from sink.erp.tryton.orders import Orders
from sink.erp.tryton.rpc import Rpc, WriteCalls
from sink.erp.tryton.settings import TrytonSettings
from tests.unit.sink.erp.tryton.test_price_calls import SETTINGS

HOME = PartyAddress("Ann", None, "Way 1", "53111", "Bonn", 7)
BAD = 3
REFUSED = HoldError("the ERP refused it", "fix it")
AWAY = RetryError("Tryton does not answer")


class Master:
    """Makes addresses of every party but one. `error`: why not of that one."""

    def __init__(self, error: Failure) -> None:
        self.error = error

    def addresses(self, wanted: Collection[tuple[int, PartyAddress]], _: object) -> dict[tuple[int, PartyAddress], int]:
        if any(party == BAD for party, _ in wanted):
            raise self.error
        return {one: 100 + one[0] for one in wanted}


def made(error: Failure, parties: Collection[int], others: Wanted) -> Wanted:
    """What becomes of these parties' orders, each of the party's own number, beside others that have failed before."""
    orders = Orders(cast(Rpc, None), cast(MasterData, Master(error)))
    places = {number: [(number, HOME), (number, HOME)] for number in parties}
    values: Wanted = {**others, **{number: {} for number in places}}
    return values | orders._with_addresses(values, places, {}, cast(WriteCalls, None))


def test_an_address_that_is_refused_fails_its_order_alone() -> None:
    found = made(REFUSED, range(1, 6), {})
    assert found.pop(BAD) is REFUSED
    assert found == {one: {"invoice_address": 100 + one, "shipment_address": 100 + one} for one in (1, 2, 4, 5)}


def test_a_call_that_failed_is_told_of_its_own_orders() -> None:
    """An order of the same batch that failed before, for a reason of its own, keeps that reason."""
    assert made(AWAY, [1, BAD], {9: REFUSED}) == {1: AWAY, BAD: AWAY, 9: REFUSED}


class Currencies:
    """Has one currency, of two decimals. rounding: what it is rounded to."""

    def __init__(self, rounding: str) -> None:
        self.rounding = Decimal(rounding)

    def among(self, *_: object) -> list[dict[str, Any]]:
        return [{"digits": 2, "rounding": self.rounding}]


def test_a_currency_that_is_rounded_to_more_than_its_decimals_is_held() -> None:
    """Tryton would round the tax at each rate to five cents, and several rates could make up for each other."""
    settings = TrytonSettings.model_validate(SETTINGS | {"payment_term": "t"})
    with pytest.raises(HoldError, match=r"the ERP rounds CHF to 0\.05"):
        MasterData(cast(Rpc, Currencies("0.05")), settings).minor("CHF")
