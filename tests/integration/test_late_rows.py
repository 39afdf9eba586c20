"""A document that was built without a row is marked when that row comes, and no other document is."""

from collections.abc import Collection
from pathlib import Path

import pytest

from sink.database import transaction
from sink.ledger import leases
from sink.staging import late
from tests.integration.stager_feed import LINES, line, order
from tests.integration.written_rows import Written

PROFILE = """
tables: {public.orders: {id: bigint, status: text}, public.order_lines: {id: bigint, order_id: bigint, sku: text}}
documents:
  price: {model: Price, key: order_lines.id, touched_by: {order_lines: id}}
  sales_order: {model: SalesOrder, key: orders.id, touched_by: {orders: id}}
"""
HEADS = {
    "price.sql": "SELECT l.id::text AS key, o.status <> 'new' AND 1 / (l.id - 9) < 1 AS ready FROM order_lines l"
    " JOIN orders o ON o.id = l.order_id WHERE l.id = ANY (%(keys)s::bigint[])",
    "sales_order.sql": "SELECT id::text AS key FROM orders WHERE id = ANY (%(keys)s::bigint[])",
}


@pytest.fixture
def shop(database: str, tmp_path: Path) -> Written:
    """A shop with prices whose variant (here an order) has not come: 1, 2 and 9 of variant 17, 3 of variant 18."""
    shop = Written(tmp_path, "", "shop", database, profile_text=PROFILE, heads=HEADS)
    for number, variant in ((1, 17), (2, 17), (3, 18), (9, 17)):
        shop.stage(line(number, number, of=variant))
    looked_at(shop, "gone")
    return shop


def looked_at(shop: Written, state: str, keys: Collection[str] = ("1", "2", "3", "9")) -> None:
    shop.rows(
        "UPDATE ordertap_shop.document SET seen = marked, state = %s WHERE type = 'price' AND key = ANY(%s)"
        " RETURNING key",
        state, list(keys),
    )  # fmt: skip
    shop.rows("UPDATE ordertap_shop.unit SET due_at = NULL RETURNING unit")


def variant(shop: Written, op: str, at: int, number: int = 17, status: str = "sold") -> None:
    shop.stage(order(number, at, status=status, op=op))


def dirty(shop: Written) -> set[str]:
    rows = shop.rows("SELECT key FROM ordertap_shop.document WHERE type = 'price' AND seen < marked")
    return {str(key) for (key,) in rows}


def test_a_variant_that_comes_after_its_price_wakes_it(shop: Written) -> None:
    variant(shop, "c", 100)
    assert dirty(shop) == {"1", "2"}  # 3 lacks another; 9 still makes the SQL fail


def test_a_change_of_a_variant_that_was_there_wakes_nothing(shop: Written) -> None:
    variant(shop, "c", 100)
    variant(shop, "u", 150, number=17)  # the tables of the commit before are looked at once more
    looked_at(shop, "gone")
    variant(shop, "u", 200)
    assert dirty(shop) == set()


def test_a_variant_that_comes_back_wakes_it(shop: Written) -> None:
    variant(shop, "c", 100)
    variant(shop, "d", 200)
    variant(shop, "u", 250, number=19)
    looked_at(shop, "gone")
    variant(shop, "c", 300)
    assert dirty(shop) == {"1", "2"}


def test_what_is_still_not_ready_stays_and_what_is_held_is_woken(shop: Written) -> None:
    looked_at(shop, "not ready")
    looked_at(shop, "held", ["3", "9"])
    looked_at(shop, "done", ["2"])
    variant(shop, "c", 100, status="new")
    assert dirty(shop) == {"3", "9"}
    looked_at(shop, "done", ["3", "9"])
    variant(shop, "c", 200, number=20)
    assert dirty(shop) == set()


def test_a_document_that_is_looked_at_meanwhile_is_marked_again(shop: Written) -> None:
    looked_at(shop, "done")
    shop.rows(
        "UPDATE ordertap_shop.unit SET owner = 'w', due_at = clock_timestamp() + interval '1 minute'"
        " WHERE unit = 'price:3' RETURNING unit"
    )
    variant(shop, "c", 100)
    assert dirty(shop) == {"3"}


def test_a_document_that_is_looked_at_for_longer_than_a_lease_is_marked_again(shop: Written) -> None:
    """The worker has renewed its lease; the first one would have ended by now."""
    looked_at(shop, "done")
    with transaction(shop.connection) as cursor:
        taken = leases.take(cursor, "w", 60, ["price:3"])
    _pass(shop, 50)
    with transaction(shop.connection) as cursor:
        assert leases.renew(cursor, taken, 60, least=50) == 60
    _pass(shop, 30)
    with transaction(shop.connection) as cursor:
        assert leases.prove(cursor, taken) > 0
    variant(shop, "c", 100)
    assert dirty(shop) == {"3"}


def _pass(shop: Written, seconds: int) -> None:
    shop.rows(
        "UPDATE ordertap_shop.unit SET due_at = due_at - make_interval(secs => %s),"
        " deadline = deadline - make_interval(secs => %s) RETURNING unit",
        seconds, seconds,
    )  # fmt: skip


def test_a_look_that_began_while_the_row_was_committed_is_found_by_the_next_commit(shop: Written) -> None:
    looked_at(shop, "done")
    variant(shop, "c", 100)
    looked_at(shop, "gone")  # it had read what was before
    variant(shop, "u", 200)
    assert dirty(shop) == {"1", "2"}


def test_a_new_stager_finds_a_look_that_began_while_the_last_one_committed(shop: Written) -> None:
    looked_at(shop, "done")
    variant(shop, "c", 100)
    looked_at(shop, "gone")  # it had read what was before
    shop.copy = shop.writer()
    with transaction(shop.connection) as cursor:
        shop.copy.prepare(cursor)
        shop.copy.mark(cursor)
    assert dirty(shop) == {"1", "2"}


def test_tables_that_are_no_reference_ask_nothing(shop: Written) -> None:
    class Silent:
        def execute(self, *_: object) -> None:
            raise AssertionError

    assert late.woken(Silent(), "shop", shop.profile, {LINES, "public.elsewhere"}) == set()  # type: ignore[arg-type]
    assert late.woken(Silent(), "shop", shop.profile, set()) == set()  # type: ignore[arg-type]
