"""What can be set for Tryton."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from sink.erp.kinds import Milestone
from sink.erp.tryton.settings import TrytonSettings

GOOD = {
    "kind": "tryton", "url": "https://erp.example", "database": "works", "user": "ordertap", "password": "secret-1",
    "web_shop": "Web", "payment_term": "Direct",
}  # fmt: skip
D = Decimal


def _settings(**values: Any) -> TrytonSettings:
    return TrytonSettings.model_validate({**GOOD, **values})


@pytest.mark.parametrize(
    ("goal", "milestone", "confirmed"),
    [
        ("draft", Milestone.DRAFT, "quotation"),
        ("quotation", Milestone.CONFIRMED, "quotation"),
        ("confirmed", Milestone.CONFIRMED, "confirmed"),
        ("processing", Milestone.PROCESSING, "quotation"),
    ],
)
def test_a_goal_is_a_milestone_and_a_state(goal: str, milestone: Milestone, confirmed: str) -> None:
    settings = _settings(orders={"goal": goal})
    assert settings.order_goal is milestone
    assert settings.state_of(Milestone.CONFIRMED) == confirmed
    assert settings.state_of(Milestone.DRAFT) == "draft"
    assert settings.state_of(Milestone.PROCESSING) == "processing"


def test_items_are_named_by_kind_and_rate() -> None:
    settings = _settings(items={"shipping": "VERSAND{rate}"})
    assert settings.item("shipping", D("19.00")) == "VERSAND19"
    assert settings.item("payment", D("5.5")) == "PAYMENT-5.5"
    assert settings.item("gift wrap", D(7)) == "CHARGE-7"
    assert settings.item("discount", D(0)) == "DISCOUNT-0"


def test_taxes_are_named_by_rates() -> None:
    settings = _settings(taxes={"19": "Umsatzsteuer 19 %", "5.5": "Reduced"})
    assert settings.tax_name(D("19.00")) == "Umsatzsteuer 19 %"
    assert settings.tax_name(D("5.50")) == "Reduced"
    assert settings.tax_name(D(7)) is None


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"url": "tryton.example"}, "url"),
        ({"time_zone": "Europe/Bielefeld"}, "time_zone"),
        ({"items": {"gift": "X"}}, "items"),
        ({"taxes": {"19 %": "X"}}, "taxes"),
        ({"orders": {"goal": "done"}}, "orders.goal"),
        ({"kind": "sql"}, "kind"),
        ({"password": None}, "password"),
    ],
)
def test_what_cannot_be_is_refused_by_name(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ValidationError) as refused:
        _settings(**wrong)
    assert ".".join(map(str, refused.value.errors()[0]["loc"])) == named


def test_the_password_is_not_printed() -> None:
    assert "secret-1" not in repr(_settings())
