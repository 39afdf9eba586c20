"""`sink rebuild`: a changed profile is applied to finished documents when a person asks for it, under the brake."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from schemas.model.errors import SettingsError
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import rebuild as commands
from sink.commands.status import told
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.operations import brake
from sink.operations.ignore import leave_alone
from sink.operations.rebuild import Rebuild, rebuild
from sink.operations.status import status
from sink.planning.brake import Brake
from sink.planning.policy import Policy
from tests.fix_erp import CUSTOMER, ORDER, PRICE, REFUND, RETURN, change, drain, held, mark, run

COUNT = 8
EVERY = COUNT + 4


def make(middle: Connection, erp: SqlErp, profile_path: str) -> Worker:
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, brake=Brake(orders=5))
    return Worker(middle, load_profile(profile_path), erp, rules, "w1")


@pytest.fixture
def sold(middle: Connection, erp: SqlErp, profile_path: str) -> Connection:
    """Eight orders, their buyer, a return with its refund, and a price."""
    more = f"SELECT n, 'S-' || n, '7', placed_at, 'open', 'A', 2, 11.90 FROM orders, generate_series(2, {COUNT}) AS n"
    change(middle, f"INSERT INTO orders {more}; INSERT INTO prices VALUES ('A', 10)")
    mark(middle, *(ORDER._replace(key=str(n)) for n in range(1, COUNT + 1)), PRICE)
    mark(middle)
    drain(make(middle, erp, profile_path))
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN, REFUND)
    drain(make(middle, erp, profile_path))
    assert held(middle) == []
    return middle


def amend_profile(profile_path: str, file: str, old: str, new: str) -> None:
    path = Path(profile_path, file)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def run_rebuild(middle: Connection, profile_path: str, execute: bool = False) -> Rebuild:
    return rebuild(middle, load_profile(profile_path), "shop", "", True, "Ada", execute)


def of_another(middle: Connection, profile_path: str) -> list[str]:
    version = load_profile(profile_path).version
    return [line for line in told(status(middle, True, version)) if "another profile" in line]


def test_a_changed_profile_is_said_and_what_it_changes_goes_behind_the_brake(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    assert of_another(sold, profile_path) == []
    assert run_rebuild(sold, profile_path).looked_at == 0
    amend_profile(profile_path, "sales_order.lines.sql", "'l1' AS key, sku,", "'l1' AS key, 'a name' AS name, sku,")
    assert of_another(sold, profile_path) == [
        f"{EVERY} documents were made by another profile: `sink rebuild --person NAME` says what would change"
    ]
    dry = run_rebuild(sold, profile_path)
    assert dry.looked_at == EVERY
    assert [(one.alike, one.documents, one.before, one.after) for one in dry.changes] == [
        (("sales_order", "amend", "EUR"), COUNT, Decimal("95.20"), Decimal("95.20"))
    ]
    assert list(commands.lines(dry, execute=False))[-1].startswith("nothing was changed")
    worker = make(sold, erp, profile_path)
    assert not worker.step(), "a dry run marks nothing"
    assert run_rebuild(sold, profile_path, execute=True).marked == COUNT
    drain(worker)
    assert run(erp_url, NAMED) == [(5,)]
    assert brake.release_mass(sold, "orders", "Ada", execute=True).released == COUNT - 5
    drain(worker)
    assert run(erp_url, NAMED) == [(COUNT,)]
    assert of_another(sold, profile_path) == []
    with transaction(sold) as cursor:
        cursor.execute("SELECT detail, person FROM history WHERE event = 'rebuilt'")
        assert [(detail.split(" by ")[0], person) for detail, person in cursor.fetchall()] == [
            (f"{COUNT} of {EVERY} documents differ", "Ada")
        ]
    amend_profile(profile_path, "sales_order.lines.sql", "'a name'", "'a new name'")
    run_rebuild(sold, profile_path, execute=True)
    drain(make(sold, erp, profile_path))
    assert run(erp_url, NAMED.replace("a name", "a new name")) == [(5,)], "what was released was another change"


NAMED = "SELECT count(*)::int FROM order_lines WHERE name = 'a name'"


def test_a_change_that_makes_the_same_documents_is_noted_and_sends_nothing(
    sold: Connection, erp: SqlErp, profile_path: str, erp_url: str
) -> None:
    amend_profile(profile_path, "sales_order.sql", "SELECT id::text", "SELECT  id::text")
    assert len(of_another(sold, profile_path)) == 1
    found = run_rebuild(sold, profile_path, execute=True)
    assert (found.looked_at, found.changes, found.marked) == (EVERY, [], 0)
    assert of_another(sold, profile_path) == []
    assert not make(sold, erp, profile_path).step()


def test_what_the_erp_has_not_or_a_person_ignores_was_made_by_no_profile(
    sold: Connection, erp: SqlErp, profile_path: str
) -> None:
    """Status and rebuild count the same documents."""
    change(sold, "DELETE FROM prices; INSERT INTO orders"
                 " VALUES (99, 'S-99', '9', '2026-01-01T10:00Z', 'cancelled', 'A', 2, 11.90)")  # fmt: skip
    mark(sold, PRICE, ORDER._replace(key="99"), CUSTOMER._replace(key="99"))
    drain(make(sold, erp, profile_path))
    leave_alone(sold, ORDER._replace(key="2"), False, "Ada", execute=True)
    drain(make(sold, erp, profile_path))
    amend_profile(profile_path, "sales_order.sql", "SELECT id::text", "SELECT  id::text")
    (told_of,) = of_another(sold, profile_path)
    looked_at = run_rebuild(sold, profile_path, execute=True).looked_at
    assert told_of.startswith(f"{looked_at} documents were made by another profile")
    assert of_another(sold, profile_path) == []


def test_what_would_be_removed_or_asked_about_is_said_apart(sold: Connection, profile_path: str) -> None:
    amend_profile(profile_path, "price.sql", "amount > 0 AS ready", "amount > 99 AS ready")
    amend_profile(profile_path, "sales_order.sql", "AS key, number,", "AS key, 'X' || number AS number,")
    found = run_rebuild(sold, profile_path)
    assert [(*one.alike, one.documents) for one in found.changes] == [
        ("price", "remove", "EUR", 1),
        ("sales_order", "hold", "EUR", COUNT),
    ]


def test_the_next_change_in_the_shop_is_built_by_the_new_profile_anyway(
    sold: Connection, erp: SqlErp, profile_path: str
) -> None:
    amend_profile(profile_path, "sales_order.sql", "SELECT id::text", "SELECT  id::text")
    change(sold, "UPDATE orders SET gross = 9.90 WHERE id = 1")
    mark(sold, ORDER)
    drain(make(sold, erp, profile_path))
    assert of_another(sold, profile_path)[0].startswith(f"{EVERY - 3} documents"), "its unit was looked at as a whole"


def test_documents_of_an_earlier_release_are_looked_at_and_not_complained_of(
    sold: Connection, profile_path: str
) -> None:
    with transaction(sold) as cursor:
        cursor.execute("UPDATE document SET made_by = NULL")
    assert of_another(sold, profile_path) == []
    assert run_rebuild(sold, profile_path).looked_at == EVERY


def test_nothing_is_rebuilt_by_a_copy_that_is_not_the_shop(sold: Connection, profile_path: str) -> None:
    with transaction(sold) as cursor:
        cursor.execute("UPDATE copy SET state = 'catching up'")
    with pytest.raises(SettingsError, match="the copy is catching up"):
        run_rebuild(sold, profile_path)
