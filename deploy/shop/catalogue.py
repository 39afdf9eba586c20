"""What the sample shop sells: its tables and its products."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import psycopg2

PRODUCTS = (
    ("Steel bolt M8, box of 100", "12.90", 19),
    ("Brass hinge", "4.35", 19),
    ("Oak board 2 m", "23.50", 19),
    ("Wood glue 500 g", "7.99", 19),
    ("Workshop handbook", "29.95", 7),
    ("Linseed oil 1 l", "14.25", 19),
    ("Seed mix for birds", "5.49", 7),
    ("Japanese saw", "48.00", 19),
    ("Sandpaper set", "9.33", 19),
    ("Garden almanac", "17.77", 7),
    ("Folding rule", "6.01", 19),
    ("Vice 125 mm", "119.00", 19),
)


class Product(NamedTuple):
    """A row of products; `price` with tax, `tax_rate` in percent."""

    id: int
    sku: str
    name: str
    price: Decimal
    tax_rate: Decimal


def prepare(url: str, say: Callable[[str], None] = print) -> None:
    """Creates the shop's tables and catalogue in an empty database."""
    say("making the sample shop's tables")
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute((Path(__file__).parent / "schema.sql").read_text("utf-8"))
    add_products(url)


def add_products(url: str) -> None:
    """Fills the catalogue of a shop that has tables."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        for number, (name, price, rate) in enumerate(PRODUCTS, 1):
            cursor.execute(
                "INSERT INTO products (sku, name, price, tax_rate, attributes) VALUES (%s, %s, %s, %s, %s)",
                (f"P-{number:04}", name, price, rate, json.dumps({"weight_g": number * 120})),
            )


def skus(url: str) -> list[str]:
    """What the shop sells, for the ERP's item master."""
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sku FROM products ORDER BY sku")
        return [sku for (sku,) in cursor.fetchall()]
