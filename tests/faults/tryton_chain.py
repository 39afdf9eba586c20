"""The sink's workers on a real Tryton: staged rows go through ledger and planner, and arrive there."""

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
    """A worker as of another process."""
    policy = Policy("shop", goal=goal, refund_goal=Milestone.PROCESSING)
    rules = Rules("shop", policy, apply=True, settle_seconds=0)
    return Worker(connection, load_profile(profile_path), erp, rules, owner)


def orders(middle: Connection, count: int) -> None:
    """Orders 2 to `count` of one buyer; marks them, and order 1."""
    change(
        middle,
        "INSERT INTO orders SELECT n, 'S-' || n, '7', '2026-01-01T10:00Z', 'open', 'A', 2, 11.90"
        f" FROM generate_series(2, {count}) n",
    )
    mark(middle, CUSTOMER, *(DocumentRef("sales_order", str(n)) for n in range(1, count + 1)))


def until_done(middle: Connection, *workers: Worker) -> None:
    """Lets the workers step in turn until every document is done; no deadline is waited for."""
    for _ in range(30):
        for one in workers:
            with suppress(RetryError):
                one.step()
        pass_deadlines(middle)
        if not rows(middle, NOT_DONE):
            return
    raise AssertionError(str(rows(middle, NOT_DONE)))


def there_once(erp: Erp, count: int) -> list[Found]:
    """Checks that each order of `orders` is there once and as in the shop."""
    found = list(erp.page(["order"], "", 100).found)
    assert sorted(one.ref.external for one in found) == sorted(f"shop/order/{n}/1" for n in range(1, count + 1))
    assert {one.observed.milestone for one in found} == {Milestone.PROCESSING}
    assert {one.observed.record.fields["gross"] for one in found} == {Decimal("11.90")}
    return found
