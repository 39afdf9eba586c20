"""Data in an ERP's tables, or on the way there, that cannot be read or kept. It affects its own document alone."""

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from uuid import uuid4

import psycopg2
import pytest

from deploy.embedded import Postgres
from sink.erp.contract import Erp, HoldError, HowFar, NotDone, StopError
from sink.erp.kinds import BY_HAND, ErpRef, Milestone
from tests.erp_contract.records import (
    CHARGES,
    CHEAPER,
    CUSTOMER,
    LINES,
    REF,
    Sink,
    changed,
    create,
    line,
    refused,
    sale,
    step,
)
from tests.erp_contract.sql_target import SqlTarget

ORDER, OTHER = REF["order"], ErpRef("order", "shop/order/2/1")


@pytest.fixture
def in_postgres(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> Iterator[SqlTarget]:
    target = SqlTarget(new_database(postgres, "odd"))
    yield target
    target.close()


@pytest.fixture
def in_latin1(postgres: Postgres) -> Iterator[SqlTarget]:
    """An old ERP whose encoding has umlauts and little more."""
    url, name = postgres.create_database(f"of_{uuid4().hex[:8]}"), f"latin1_{uuid4().hex[:8]}"
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    target = SqlTarget(f"{url.rpartition('/')[0]}/{name}")
    yield target
    target.close()


def makes_odd(target: SqlTarget, key: str) -> None:
    """A date that the driver cannot read; SQLite keeps any text in any column."""
    odd = "'12026-01-01'" if target.url.startswith("postgresql") else "'tomorrow'"
    target.run(f"UPDATE orders SET placed_at = {odd} WHERE external_key = :v0", key)


def two_orders(target: SqlTarget) -> Sink:
    if "+pymysql" in target.url:
        pytest.skip("MariaDB keeps no such date")
    sink = Sink(target.adapter())
    sink.seed("customer", "order")
    sink.done(create(sale(LINES, CHARGES, number="S-2"), OTHER))
    return sink


def test_a_document_that_cannot_be_read_harms_no_other(sql_target: SqlTarget) -> None:
    sink = two_orders(sql_target)
    wanted = sink.planned(ORDER, CHEAPER, sale(LINES, CHARGES))
    makes_odd(sql_target, ORDER.external)
    found = sink.erp.observe([ORDER, OTHER, REF["customer"], ErpRef("order", "shop/order/3/1")])
    assert found.keys() == {ORDER, OTHER, REF["customer"]}
    assert [found[ref].milestone for ref in (ORDER, OTHER)] == [None, Milestone.CONFIRMED]
    assert "cannot be read" in found[ORDER].problem
    assert "cannot be read" in sink.held(ORDER, CHEAPER, sale(LINES, CHARGES))
    page = sink.erp.page(["order"], "", 10)
    assert [(one.ref, one.observed.milestone) for one in page.found] == [
        (ORDER, None),
        (OTHER, Milestone.CONFIRMED),
    ]
    assert len(sink.erp.find("order", {"currency": "EUR"})) == 2
    assert [one.how_far for one in sink.erp.progress([wanted, step("amend", OTHER, CHEAPER, found[OTHER], 9)])] == [
        HowFar.UNCLEAR,
        HowFar.NOT_DONE,
    ]


def test_a_step_for_what_cannot_be_read_is_held_alone(sql_target: SqlTarget) -> None:
    sink = two_orders(sql_target)
    steps = [step("amend", ref, changed(CHEAPER, number=number), sink.see(ref), 9)
             for ref, number in ((ORDER, "S-1"), (OTHER, "S-2"))]  # fmt: skip
    makes_odd(sql_target, ORDER.external)
    assert refused(sink.apply(*steps)) == ["HoldError", ""]
    assert refused(sink.apply(create(CHEAPER, ORDER))) == ["HoldError"], "whose it is cannot be seen either"


def test_a_hand_typed_one_that_cannot_be_read_has_its_own_key(sql_target: SqlTarget) -> None:
    sink = two_orders(sql_target)
    sql_target.run("UPDATE orders SET external_key = NULL WHERE external_key = :v0", ORDER.external)
    odd = "'12026-01-01'" if sql_target.url.startswith("postgresql") else "'tomorrow'"
    sql_target.run(f"UPDATE orders SET placed_at = {odd} WHERE external_key IS NULL")
    refs = [one.ref for one in sink.erp.page(["order"], "", 10).found]
    assert [ref.external.startswith(BY_HAND) for ref in refs] == [True, False]


def test_a_sku_that_the_item_master_cannot_hold_is_none_of_its_items(in_postgres: SqlTarget) -> None:
    for statement in (
        "ALTER TABLE order_lines DROP CONSTRAINT order_lines_sku_fkey",
        "ALTER TABLE prices DROP CONSTRAINT prices_sku_fkey",
        "DELETE FROM items",
        "ALTER TABLE items ALTER COLUMN sku TYPE integer USING 0",
        "INSERT INTO items VALUES (42, 'a'), (43, 'b')",
    ):
        in_postgres.run(statement)
    erp = in_postgres.adapter()
    assert erp.unknown_items({"42", "P-0001", "43", "P-0002", "44"}) == {"P-0001", "P-0002", "44"}


def test_what_a_column_cannot_hold_no_document_has(in_postgres: SqlTarget) -> None:
    in_postgres.run("ALTER TABLE orders ALTER COLUMN shop_number TYPE integer USING 0")
    assert in_postgres.adapter().find("order", {"number": "S-1"}) == []


def _only_one_is_held(sink: Sink, bad: str) -> None:
    sink.seed("customer")
    steps = [create(sale(LINES, CHARGES, number=f"S-{n}"), ErpRef("order", f"shop/order/{n}/1")) for n in range(1, 9)]
    odd = sale(LINES, CHARGES, number="S-3", billing_name=bad)
    results = sink.apply(*steps[:2], create(odd, steps[2].ref), *steps[3:])
    assert refused(results) == ["", "", "HoldError", "", "", "", "", ""]
    assert isinstance(results[2], NotDone)
    assert isinstance(results[2].error, HoldError)
    assert results[2].error.cause == "data"
    assert bad not in results[2].error.message


def test_a_name_that_the_erps_encoding_lacks_holds_its_order_alone(in_latin1: SqlTarget) -> None:
    sink = Sink(in_latin1.adapter())
    _only_one_is_held(sink, "Łódź")
    assert sink.erp.unknown_items({"A", "Łódź"}) == {"Łódź"}
    assert sink.erp.find("customer", {"number": "Łódź"}) == []
    odd = ErpRef("order", "shop/order/Łódź/1")
    found = sink.erp.observe([odd, ErpRef("order", "shop/order/1/1")])
    assert found[ErpRef("order", "shop/order/1/1")].milestone is Milestone.CONFIRMED
    assert "character" in found[odd].problem


def test_a_zero_byte_holds_its_order_alone(in_postgres: SqlTarget) -> None:
    _only_one_is_held(Sink(in_postgres.adapter()), "A\0nn")


def test_a_whole_number_goes_into_a_column_of_whole_ones_and_another_is_told(in_postgres: SqlTarget) -> None:
    in_postgres.run("ALTER TABLE order_lines ALTER COLUMN quantity TYPE integer")
    sink = Sink(in_postgres.adapter())
    sink.seed("customer")
    whole, half = (sale({"1": line(quantity, "10.00")}) for quantity in ("3.000", "2.5"))
    results = sink.apply(create(whole, ORDER), create(half, OTHER))
    assert refused(results) == ["", "HoldError"]
    assert isinstance(results[1], NotDone)
    assert "quantity: the shop has 2.5, the ERP stored 3" in results[1].error.message
    more = sale({"1": line("4.0", "10.00")})
    sink.done(sink.planned(ORDER, more, whole))
    assert sink.see(ORDER).record.parts["line"]["1"]["quantity"] == 4


def test_an_identity_that_cannot_be_read_stops(in_postgres: SqlTarget) -> None:
    in_postgres.run("ALTER TABLE company ALTER COLUMN id TYPE date USING '12026-01-01'")
    erp: Erp = in_postgres.adapter()
    with pytest.raises(StopError):
        erp.check()


def test_an_erp_without_a_name_or_with_two_stops_with_the_way_out(in_postgres: SqlTarget) -> None:
    erp: Erp = in_postgres.adapter()
    for change, said in (
        ("INSERT INTO company VALUES ('second', 'Second Ltd')", "company of the ERP has several rows"),
        ("DELETE FROM company", "company of the ERP has no row"),
    ):
        in_postgres.run(change)
        with pytest.raises(StopError, match=said) as stopped:
            erp.check()
        assert "it needs one, whose id tells" in stopped.value.hint


def test_a_deferred_trigger_of_the_erp_ends_in_time_or_nothing_is_done(in_postgres: SqlTarget) -> None:
    """Without that, the trigger would run inside COMMIT, after the look at the clock."""
    sink = Sink(in_postgres.adapter())
    sink.seed("customer")
    in_postgres.run("CREATE SEQUENCE began")
    in_postgres.run(
        "CREATE FUNCTION takes_long() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM nextval('began'), pg_sleep(3); RETURN NULL; END $$"
    )
    in_postgres.run(
        "CREATE CONSTRAINT TRIGGER takes_long AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION takes_long()"
    )
    before, wanted = in_postgres.content(), create(sale(LINES, CHARGES), ORDER)
    results = sink.erp.apply([wanted], sink.erp.clock() + timedelta(seconds=3))
    assert in_postgres.run("SELECT is_called FROM began") == [(True,)]
    assert refused(results) == ["ConflictError"]
    assert in_postgres.content() == before
    sink.done(wanted)


def test_what_a_deferred_trigger_of_the_erp_makes_of_a_document_is_read_back(in_postgres: SqlTarget) -> None:
    """It rounds to five cents. Another kind is in the same call, and a deferred check needs all lines to be there."""
    sink = Sink(in_postgres.adapter())
    for name, does in (
        ("rounds", "UPDATE orders SET gross = round(gross * 20) / 20 WHERE id = NEW.id"),
        ("has_lines", "IF NOT EXISTS (SELECT FROM order_lines WHERE order_id = NEW.id) THEN RAISE 'empty'; END IF"),
    ):
        in_postgres.run(
            f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; RETURN NULL; END $$"
        )
        in_postgres.run(
            f"CREATE CONSTRAINT TRIGGER {name} AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED"
            f" FOR EACH ROW EXECUTE FUNCTION {name}()"
        )
    odd, even = sale({"1": line("1", "10.01")}), sale({"1": line("1", "10.05")}, number="S-2")
    customer, kept, rounded = sink.apply(create(CUSTOMER, REF["customer"]), create(even, OTHER), create(odd, ORDER))
    assert refused([customer, kept, rounded]) == ["", "", "HoldError"]
    assert isinstance(rounded, NotDone)
    assert "gross: the shop has 10.01, the ERP stored 10.00" in rounded.error.message
    assert sink.erp.observe([ORDER, OTHER]).keys() == {OTHER}
