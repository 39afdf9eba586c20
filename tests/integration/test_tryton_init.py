"""`sink init` on a newly installed Tryton: from there to the first order."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from schemas.process.settings import load
from sink import wiring
from sink.apply.worker import Worker
from sink.database import Connection
from sink.documents.profile import load_profile
from sink.operations.check import check
from sink.operations.sells import sells
from sink.settings import SinkSettings
from tests.fix_erp import CUSTOMER, ORDER, PRICE, change, drain, held, mark, sql_erp, write_sink_settings
from tests.programs import run

COUNTED = (
    "web_shop", "party_party", "account_tax", "product_template", "product_category", "product_price_list",
    "account_invoice_payment_term",
)  # fmt: skip
# SHIPPING, PAYMENT, CHARGE, DISCOUNT, REFUND, CENT per rate; web shop, payment term, price list, type of tax number.
LACKING = 6 * len(provision.RATES) + 4


@pytest.fixture
def config(bare_tryton: Tryton, middle: Connection, database: str, profile_path: str, tmp_path: Path) -> Path:
    """Settings of a sink whose shop has an order for A, and prices for A and ZZ on the list `retail`."""
    change(middle, "INSERT INTO prices VALUES ('A', 10), ('ZZ', 5), ('OLD', 0)")
    mark(middle, ORDER, CUSTOMER, PRICE, PRICE._replace(key="ZZ"), PRICE._replace(key="OLD"))
    (tmp_path / "admin").write_text(provision.ADMIN_PASSWORD)
    erp = bare_tryton.settings() | {"orders": {"goal": "processing"}}
    return write_sink_settings(tmp_path, profile_path, database, erp, mode="apply", settle_seconds=0)


def counts(tryton: Tryton) -> dict[str, int]:
    """How many there are of everything that `init` may make."""
    with closing(psycopg2.connect(tryton.postgres.dsn(tryton.database))) as connection:
        cursor = connection.cursor()
        found = {}
        for table in COUNTED:
            cursor.execute(f"SELECT count(*) FROM {table}")
            ((found[table],),) = cursor.fetchall()
        return found


def says(config: Path, *words: str, code: int = 0) -> Any:
    """The JSON answer of `sink init`."""
    ended = run("sink", "init", *words, "--json", config=config)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def advice(config: Path) -> dict[str, list[str]]:
    """What `sink check` says about the ERP, by part. Errors begin with BAD."""
    settings = load("sink", SinkSettings, config, {})
    looks = {name: look for name, look in wiring.looks(settings).items() if "ERP" in name}
    return {
        found.part: [f"BAD {found.error.message}"] if found.error else [one.message for one in found.advice]
        for found in check(looks)
    }


def test_from_an_installed_tryton_to_the_first_order(
    config: Path, bare_tryton: Tryton, middle: Connection, tmp_path: Path
) -> None:
    screen = Screen(bare_tryton.url, bare_tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)
    screen("party.configuration", "write", [1], {"identifier_types": ["ch_vat"]})
    before, admin = counts(bare_tryton), ("--user", provision.ADMIN, "--password-file", str(tmp_path / "admin"))
    found = advice(config)
    assert found["ERP"] == ["BAD Tryton has no web shop 'Web'"]
    assert found["ERP's master data"][0] == "the ERP has no item for 1 of what the shop sells: ZZ"
    assert "Tryton has no price list 'retail': its prices are held" in found["ERP's master data"]

    dry = says(config)
    assert (dry["executed"], len(dry["to_make"]), dry["by_hand"], dry["made"]) == (False, LACKING, [], [])
    assert counts(bare_tryton) == before, "a dry run"

    partly = says(config, "--execute", code=1)
    refused = {message: one["hint"] for message, one in partly["refused"].items()}
    assert "Tryton has no payment term 'Direct'" in refused, "the sink's user has no right to make one"
    assert all("--user" in hint for hint in refused.values())
    assert len(partly["made"]) + len(refused) == LACKING, "what is refused stops that one alone"
    assert "Tryton has no web shop 'Web'" in partly["made"]

    rest = says(config, *admin, "--execute")
    assert (len(rest["made"]), rest["refused"]) == (len(refused), {})
    after = counts(bare_tryton)
    again = says(config, *admin, "--execute")
    assert (again["to_make"], again["made"], again["by_hand"]) == ([], [], [])
    assert counts(bare_tryton) == after, "it is made once"
    assert sorted(screen.row("party.configuration", 1, "identifier_types")["identifier_types"]) == ["ch_vat", "eu_vat"]
    rates = len(provision.RATES)
    assert {table: after[table] - before[table] for table in COUNTED} == {
        "web_shop": 1, "party_party": 1, "account_tax": rates, "product_template": 6 * rates,
        "product_category": 2 * rates, "product_price_list": 1, "account_invoice_payment_term": 1,
    }  # fmt: skip

    unknown = "the ERP has no item for 1 of what the shop sells: ZZ"
    (listed,) = screen.rows("product.price_list", [["name", "=", "retail"]])
    screen("product.price_list", "write", [listed["id"]], {"tax_included": False})
    wrong = "the prices of Tryton's price list 'retail' are without taxes, the shop's with: they are held"
    assert advice(config)["ERP's master data"] == [unknown, wrong]
    screen("product.price_list", "write", [listed["id"]], {"tax_included": True})
    assert advice(config) == {"ERP": [], "ERP's master data": [unknown]}
    settings = load("sink", SinkSettings, config, {})
    with closing(wiring.erp(settings)) as erp:
        drain(Worker(middle, wiring.profile(settings), erp, wiring.rules(settings), "w1"))
        (order,) = erp.find("order", {"number": "S-1"})
        assert order.observed.state == "processing"
        (price,) = erp.find("price", {"price_list": "retail"})
        assert price.observed.record.fields["sku"] == "A"
    assert held(middle) == ["the ERP has no item ZZ"]


def test_what_the_shop_sells_in_parts_is_known(middle: Connection, profile_path: str) -> None:
    change(
        middle,
        "INSERT INTO orders SELECT n, 'S-' || n, '7', now(), 'open', sku, quantity, 9"
        " FROM (VALUES (2, 'A', 1.50), (3, 'B', 4.00)) AS new (n, sku, quantity)",
    )
    mark(middle, ORDER, *(ORDER._replace(key=key) for key in ("2", "3")))
    found = sells(middle, load_profile(profile_path), "shop")
    assert (found.skus, found.decimals) == ({"A", "B"}, {"A": 1})


def test_in_an_erp_of_tables_nothing_is_made(
    middle: Connection, erp_url: str, database: str, profile_path: str, tmp_path: Path
) -> None:
    change(middle, "INSERT INTO prices SELECT 'Z' || n, 1 FROM generate_series(10, 31) AS n")
    mark(middle, *(PRICE._replace(key=f"Z{n}") for n in range(10, 32)))
    config = write_sink_settings(tmp_path, profile_path, database, sql_erp(erp_url))
    ended = run("sink", "init", "--execute", config=config)
    assert (ended.returncode, ended.stdout.startswith("nothing is made in an ERP of this kind")) == (0, True)
    named = ", ".join(f"Z{n}" for n in range(10, 30))
    assert advice(config)["ERP's master data"] == [
        f"the ERP has no item for 22 of what the shop sells: {named} and 2 more"
    ]
