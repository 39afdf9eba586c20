"""The worker on a real PostgreSQL: the sample shop's staged tables and the reference ERP."""

from pathlib import Path

from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.contract import RetryError
from sink.erp.sql.adapter import SqlErp
from sink.ledger import marks
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    PRICE,
    PROFILE,
    UNITS,
    LosesReplies,
    adapter_of,
    change,
    drain,
    held,
    in_erp,
    look,
    make_worker,
    mark,
    pass_deadlines,
    rows,
    run,
)


def test_order_and_customer_arrive_once_and_agree(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    for _ in range(2):
        look(worker, middle)
    assert run(erp_url, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM order_lines)") == [(1, 1)]
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    assert report.summary() == "agree: 1 orders, 0 returns, 0 prices, difference 0.00"


def test_price_change_amends_and_cancel_cancels(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    for statement in ("gross = gross", "gross = 9.90", "status = 'cancelled'"):
        change(middle, f"UPDATE orders SET {statement}")
        look(worker, middle)
    assert run(erp_url, "SELECT gross::text, status FROM orders") == [("9.90", "cancelled")]


def test_unknown_sku_is_held_until_the_item_is_there(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    change(middle, "UPDATE orders SET sku = 'NEW'")
    look(worker, middle)
    assert held(middle) == ["the ERP has no item NEW"]
    assert run(erp_url, "SELECT count(*) FROM orders") == [(0,)]
    run(erp_url, "INSERT INTO items VALUES ('NEW', 'n')")
    with transaction(middle) as cursor:
        marks.retry(cursor, None)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_edit_by_hand_is_held_and_not_overwritten(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "UPDATE orders SET gross = 1")
    change(middle, "UPDATE orders SET gross = 9.90")
    look(worker, middle)
    assert "changed in the ERP: gross" in held(middle)[0]
    assert run(erp_url, "SELECT gross::text FROM orders") == [("1.00",)]


def test_a_lost_reply_makes_no_second_document(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    lossy = adapter_of(LosesReplies, erp_url)
    mark(middle)
    worker = make_worker(middle, lossy, profile_path)
    for _ in range(3):
        pass_deadlines(middle)
        try:
            worker.step()
        except RetryError:
            continue
    lossy.close()
    pass_deadlines(middle)
    drain(make_worker(middle, erp, profile_path))
    assert run(erp_url, "SELECT count(*) FROM customers") == [(1,)]
    assert run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_a_ledger_from_a_backup_loses_no_change(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """Its revisions are older than the ERP's, which would take the next command for one that it has done already."""
    worker = in_erp(middle, erp, profile_path)
    for gross in ("9.90", "8.90"):
        change(middle, f"UPDATE orders SET gross = {gross}")
        look(worker, middle)
    with transaction(middle) as cursor:
        cursor.execute("UPDATE ordertap_shop.document SET revision = 1 WHERE type = 'sales_order'")
    change(middle, "UPDATE orders SET gross = 7.90")
    look(worker, middle)
    assert run(erp_url, "SELECT gross::text, revision FROM orders") == [("7.90", 4)]


def test_a_refund_of_an_order_that_the_erp_never_heard_of_is_done_with_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    change(middle, "UPDATE orders SET status = 'cancelled'; INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    look(worker, middle, *UNITS)
    assert held(middle) == []
    assert run(erp_url, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM refunds)") == [(0, 0)]
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees
    change(middle, "UPDATE orders SET status = 'open'")
    look(worker, middle)
    assert run(erp_url, "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM refunds)") == [(1, 1)]


def test_a_price_that_is_not_ready_any_more_is_taken_out(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    change(middle, "INSERT INTO prices VALUES ('A', 5)")
    for statement, count in (("amount = 5", 1), ("amount = 0", 0), ("amount = 6", 1)):
        change(middle, f"UPDATE prices SET {statement}")
        look(worker, middle, PRICE)
        assert run(erp_url, "SELECT count(*) FROM prices WHERE status <> 'cancelled'") == [(count,)]


def test_an_order_of_an_erased_buyer_stays_as_it_is(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "UPDATE orders SET customer = NULL, gross = 9.90")
    look(worker, middle, ORDER)
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, account_number FROM orders") == [("9.90", "shop-100001")]


def test_what_was_only_planned_is_sent_when_the_mode_changes(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path, apply=False))
    assert run(erp_url, "SELECT count(*) FROM customers") == [(0,)]
    drain(make_worker(middle, erp, profile_path))
    assert run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_an_order_whose_buyer_does_not_come_says_why(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """`sink held` shows the order alone: its buyer is not held."""
    worker = make_worker(middle, erp, profile_path)
    look(worker, middle, ORDER)
    assert held(middle) == ["waits for customer 7, whose rows have not arrived"]
    customer, kept = Path(profile_path) / "customer.sql", PROFILE["customer.sql"]
    customer.write_text(kept.replace("orders WHERE", "orders WHERE false AND"))
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == ["waits for customer 7, which the shop has deleted"]
    customer.write_text(kept)
    mark(middle, CUSTOMER)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == []
    assert run(erp_url, "SELECT count(*) FROM orders") == [(1,)]


def test_one_odd_date_holds_one_document_and_the_others_go_on(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    change(middle, "UPDATE orders SET placed_at = '20000-01-01'; INSERT INTO prices VALUES ('A', 5.95)")
    mark(middle, ORDER, CUSTOMER, PRICE)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == ["sales_order.sql: a date that is not in the years 1 to 9999"]
    assert run(erp_url, "SELECT amount::text FROM prices") == [("5.950000",)]
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    assert [(one.type, one.result) for one in report.findings] == [("sales_order", "held")]
    change(middle, "UPDATE orders SET placed_at = '2026-01-01'")
    mark(middle, ORDER)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == []
    assert reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_an_order_with_two_lines_under_one_key_is_held(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """Both lines count in the order's sum, and the ERP could keep only one."""
    half = "gross / 2, round(gross / 2 / 1.19, 2) AS net, gross / 2 - round(gross / 2 / 1.19, 2) AS tax"
    Path(profile_path, "sales_order.lines.sql").write_text(
        "SELECT id::text AS parent, 'l1' AS key, sku, 1 AS quantity, gross AS unit_price, 19 AS tax_rate, net, tax,"
        f" gross FROM (SELECT id, sku, {half} FROM orders, generate_series(1, 2)) AS l (id, sku, gross, net, tax)"
        " WHERE id::text = ANY (%(keys)s)"
    )
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == ["lines: two of them have the key l1"]
    assert run(erp_url, "SELECT count(*) FROM orders") == [(0,)]
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    assert [(one.type, one.result) for one in report.findings] == [("sales_order", "held")]


def test_a_held_document_stays_held_when_the_shop_changes_it_again(
    middle: Connection, erp: SqlErp, profile_path: str
) -> None:
    """What is missing may be on its way, so a new document settles first. A document that is already held does not
    settle again: it would vanish from `sink held`, and `sink release` and `accept` would refuse it."""
    change(middle, "UPDATE orders SET placed_at = '20000-01-01'")
    worker = make_worker(middle, erp, profile_path, settle=30)
    look(worker, middle)
    asked = "SELECT state, check_name, held_since FROM document WHERE type = 'sales_order'"
    ((state, check, began),) = rows(middle, asked)
    assert (state, check) == ("settling", "invalid")
    with transaction(middle) as cursor:
        cursor.execute("UPDATE document SET marked_at = marked_at - interval '1 minute'")
    pass_deadlines(middle)
    drain(worker)
    ((state, check, since),) = rows(middle, asked)
    assert (state, check, since) == ("held", "invalid", began)
    look(worker, middle)
    assert rows(middle, asked) == [(state, check, since)]
    assert rows(middle, "SELECT count(*)::int FROM history WHERE event = 'held'") == [(1,)]


def test_a_document_that_the_shop_changes_all_the_time_is_held_for_what_it_lacks(
    middle: Connection, erp: SqlErp, profile_path: str
) -> None:
    """It settles from its first failure on, and not from the last mark. Another failure is another matter."""
    odd = PROFILE["sales_order.lines.sql"].replace("gross FROM", "gross + (number = 'odd')::int AS gross FROM")
    Path(profile_path, "sales_order.lines.sql").write_text(odd)
    worker = make_worker(middle, erp, profile_path, settle=30)

    def after(seconds: int, change_to: str) -> tuple[str, str]:
        with transaction(middle) as cursor:
            cursor.execute("UPDATE document SET held_since = held_since - make_interval(secs => %s)", (seconds,))
        change(middle, f"UPDATE orders SET {change_to}")
        look(worker, middle)
        ((state, check),) = rows(middle, "SELECT state, check_name FROM document WHERE type = 'sales_order'")
        return state, check

    invalid, wrong = "placed_at = '20000-01-01', number = 'S-1'", "placed_at = '2026-01-01', number = 'odd'"
    for seconds, change_to, becomes in (
        (20, invalid, ("settling", "invalid")),
        (20, invalid, ("settling", "invalid")),
        (20, wrong, ("settling", "totals")),
        (3_600, wrong, ("settling", "totals")),  # nobody looked: applying was paused, or the ERP away
        (20, wrong, ("settling", "totals")),
        (20, wrong, ("held", "totals")),
    ):
        assert after(seconds, change_to) == becomes
    assert rows(middle, "SELECT clock_timestamp() - marked_at < interval '30 s' FROM document") == [(True,), (True,)]
