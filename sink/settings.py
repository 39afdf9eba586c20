"""The settings of the sink. Who owns prices has no default: the wrong one would overwrite a price list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from sink.erp.kinds import Milestone
from sink.erp.tryton.settings import TrytonSettings
from sink.planning.policy import Absence


class SqlErpSettings(BaseModel):
    """An ERP that is reached through its database."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["sql"] = "sql"
    url: SecretStr = Field(description="SQLAlchemy URL: postgresql://…, mariadb+pymysql://…, sqlite:///…")
    mapping: str = Field(description="the YAML file that maps our documents onto the ERP's tables")
    timeout_seconds: float = Field(20.0, gt=0, description="how long one call may take")

    @property
    def order_goal(self) -> Milestone | None:
        """The milestone that orders are taken to, if this ERP has states of its own; None: `goal` is the one."""
        return None

    @property
    def refund_goal(self) -> Milestone:
        """The milestone at which a refund is a draft credit note."""
        return Milestone.DRAFT


ErpSettings = Annotated[SqlErpSettings | TrytonSettings, Field(discriminator="kind")]
"""The settings of an ERP, told apart by `kind`."""


class SinkSettings(BaseModel):
    """The part `sink` of the settings file. Times are in seconds."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    INSTEAD: ClassVar[Mapping[str, str]] = {
        "order_deleted": "set it for each kind: `absent: {orders: …, returns: …, refunds: …}`"
    }

    shop: str = Field(
        "shop",
        description="name of the shop in the ERP's keys, of its schema, and after `ordertap_` of its ledger's",
        pattern=r"^[a-z][a-z0-9_]*$",
        max_length=54,
    )
    profile: str = Field(description="name of a folder under sink/profiles, or a path")
    topic_prefix: str

    bootstrap_servers: str
    group_id: str = Field("", description="default: ordertap-<shop>")
    kafka: dict[str, SecretStr] = Field(default_factory=dict, description="any librdkafka property")
    schema_registry_url: str
    schema_registry: dict[str, SecretStr] = Field(default_factory=dict, description="client options of the registry")

    database_url: SecretStr = Field(description="the middle layer, PostgreSQL")
    shop_url: SecretStr | None = Field(None, description="the shop, read-only: `sink reconcile` reads it itself")
    erp: ErpSettings

    mode: Literal["plan", "apply"] = Field("plan", description="plan: send nothing before `sink go-live`")
    prices_owner: Literal["shop", "erp"]
    customers: Literal["account_per_buyer", "match", "collective"] = "account_per_buyer"
    collective_account: str = ""
    account_prefix: str | None = Field(
        None, description="what new account numbers begin with; default: <shop>-", pattern=r"^\S*$", max_length=20
    )
    account_from: int = Field(100_001, ge=1, le=10**15, description="the first new account number, behind the prefix")
    unknown_sku: Literal["hold", "placeholder"] = "hold"
    placeholder_sku: str = ""
    absent: Absence = Field(Absence(), description="what happens in the ERP to what the shop has deleted")
    start_at: AwareDatetime | None = Field(
        None,
        description="orders placed before it are not carried over, nor their returns and refunds; with a time zone",
    )
    goal: Literal["draft", "confirmed", "processing"] = Field(
        "confirmed", description="the milestone that orders are taken to"
    )
    require_snapshot: bool = Field(True, description="plan nothing before a first snapshot is complete")
    settle_seconds: float = Field(30.0, ge=0, description="how long a document may be incomplete before it is held")
    recheck_seconds: float = Field(
        60.0, gt=0, description="how often documents held for the ERP's master data are looked at"
    )
    workers: int = Field(2, ge=1, le=64)
    batch: int = Field(50, ge=1, le=1000, description="how many orders, with their documents, go to the ERP together")
    lease_seconds: float = Field(60.0, ge=5)
    brake_orders: int = Field(
        50, ge=0, description="how many orders, returns, refunds the shop may change in the window"
    )
    brake_price_percent: float = Field(20.0, ge=0, description="a change of a price counts if it is larger, percent")
    brake_price_share: float = Field(
        10.0, ge=0, le=100, description="how much of the price list may change like that in the window, percent"
    )
    brake_prices: int = Field(
        20, ge=0, description="how many prices may change like that in the window, however short the list is"
    )
    brake_window_seconds: float = Field(
        3600.0, gt=0, description="the window; further changes within it wait for a person"
    )

    health_host: str = "127.0.0.1"
    health_port: int = Field(8084, ge=0, le=65535, description="0: none")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_json: bool = False

    @property
    def group(self) -> str:
        """Kafka's consumer group."""
        return self.group_id or f"ordertap-{self.shop}"

    @model_validator(mode="before")
    @classmethod
    def _owner_is_said(cls, values: Any) -> Any:
        if isinstance(values, dict) and "prices_owner" not in values:
            raise ValueError(
                "prices_owner is missing. Say who owns prices: `shop` (the ERP is given the shop's prices, also over "
                "prices typed in there) or `erp` (its prices stay as they are). There is no default, since the wrong "
                "one overwrites a price list"
            )
        return values

    @model_validator(mode="before")
    @classmethod
    def _kind_of_erp(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("erp"), dict):
            return {**values, "erp": {"kind": "sql", **values["erp"]}}
        return values

    @model_validator(mode="after")
    def _one_goal(self) -> SinkSettings:
        if self.erp.order_goal is not None and "goal" in self.model_fields_set:
            raise ValueError("goal is erp.orders.goal here, in the ERP's own states: set that one only")
        return self

    @property
    def order_goal(self) -> Milestone:
        """The milestone that orders are taken to."""
        return self.erp.order_goal or Milestone(self.goal)

    @property
    def refund_goal(self) -> Milestone:
        """The milestone at which a refund is a draft credit note."""
        return self.erp.refund_goal

    @field_validator("shop")
    @classmethod
    def _is_a_schema_of_its_own(cls, name: str) -> str:
        if name.startswith(("ordertap", "pg_")) or name in ("public", "information_schema", "staged"):
            raise ValueError(f"a shop cannot be named {name}: the schema of that name has another use")
        return name

    @model_validator(mode="after")
    def _complete(self) -> SinkSettings:
        if self.customers == "collective" and not self.collective_account:
            raise ValueError("customers is `collective`: set collective_account to the ERP account that all orders use")
        if self.unknown_sku == "placeholder" and not self.placeholder_sku:
            raise ValueError("unknown_sku is `placeholder`: set placeholder_sku to an item of the ERP")
        if self.lease_seconds <= self.erp.timeout_seconds:
            raise ValueError("lease_seconds must be longer than erp.timeout_seconds: a call must end within its lease")
        return self
