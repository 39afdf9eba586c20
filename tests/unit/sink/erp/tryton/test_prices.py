"""What stands in a line of a price list."""

from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from sink.erp.contract import Observed, Step
from sink.erp.kinds import ErpRecord, ErpRef, not_kept
from sink.erp.tryton.catalogue import MasterData
from sink.erp.tryton.prices import Formula, Prices, formula_in, formula_of, sequence
from sink.erp.tryton.rpc import Rpc, WriteCalls
from sink.erp.tryton.settings import TrytonSettings
from tests.unit.sink.erp.tryton.test_price_calls import SETTINGS, Server, step

D = Decimal
SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (Formula(D("11.90"), "shop/price/1/1", 3), "11.90 # shop/price/1/1#3"),
        (Formula(D(12), "shop/price/1/1", 3), "12.0 # shop/price/1/1#3"),
        (Formula(D("1E+2"), "s/price/a:b/1", 1), "100.0 # s/price/a:b/1#1"),
        (Formula(D("5.0"), "s/price/AB 12:Retail #3/1", 2), "5.0 # s/price/AB 12:Retail #3/1#2"),
        (
            Formula(D("0.0103"), "s/price/1/1", 12, SINCE, UNTIL),
            "0.0103 # s/price/1/1#12 from 2026-01-01T00:00:00+00:00 until 2026-01-31T23:59:59+00:00",
        ),
        (
            Formula(D("1.5"), "s/price/1/1", 1, None, UNTIL),
            "1.5 # s/price/1/1#1 until 2026-01-31T23:59:59+00:00",
        ),
    ],
)
def test_a_formula_is_an_amount_with_our_key_behind_it(of: Formula, text: str) -> None:
    assert formula_of(of) == text
    assert formula_in(text) == of


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("11.90", Formula(D("11.90"))),
        ("11.90 # Christmas", Formula(D("11.90"))),
        ("unit_price * 0.9", Formula(None)),
        ("unit_price * 0.9 # shop/price/1/1#3", Formula(None, "shop/price/1/1", 3)),
        ("list_price", Formula(None)),
    ],
)
def test_what_a_clerk_typed_is_an_amount_or_nothing_that_we_read(text: str, found: Formula) -> None:
    assert formula_in(text) == found


def test_dated_lines_come_first_and_of_those_larger_quantities() -> None:
    quantities = [D(10), D(2), D("1.5"), D(1), D("0.505"), D("0.5"), D(0)]
    places = [sequence(dated, least) for dated in (True, False) for least in quantities]
    assert places == sorted({*places})
    assert 0 <= min(places) <= max(places) < 2**31


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def prices(server: Server) -> Prices:
    master = MasterData(cast(Rpc, server), TrytonSettings.model_validate(SETTINGS | {"payment_term": "t"}))
    master.zone = ZoneInfo("Europe/Berlin")
    return Prices(cast(Rpc, server), master)


ALWAYS = (datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))


def of(one: Step, **fields: Any) -> Step:
    return replace(one, want=ErpRecord("price", {**one.want.fields, **fields}))


def test_a_window_to_the_end_of_time_has_no_days(prices: Prices, server: Server) -> None:
    wanted = of(step(1), valid_from=ALWAYS[0], valid_until=ALWAYS[1])
    (result,) = prices.do("create", [wanted], cast(WriteCalls, server))
    assert isinstance(result, Observed), result
    assert not not_kept(wanted.want, result.record)
    assert (server.lines[0]["start_date"], server.lines[0]["end_date"]) == (None, None)


@pytest.mark.parametrize("last", [date(9999, 12, 31), date(9999, 1, 1)])
def test_a_clerk_may_type_the_end_of_time(prices: Prices, server: Server, last: date) -> None:
    prices.do("create", [step(1)], cast(WriteCalls, server))
    server.lines[0]["end_date"] = last
    (seen,) = prices.read([step(1).ref]).values()
    assert seen.record.fields["valid_until"] is None


def test_a_line_that_cannot_be_found_again_is_deleted(prices: Prices, server: Server) -> None:
    server.unseen = True
    for _ in range(2):
        prices.do("create", [step(1)], cast(WriteCalls, server))
    assert server.lines == []


def test_a_key_of_several_lines_is_held(prices: Prices, server: Server) -> None:
    wanted = replace(step(1), ref=ErpRef("price", "shop/price/a\nb/1"))
    (result,) = prices.do("create", [wanted], cast(WriteCalls, server))
    assert "line break" in str(result)
    assert server.lines == []
