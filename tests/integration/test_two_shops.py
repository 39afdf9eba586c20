"""Two shops in one middle-layer database and one ERP: neither sees the other, and one can be removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from sink.documents.profile import Profile, load_profile
from tests.fix_erp import run as query
from tests.integration.stager_feed import Feed, order, until
from tests.programs import Program, run, write_settings

ROOT = Path(__file__).parents[2]
SECONDS = 120.0  # two programs start
DOCUMENTS = """
tables:
  public.orders: {id: bigint, status: text, total: numeric, note: text}
documents:
  customer: {model: Customer, key: orders.note, touched_by: {orders: note}}
  sales_order: {model: SalesOrder, key: orders.id, order: orders.id, touched_by: {orders: id}}
"""
_SUMS = "round(total / 1.19, 2) AS net, total - round(total / 1.19, 2) AS tax, total AS gross"
_WHICH = "FROM orders WHERE id = ANY (%(keys)s::bigint[])"
FILES = {
    "profile.yaml": DOCUMENTS,
    "customer.sql": "SELECT DISTINCT note AS key, 'registered' AS kind, 'Ann' AS name FROM orders"
    " WHERE note = ANY (%(keys)s)",
    "sales_order.sql": "SELECT id::text AS key, 'S-' || id AS number, note AS customer, 'EUR' AS currency,"
    f" '2026-01-01T10:00Z'::timestamptz AS placed_at, 'open' AS status, true AS tax_included, {_SUMS} {_WHICH}",
    "sales_order.lines.sql": "SELECT id::text AS parent, 'l1' AS key, 'A' AS sku, 1 AS quantity,"
    f" total AS unit_price, 19 AS tax_rate, {_SUMS} {_WHICH}",
    "sales_order.payments.sql": f"SELECT id::text AS parent, 'p' AS key, 'card' AS means, total AS amount {_WHICH}",
}


class OneShop(Feed):
    """A shop's records, and its sink as a process."""

    config: Path
    program: Program

    def sink(self, erp: str) -> Program:
        assert self.profile  # writes its folder
        settings = {
            "shop": self.shop,
            "profile": f"{self.folder}/profile",
            "topic_prefix": self.prefix,
            "bootstrap_servers": self.servers,
            "schema_registry_url": (self.folder / "registry").as_uri(),
            "database_url": self.url,
            "erp": {"url": erp, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "prices_owner": "shop",
            "mode": "apply",
            "workers": 1,
            "health_port": 0,
        }
        self.config = write_settings(self.folder / "settings.yaml", sink=settings)
        return Program("sink", self.config, self.folder / "sink.log")

    @property
    def profile(self) -> Profile:
        folder = self.folder / "profile"
        folder.mkdir(exist_ok=True)
        for name, text in FILES.items():
            (folder / name).write_text(text)
        return load_profile(str(folder))

    def place_order(self, number: int) -> None:
        lsn = self.place()
        self.commit(lsn, order(number, lsn))

    def documents(self) -> list[tuple[object, ...]]:
        return self.rows("SELECT type, key, state FROM document ORDER BY 1, 2")

    def says(self) -> list[list[str]]:
        """Each line of its status, split into words."""
        ended = run("sink", "status", config=self.config)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return [line.split() for line in ended.stdout.splitlines()]


@pytest.fixture
def two(
    tmp_path: Path, bootstrap_servers: str, prefix: str, database: str, erp_url: str
) -> Iterator[tuple[OneShop, OneShop]]:
    """Both at work, each with an order 1 of a buyer `x`."""
    shops = []
    with ExitStack() as ends:
        for name in ("first", "second"):
            (tmp_path / name).mkdir()
            shop = OneShop(tmp_path / name, bootstrap_servers, f"{prefix}{name}", database, shop=name)
            ends.callback(shop.connection.close)
            shop.begin()
            shop.place_order(1)
            shop.program = shop.sink(erp_url)
            shop.program.start()
            ends.callback(shop.program.kill)
            shops.append(shop)
        yield shops[0], shops[1]


def test_two_shops_share_a_database_and_an_erp(
    two: tuple[OneShop, OneShop], database: str, erp_url: str, new_database: Callable[..., str]
) -> None:
    first, second = two
    orders = "SELECT external_key, account_number FROM orders ORDER BY 1"
    expected = [("first/order/1/1", "first-100001"), ("second/order/1/1", "second-100001")]
    until(lambda: query(erp_url, orders) == expected, "both orders in the ERP", SECONDS)
    done = [("customer", "x", "done"), ("sales_order", "1", "done")]
    until(lambda: first.documents() == done == second.documents(), "both are done", SECONDS)
    second.place_order(2)
    more = [*done, ("sales_order", "2", "done")]
    until(lambda: second.documents() == more, "the second shop's next order", SECONDS)
    assert first.documents() == done
    assert ["sales_order", "1"] in first.says()
    assert ["sales_order", "2"] in second.says()
    assert query(database, "SELECT count(*) FROM first.orders") == [(1,)]
    assert query(database, "SELECT count(*) FROM second.orders") == [(2,)]


def test_a_shop_is_removed_with_its_two_schemas_and_the_other_goes_on(
    two: tuple[OneShop, OneShop], database: str, erp_url: str
) -> None:
    first, second = two
    until(lambda: len(query(erp_url, "SELECT id FROM orders")) == 2, "both orders in the ERP", SECONDS)
    second.program.stop()
    query(database, "DROP SCHEMA ordertap_second, second CASCADE")
    first.place_order(2)
    until(lambda: ("sales_order", "2", "done") in first.documents(), "the first shop's next order", SECONDS)
    left = "SELECT count(*) FROM pg_class WHERE relnamespace::regnamespace::text LIKE '%second%'"
    assert query(database, left) == [(0,)]
