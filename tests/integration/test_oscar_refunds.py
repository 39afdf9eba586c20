"""An amount of oscar's is split into what it was paid for: the rules in the profile's SQL, on hand-made rows."""

from collections.abc import Callable, Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import psycopg2
import pytest

PROFILE = Path(__file__).parents[2] / "sink" / "profiles" / "oscar"
TABLES = """
CREATE TEMP TABLE order_order (id int, shipping_incl_tax numeric(12,2), shipping_excl_tax numeric(12,2),
    shipping_tax_code text);
CREATE TEMP TABLE order_line (id int, order_id int, quantity int, tax_code text, line_price_excl_tax numeric(12,2),
    line_price_incl_tax numeric(12,2));
CREATE TEMP TABLE order_surcharge (id int, order_id int, tax_code text, excl_tax numeric(12,2), incl_tax numeric(12,2));
CREATE TEMP TABLE order_paymentevent (id int, order_id int, amount numeric(12,2));
CREATE TEMP TABLE order_paymenteventquantity (id int, event_id int, line_id int, quantity int);
INSERT INTO order_order VALUES (1, 4.90, 4.12, '19');
INSERT INTO order_line VALUES (11, 1, 3, '19', 8.40, 10.00), (12, 1, 1, '7', 20.00, 21.40), (13, 1, 2, '19', 0, 0);
"""
FEE = "INSERT INTO order_surcharge VALUES (5, 1, '19', 2.52, 3.00)"

Refund = Callable[..., dict[str, tuple[Decimal, Decimal, Decimal]]]


@pytest.fixture
def refund(database: str) -> Iterator[Refund]:
    """refund(amount, {line: quantity}) → key → (tax rate, net, gross)."""
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(TABLES)

        def refunded(amount: str, lines: dict[int, int] | None = None, extra: str = "") -> dict[str, tuple]:
            cursor.execute(extra or "SELECT 1")
            cursor.execute("INSERT INTO order_paymentevent VALUES (7, 1, %s)", (amount,))
            for line, quantity in (lines or {}).items():
                cursor.execute("INSERT INTO order_paymenteventquantity VALUES (%s, 7, %s, %s)", (line, line, quantity))
            cursor.execute((PROFILE / "refund.components.sql").read_text(), {"keys": ["7"]})
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            assert all(row["net"] + row["tax"] == row["gross"] for row in rows)
            assert sum(row["gross"] for row in rows) == Decimal(amount)
            return {row["key"]: (row["tax_rate"], row["net"], row["gross"]) for row in rows}

        yield refunded


def row(rate: str, net: str, gross: str) -> tuple[Decimal, Decimal, Decimal]:
    return Decimal(rate), Decimal(net), Decimal(gross)


def test_a_whole_line_gives_back_exactly_what_was_sold(refund: Refund) -> None:
    assert refund("21.40", {12: 1}) == {"line:12": row("7", "20.00", "21.40")}


def test_cents_go_to_the_largest_remainder(refund: Refund) -> None:
    assert refund("10.00", {11: 1, 12: 1}) == {
        "line:11": row("19", "1.13", "1.35"),
        "line:12": row("7", "8.08", "8.65"),
    }


def test_a_cent_per_piece_more_is_oscars_own_rounding(refund: Refund) -> None:
    assert refund("3.34", {11: 1}) == {"line:11": row("19", "2.81", "3.34")}


def test_lines_and_shipping_in_one_sum(refund: Refund) -> None:
    assert refund("26.30", {12: 1}) == {
        "line:12": row("7", "20.00", "21.40"),
        "charge:shipping": row("19", "4.12", "4.90"),
    }


def test_everything_with_the_fee(refund: Refund) -> None:
    assert refund("39.30", {11: 3, 12: 1}, FEE) == {
        "line:11": row("19", "8.40", "10.00"),
        "line:12": row("7", "20.00", "21.40"),
        "charge:shipping": row("19", "4.12", "4.90"),
        "charge:surcharge:5": row("19", "2.52", "3.00"),
    }


def test_f10_shipping_alone(refund: Refund) -> None:
    assert refund("4.90", extra=FEE) == {"charge:shipping": row("19", "4.12", "4.90")}


def test_goodwill_is_spread_over_the_orders_tax_rates(refund: Refund) -> None:
    assert refund("5.00") == {"goodwill:19": row("19", "1.34", "1.59"), "goodwill:7": row("7", "3.19", "3.41")}


def test_more_than_lines_and_shipping_is_goodwill_too(refund: Refund) -> None:
    parts = refund("30.00", {12: 1})
    assert parts["charge:shipping"] == row("19", "4.12", "4.90")
    assert parts["goodwill:19"][2] + parts["goodwill:7"][2] == Decimal("3.70")


def test_money_for_a_line_that_was_free_is_goodwill(refund: Refund) -> None:
    assert set(refund("1.00", {13: 1})) == {"goodwill:19", "goodwill:7"}


def test_a_withheld_fee_lowers_the_lines(refund: Refund) -> None:
    assert refund("16.40", {12: 1}) == {"line:12": row("7", "15.33", "16.40")}
