"""Settings that have to be given are asked for, with a reason."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.model.errors import SettingsError
from schemas.process.settings import load
from sink.erp.kinds import Milestone
from sink.erp.tryton.settings import TrytonSettings
from sink.settings import SinkSettings

GOOD: dict[str, Any] = {
    "profile": "sample", "topic_prefix": "shop", "bootstrap_servers": "k:9092", "schema_registry_url": "http://r",
    "database_url": "postgresql://u:hidden@db/m", "prices_owner": "shop",
    "erp": {"url": "postgresql://u:hidden@erp/e", "mapping": "mapping.yaml"},
}  # fmt: skip

TRYTON: dict[str, Any] = {
    "kind": "tryton", "url": "https://erp.example", "database": "works", "user": "ordertap", "password": "hidden",
    "web_shop": "Web", "payment_term": "Direct",
}  # fmt: skip


def _load(tmp_path: Path, **changes: Any) -> SinkSettings:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value is not None}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"sink": content}))
    return load("sink", SinkSettings, tmp_path / "config.yaml", {})


def test_nothing_is_sent_unless_it_is_asked_for(tmp_path: Path) -> None:
    settings = _load(tmp_path)
    assert (settings.mode, settings.unknown_sku, settings.absent.orders) == ("plan", "hold", "hold")
    assert (settings.require_snapshot, settings.group) == (True, "ordertap-shop")


def test_who_owns_prices_is_asked_for_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, prices_owner=None)
    text = str(caught.value)
    assert "prices_owner is missing. Say who owns prices: `shop`" in text
    assert "There is no default, since the wrong one overwrites a price list" in text
    assert "hidden" not in text


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"customers": "collective"}, "set collective_account"),
        ({"unknown_sku": "placeholder"}, "set placeholder_sku"),
        ({"lease_seconds": 20, "erp": {**GOOD["erp"], "timeout_seconds": 20}}, "lease_seconds must be longer"),
        ({"prices_owner": "nobody"}, "prices_owner"),
        ({"shop": "My Shop"}, "shop"),
        ({"shop": "ordertap_x"}, "a shop cannot be named ordertap_x"),
        ({"shop": "pg_shop"}, "a shop cannot be named pg_shop"),
        ({"shop": "public"}, "a shop cannot be named public"),
        ({"shop": "information_schema"}, "a shop cannot be named information_schema"),
        ({"shop": "s" * 55}, "shop"),
        ({"workers": 0}, "workers"),
        ({"price_owner": "shop"}, "prices_owner"),
        ({"account_prefix": "a b"}, "account_prefix"),
        ({"account_prefix": "a" * 21}, "account_prefix"),
        ({"account_from": 0}, "account_from"),
        ({"order_deleted": "keep"}, "order_deleted: not a setting here: set it for each kind: `absent: {orders:"),
        ({"absent": {"orders": "cancel"}}, "absent.orders"),
        ({"absent": {"customers": "hold"}}, "absent.customers"),
        ({"erp": {**GOOD["erp"], "kind": "sap"}}, "erp.kind: input should be one of 'sql', 'tryton'"),
        ({"erp": {**TRYTON, "goal": "draft"}}, "erp.goal: unknown"),
        ({"erp": {**TRYTON, "web_shop": None}}, "erp.web_shop:"),
        ({"erp": {**TRYTON, "orders": {"goal": "done"}}}, "erp.orders.goal:"),
        ({"erp": {**TRYTON, "orders": {"gaol": "draft"}}}, "did you mean erp.orders.goal?"),
        ({"erp": {**TRYTON, "mapping": "mapping.yaml"}}, "erp.mapping: unknown"),
        ({"erp": TRYTON, "goal": "draft"}, "goal is erp.orders.goal here"),
    ],
)
def test_what_is_wrong_is_named_without_values(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        _load(tmp_path, **changes)
    assert reason in str(caught.value)
    assert "hidden" not in str(caught.value)


def test_complete_choices_are_taken(tmp_path: Path) -> None:
    settings = _load(
        tmp_path, customers="collective", collective_account="10000", unknown_sku="placeholder", placeholder_sku="MISC"
    )
    assert (settings.collective_account, settings.placeholder_sku) == ("10000", "MISC")
    assert "hidden" not in repr(settings)


def test_the_erp_says_how_far_an_order_is_taken(tmp_path: Path) -> None:
    assert _load(tmp_path).order_goal is Milestone.CONFIRMED
    assert _load(tmp_path, goal="draft").order_goal is Milestone.DRAFT
    assert _load(tmp_path, erp=TRYTON).order_goal is Milestone.CONFIRMED
    assert _load(tmp_path, erp={**TRYTON, "orders": {"goal": "processing"}}).order_goal is Milestone.PROCESSING


def test_settings_of_an_erp_may_come_from_files_and_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hidden\n")
    erp = {name: value for name, value in TRYTON.items() if name != "password"}
    content = {**GOOD, "erp": {**erp, "password_file": str(tmp_path / "secret")}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"sink": content}))
    environment = {
        "ORDERTAP_SINK_ERP__ORDERS__GOAL": "draft",
        "ORDERTAP_SINK_ERP__TAXES": "{'19': VAT 19 %}",
        "ORDERTAP_SINK_ERP__URL": "https://other.example",
    }
    found = load("sink", SinkSettings, tmp_path / "config.yaml", environment).erp
    assert isinstance(found, TrytonSettings)
    assert found.password.get_secret_value() == "hidden"
    assert (found.orders.goal, found.taxes, found.url) == ("draft", {"19": "VAT 19 %"}, "https://other.example")
