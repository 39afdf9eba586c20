"""An order that people typed into the ERP is linked to the shop's, and not made a second time."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from schemas.model.errors import SettingsError
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import link as command
from sink.commands.link import lines, of_file
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from sink.ledger import documents, marks
from sink.operations import link as linking
from sink.operations import show
from sink.operations.link import LinkSides, link, link_all, unlink
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import CUSTOMER, ORDER, PRICE, RETURN, change, drain, held, make_worker, mark, rows, run

TYPED_IN = """
INSERT INTO customers (id, account_number, name) VALUES (70, '4711', 'Ann');
INSERT INTO orders (id, shop_number, account_number, placed_at, currency, tax_included, net, tax, gross, paid, status)
VALUES (900, 'phone', '4711', '2026-01-01 10:00', 'EUR', true, 10.00, 1.90, {gross}, 0, '{status}');
INSERT INTO order_lines (id, order_id, kind, sku, name, quantity, unit_price, discount, tax_rate, net, tax, gross)
VALUES (31, 900, 'item', 'A', 'x', 2, 5.95, 0, 19, 10.00, 1.90, {gross})
"""
KEYS = "SELECT external_key FROM orders ORDER BY id"
EVENTS = "SELECT event FROM ordertap_shop.history WHERE type = 'sales_order' AND event <> 'linked' ORDER BY id"


def type_in(erp_url: str, gross: str = "11.90", status: str = "confirmed") -> None:
    run(erp_url, TYPED_IN.format(gross=gross, status=status))


def name(middle: Connection, ref: DocumentRef, hand: str) -> None:
    """Links a document as `sink link` does."""
    with transaction(middle) as cursor:
        documents.save(cursor, ref, decisions={"linked": hand})
        marks.look_anew(cursor, [ref])


def sides(middle: Connection, erp: SqlErp, profile_path: str) -> LinkSides:
    return LinkSides(middle, load_profile(profile_path), "shop", erp)


def test_an_order_is_linked_by_a_name_and_seen_before(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    given = sides(middle, erp, profile_path)
    told = list(lines(link(given, ORDER, "phone", False, "Ada", execute=False), execute=False))
    assert (
        told[0]
        == "sales_order 1 would be linked to hand:900 of the ERP (900, confirmed): 11.90 in the shop, 11.90 in the ERP"
    )
    assert "    line:l1 is the ERP's hand:31" in told
    assert "    number: the shop has S-1, the ERP has phone" in told
    assert rows(middle, "SELECT decisions FROM ordertap_shop.document") == [(None,), (None,)], "nothing was said yet"
    assert link(given, ORDER, "900", False, "Ada", execute=True).lines == {"line:l1": "hand:31"}
    drain(worker)
    assert run(erp_url, KEYS) == [("shop/order/1/1",)]
    assert rows(middle, "SELECT detail, person FROM ordertap_shop.history WHERE event = 'linked'") == [
        ("hand:900, 900", "Ada")
    ]
    report = reconcile(middle, None, "shop", given.profile, erp, collective=False)
    assert report.agrees
    another = TYPED_IN.replace("900", "901").replace("(31,", "(32,").replace("70, '4711'", "71, '4712'")
    run(erp_url, another.format(gross="11.90", status="draft"))
    with pytest.raises(SettingsError, match="the ERP has sales_order 1 already, as 900"):
        link(given, ORDER, "901", False, "Ada", execute=True)


def test_what_cannot_be_linked_is_refused(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    type_in(erp_url, gross="12.90")
    mark(middle)
    given = sides(middle, erp, profile_path)

    def refused(reference: str, accept: bool = False, ref: DocumentRef = ORDER) -> str:
        with pytest.raises(SettingsError) as caught:
            link(given, ref, reference, accept, "Ada", execute=True)
        return caught.value.message

    assert refused("none") == "the ERP has no order none"
    assert refused("hand:x") == "the ERP has no order hand:x"
    assert refused("900") == "the shop's sales_order 1 comes to 11.90, hand:900 of the ERP to 12.90"
    assert refused("900", ref=PRICE) == "price cannot be linked"
    assert refused("900", ref=DocumentRef("sales_order", "2")) == "the shop has no sales_order 2"
    run(erp_url, "UPDATE orders SET status = 'cancelled'")
    assert "is cancelled in the ERP" in refused("900", accept=True)
    run(erp_url, "UPDATE orders SET status = 'confirmed', external_key = 'shop/order/9/1'")
    assert refused("900") == "900 of the ERP has the key shop/order/9/1"
    run(erp_url, "UPDATE orders SET external_key = NULL")
    run(
        erp_url,
        "INSERT INTO order_lines (order_id, kind, sku, quantity, unit_price, discount, tax_rate, net, tax, gross)"
        " VALUES (900, 'item', 'A', 2, 1, 0, 19, 1, 0, 1)",
    )
    assert refused("900", accept=True).startswith("the ERP has several lines that could be line:l1")
    run(erp_url, "DELETE FROM order_lines WHERE gross = 1")
    run(erp_url, "INSERT INTO orders SELECT (jsonb_populate_record(o, '{\"id\": 901}')).* FROM orders AS o")
    assert "the ERP has 2 orders phone: hand:900 (900, 12.90 EUR, confirmed); hand:901" in refused("phone")
    assert rows(middle, "SELECT count(*) FROM ordertap_shop.document WHERE decisions IS NOT NULL") == [(0,)]
    link(given, ORDER, "900", True, "Ada", execute=True)
    other = DocumentRef("sales_order", "2")
    change(middle, "INSERT INTO orders SELECT 2, 'S-2', customer, placed_at, status, sku, quantity, 12.90 FROM orders")
    mark(middle, other)
    assert refused("900", ref=other) == "hand:900 of the ERP is linked to sales_order 1"


def test_a_file_is_linked_as_far_as_it_is_well(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    change(middle, "INSERT INTO orders SELECT 2, 'S-2', customer, placed_at, status, sku, quantity, gross FROM orders")
    other = DocumentRef("sales_order", "2")
    mark(middle, ORDER, CUSTOMER, other)
    given = sides(middle, erp, profile_path)
    file = [["type", "key", "reference"], ["sales_order", "1", " 900"], ["sales_order", "2", "phone"], [], ["x"]]
    for execute in (False, True):
        found = link_all(given, file, False, "Ada", execute)
        assert [(one.number, one.linked is not None) for one in found] == [(2, True), (3, False), (5, False)]
        assert "hand:900 of the ERP is" in found[1].refused
        assert found[2].refused == "it is not `type,key,reference`"
        told = list(of_file(found, execute))
        assert told[3] == f"1 of 3 {'are' if execute else 'would be'} linked"
        linked = "SELECT key FROM ordertap_shop.document WHERE decisions ->> 'linked' = 'hand:900'"
        assert rows(middle, linked) == ([("1",)] if execute else [])


def test_the_shops_documents_of_a_file_are_read_together(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[set[DocumentRef]] = []

    def built_of(*given: Any) -> Any:
        read.append(given[-1])
        return show.built_of(*given)

    monkeypatch.setattr(linking, "built_of", built_of)
    mark(middle)
    file = [["sales_order", "1", "900"], ["customer", "7", "4711"], ["sales_order", "9", "1"]]
    link_all(sides(middle, erp, profile_path), file, False, "Ada", execute=False)
    assert read[0] == {ORDER, CUSTOMER, ORDER._replace(key="9")}
    assert len(read) == 1


def test_programs_are_told_whether_it_was_done(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    type_in(erp_url)
    mark(middle)
    monkeypatch.setattr(command, "_sides", lambda _: sides(middle, erp, profile_path))
    file = tmp_path / "links.csv"
    file.write_text("sales_order,1,900")

    def said(*words: str) -> Any:
        return json.loads(CliRunner().invoke(command.app, [*words, "--person", "Ada", "--json"]).stdout)

    for more, executed in (((), False), (("--execute",), True)):
        assert said("link", "--csv", str(file), *more)["executed"] is executed
    for more, executed in (((), False), (("--execute",), True)):
        assert said("unlink", "sales_order", "1", *more)["executed"] is executed
    assert said("link", "sales_order", "1", "900")["executed"] is False


def test_a_link_is_taken_back_before_and_after_the_keys_were_given(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    run(erp_url, "UPDATE orders SET shop_number = 'S-1', paid = 11.90, payment_means = 'card'")
    run(erp_url, "UPDATE order_lines SET name = NULL")
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    given = sides(middle, erp, profile_path)
    with pytest.raises(SettingsError, match="sales_order 1 is not linked"):
        unlink(given, ORDER, "Ada", execute=True)
    link(given, CUSTOMER, "4711", False, "Ada", execute=True)
    link(given, ORDER, "900", False, "Ada", execute=True)
    assert not unlink(given, ORDER, "Ada", execute=True).adopted
    assert rows(middle, "SELECT decisions ->> 'linked' FROM ordertap_shop.document WHERE key = '1'") == [("",)]
    link(given, ORDER, "900", False, "Ada", execute=True)
    drain(worker)
    assert held(middle) == []
    assert rows(middle, EVENTS.replace("<> 'linked'", "NOT IN ('linked', 'unlinked')")) == [("adopt",)]
    with pytest.raises(SettingsError) as caught:
        unlink(given, ORDER, "Ada", execute=True)
    assert "clear the key shop/order/1/1 there" in caught.value.hint
    run(erp_url, "UPDATE orders SET external_key = NULL")
    assert unlink(given, ORDER, "Ada", execute=True).adopted
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, KEYS) == [("shop/order/1/2",), (None,)], "it has one of its own"


def test_what_was_sent_since_keeps_a_link(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    type_in(erp_url)
    mark(middle)
    given = sides(middle, erp, profile_path)
    link(given, ORDER, "900", False, "Ada", execute=True)
    drain(make_worker(middle, erp, profile_path))
    run(erp_url, "UPDATE orders SET external_key = NULL")
    with pytest.raises(SettingsError, match="the ERP was given more of it since it was linked"):
        unlink(given, ORDER, "Ada", execute=True)


def test_a_return_that_was_typed_in_is_linked_after_its_order(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    run(
        erp_url,
        "INSERT INTO returns (id, order_id, shop_number, returned_at, status)"
        " VALUES (50, 900, 'back', '2026-01-05 10:00', 'confirmed');"
        " INSERT INTO return_lines (return_id, order_line_id, quantity) VALUES (50, 31, 2)",
    )
    change(middle, "INSERT INTO returns VALUES (5, 1, 2, 11.90)")
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    mark(middle, RETURN)
    given = sides(middle, erp, profile_path)
    with pytest.raises(SettingsError, match="the order of return_order 5 is not in the ERP yet"):
        link(given, RETURN, "back", False, "Ada", execute=True)
    link(given, ORDER, "900", False, "Ada", execute=True)
    drain(worker)
    (reason,) = held(middle)
    assert reason == "line:l1: 2 returned now, but 2 were sold and 2 already returned"
    link(given, RETURN, "back", False, "Ada", execute=True)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT external_key, shop_number FROM returns") == [("shop/return/5/1", "R-5")]


def test_a_named_order_gets_our_keys_and_then_what_differs(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    name(middle, ORDER, "hand:900")
    drain(worker)
    assert run(erp_url, KEYS) == [("shop/order/1/1",)]
    assert run(erp_url, "SELECT id, external_key FROM order_lines") == [(31, "shop/order/1/1/line:l1")]
    assert run(erp_url, "SELECT shop_number, paid, account_number FROM orders") == [
        ("S-1", run(erp_url, "SELECT gross FROM orders")[0][0], "shop-100001")
    ]
    assert rows(middle, EVENTS) == [("adopt",), ("amend",)]
    change(middle, "UPDATE orders SET quantity = 3, gross = 17.85")
    mark(middle, ORDER)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT id, quantity::int FROM order_lines") == [(31, 3)]
    assert run(erp_url, "SELECT order_id FROM returns") == [(900,)]


def test_what_differs_of_an_invoiced_one_is_held_by_the_table(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url, status="invoiced")
    mark(middle)
    name(middle, ORDER, "hand:900")
    drain(make_worker(middle, erp, profile_path))
    assert run(erp_url, KEYS) == [("shop/order/1/1",)]
    assert run(erp_url, "SELECT shop_number FROM orders") == [("phone",)]
    (reason,) = held(middle)
    assert "the ERP has invoiced it" in reason


def test_a_customer_keeps_the_account_number(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    type_in(erp_url)
    mark(middle)
    name(middle, CUSTOMER, "hand:70")
    name(middle, ORDER, "hand:900")
    drain(make_worker(middle, erp, profile_path))
    assert run(erp_url, "SELECT account_number, external_key FROM customers") == [("4711", "shop/customer/7/1")]
    assert run(erp_url, "SELECT account_number, external_key FROM orders") == [("4711", "shop/order/1/1")]


def test_an_order_of_before_the_start_is_carried_over_if_it_is_named(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, start_at=datetime(2026, 6, 1, tzinfo=UTC))
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    mark(middle)
    drain(worker)
    assert run(erp_url, KEYS) == [(None,)]
    name(middle, ORDER, "hand:900")
    drain(worker)
    assert run(erp_url, KEYS) == [("shop/order/1/1",)]
    assert held(middle) == []


@pytest.mark.parametrize("buyer", ["new", "refused"])
@pytest.mark.parametrize("state", ["confirmed", "cancelled"])
def test_one_that_the_shop_has_cancelled_meanwhile_is_cancelled(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, buyer: str, state: str
) -> None:
    """Whatever holds its buyer, who was not sent for it. A clerk may have cancelled it as well."""
    type_in(erp_url)
    if buyer == "refused":
        run(erp_url, "ALTER TABLE customers ADD CONSTRAINT odd CHECK (external_key IS NULL)")
    mark(middle)
    name(middle, ORDER, "hand:900")
    change(middle, "UPDATE orders SET status = 'cancelled'")
    run(erp_url, f"UPDATE orders SET status = '{state}'")
    drain(make_worker(middle, erp, profile_path))
    assert held(middle) == []
    assert run(erp_url, "SELECT external_key, status FROM orders") == [("shop/order/1/1", "cancelled")]
    assert run(erp_url, "SELECT count(*)::int FROM customers") == [(1,)], "the one that was typed in"


def test_one_that_is_gone_or_has_a_key_is_held(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    type_in(erp_url)
    run(erp_url, "UPDATE orders SET external_key = 'shop/order/9/1'")
    mark(middle)
    name(middle, ORDER, "hand:900")
    drain(make_worker(middle, erp, profile_path))
    (reason,) = held(middle)
    assert reason.startswith("it was linked to hand:900, which the ERP no longer has")
    assert run(erp_url, KEYS) == [("shop/order/9/1",)], "and no second one was made"


def test_a_lost_reply_is_asked_for(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    """The worker dies between the ERP's commit and its own."""
    type_in(erp_url)
    mark(middle)
    name(middle, ORDER, "hand:900")
    worker = make_worker(middle, _DiesAfterAdopting(erp), profile_path)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        drain(worker)
    assert run(erp_url, KEYS) == [("shop/order/1/1",)]
    with transaction(middle) as cursor:
        cursor.execute("UPDATE unit SET deadline = now() - interval '1 hour', due_at = now()")
    drain(make_worker(middle, erp, profile_path, owner="w2"))
    assert rows(middle, EVENTS) == [("adopt",), ("amend",)]
    assert held(middle) == []


class _DiesAfterAdopting:
    def __init__(self, erp: SqlErp) -> None:
        self._erp = erp

    def __getattr__(self, what: str) -> Any:
        return getattr(self._erp, what)

    def apply(self, steps: Any, not_after: Any) -> Any:
        found = self._erp.apply(steps, not_after)
        if steps[0].verb == "adopt":
            raise KeyboardInterrupt
        return found
