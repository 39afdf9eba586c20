"""`customers: match`: a customer with an account in the ERP gets no second one, and the account is not changed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import StepResult
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.layer import enter
from sink.ledger.accounts import claim
from sink.operations.accept_account import accept_account
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import CUSTOMER, ORDER, PROFILE, ROOT, change, drain, held, mark, pass_deadlines, rows, run

OTHER, ITS_ORDER = DocumentRef("customer", "8"), DocumentRef("sales_order", "2")
ALL = (ORDER, CUSTOMER, ITS_ORDER, OTHER)
ACCOUNTS = "SELECT account_number, name, external_key FROM customers ORDER BY 1"
BOOKED = "SELECT shop_number, account_number FROM orders ORDER BY 1"
NEW = ("shop-100001", "Ann", "shop/customer/7/1")
TYPED_IN = "INSERT INTO customers (account_number, name, email, tax_id) VALUES {}"
Make = Callable[..., Worker]


@pytest.fixture
def make(middle: Connection, erp: SqlErp, profile_path: str) -> Make:
    """Customers 7 and 8 have an order each. 7 has a verified e-mail; 8 has the same one, not verified."""
    change(
        middle,
        "CREATE TABLE customers (id text, number text, email text, verified boolean, tax_id text);"
        " INSERT INTO customers VALUES ('7', '7001', 'Ann@example.org', true, 'DE7'),"
        "  ('8', null, 'ann@example.org', null, null);"
        " INSERT INTO orders SELECT 2, 'S-2', '8', placed_at, status, sku, quantity, gross FROM orders",
    )
    profile = PROFILE["profile.yaml"].replace("tables: [", "tables: [public.customers, ")
    Path(profile_path, "profile.yaml").write_text(
        profile.replace(
            "key: orders.customer, touched_by: {orders: customer}", "key: customers.id, touched_by: {customers: id}"
        )
    )
    Path(profile_path, "customer.sql").write_text(
        "SELECT id AS key, number, 'registered' AS kind, 'Ann' AS name, email, verified AS email_verified, tax_id"
        " FROM customers WHERE id = ANY (%(keys)s)"
    )

    def made(apply: bool = True, owner: str = "w1", connection: Connection = middle) -> Worker:
        rules = Rules("shop", Policy("shop"), apply=apply, customers="match", settle_seconds=0)
        return Worker(connection, load_profile(profile_path), erp, rules, owner)

    return made


def _all_well(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    assert rows(middle, "SELECT DISTINCT state, reason FROM document") == [("done", None)]
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


@pytest.mark.parametrize(
    ("typed_in", "by"),
    [
        ("('7001', 'Works', null, null), ('7002', 'Cid', 'Ann@example.org', 'DE7')", "7001, by its number"),
        ("('9', 'Works', 'Ann@example.org', null), ('10', 'Cid', null, 'DE7')", "9, by its verified e-mail"),
        ("('9', 'Works', 'ann@example.org', null)", "9, by its verified e-mail"),
        ("('9', 'Works', null, 'DE7')", "9, by its tax id"),
    ],
)
def test_an_account_that_the_erp_has_is_taken_and_stays_as_it_is(
    make: Make, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, typed_in: str, by: str
) -> None:
    run(erp_url, TYPED_IN.format(typed_in))
    before = run(erp_url, "SELECT * FROM customers ORDER BY id")
    change(middle, "DELETE FROM orders WHERE id = 2")
    mark(middle)
    worker = make()
    drain(worker)
    assert run(erp_url, BOOKED) == [("S-1", by.partition(",")[0])]
    assert rows(middle, "SELECT detail FROM history WHERE event = 'account'") == [(by,)]
    change(middle, "UPDATE customers SET email = 'bob@example.org', number = 'x', tax_id = 'DE8' WHERE id = '7'")
    change(middle, "UPDATE orders SET quantity = 3, gross = 17.85 WHERE id = 1")
    mark(middle)
    drain(worker)
    assert run(erp_url, "SELECT account_number, gross::text FROM orders") == [(by.partition(",")[0], "17.85")]
    assert run(erp_url, "SELECT * FROM customers ORDER BY id") == before
    _all_well(middle, erp, profile_path)


def test_who_is_found_nowhere_gets_a_new_account(
    make: Make, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """An e-mail that is not verified finds no account either, whether it is the new customer's or the account's."""
    run(erp_url, TYPED_IN.format("('7002', 'Cid', 'ann@example.org', 'DE1')"))
    mark(middle, ITS_ORDER, OTHER)
    drain(make())
    run(erp_url, "UPDATE customers SET email = 'cid@example.org' WHERE account_number = '7002'")
    mark(middle)
    drain(make())
    assert [row[2] for row in run(erp_url, ACCOUNTS)] == [None, "shop/customer/8/1", "shop/customer/7/1"]
    _all_well(middle, erp, profile_path)


@pytest.mark.parametrize("together", [True, False])
def test_two_new_customers_who_are_one_get_one_account(
    make: Make, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, together: bool
) -> None:
    """Whether they come in one batch, or one after the other."""
    change(middle, "UPDATE customers SET verified = true")
    worker = make()
    for refs in [ALL] if together else [ALL[:2], ALL[2:]]:
        mark(middle, *refs)
        drain(worker)
    assert run(erp_url, ACCOUNTS) == [NEW]
    assert run(erp_url, BOOKED) == [("S-1", NEW[0]), ("S-2", NEW[0])]
    _all_well(middle, erp, profile_path)


def test_two_workers_that_meet_two_new_customers_who_are_one_make_one_account(
    make: Make,
    middle: Connection,
    database: str,
    erp: SqlErp,
    erp_url: str,
    profile_path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second worker looks at its customer while the first one's call for an account is under way."""
    change(middle, "UPDATE customers SET verified = true")
    connection, apply = connect(database, "ordertap_shop"), erp.apply
    enter(connection, "shop")
    second = make(owner="w2", connection=connection)
    waited: list[str] = []

    def meanwhile(*call: Any) -> Sequence[StepResult]:
        monkeypatch.setattr(erp, "apply", apply)
        mark(middle, ITS_ORDER, OTHER)
        drain(second)
        waited.extend(sorted(held(middle)))
        return apply(*call)

    monkeypatch.setattr(erp, "apply", meanwhile)
    mark(middle)
    drain(make())
    connection.close()
    assert waited == ["waits for customer 7", "waits for customer 8"]
    assert run(erp_url, ACCOUNTS) == [NEW]
    assert run(erp_url, BOOKED) == [("S-1", NEW[0]), ("S-2", NEW[0])]
    _all_well(middle, erp, profile_path)


def test_who_may_be_another_new_customer_waits_until_that_one_has_come_or_comes_no_more(middle: Connection) -> None:
    """Another worker has that customer, and the outcome is open."""
    mark(middle, CUSTOMER, OTHER)

    def claimed(who: DocumentRef, *identities: str) -> dict[DocumentRef, DocumentRef]:
        with transaction(middle) as cursor:
            return claim(cursor, {who: identities})

    assert claimed(CUSTOMER, "mail", "tax") == {}
    assert claimed(CUSTOMER, "mail", "tax") == {}, "their own"
    assert claimed(OTHER, "number", "tax") == {OTHER: CUSTOMER}
    assert claimed(CUSTOMER, "mail", "number") == {}, "who waits has claimed nothing"
    assert claimed(OTHER, "tax") == {}, "an identity that is no longer claimed is free"
    assert claimed(OTHER, "mail") == {OTHER: CUSTOMER}
    rows(middle, "UPDATE document SET applied = '{}' WHERE key = '7' RETURNING key")
    assert claimed(OTHER, "mail") == {}
    assert rows(middle, "SELECT DISTINCT key FROM account_claim") == [("8",)], "no claim stays longer than it is needed"


def test_several_accounts_are_held_until_the_erp_has_one_or_a_person_says_which(
    make: Make, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    change(middle, "UPDATE customers SET number = null, verified = true, tax_id = null")
    run(erp_url, TYPED_IN.format("('9', 'Works', 'ann@example.org', null), ('10', 'Cid', 'ann@example.org', null)"))
    worker = make()
    mark(middle, *ALL)
    drain(worker)
    assert rows(middle, "SELECT key, check_name, reason, cause FROM document WHERE state = 'held'") == [
        ("7", "several accounts", "the ERP has 2 accounts by this verified e-mail: 10, 9", "master data")
    ]
    assert len(held(middle)) == 4, "the other customer waits for this one, and both orders for their buyers"
    step = "SELECT next_step FROM document WHERE state = 'held'"
    assert rows(middle, step)[0][0].startswith("`sink accept account customer 7 NUMBER --person NAME` says which")

    def opened() -> SqlErp:
        return SqlErp(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))

    accept_account(middle, load_profile(profile_path), opened, CUSTOMER, "9", "Ada", execute=True)
    drain(worker)
    assert run(erp_url, BOOKED) == [("S-1", "9")]
    run(erp_url, "UPDATE customers SET email = null WHERE account_number = '9'")
    pass_deadlines(middle)
    drain(worker)
    assert run(erp_url, BOOKED) == [("S-1", "9"), ("S-2", "10")]
    _all_well(middle, erp, profile_path)


def test_a_plan_names_the_account_and_binds_nobody(make: Make, middle: Connection, erp_url: str) -> None:
    run(erp_url, TYPED_IN.format("('7001', 'Works', null, null)"))
    mark(middle)
    drain(make(apply=False))
    assert rows(middle, "SELECT state, reason, account FROM document WHERE type = 'customer'") == [
        ("planned", "would share the account 7001, by its number", None)
    ]
    drain(make())
    assert run(erp_url, BOOKED) == [("S-1", "7001")]
