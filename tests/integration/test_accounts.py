"""One account per customer's key, numbered once, even if e-mail and kind change."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from sink.ledger.accounts import account_numbers, begin_at
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import CUSTOMER, ORDER, PROFILE, change, drain, held, make_worker, mark, pass_deadlines, rows, run

OTHER, ITS_ORDER = DocumentRef("customer", "8"), DocumentRef("sales_order", "2")
Look = Callable[..., list[tuple[str, str, str]]]


def _number(connection: Connection, customer: str) -> str:
    with transaction(connection) as cursor:
        return account_numbers(cursor, "shop", "shop-", [customer])[customer]


def test_a_number_is_given_once_and_for_ever(middle: Connection) -> None:
    first, second = _number(middle, "1"), _number(middle, "2")
    assert first == "shop-100001"
    assert second != first
    assert (_number(middle, "1"), _number(middle, "2")) == (first, second)


def test_workers_that_meet_a_buyer_at_once_give_one_number(middle: Connection, database: str) -> None:
    connections = [connect(database, "ordertap_shop") for _ in range(4)]
    barrier = Barrier(4)

    def meet(connection: Connection, buyer: int) -> str:
        barrier.wait()
        return _number(connection, f"{buyer}")

    with ThreadPoolExecutor(4) as pool:
        found = [set(pool.map(meet, connections, [buyer] * 4)) for buyer in range(5)]
    for connection in connections:
        connection.close()
    assert [len(numbers) for numbers in found] == [1] * 5
    assert len(set.union(*found)) == 5


def test_numbers_are_counted_from_the_first_one_on_and_never_back(middle: Connection) -> None:
    for first, prefix, expected in (
        (70_000, "", "70000"), (70_000, "", "70001"), (500, "", "70002"), (80_000, "K", "K80000"),
    ):  # fmt: skip
        with transaction(middle) as cursor:
            begin_at(cursor, first)
            assert account_numbers(cursor, "shop", prefix, [expected]) == {expected: expected}
    assert _number(middle, "70000") == "70000", "what was given stays"


def test_a_number_that_is_another_account_in_the_erp_is_passed_over(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """A second shop has the same range, or a clerk has typed one in."""
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('7001', 'Bob'), ('7002', 'Cid')")
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, account_prefix="", account_from=7001)
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    mark(middle)
    drain(worker)
    assert held(middle)[0].startswith("the ERP refused it: customers_account_number")
    pass_deadlines(middle)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT account_number, name FROM customers ORDER BY 1") == [
        ("7001", "Bob"), ("7002", "Cid"), ("7003", "Ann"),
    ]  # fmt: skip
    assert run(erp_url, "SELECT account_number FROM orders") == [("7003",)]


@pytest.mark.parametrize("marked", [[ORDER, CUSTOMER], [ORDER]], ids=["with the buyer", "alone"])
def test_an_order_cancelled_before_the_erp_got_it_brings_no_account(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, marked: list[DocumentRef]
) -> None:
    """The order is paid and cancelled within a moment. If the shop opens it again, both come."""
    worker = make_worker(middle, erp, profile_path)
    mark(middle, CUSTOMER)
    drain(worker)
    change(middle, "UPDATE orders SET status = 'cancelled'")
    mark(middle, *marked)
    drain(worker)
    there = "SELECT (SELECT count(*)::int FROM customers), (SELECT count(*)::int FROM orders)"
    assert run(erp_url, there) == [(0, 0)]
    assert rows(middle, "SELECT type, state, needed FROM document ORDER BY type") == [
        ("customer", "done", False), ("sales_order", "done", False),
    ]  # fmt: skip
    assert rows(middle, "SELECT * FROM account") == []
    change(middle, "UPDATE orders SET status = 'open'")
    mark(middle, *marked)
    drain(worker)
    assert run(erp_url, there) == [(1, 1)]


@pytest.fixture
def worker(middle: Connection, erp: SqlErp, profile_path: str) -> Worker:
    """The worker of a shop that makes a customer row for each checkout. Guests 7 and 8 share a mailbox, and each has an
    order."""
    change(
        middle,
        "CREATE TABLE customers (id text, kind text, email text);"
        " INSERT INTO customers VALUES ('7', 'guest', 'Ann@example.org'), ('8', 'guest', 'ann@example.org');"
        " INSERT INTO orders SELECT 2, 'S-2', '8', placed_at, status, sku, quantity, gross FROM orders",
    )
    profile = PROFILE["profile.yaml"].replace("tables: [", "tables: [public.customers, ")
    Path(profile_path, "profile.yaml").write_text(
        profile.replace(
            "key: orders.customer, touched_by: {orders: customer}", "key: customers.id, touched_by: {customers: id}"
        )
    )
    Path(profile_path, "customer.sql").write_text(
        "SELECT id AS key, kind, 'Ann' AS name, email FROM customers WHERE id = ANY (%(keys)s)"
    )
    return make_worker(middle, erp, profile_path)


@pytest.fixture
def look(worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Look:
    """Lets the sink look at documents, then checks that everything is done and agrees. Returns number, e-mail and kind
    of the ERP's accounts, in the order of the buyers."""

    def looked(*refs: DocumentRef) -> list[tuple[str, str, str]]:
        mark(middle, *refs)
        drain(worker)
        with transaction(middle) as cursor:
            cursor.execute("SELECT DISTINCT state, reason FROM document")
            assert cursor.fetchall() == [("done", None)]
        assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees
        booked = "SELECT o.shop_number, c.external_key FROM orders o JOIN customers c USING (account_number) ORDER BY 1"
        assert run(erp_url, booked) == [("S-1", "shop/customer/7/1"), ("S-2", "shop/customer/8/1")]
        return run(erp_url, "SELECT account_number, email, kind FROM customers ORDER BY external_key")

    return looked


BOTH = [("shop-100001", "Ann@example.org", "guest"), ("shop-100002", "ann@example.org", "guest")]


def test_f9_two_guests_with_one_mailbox_have_an_account_each(look: Look) -> None:
    assert look(ORDER, CUSTOMER, ITS_ORDER, OTHER) == BOTH


def test_f9_an_account_keeps_its_number_when_the_guest_corrects_the_e_mail_and_registers(
    look: Look, middle: Connection
) -> None:
    """The guest's order is in the ERP and names the account. In the end the e-mail is another guest's."""
    change(middle, "UPDATE customers SET email = 'bob@example.org' WHERE id = '8'")
    bob = ("shop-100002", "bob@example.org", "guest")
    assert look(ORDER, CUSTOMER, ITS_ORDER, OTHER) == [BOTH[0], bob]
    change(middle, "UPDATE customers SET email = 'anne@example.org' WHERE id = '7'")
    assert look(CUSTOMER) == [("shop-100001", "anne@example.org", "guest"), bob]
    change(middle, "UPDATE customers SET kind = 'registered' WHERE id = '7'")
    assert look(CUSTOMER) == [("shop-100001", "anne@example.org", "registered"), bob]
    change(middle, "UPDATE customers SET kind = 'guest', email = 'bob@example.org' WHERE id = '7'")
    assert look(CUSTOMER) == [("shop-100001", "bob@example.org", "guest"), bob]


def test_a_number_that_a_release_before_gave_stays(look: Look, middle: Connection, erp_url: str) -> None:
    """That release numbered guests by their mailbox, so the ERP has an account under a number that the key was never
    given."""
    look(ORDER, CUSTOMER, ITS_ORDER, OTHER)
    run(erp_url, "ALTER TABLE orders DROP CONSTRAINT orders_account_number_fkey;"
                 " UPDATE customers SET account_number = '9' WHERE account_number = 'shop-100001';"
                 " UPDATE orders SET account_number = '9' WHERE account_number = 'shop-100001'")  # fmt: skip
    with transaction(middle) as cursor:
        cursor.execute("DELETE FROM account WHERE customer = 'shop/7'")
        cursor.execute("UPDATE document SET applied = jsonb_set(applied, '{fields,number}', '\"9\"')"
                       " WHERE type = 'customer' AND key = '7'")  # fmt: skip
    change(middle, "UPDATE customers SET email = 'anne@example.org' WHERE id = '7'")
    assert look(CUSTOMER) == [("9", "anne@example.org", "guest"), BOTH[1]]
