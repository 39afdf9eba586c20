"""Several customers on one account of the ERP, by a person's decision."""

from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.model.errors import SettingsError
from sink.apply.worker import Worker
from sink.commands import accept
from sink.commands import show as show_lines
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import moves
from sink.operations.accept_account import AcceptedAccount, accept_account, undo_account
from sink.operations.show import show
from sink.reconcile.sides import reconcile
from tests.fix_erp import CUSTOMER, ORDER, ROOT, change, drain, held, make_worker, mark, rows, run

OTHER, ITS_ORDER = DocumentRef("customer", "8"), DocumentRef("sales_order", "2")
ACCOUNTS = "SELECT account_number, name, external_key FROM customers ORDER BY 1"
BOOKED = "SELECT shop_number, account_number FROM orders ORDER BY 1"
BY_HAND = ("7001", "Works", None)
Accept = Callable[..., AcceptedAccount]


@pytest.fixture
def worker(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Worker:
    """Customers 7 and 8 have an order each; the ERP has an account that was typed in."""
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('7001', 'Works')")
    change(middle, "INSERT INTO orders SELECT 2, 'S-2', '8', placed_at, status, sku, quantity, gross FROM orders")
    return make_worker(middle, erp, profile_path)


@pytest.fixture
def bind(middle: Connection, erp_url: str, profile_path: str) -> Accept:
    """Lets a person say which account a customer has."""

    def opened() -> SqlErp:
        return SqlErp(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))

    def said(ref: DocumentRef, number: str = "7001", execute: bool = True) -> AcceptedAccount:
        return accept_account(middle, load_profile(profile_path), opened, ref, number, "Ada", execute)

    return said


def _agrees(middle: Connection, erp: SqlErp, profile_path: str) -> bool:
    return reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_two_customers_share_an_account_that_stays_as_it_is(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, bind: Accept
) -> None:
    mark(middle, ORDER, CUSTOMER, ITS_ORDER, OTHER)
    would = bind(CUSTOMER, execute=False)
    assert [*accept.account(CUSTOMER, would, execute=False)][-1].startswith("nothing was changed")
    assert rows(middle, "SELECT account FROM document WHERE account IS NOT NULL") == []
    bind(CUSTOMER)
    found = bind(OTHER)
    assert found.customers == (CUSTOMER,)
    assert any("as those of customer 7" in line for line in accept.account(OTHER, found, execute=True))
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, ACCOUNTS) == [BY_HAND]
    assert run(erp_url, BOOKED) == [("S-1", "7001"), ("S-2", "7001")]
    assert rows(middle, "SELECT DISTINCT state FROM document") == [("done",)]
    assert _agrees(middle, erp, profile_path)
    assert rows(middle, "SELECT key, person, detail FROM history WHERE event = 'account accepted' ORDER BY key") == [
        ("7", "Ada", "7001"), ("8", "Ada", "7001"),
    ]  # fmt: skip
    mark(middle, CUSTOMER)
    drain(worker)
    assert run(erp_url, ACCOUNTS) == [BY_HAND]


def test_an_account_that_was_accepted_by_mistake_is_given_back(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, bind: Accept
) -> None:
    mark(middle, ORDER, CUSTOMER, ITS_ORDER, OTHER)
    with pytest.raises(SettingsError, match="customer 7 shares no account"):
        undo_account(middle, CUSTOMER, "Ada", execute=False)
    bind(CUSTOMER)
    bind(OTHER)
    drain(worker)
    would = undo_account(middle, CUSTOMER, "Ada", execute=False)
    said = list(accept.account_undone(CUSTOMER, would, execute=False))
    assert "    customer 8 keeps it" in said
    assert said[-1].startswith("nothing was changed")
    assert rows(middle, "SELECT count(*) FROM document WHERE account IS NOT NULL") == [(2,)]
    undo_account(middle, CUSTOMER, "Ada", execute=True)
    mark(middle, ORDER)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, BOOKED) == [("S-1", "shop-100001"), ("S-2", "7001")]
    assert _agrees(middle, erp, profile_path)
    assert ("account accept undone", "Ada") in rows(middle, "SELECT event, person FROM history WHERE key = '7'")


def test_a_customer_who_is_held_goes_on_with_another_ones_account(
    worker: Worker, middle: Connection, erp_url: str, profile_path: str, bind: Accept
) -> None:
    """The ERP refuses the customer, and the order waits. Then it is booked to another customer's account."""
    mark(middle)
    drain(worker)
    run(erp_url, "ALTER TABLE customers ADD CHECK (external_key IS NULL OR external_key = 'shop/customer/7/1')")
    mark(middle, ITS_ORDER, OTHER)
    drain(worker)
    assert len(held(middle)) == 2
    bind(OTHER, "shop-100001")
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, BOOKED) == [("S-1", "shop-100001"), ("S-2", "shop-100001")]


def test_what_cannot_be_is_refused_with_a_next_step(worker: Worker, middle: Connection, bind: Accept) -> None:
    mark(middle)
    with pytest.raises(SettingsError, match="no accounts 7009"):
        bind(CUSTOMER, "7009")
    with pytest.raises(SettingsError, match="sales_order 1 is not a customer"):
        bind(ORDER)
    with pytest.raises(SettingsError, match="there is no document customer 8"):
        bind(OTHER)
    drain(worker)
    with pytest.raises(SettingsError, match="has an account of its own in the ERP, shop-100001"):
        bind(CUSTOMER)


def test_a_customer_whose_key_changes_keeps_the_account_and_one_who_is_deleted_too(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, bind: Accept
) -> None:
    mark(middle)
    bind(CUSTOMER)
    drain(worker)
    change(middle, "UPDATE orders SET customer = '9' WHERE customer = '7'")
    with transaction(middle) as cursor:
        moves.note(cursor, {DocumentRef("customer", "9"): "7"})
    mark(middle, ORDER, DocumentRef("customer", "9"), CUSTOMER)
    drain(worker)
    assert held(middle) == []
    bound = "SELECT key, state, account LIKE 'hand:%' FROM document WHERE type = 'customer' ORDER BY 1"
    assert rows(middle, bound) == [("7", "gone", None), ("9", "done", True)]
    change(middle, "UPDATE orders SET gross = 23.80, quantity = 4")
    change(middle, "DELETE FROM orders WHERE id = 2")
    Path(profile_path, "customer.sql").write_text(
        "SELECT '' AS key, 'guest' AS kind, '' AS name WHERE false AND %(keys)s IS NULL"
    )
    mark(middle, ORDER, DocumentRef("customer", "9"))
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT account_number, gross::text FROM orders") == [("7001", "23.80")]


def test_show_says_which_account_it_is_and_compares_nothing_of_it(
    worker: Worker, middle: Connection, erp_url: str, profile_path: str, bind: Accept
) -> None:
    mark(middle)
    bind(CUSTOMER)
    drain(worker)
    unit = show(
        middle,
        load_profile(profile_path),
        "shop",
        lambda: SqlErp(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml")),
        ["S-1"],
    )
    lines = [*show_lines.lines(unit)]
    assert any(line.startswith("  in the ERP: 7001") for line in lines)
    assert "  the account is shared: it is neither compared nor changed" in lines
    assert "  differs:" not in lines
