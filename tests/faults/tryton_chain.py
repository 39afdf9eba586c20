"""The sink's workers on a real Tryton: what is staged goes through ledger and planner, and arrives there."""

from __future__ import annotations

from contextlib import suppress
from decimal import Decimal

from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import Erp, Found, RetryError
from sink.erp.kinds import Milestone
from sink.planning.policy import Policy
from tests.fix_erp import CUSTOMER, change, mark, pass_deadlines, rows

NOT_DONE = "SELECT type, key, state, reason FROM ordertap_shop.document WHERE state <> 'done' OR seen < marked"


def worker(
    connection: Connection, profile_path: str, erp: Erp, owner: str = "w1", goal: Milestone = Milestone.PROCESSING
) -> Worker:
    """Of a process of its own."""
    rules = Rules("shop", Policy("shop", goal=goal), apply=True, settle_seconds=0)
    return Worker(connection, load_profile(profile_path), erp, rules, owner)


def orders(middle: Connection, count: int) -> None:
    """So many of one buyer, and all of them marked."""
    change(
        middle,
        "INSERT INTO orders SELECT n, 'S-' || n, '7', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90"
        f" FROM generate_series(2, {count}) n",
    )
    mark(middle, CUSTOMER, *(DocumentRef("sales_order", str(n)) for n in range(1, count + 1)))


def until_done(middle: Connection, *workers: Worker) -> None:
    """In turn, until all documents are done; what times there are to wait for have passed."""
    for _ in range(30):
        for one in workers:
            with suppress(RetryError):
                one.step()
        pass_deadlines(middle)
        if not rows(middle, NOT_DONE):
            return
    raise AssertionError(str(rows(middle, NOT_DONE)))


def there_once(erp: Erp, count: int) -> list[Found]:
    """All orders of `orders`, each once and as the shop has it."""
    found = list(erp.page(["order"], "", 100).found)
    assert sorted(one.ref.external for one in found) == sorted(f"shop/order/{n}/1" for n in range(1, count + 1))
    assert {one.observed.milestone for one in found} == {Milestone.PROCESSING}
    assert {one.observed.record.fields["gross"] for one in found} == {Decimal("11.90")}
    return found
