"""F11: reconcile while orders flow. The test makes changes between the reads of both sides."""

from collections.abc import Callable, Collection, Iterator, Mapping
from gc import collect, get_objects

import pytest

from schemas.model.errors import UnavailableError
from sink.database import Connection, connect, transaction
from sink.documents.models import SalesOrder
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import Observed
from sink.erp.kinds import ErpRef
from sink.erp.sql.adapter import SqlErp
from sink.reconcile import sides, source
from sink.reconcile.report import Report
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    BEHIND_ALL,
    CUSTOMER,
    ORDER,
    PRICE,
    REFUND,
    RETURN,
    TABLES,
    change,
    drain,
    make_worker,
    mark,
    run,
    stand_at,
)

# Its unit comes before that of order 1, and is on one page with buyer and price; the last unit has a page of its own.
NEW = "INSERT INTO orders SELECT 0, 'S-2', '7', placed_at, status, sku, 1, 3.57 FROM orders WHERE id = 1"
NEW_ORDER = DocumentRef("sales_order", "0")
Happens = Callable[[], None]


class Day:
    """Shop, middle layer and ERP, which agree in one order with a return, its refund, a buyer and a price. The shop's
    own database is a copy of what is staged."""

    def __init__(self, middle: Connection, database: str, erp: SqlErp, profile_path: str) -> None:
        self.middle, self.erp, self.profile = middle, erp, load_profile(profile_path)
        self.other = connect(database, "ordertap_shop")  # the sink's, while reconcile has `middle`
        self.shop = connect(database, "public")
        self.worker = make_worker(self.other, erp, profile_path)
        self._observe = erp.observe
        self.said: list[str] = []
        with transaction(self.shop) as cursor:
            cursor.execute(TABLES.partition("INSERT")[0].replace("CREATE TABLE ", "CREATE TABLE public."))
        self.change("INSERT INTO orders VALUES (1, 'S-1', '7', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90)", False)
        self.change("INSERT INTO returns VALUES (5, 1, 1, 5.95); INSERT INTO prices VALUES ('A', 5.95)")
        mark(middle, ORDER, CUSTOMER, RETURN, REFUND, PRICE)
        drain(self.worker)
        with transaction(middle) as cursor:
            stand_at(cursor, BEHIND_ALL)

    def change(self, statement: str, staged: bool = True) -> None:
        """Changes the shop and, if `staged`, the copy at once."""
        with transaction(self.shop) as cursor:
            cursor.execute(statement)
        if staged:
            change(self.other, statement)

    def staged(self, statement: str, *refs: DocumentRef) -> None:
        """Changes the copy as the stager would."""
        change(self.other, statement)
        mark(self.other, *refs)

    def look(self, shop: bool, happens: Happens, times: int = 1) -> Report:
        """Reconciles. The change happens after ledger and shop were read and before the ERP is, this many times."""
        left = times

        def observe(refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
            nonlocal left
            if left and refs:
                left -= 1
                self.erp.observe = self._observe  # type: ignore[method-assign]  # for the worker
                happens()
                self.erp.observe = observe  # type: ignore[method-assign]
            return self._observe(refs)

        self.erp.observe = observe  # type: ignore[method-assign]
        report = reconcile(self.middle, self.shop if shop else None, "shop", self.profile, self.erp, False)
        assert left == 0, "it never happened"
        return report


@pytest.fixture
def day(middle: Connection, database: str, erp: SqlErp, profile_path: str) -> Iterator[Day]:
    made = Day(middle, database, erp, profile_path)
    yield made
    made.other.close()
    made.shop.close()


SHOP = pytest.mark.parametrize("shop", [True, False], ids=["shop", "copy"])


@SHOP
def test_f11_an_order_that_is_sent_between_reading_shop_and_erp_is_no_finding(day: Day, shop: bool) -> None:
    day.change(NEW)
    mark(day.other, NEW_ORDER)
    report = day.look(shop, lambda: drain(day.worker))
    assert report.summary() == "agree: 2 orders, 1 returns, 1 prices, difference 0.00"


@SHOP
def test_f11_an_order_that_waits_is_in_flight(day: Day, shop: bool) -> None:
    day.change(NEW)
    mark(day.other, NEW_ORDER)
    report = day.look(shop, lambda: None)
    assert [(one.key, one.result) for one in report.findings] == [("0", "in flight")]
    assert report.explained


def test_f11_an_order_that_is_placed_and_sent_after_the_shop_was_read_is_no_finding(day: Day) -> None:
    def happens() -> None:
        day.staged(NEW, NEW_ORDER)
        drain(day.worker)

    assert day.look(True, happens).summary() == "agree: 1 orders, 1 returns, 1 prices, difference 0.00"


def test_f11_what_was_changed_and_sent_after_the_shop_was_read_is_in_flight(day: Day) -> None:
    def happens() -> None:
        day.staged("UPDATE prices SET amount = 7", PRICE)
        drain(day.worker)

    report = day.look(True, happens)
    assert [(one.type, one.result) for one in report.findings] == [("price", "in flight")]


def test_a_change_that_the_copy_brings_meanwhile_is_compared_again(day: Day) -> None:
    """The copy is read again, and has it."""

    def happens() -> None:
        day.staged("UPDATE prices SET amount = 7", PRICE)
        drain(day.worker)

    assert day.look(False, happens).agrees


def test_f11_a_return_that_is_sent_after_the_shop_was_read_explains_its_order(day: Day) -> None:
    def happens() -> None:
        day.staged("INSERT INTO returns VALUES (8, 1, 1, 5.95)", DocumentRef("return_order", "8"))
        with transaction(day.other) as cursor:  # its order's unit, as staging finds it
            cursor.execute("UPDATE document SET unit = 'sales_order:1' WHERE key = '8'")
            cursor.execute("UPDATE unit SET due_at = clock_timestamp() WHERE unit = 'sales_order:1'")
        drain(day.worker)

    report = day.look(True, happens)
    assert [(one.type, one.result) for one in report.findings] == [("sales_order", "in flight")]
    assert report.findings[0].detail == "line:l1: 1 remain in the shop, 0 in the ERP"


def test_what_moves_at_each_look_is_in_flight_in_the_end(day: Day, erp_url: str) -> None:
    """A document that is looked at again and again without an outcome."""
    run(erp_url, "UPDATE prices SET amount = 6")

    def happens() -> None:
        with transaction(day.other) as cursor:
            cursor.execute("UPDATE document SET revision = revision + 1 WHERE type = 'price'")

    report = day.look(False, happens, times=sides._LOOKS + 1)
    assert [(one.type, one.result) for one in report.findings] == [("price", "in flight")]


@SHOP
def test_what_stands_still_differs(day: Day, erp_url: str, shop: bool) -> None:
    run(erp_url, "UPDATE prices SET amount = 6")
    report = day.look(shop, lambda: None)
    assert [(one.type, one.result) for one in report.findings] == [("price", "differs")]


def test_a_document_that_the_shop_deletes_meanwhile_is_in_flight(day: Day) -> None:
    """It was compared, and is gone when the copy is searched for the ERP's documents."""
    keys = day.erp.keys

    def paged(*arguments: object) -> object:
        day.staged("DELETE FROM prices", PRICE)
        return keys(*arguments)  # type: ignore[arg-type]

    day.erp.keys = paged  # type: ignore[method-assign, assignment]
    report = reconcile(day.middle, None, "shop", day.profile, day.erp, False)
    assert [(one.type, one.result) for one in report.findings] == [("price", "in flight")]


def test_the_shop_is_read_as_of_a_place_that_the_copy_has_passed(day: Day) -> None:
    with transaction(day.middle) as cursor:
        stand_at(cursor, 1_000)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("waits"):  # the stager comes there
            with transaction(day.other) as cursor:
                stand_at(cursor, BEHIND_ALL)

    report = reconcile(day.middle, day.shop, "shop", day.profile, day.erp, False, say=say)
    assert report.agrees
    assert said[0] == f"waits until the copy has reached {report.lsn} of the shop's log: it is steady at 0/3E8"
    assert report.to_json()["lsn"] == report.lsn
    assert report.lines()[0].endswith(f"UTC, {report.lsn} in its log")


def test_a_copy_that_does_not_come_there_is_not_waited_for_for_ever(day: Day) -> None:
    with transaction(day.middle) as cursor:
        stand_at(cursor, 1_000)
    with pytest.raises(UnavailableError, match=r"has not reached .* within 0 s: it is steady at 0/3E8") as refused:
        reconcile(day.middle, day.shop, "shop", day.profile, day.erp, False, patience=0)
    assert "`capture run` and `sink run` must be running" in (refused.value.hint or "")


@SHOP
def test_a_change_of_the_shops_schema_does_not_wait_for_reconcile(day: Day, shop: bool) -> None:
    def happens() -> None:
        with transaction(day.other) as cursor:
            cursor.execute("LOCK TABLE schema_gate IN ACCESS EXCLUSIVE MODE NOWAIT")

    assert day.look(shop, happens).agrees


@SHOP
def test_no_more_than_a_page_is_held_at_once(day: Day, shop: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "_PAGE", 10)
    monkeypatch.setattr(sides, "_PAGE", 10)
    refs = [DocumentRef("sales_order", str(number)) for number in range(2, 82)]
    day.change(NEW.replace("SELECT 0,", "SELECT n,").replace("FROM orders", "FROM generate_series(2, 81) n, orders"))
    mark(day.other, *refs)
    drain(day.worker)
    held: list[int] = []

    def count() -> None:
        held.append(sum(type(one) in (SalesOrder, Observed) for one in get_objects()))

    collect()
    count()  # what the worker and other tests keep
    report = day.look(shop, count, times=8)
    assert report.agreed["order"] == 81
    assert max(held) - held[0] < 40, held


def test_one_strange_document_of_the_erp_is_one_finding(day: Day, erp_url: str) -> None:
    day.change(NEW)
    mark(day.other, NEW_ORDER)
    drain(day.worker)
    run(erp_url, "UPDATE orders SET status = 'mislaid' WHERE shop_number = 'S-1'")
    run(erp_url, "UPDATE orders SET gross = 'NaN' WHERE shop_number = 'S-2'")
    run(erp_url, "UPDATE prices SET valid_from = '20000-01-01'")
    report = day.look(False, lambda: None)
    found = {(one.type, one.key): one.detail for one in report.findings}
    assert found.keys() == {("price", "A"), ("sales_order", "0"), ("sales_order", "1")}
    assert found["sales_order", "1"].startswith("it is in a state of orders that the mapping does not know")
    assert found["sales_order", "0"] == "gross"
    assert found["price", "A"].startswith("the ERP's rows of it cannot be read")
    assert report.summary().startswith("DISAGREE: 3 differs; agreed 0 orders, 1 returns, 0 prices, difference ")
