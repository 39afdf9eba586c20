"""An ERP row that cannot be read holds its own document, and the sink goes on."""

import pytest

from sink.database import Connection
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from tests.fix_erp import ORDER, UNITS, change, drain, held, make_worker, mark, run


def test_an_order_that_cannot_be_read_is_held_and_the_next_one_goes(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    run(erp_url, "UPDATE orders SET placed_at = '12026-01-01'")  # a clerk's slip, which no Python date can have
    change(middle, "UPDATE orders SET gross = 9.90")
    change(middle, "INSERT INTO orders VALUES (2, 'S-2', '7', '2026-01-02T10:00Z', 'open', 'A', 2, 11.90)")
    second = DocumentRef("sales_order", "2")
    monkeypatch.setitem(UNITS, second, "sales_order:2")
    mark(middle, ORDER, second)
    drain(worker)
    assert [reason.partition(":")[0] for reason in held(middle)] == ["the ERP's rows of it cannot be read"]
    assert run(erp_url, "SELECT shop_number, gross::text FROM orders ORDER BY id") == [
        ("S-1", "11.90"),
        ("S-2", "11.90"),
    ]
