"""One account for each buyer, numbered once, also when two workers meet a buyer at the same moment."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from sink.database import Connection, connect, transaction
from sink.documents.models import Customer
from sink.ledger.accounts import account_key, account_numbers, normalised


def _buyer(key: str, kind: str = "guest", email: str | None = None) -> Customer:
    return Customer.model_validate({"key": key, "kind": kind, "name": "Ann", "email": email})


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (_buyer("1", email="Ann@Example.org "), _buyer("2", email="ann@example.org"), True),
        (_buyer("1", email="ann@example.org"), _buyer("2", email="a.nn@example.org"), False),
        (_buyer("1", email="ann+x@example.org"), _buyer("2", email="ann@example.org"), False),
        (_buyer("1"), _buyer("2"), False),
        (_buyer("1", email="  "), _buyer("2", email=""), False),
        (_buyer("1", "registered", "a@b.org"), _buyer("2", "registered", "a@b.org"), False),
        (_buyer("1", "registered", "a@b.org"), _buyer("1", "registered", "new@b.org"), True),
        (_buyer("1", "registered", "a@b.org"), _buyer("2", "guest", "a@b.org"), False),
    ],
)
def test_who_shares_an_account(one: Customer, other: Customer, same: bool) -> None:
    assert (account_key("shop", one) == account_key("shop", other)) is same
    assert account_key("shop", one) != account_key("shop2", one)


def test_a_mailbox_is_compared_without_case_and_blanks() -> None:
    assert normalised(" STRASSE@Example.ORG\n") == "strasse@example.org"


def _number(connection: Connection, account: str) -> str:
    with transaction(connection) as cursor:
        return account_numbers(cursor, [account])[account]


def test_a_number_is_given_once_and_for_ever(middle: Connection) -> None:
    first, second = _number(middle, "shop/1"), _number(middle, "shop/2")
    assert first == "shop-100001"
    assert second != first
    assert (_number(middle, "shop/1"), _number(middle, "shop/2")) == (first, second)


def test_workers_that_meet_a_buyer_at_once_give_one_number(middle: Connection, database: str) -> None:
    connections = [connect(database, "ordertap_shop") for _ in range(4)]
    barrier = Barrier(4)

    def meet(connection: Connection, buyer: int) -> str:
        barrier.wait()
        return _number(connection, f"shop/guest/{buyer}@example.org")

    with ThreadPoolExecutor(4) as pool:
        found = [set(pool.map(meet, connections, [buyer] * 4)) for buyer in range(5)]
    for connection in connections:
        connection.close()
    assert [len(numbers) for numbers in found] == [1] * 5
    assert len(set.union(*found)) == 5
