"""Which indexes a profile's SQL needs, and their names."""

from pathlib import Path

import pytest

from sink.documents.profile import load_profile
from sink.staging.indexes import wanted

LONG = "line_" * 10
PROFILE = f"""
tables:
  public.orders: {{id: bigint}}
  public.orders_of: {{id: bigint}}
  public.products: {{id: bigint}}
  public.{LONG}: {{id: bigint, product_id: bigint}}
documents:
  sales_order:
    model: SalesOrder
    key: orders.id
    touched_by:
      orders: [id, of_buyer, "lower(email)"]
      orders_of: buyer
      {LONG}: order_id
      products: SELECT l.order_id FROM changed c JOIN {LONG} l ON l.product_id = c.id
"""
LINES = f"SELECT 1 AS parent FROM {LONG} AS l JOIN products p USING (id) WHERE l.shipment_id = ANY (%(keys)s::bigint[])"
HEAD = "SELECT 1 AS key FROM (SELECT 1) x WHERE x.id = ANY (%(keys)s)"


def test_columns_by_which_the_profile_finds_rows(tmp_path: Path) -> None:
    (tmp_path / "profile.yaml").write_text(PROFILE)
    (tmp_path / "sales_order.sql").write_text(HEAD)
    (tmp_path / "sales_order.lines.sql").write_text(LINES)
    found = wanted(load_profile(str(tmp_path)))
    assert [(index.table, index.column) for index in found] == [
        ("public.orders", "id"),
        ("public.orders", "of_buyer"),
        ("public.orders_of", "buyer"),
        (f"public.{LONG}", "order_id"),
        (f"public.{LONG}", "product_id"),
        ("public.products", "id"),
        (f"public.{LONG}", "shipment_id"),
    ]
    names = [index.name for index in found]
    assert names[0] == "ordertap_orders_id"
    assert len(set(names)) == len(names)
    assert max(map(len, names)) <= 63


@pytest.mark.parametrize(("name", "table", "column"), [
    ("sample", "public.product_prices", "product_id"), ("oscar", "public.order_paymentevent", "id"),
    ("oscar", "public.order_order", "billing_address_id"), ("sample_daily", "public.orders", "customer_id"),
    ("sample_daily", "public.order_lines", "order_id"),
])  # fmt: skip
def test_our_own_profiles_ask_for_what_they_join_by(name: str, table: str, column: str) -> None:
    assert (table, column) in {(index.table, index.column) for index in wanted(load_profile(name))}
