"""Each ERP that can be set has an adapter, and a running sink keeps the profile it started with."""

from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import SecretStr

from schemas.model.errors import SettingsError
from sink import wiring
from sink.erp.tryton.settings import TrytonSettings
from sink.operations.check import check
from sink.settings import ErpSettings, SinkSettings, SqlErpSettings
from tests.unit.sink.erp.tryton.test_rpc import Server

ROOT = Path(__file__).parents[3]
PROFILE = """
tables: {public.orders: {id: bigint}}
documents: {sales_order: {model: SalesOrder, key: orders.id, touched_by: {orders: id}}}
"""


def test_each_kind_of_erp_has_its_adapter() -> None:
    union, _ = get_args(ErpSettings)
    kinds = [get_args(model.model_fields["kind"].annotation) for model in get_args(union)]
    assert [(kind,) for kind in wiring.ADAPTERS] == kinds
    assert wiring.SETUPS.keys() < wiring.ADAPTERS.keys()


@pytest.fixture
def settings(tmp_path: Path) -> SinkSettings:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    (tmp_path / "sales_order.sql").write_text("SELECT id AS key FROM orders WHERE id = ANY (%(keys)s::bigint[])")
    mapping = str(ROOT / "deploy/erp/mapping.yaml")
    return SinkSettings(
        shop="shop",
        topic_prefix="shop",
        profile=f"{tmp_path}/",
        bootstrap_servers="127.0.0.1:1",
        schema_registry_url=f"file://{tmp_path}/registry",
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        prices_owner="erp",
        erp=SqlErpSettings(kind="sql", url=SecretStr("sqlite://"), mapping=mapping),
    )


def test_an_erp_that_does_not_answer_is_asked_once(settings: SinkSettings) -> None:
    """Tryton needs half a minute to say that it has no such database. `sink check` has two looks at the ERP."""
    with closing(Server()) as server:
        server.script["common.db.login"] = [(404, None)] * 2
        tryton = TrytonSettings.model_validate(
            {
                "kind": "tryton", "url": server.url, "database": "nowhere", "user": "ordertap", "password": "secret",
                "web_shop": "Web", "payment_term": "Direct",
            }
        )  # fmt: skip
        looks = wiring.looks(settings.model_copy(update={"erp": tryton}))
        (found,) = check({part: looks[part] for part in ("ERP", "ERP's master data")})
    assert found.error is not None
    assert found.error.message == "Tryton does not answer there, or has no such database"
    assert [method for method, _ in server.calls] == ["common.db.login"]


def test_a_consumer_that_is_made_again_reads_what_the_stager_knows(settings: SinkSettings) -> None:
    """A profile that is written to while the sink runs counts from its next start on."""
    parts = wiring.parts(settings)
    Path(settings.profile, "profile.yaml").write_text("tables: [half a line")
    with pytest.raises(SettingsError):
        wiring.topics(settings)
    parts.consumer(lambda _: pytest.fail("nothing is assigned")).__exit__()


def test_processes_of_one_host_name_and_number_are_two_owners(
    settings: SinkSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two containers, each with process 1: with one owner, each would take the other's leases for its own."""
    monkeypatch.setattr(wiring, "Worker", lambda *args: args[-1])
    nothing: Any = None
    one, other = wiring.parts(settings), wiring.parts(settings)
    owners = [str(parts.worker(nothing, number)) for parts in (one, other) for number in (0, 1)]
    assert len({*owners}) == 4
    assert owners[0] == str(one.worker(nothing, 0))  # a worker that is made again
