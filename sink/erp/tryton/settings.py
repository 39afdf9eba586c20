"""The settings of Tryton. Things in Tryton are given by the names that people see there."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from sink.erp.kinds import Milestone

SaleState = Literal["draft", "quotation", "confirmed", "processing"]
_MILESTONES: Final[Mapping[SaleState, Milestone]] = {
    "draft": Milestone.DRAFT,
    "quotation": Milestone.CONFIRMED,
    "confirmed": Milestone.CONFIRMED,
    "processing": Milestone.PROCESSING,
}
_ITEMS: Final[Mapping[str, str]] = {
    "shipping": "SHIPPING-{rate}",
    "payment": "PAYMENT-{rate}",
    "charge": "CHARGE-{rate}",
    "discount": "DISCOUNT-{rate}",
    "refund": "REFUND-{rate}",
    "cent": "CENT-{rate}",
}


class OrderSettings(BaseModel):
    """How far orders are taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    goal: SaleState = Field(
        default="quotation", description="`confirmed` moves on to `processing` by itself, at once or soon"
    )


class TrytonSettings(BaseModel):
    """A Tryton 8.2, reached through its JSON-RPC."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["tryton"]
    url: str = Field(description="https://tryton.example: without the database", pattern=r"^https?://\S+$")
    database: str
    user: str
    password: SecretStr
    company: str = Field("", description="its name; empty: the one that the user works in")
    web_shop: str = Field(description="name of the web shop there; its orders are unique by it")
    warehouse: str = Field("", description="its name; empty: the one warehouse of the web shop")
    payment_term: str = Field(description="its name")
    time_zone: str = Field("Europe/Berlin", description="the shop's: Tryton keeps days and no times")
    orders: OrderSettings = OrderSettings()
    rounding: Literal["line", "none"] = Field(
        "line", description="line: add a line of cents when the shop's tax is another; none: hold the order"
    )
    taxes: dict[str, str] = Field(
        default_factory=dict, description="by rate in percent the tax's name; default: the only one of that rate"
    )
    items: dict[str, str] = Field(
        default_factory=dict, description="codes of the service products of charges, discounts, refunds, cents, by kind"
    )
    price_lists: dict[str, str] = Field(
        default_factory=dict, description="the shop's price lists by their names in Tryton; default: the same name"
    )
    tax_identifier: str = Field("eu_vat", description="type of the customers' tax numbers; empty: none")
    timeout_seconds: float = Field(50.0, gt=0, description="how long one call may take")
    settles_seconds: float | None = Field(
        None, ge=0, description="how long a call that Tryton has received may still take effect; see its README"
    )

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            ZoneInfo(name)
        except (KeyError, ValueError, OSError):
            raise ValueError(f"there is no time zone {name}: write one like Europe/Berlin") from None
        return name

    @field_validator("items")
    @classmethod
    def _kinds_that_are_there(cls, items: dict[str, str]) -> dict[str, str]:
        if unknown := items.keys() - _ITEMS.keys():
            raise ValueError(f"there are no items for {', '.join(sorted(unknown))}: only for {', '.join(_ITEMS)}")
        return items

    @property
    def order_goal(self) -> Milestone:
        """The milestone that orders are taken to."""
        return _MILESTONES[self.orders.goal]

    @property
    def refund_goal(self) -> Milestone:
        """Tryton drafts the credit note of a refund once its sale is processing."""
        return Milestone.PROCESSING

    @property
    def zone(self) -> ZoneInfo:
        """The shop's time zone."""
        return ZoneInfo(self.time_zone)

    def state_of(self, goal: Milestone) -> SaleState:
        """The state of a sale at a milestone."""
        if goal is Milestone.DRAFT:
            return "draft"
        if goal is not Milestone.CONFIRMED:
            return "processing"
        return "confirmed" if self.orders.goal == "confirmed" else "quotation"

    def item(self, kind: str, rate: Decimal) -> str:
        """The code of the service product for a kind of charge at a rate in percent. A kind without a code of its own
        takes that of `charge`."""
        pattern = self.items.get(kind) or _ITEMS.get(kind) or self.items.get("charge") or _ITEMS["charge"]
        return pattern.replace("{rate}", f"{rate.normalize():f}")

    def tax_name(self, rate: Decimal) -> str | None:
        """The name that the settings give for the tax of a rate in percent."""
        return next((name for one, name in self.taxes.items() if Decimal(one) == rate), None)

    @field_validator("taxes")
    @classmethod
    def _rates(cls, taxes: dict[str, str]) -> dict[str, str]:
        for rate in taxes:
            if not rate.replace(".", "", 1).isdigit():
                raise ValueError(f"{rate} is not a tax rate in percent: write 19 or 5.5")
        return taxes
