"""What nobody but a person can say of a held document: that it is the one that it was, or that it is settled."""

from typing import Any

import pytest
from psycopg2 import sql

from schemas.errors import SettingsError
from sink.apply.desired import ANOTHER_IDENTITY
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import accept
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.ledger import marks
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import ORDER, REFUND, RETURN, change, drain, held, make_worker, mark, run


def rows(connection: Connection, query: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query)
        return cursor.fetchall()


def test_f9_an_order_that_moved_to_another_buyer_is_accepted_by_a_name(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    with pytest.raises(SettingsError, match="sales_order 1 is not held for a decision"):
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
    assert rows(middle, history) == [(*ORDER, f"{ANOTHER_IDENTITY}; Ada")]
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


STATE = "SELECT state FROM ordertap_shop.document WHERE type = 'sales_order'"


def _held_as_invoiced(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Worker:
    """The shop has changed an order that the ERP does not change any more; a clerk credits the difference there."""
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)
    drain(worker)
    assert len(held(middle)) == 1
    return worker


def test_what_a_person_has_settled_in_another_way_rests_until_the_shop_changes_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = _held_as_invoiced(middle, erp, erp_url, profile_path)
    told = list(accept.document(middle, *ORDER, "Ada", execute=False))
    assert told[0] == "sales_order 1 would be taken for settled as the ERP has it, until the shop changes it again"
    assert rows(middle, STATE) == [("held",)]
    list(accept.document(middle, *ORDER, "Ada", execute=True))
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN, REFUND)  # its unit is looked at
    drain(worker)
    assert rows(middle, STATE) == [("ignored",)]
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, (SELECT count(*)::int FROM refunds) FROM orders") == [("11.90", 1)]
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    assert [(one.key, one.result) for one in report.findings] == [("1", "ignored")]
    change(middle, "UPDATE orders SET gross = 8.90")
    mark(middle, ORDER)
    drain(worker)
    assert len(held(middle)) == 1, "of that nobody has said anything"


def test_a_change_that_came_since_it_was_held_is_not_settled_with_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = _held_as_invoiced(middle, erp, erp_url, profile_path)
    mark(middle, ORDER)
    list(accept.document(middle, *ORDER, "Ada", execute=True))
    drain(worker)
    assert len(held(middle)) == 1


def test_what_is_held_for_its_data_or_while_a_step_is_under_way_is_not_settled_by_a_word(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    _held_as_invoiced(middle, erp, erp_url, profile_path)
    for column, reason in (("intent = '{}'", "a step of sales_order 1"), ("cause = 'data'", "is not held for a")):
        with transaction(middle) as cursor:
            cursor.execute(f"UPDATE ordertap_shop.document SET {column} WHERE type = 'sales_order'")
        with pytest.raises(SettingsError, match=reason):
            list(accept.document(middle, *ORDER, "Ada", execute=True))
        assert rows(middle, STATE) == [("held",)]
