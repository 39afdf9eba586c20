"""When two values of a field are equal."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from sink.erp.kinds import ErpRef, Value, same

AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        (Decimal("1.0"), Decimal("1.00"), True),
        (Decimal(0), None, False),
        (False, None, False),
        (AT, AT.astimezone(timezone(timedelta(hours=2))), True),
        (AT, AT + timedelta(microseconds=1), False),
        ("", None, True),
        ("  ", None, True),
        (" Ann\n", "Ann", True),
        ("Ann Lee", "AnnLee", False),
        ("Ann", "ann", False),
        ("Ann@Example.ORG", "ann@example.org", True),
        ("ann@example.org", "anne@example.org", False),
        ("c/o Ann @ Works", "c/o ann @ works", False),
        (ErpRef("order", "a"), ErpRef("order", "a"), True),
    ],
)
def test_equal_by_value(one: Value, other: Value, is_same: bool) -> None:
    assert same(one, other) is same(other, one) is is_same
