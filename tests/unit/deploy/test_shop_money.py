"""The sample shop's money: a split amount adds up again, to the cent."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.shop.money import CENT, allocate, tax_in

cents = st.integers(0, 10**7).map(lambda n: n * CENT)


@given(st.lists(cents, min_size=1, max_size=8).filter(any), st.fractions(0, 1))
def test_shares_add_up_and_none_is_more_than_its_weight(weights: list[Decimal], part: object) -> None:
    amount = (sum(weights) * Decimal(part.numerator) / Decimal(part.denominator)).quantize(CENT, "ROUND_DOWN")  # type: ignore[attr-defined]
    shares = allocate(amount, weights)
    assert sum(shares) == amount
    assert all(0 <= share <= weight for share, weight in zip(shares, weights, strict=True))


def test_the_largest_remainder_gets_the_cent() -> None:
    assert allocate(Decimal("0.10"), [Decimal(1), Decimal(1), Decimal(1)]) == [Decimal(f"0.0{n}") for n in (4, 3, 3)]
    assert allocate(Decimal("10.00"), [Decimal("29.95"), Decimal("48.00")]) == [Decimal("3.84"), Decimal("6.16")]


def test_nothing_is_split_by_nothing_and_an_amount_is_not() -> None:
    assert allocate(Decimal(0), [Decimal(0)]) == [Decimal(0)]
    with pytest.raises(ValueError, match="all zero"):
        allocate(Decimal(1), [Decimal(0)])


@pytest.mark.parametrize(
    ("gross", "rate", "tax"),
    [("119.00", 19, "19.00"), ("10.70", 7, "0.70"), ("0.03", 19, "0.00"), ("0.04", 19, "0.01"), ("4.90", 19, "0.78")],
)
def test_tax_in_an_amount(gross: str, rate: int, tax: str) -> None:
    assert tax_in(Decimal(gross), Decimal(rate)) == Decimal(tax)
