"""Two middle layers, or two companies, on one Tryton: each sees its own documents, and those that people typed in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any, Final

import pytest

from deploy.tryton import provision
from deploy.tryton.screen import Screen
from deploy.tryton.server import Tryton
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, names_of, transaction
from sink.documents.profile import load_profile
from sink.erp.contract import Erp
from sink.erp.kinds import BY_HAND, ErpRef, Kind, Milestone
from sink.layer import migrate
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from sink.staging import snapshots
from tests.erp_contract.records import REF, SALE, Sink, changed, create, refused, step
from tests.erp_contract.tryton_target import TrytonTarget
from tests.fix_erp import CUSTOMER, ORDER, TABLES, change, drain, held, mark, stand_at

SALES: Final[tuple[Kind, ...]] = ("order", "return", "refund")


@pytest.fixture
def admin(tryton: Tryton) -> Screen:
    return Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)


@pytest.fixture
def second(database: str, middle: Connection) -> Iterator[Connection]:
    """Another shop's middle layer, with the same rows."""
    with closing(connect(database, "ordertap_second")) as connection:
        migrate(connection, "second")
        with transaction(connection) as cursor:
            cursor.execute("CREATE SCHEMA second")
            with names_of(cursor, "second"):
                cursor.execute(TABLES)
            snapshots.accept(cursor, "the test")
            stand_at(cursor, 1_000)
        yield connection


def _second_web_shop(admin: Screen, name: str) -> None:
    (shop,) = admin.rows("web.shop", [["name", "=", provision.SHOP]], "guest_party", "warehouses")
    values = {"name": name, "guest_party": shop["guest_party"], "warehouses": [["add", shop["warehouses"]]]}
    admin("web.shop", "create", [values])


def _worker(middle: Connection, shop: str, profile_path: str, erp: Erp) -> Worker:
    rules = Rules(shop, Policy("shop"), apply=True, settle_seconds=0, account_prefix=f"{shop}-")
    return Worker(middle, load_profile(profile_path), erp, rules, shop)


def _orders(erp: Erp) -> list[str]:
    """Keys of all sales, page by page: a page has one kind."""
    found: list[str] = []
    after: str | None = ""
    while after is not None:
        page = erp.keys(SALES, after, 100)
        found, after = found + [ref.external for ref in page.refs], page.next
    return sorted(found)


def test_two_middle_layers_each_have_their_own(
    tryton_place: TrytonTarget, admin: Screen, middle: Connection, second: Connection, profile_path: str
) -> None:
    """Both shops have the same numbers. Web shops tell the orders apart, and the prefix the buyers."""
    _second_web_shop(admin, "Second")
    erps = {"shop": tryton_place.adapter(), "second": tryton_place.adapter(web_shop="Second")}
    layers = {"shop": middle, "second": second}
    for shop, layer in layers.items():
        mark(layer, ORDER, CUSTOMER)
        drain(_worker(layer, shop, profile_path, erps[shop]))
        assert held(layer) == []
    change(middle, "UPDATE orders SET status = 'cancelled'")
    mark(middle, ORDER)
    drain(_worker(middle, "shop", profile_path, erps["shop"]))
    states = {}
    for shop, erp in erps.items():
        assert _orders(erp) == [f"{shop}/order/1/1"]
        (found,) = erp.find("order", {"number": "S-1"})
        states[found.ref.external] = found.observed.milestone
        report = reconcile(layers[shop], None, shop, load_profile(profile_path), erp, collective=False)
        assert (report.agrees, sum(report.foreign.values())) == (True, 0), report
    assert states == {"shop/order/1/1": Milestone.CANCELLED, "second/order/1/1": Milestone.CONFIRMED}
    buyers = [row["code"] for row in admin.rows("party.party", [["code", "like", "s%-100001"]], "code")]
    assert sorted(buyers) == ["second-100001", "shop-100001"]
    assert erps["shop"].check().identity != erps["second"].check().identity


def test_a_second_layer_that_gives_a_buyers_number_again_is_held_by_name(
    tryton_place: TrytonTarget, admin: Screen
) -> None:
    """The second shop has no prefix of its own."""
    _second_web_shop(admin, "Second")
    first, other = Sink(tryton_place.adapter()), Sink(tryton_place.adapter(web_shop="Second"))
    first.seed("customer", "order")
    again = create(first.see(REF["customer"]).record, ErpRef("customer", "second/customer/1/1"))
    assert refused(other.apply(again)) == ["HoldError"]
    other.done(create(SALE, REF["order"]))
    other.done(step("cancel", REF["order"], changed(SALE, cancelled=True), other.see(REF["order"]), 2))
    assert first.see(REF["order"]).milestone is Milestone.CONFIRMED
    assert (_orders(first.erp), _orders(other.erp)) == ([REF["order"].external],) * 2


def test_what_a_person_typed_in_is_seen_by_both_and_what_another_web_shop_has_by_none(
    tryton_place: TrytonTarget, admin: Screen
) -> None:
    _second_web_shop(admin, "Second")
    first = Sink(tryton_place.adapter())
    first.seed("customer", "order")
    typed_in = tryton_place.clerk.forgets(REF["order"])
    other = Sink(tryton_place.adapter(web_shop="Second"))
    assert (_orders(first.erp), _orders(other.erp)) == ([typed_in.external],) * 2
    assert typed_in.external.startswith(BY_HAND)


@contextmanager
def _second_company(tryton: Tryton, admin: Screen) -> Iterator[Screen]:
    """A second company. Its founder, the administrator, works in it meanwhile; ordertap's user may work in both, and
    sees both."""
    (euro,) = admin.rows("currency.currency", [["code", "=", "EUR"]])
    (party,) = admin("party.party", "create", [{"name": "Second Ltd"}])
    (company,) = admin("company.company", "create", [{"party": party, "currency": euro["id"]}])
    users = {row["login"]: row for row in admin.rows("res.user", [], "login", "company")}
    for login, works_in in ((provision.ADMIN, company), (provision.API, users[provision.API]["company"])):
        values = {"companies": [["add", [company]]], "company": works_in, "company_filter": "all"}
        admin("res.user", "write", [users[login]["id"]], values)
    try:
        yield Screen(tryton.url, tryton.database, provision.ADMIN, provision.ADMIN_PASSWORD)
    finally:
        for rounding in ("document", "line"):  # a change makes Tryton forget the record of the second company
            admin("account.configuration", "write", [1], {"tax_rounding": rounding})
        for login in (provision.ADMIN, provision.API):
            was = {"companies": [["remove", [company]]], "company": users[login]["company"], "company_filter": "one"}
            admin("res.user", "write", [users[login]["id"]], was)


def _with_a_web_shop_and_a_tax(founder: Screen, first: dict[str, Any]) -> None:
    """Makes what orders need to become quotations. Each company rounds its taxes in its own way."""
    founder("account.configuration", "write", [1], {"tax_rounding": "line"})
    (type_,) = founder("account.account.type", "create", [{"name": "Taxes", "statement": "balance"}])
    (account,) = founder("account.account", "create", [{"name": "Taxes", "type": type_}])
    tax = {"name": "VAT 19 %", "description": "VAT 19 %", "type": "percentage", "rate": Decimal("0.19"),
           "invoice_account": account, "credit_note_account": account}  # fmt: skip
    founder("account.tax", "create", [tax])
    values = {"name": "Second", "guest_party": first["guest_party"], "warehouses": [["add", first["warehouses"]]]}
    founder("web.shop", "create", [values])


def test_two_companies_each_have_their_own(tryton_place: TrytonTarget, tryton: Tryton, admin: Screen) -> None:
    """Here ordertap's user sees both companies."""
    (shop,) = admin.rows("web.shop", [["name", "=", provision.SHOP]], "guest_party", "warehouses")
    with _second_company(tryton, admin) as founder:
        _with_a_web_shop_and_a_tax(founder, shop)
        first = Sink(tryton_place.adapter(company="Demo Shop Ltd"))
        other = Sink(tryton_place.adapter(company="Second Ltd", web_shop="Second"))
        first.seed("customer", "order", "return")
        buyer = ErpRef("customer", "second/customer/1/1")
        other.done(create(changed(first.see(REF["customer"]).record, number="second-1"), buyer))
        other.done(create(changed(SALE, account=buyer, number="S-2"), REF["order"]))
        founder("sale.sale", "create", [{"party": shop["guest_party"], "reference": "S-2"}])
        assert _orders(first.erp) == sorted([REF["order"].external, REF["return"].external])
        assert first.erp.find("order", {"number": "S-2"}) == []
        theirs = _orders(other.erp)
        assert (len(theirs), theirs[-1]) == (2, REF["order"].external)
        assert first.see(REF["order"]).record.fields["number"] == "S-1"
        assert other.see(REF["order"]).record.fields["number"] == "S-2"
        assert first.erp.check().identity != other.erp.check().identity
