"""A person says of a held document that it is the one that was sent, or that the ERP has it right."""

import pytest
from psycopg2 import sql

from schemas.model.errors import SettingsError
from sink.apply.desired import ANOTHER_IDENTITY
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import accept
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.ledger import marks
from sink.operations.accept import Accepted, AcceptedDocument, accept_document, undo_accept
from sink.planning.brake import Brake
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import ORDER, REFUND, RETURN, change, drain, held, in_erp, look, mark, rows, run


def accepted(middle: Connection, execute: bool = True) -> AcceptedDocument:
    return accept_document(middle, ORDER, "Ada", execute)


def told(found: AcceptedDocument, execute: bool = True) -> list[str]:
    return list(accept.document(ORDER, found, execute))


def test_f9_an_order_that_moved_to_another_buyer_is_accepted_by_a_name(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    with pytest.raises(SettingsError, match="sales_order 1 is not held"):
        accepted(middle)
    _now_bought_by(middle, "8")
    drain(worker)
    account = "SELECT account_number FROM orders"
    step = "SELECT next_step FROM ordertap_shop.document WHERE state = 'held'"
    assert rows(middle, step)[0][0].endswith("`sink accept document sales_order 1 --person NAME`")
    assert told(accepted(middle, execute=False), execute=False)[-1].startswith("nothing was changed")
    drain(worker)
    assert run(erp_url, account) == [("shop-100001",)]
    assert len(told(accepted(middle))) == 1
    drain(worker)
    assert run(erp_url, account) == [("shop-100002",)]
    history = "SELECT type, key, detail, person FROM ordertap_shop.history WHERE event = 'document accepted'"
    assert rows(middle, history) == [(*ORDER, ANOTHER_IDENTITY, "Ada")]
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
    """All buyers share one account, so another buyer makes no difference to the ERP."""
    run(erp_url, "INSERT INTO customers (account_number, name) VALUES ('10000', 'Web shop')")
    rules = Rules(
        "shop", Policy("shop"), apply=True, settle_seconds=0, customers="collective", collective_account="10000"
    )
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    look(worker, middle, ORDER)
    for buyer, execute in (("8", True), ("7", False)):
        _now_bought_by(middle, buyer)
        drain(worker)
        assert len(held(middle)) == 1
        accepted(middle, execute)
        drain(worker)
        assert len(held(middle)) == (0 if execute else 1)


STATE = "SELECT state FROM ordertap_shop.document WHERE type = 'sales_order'"


def _held_as_invoiced(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> Worker:
    """The shop has changed an order that the ERP can no longer change, and a clerk credits the difference there."""
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    _gross(middle, worker, "9.90")
    assert len(held(middle)) == 1
    return worker


def _gross(middle: Connection, worker: Worker, gross: str) -> None:
    change(middle, f"UPDATE orders SET gross = {gross}")
    look(worker, middle, ORDER)


def _classes(middle: Connection, erp: SqlErp, profile_path: str) -> list[tuple[str, str]]:
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    return [(one.key, one.result) for one in report.findings]


def test_what_a_person_has_settled_in_another_way_rests_until_the_shop_changes_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = _held_as_invoiced(middle, erp, erp_url, profile_path)
    found = accepted(middle, execute=False)
    assert found.taken_for is Accepted.FIELDS
    assert "    gross: the shop has 9.90, the ERP has 11.90" in told(found)
    assert rows(middle, STATE) == [("held",)]
    accepted(middle)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 4.95)")
    mark(middle, ORDER, RETURN, REFUND)  # a commit that touches it and does not change it
    drain(worker)
    assert rows(middle, STATE) == [("done",)]
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, paid::text, (SELECT count(*)::int FROM refunds) FROM orders") == [
        ("11.90", "9.90", 1)
    ], "what the ERP takes goes all the same"
    assert _classes(middle, erp, profile_path) == [("1", "accepted")]
    _gross(middle, worker, "8.90")
    assert len(held(middle)) == 1, "of that nobody has said anything"


def test_a_change_of_the_shop_that_came_since_it_was_held_is_not_settled_with_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = _held_as_invoiced(middle, erp, erp_url, profile_path)
    change(middle, "UPDATE orders SET gross = 8.90")
    mark(middle, ORDER)
    accepted(middle)
    drain(worker)
    assert len(held(middle)) == 1


def test_what_a_clerk_changed_is_accepted_and_the_rest_goes_on(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "UPDATE orders SET payment_means = 'cash'")
    _gross(middle, worker, "9.90")
    assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cash"]
    assert told(accepted(middle))[1:] == ["    payment_means: the shop has card, the ERP has cash"]
    drain(worker)
    order = "SELECT gross::text, payment_means FROM orders"
    assert (held(middle), run(erp_url, order)) == ([], [("9.90", "cash")])
    assert _classes(middle, erp, profile_path) == [("1", "accepted")]
    for gross in ("8.90", "7.90"):
        _gross(middle, worker, gross)
    assert (held(middle), run(erp_url, order)) == ([], [("7.90", "cash")])
    run(erp_url, "UPDATE orders SET payment_means = 'cheque'")
    look(worker, middle, ORDER)
    assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cheque"]
    run(erp_url, "UPDATE orders SET payment_means = 'card'")
    _gross(middle, worker, "6.90")
    assert (held(middle), run(erp_url, order)) == ([], [("6.90", "card")])


def test_an_accepted_field_lets_nothing_pass_the_brake(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    in_erp(middle, erp, profile_path)
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, brake=Brake(orders=0))
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    run(erp_url, "UPDATE orders SET payment_means = 'cash'")
    look(worker, middle, ORDER)
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)
    accepted(middle)
    drain(worker)
    assert run(erp_url, "SELECT gross::text FROM orders") == [("11.90",)]
    assert held(middle)[0].startswith("brake: ")


def test_what_was_accepted_is_compared_again_when_it_is_undone(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    with pytest.raises(SettingsError, match="sales_order 1 has nothing accepted"):
        undo_accept(middle, ORDER, "Ada", execute=True)
    run(erp_url, "UPDATE orders SET payment_means = 'cash'")
    _gross(middle, worker, "9.90")
    accepted(middle)
    drain(worker)  # the clerk's value counts as written now
    undo_accept(middle, ORDER, "Ada", execute=False)
    look(worker, middle, ORDER)
    assert held(middle) == []
    undo_accept(middle, ORDER, "Ada", execute=True)
    drain(worker)
    assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cash"]
    history = "SELECT event, person FROM ordertap_shop.history WHERE person > '' ORDER BY id"
    assert rows(middle, history) == [("document accepted", "Ada"), ("accept undone", "Ada")]


def test_a_line_that_a_clerk_took_out_and_one_that_they_cancelled_are_accepted(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "DELETE FROM order_lines")
    look(worker, middle, ORDER)
    assert held(middle) == ["changed in the ERP: line:l1 is missing"]
    accepted(middle)
    drain(worker)
    assert (held(middle), run(erp_url, "SELECT count(*) FROM order_lines")) == ([], [(0,)])
    run(erp_url, "UPDATE orders SET status = 'cancelled'")
    look(worker, middle, ORDER)
    assert held(middle) == ["changed in the ERP: it was cancelled"]
    accepted(middle)
    look(worker, middle, ORDER)
    assert (held(middle), run(erp_url, "SELECT status FROM orders")) == ([], [("cancelled",)])


def test_an_order_that_the_shop_deleted_stays_in_the_erp_by_a_word(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "CREATE TABLE away AS TABLE orders; DELETE FROM orders")
    look(worker, middle, ORDER)
    assert len(held(middle)) == 1
    assert accepted(middle).taken_for is Accepted.KEPT
    look(worker, middle, ORDER)
    assert (held(middle), rows(middle, STATE)) == ([], [("gone",)])
    change(middle, "INSERT INTO orders TABLE away; UPDATE orders SET gross = 9.90")
    look(worker, middle, ORDER)
    assert run(erp_url, "SELECT gross::text FROM orders") == [("9.90",)], "it is another version, and goes on"
    run(erp_url, "UPDATE orders SET gross = 8.90")
    assert _classes(middle, erp, profile_path) == [("1", "differs")], "of that nobody has said anything"


def test_a_version_that_the_erp_refused_and_that_the_shop_left_is_sent_when_it_comes_again(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "ALTER TABLE orders ADD CONSTRAINT no_such CHECK (gross <> 9.90)")
    _gross(middle, worker, "9.90")
    assert accepted(middle).taken_for is Accepted.KEPT
    for gross in ("8.90", "11.90", "9.90"):
        _gross(middle, worker, gross)
    assert len(held(middle)) == 1, "the ERP has 11.90 by now, and nobody has said that it may stay"


def test_what_no_word_ends_is_refused(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    _held_as_invoiced(middle, erp, erp_url, profile_path)
    for column, reason in (
        ("intent = '{}'", "a step of sales_order 1"),
        ("check_name = 'gap'", "held for check `gap`"),
    ):
        with transaction(middle) as cursor:
            cursor.execute(f"UPDATE ordertap_shop.document SET {column} WHERE type = 'sales_order'")
        with pytest.raises(SettingsError, match=reason):
            accepted(middle)
        with transaction(middle) as cursor:
            cursor.execute("UPDATE ordertap_shop.document SET intent = NULL WHERE type = 'sales_order'")
        assert rows(middle, STATE) == [("held",)]
