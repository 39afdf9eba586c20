"""An order that is another one by number, date or buyer goes on only by a person's word."""

from typing import Any

import pytest
from psycopg2 import sql

from schemas.errors import SettingsError
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import accept
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.ledger import marks
from sink.planning.policy import Policy
from tests.fix_erp import ORDER, change, drain, held, make_worker, mark, run


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_an_order_that_moved_to_another_buyer_is_accepted_by_a_name(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    with pytest.raises(SettingsError, match="sales_order 1 is not held for its number"):
        list(accept.document(middle, *ORDER, "Ada", execute=True))
    _now_bought_by(middle, "8")
    drain(worker)
    account = "SELECT account_number FROM orders"
    step = "SELECT next_step FROM ordertap_shop.document WHERE state = 'held'"
    assert rows(middle, step)[0][0].endswith("`sink accept document sales_order 1`")
    assert list(accept.document(middle, *ORDER, "Ada", execute=False))[-1].startswith("nothing was changed")
    drain(worker)
    assert run(erp_url, account) == [("shop-100001",)]
    assert len(list(accept.document(middle, *ORDER, "Ada", execute=True))) == 1
    drain(worker)
    assert run(erp_url, account) == [("shop-100002",)]
    history = "SELECT type, key, detail FROM ordertap_shop.history WHERE event = 'document accepted'"
    assert rows(middle, history) == [(*ORDER, "Ada")]
    _now_bought_by(middle, "7")
    drain(worker)
    assert len(held(middle)) == 1, "it is known by its new buyer now"


def _now_bought_by(middle: Connection, buyer: str) -> None:
    change(middle, f"UPDATE orders SET customer = '{buyer}'")
    mark(middle, ORDER)
    with transaction(middle) as cursor:
        marks.mark(
            cursor,
            sql.SQL("SELECT 'customer' AS type, {key} AS key, 'customer:' || {key} AS unit").format(
                key=sql.Literal(buyer)
            ),
        )


def test_an_accepted_order_of_which_the_erp_needs_nothing_is_known_by_what_it_is_now(
    middle: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    """All buyers are one account: that it has another buyer is nothing to the ERP."""
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('10000', 'Web shop')")
    rules = Rules(
        "shop", Policy("shop"), apply=True, settle_seconds=0, customers="collective", collective_account="10000"
    )
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    mark(middle, ORDER)
    drain(worker)
    for buyer, execute in (("8", True), ("7", False)):
        _now_bought_by(middle, buyer)
        drain(worker)
        assert len(held(middle)) == 1
        list(accept.document(middle, *ORDER, "Ada", execute=execute))
        drain(worker)
        assert len(held(middle)) == (0 if execute else 1)
