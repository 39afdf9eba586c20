"""What stands in a line of a price list."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest

from sink.erp.tryton.prices import Formula, formula_in, formula_of, sequence

D = Decimal
SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 31, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("of", "text"),
    [
        (Formula(D("11.90"), "shop/price/1/1", 3), "11.90 # shop/price/1/1#3"),
        (Formula(D(12), "shop/price/1/1", 3), "12.0 # shop/price/1/1#3"),
        (Formula(D("1E+2"), "s/price/a:b/1", 1), "100.0 # s/price/a:b/1#1"),
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
    lines = [(True, D(10)), (True, D(1)), (False, D(10)), (False, D(2)), (False, D(1)), (False, D("0.5"))]
    places = [sequence(*one) for one in lines]
    assert places == sorted(places)
    assert len({*places}) >= 5
    assert 0 <= min(places) <= max(places) < 1_000_000
