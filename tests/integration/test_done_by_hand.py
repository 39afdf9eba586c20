"""A hold that asks a person to do something in the ERP ends once they have done it."""

from pathlib import Path

from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.ledger import marks
from sink.reconcile.sides import reconcile
from tests.fix_erp import ORDER, REFUND, RETURN, change, drain, held, in_erp, look, make_worker, mark, run, stand_at

INVOICED = "UPDATE orders SET status = 'invoiced'"
AGREE = "agree: 1 orders, 0 returns, 0 prices, difference 0.00"


def _retried(middle: Connection, erp: SqlErp, profile_path: str) -> list[str]:
    """What is still held after a person has done something and retried."""
    with transaction(middle) as cursor:
        marks.retry(cursor, None)
    drain(make_worker(middle, erp, profile_path))
    return held(middle)


def test_an_invoiced_order_that_a_clerk_changed_as_the_shop_did_is_done(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    in_erp(middle, erp, profile_path)
    run(erp_url, INVOICED)
    change(middle, "UPDATE orders SET gross = 9.52")
    mark(middle, ORDER)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle)[0].startswith("change prices, but the ERP has invoiced it")
    assert len(_retried(middle, erp, profile_path)) == 1, "and is still, while nobody did anything"
    run(erp_url, "UPDATE orders SET (net, tax, gross, paid) = (8.00, 1.52, 9.52, 9.52)")
    run(erp_url, "UPDATE order_lines SET (unit_price, net, tax, gross) = (4.76, 8.00, 1.52, 9.52)")
    with transaction(middle) as cursor:
        stand_at(cursor, 2_000)
    assert _retried(middle, erp, profile_path) == []
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).summary() == AGREE
    with transaction(middle) as cursor:
        cursor.execute("SELECT lsn::int FROM ordertap_shop.acted")
        assert cursor.fetchone() == (2_000,), "the ledger must not go back to before that"
    run(erp_url, "UPDATE orders SET status = 'confirmed'")
    change(middle, "UPDATE orders SET gross = 8.33")
    mark(middle, ORDER)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == [], "what the clerk did counts as written: it is no edit"
    assert run(erp_url, "SELECT gross::text FROM orders") == [("8.33",)]
    with transaction(middle) as cursor:
        cursor.execute("SELECT event FROM ordertap_shop.history WHERE type = 'sales_order' ORDER BY id")
        assert [event for (event,) in cursor.fetchall()] == ["create", "amend", "held", "done by hand", "amend"]


def test_an_invoiced_order_that_a_clerk_cancelled_as_the_shop_did_is_done(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    in_erp(middle, erp, profile_path)
    run(erp_url, INVOICED)
    change(middle, "UPDATE orders SET status = 'cancelled', gross = 9.90")
    mark(middle, ORDER)
    drain(make_worker(middle, erp, profile_path))
    assert len(held(middle)) == 1
    run(erp_url, "UPDATE orders SET status = 'cancelled'")
    assert _retried(middle, erp, profile_path) == []
    mark(middle, ORDER)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == []
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_what_the_shop_deleted_is_over_when_a_clerk_has_cancelled_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN, REFUND)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "DELETE FROM returns; DELETE FROM orders")
    mark(middle, ORDER, RETURN, REFUND)
    drain(make_worker(middle, erp, profile_path))
    assert len(held(middle)) == 3
    for table in ("orders", "returns", "refunds"):
        run(erp_url, f"UPDATE {table} SET status = 'cancelled'")
    assert _retried(middle, erp, profile_path) == []


def test_a_refund_that_the_shop_took_back_is_over_when_a_clerk_has_cancelled_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, REFUND)
    drain(make_worker(middle, erp, profile_path))
    path = Path(profile_path) / "refund.sql"
    path.write_text(path.read_text().replace("AS gross", "AS gross, false AS ready"))
    mark(middle, REFUND)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == ["the shop has set it back to a state that is not ready; the ERP still has it"]
    run(erp_url, "UPDATE refunds SET status = 'cancelled'")
    assert _retried(middle, erp, profile_path) == []


def test_what_a_person_has_set_back_stays_there_after_a_change_too(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """The amendment left it where it was, but the look after that used to advance it again."""
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "UPDATE orders SET status = 'draft'")
    change(middle, "UPDATE orders SET gross = 9.90")
    for _ in range(2):
        look(worker, middle, ORDER)
        assert run(erp_url, "SELECT gross::text, status FROM orders") == [("9.90", "draft")]
