"""Shop and ERP agree again after a restored backup or a wrong mapping, with a person's decision if one is needed."""

from collections.abc import Sequence

import pytest

from schemas.model.errors import SettingsError
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.commands import release
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.sql.adapter import SqlErp
from sink.operations.brake import release_mass
from sink.operations.release import let_all_pass, let_pass
from sink.planning.brake import Brake
from sink.planning.policy import Policy
from sink.reconcile.sides import reconcile
from tests.fix_erp import CUSTOMER, ORDER, change, drain, held, make_worker, mark, pass_deadlines, rows, run

ORDERS = [ORDER._replace(key=str(number)) for number in (1, 2, 3)]
GROSS = "SELECT gross::text FROM orders ORDER BY id"
FORGOTTEN = "the ERP has a document with this key that the ledger knows nothing of"


@pytest.fixture
def worker(middle: Connection, erp: SqlErp, profile_path: str) -> Worker:
    """Three orders of one buyer are in the ERP; it has changed them once."""
    more = (
        "SELECT n, 'S-' || n, customer, placed_at, status, sku, quantity, 5.95 FROM orders, generate_series(2, 3) AS n"
    )
    change(middle, f"INSERT INTO orders {more}")
    found = make_worker(middle, erp, profile_path)
    for gross in ("11.90", "9.90"):
        _change(middle, found, f"gross = {gross}")
    return found


def _change(middle: Connection, worker: Worker, what: str) -> None:
    change(middle, f"UPDATE orders SET {what}")
    mark(middle, CUSTOMER, *ORDERS)
    for _ in range(3):  # a create that met its own key is looked at again after a rest
        drain(worker)
        pass_deadlines(middle)


def _ledger(middle: Connection, *statements: str) -> None:
    with transaction(middle) as cursor:
        for statement in statements:
            cursor.execute(statement)


def _agree(middle: Connection, erp: SqlErp, profile_path: str) -> bool:
    return reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False).agrees


def test_what_a_ledger_from_a_backup_has_forgotten_is_known_again(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    _ledger(middle, "DELETE FROM document", "DELETE FROM unit", "DELETE FROM account", "DELETE FROM history")
    before = run(erp_url, "SELECT * FROM orders ORDER BY id")
    _change(middle, worker, "gross = gross")
    assert held(middle) == []
    assert run(erp_url, "SELECT * FROM orders ORDER BY id") == before, "nothing was sent"
    assert rows(middle, "SELECT DISTINCT state FROM document") == [("done",)]
    assert rows(middle, "SELECT DISTINCT detail FROM history WHERE event = 'done by hand'") == [
        ("the ledger did not know of it",)
    ]
    _change(middle, worker, "gross = 8.90")
    assert run(erp_url, GROSS) == [("8.90",)] * 3
    assert _agree(middle, erp, profile_path)


def test_orders_that_meet_a_buyer_who_is_known_again_go_on_at_once(
    worker: Worker, middle: Connection, erp_url: str
) -> None:
    """Two are looked at for the first time together with the buyer, who was still forgotten when it began."""
    _ledger(middle, "DELETE FROM document")
    run(erp_url, "UPDATE customers SET revision = 2")  # amended since it was made, so a create meets its own key
    mark(middle, CUSTOMER, ORDERS[0])
    drain(worker)
    states = "SELECT state, count(*)::int FROM document GROUP BY 1 ORDER BY 1"
    assert rows(middle, states) == [("retry", 1), ("waits", 1)]
    mark(middle, *ORDERS[1:])
    pass_deadlines(middle)
    drain(worker)
    known = "SELECT count(*)::int FROM history WHERE type = 'customer' AND event = 'done by hand'"
    assert rows(middle, known) == [(1,)]
    assert held(middle) == []
    pass_deadlines(middle)
    drain(worker)
    assert rows(middle, states) == [("done", 4)]


def test_what_was_forgotten_and_has_changed_goes_to_the_erp_by_a_word(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    _ledger(middle, "DELETE FROM document WHERE type = 'sales_order'")
    _change(middle, worker, "gross = 8.90")
    assert [reason.startswith(FORGOTTEN) for reason in held(middle)] == [True] * 3
    assert run(erp_url, GROSS) == [("9.90",)] * 3
    let_pass(middle, ORDER, "Ada", execute=True)
    drain(worker)
    assert run(erp_url, GROSS) == [("8.90",), ("9.90",), ("9.90",)]
    assert let_all_pass(middle, "unknown to the ledger", "Ada", execute=True).released == 2
    drain(worker)
    assert held(middle) == []
    assert _agree(middle, erp, profile_path)


def test_an_older_ledger_agrees_with_the_erp_without_a_step(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    backup = rows(middle, "SELECT applied::text FROM document WHERE type = 'sales_order' ORDER BY key")
    _change(middle, worker, "gross = 8.90")
    _restore(middle, [row[0] for row in backup])
    before = run(erp_url, "SELECT * FROM orders ORDER BY id")
    _change(middle, worker, "gross = gross")
    assert held(middle) == []
    assert run(erp_url, "SELECT * FROM orders ORDER BY id") == before
    assert _agree(middle, erp, profile_path)


def _restore(middle: Connection, applied: Sequence[str]) -> None:
    with transaction(middle) as cursor:
        for ref, record in zip(ORDERS, applied, strict=True):
            cursor.execute(
                "UPDATE document SET applied = %s, revision = 1 WHERE (type, key) = (%s, %s)", (record, *ref)
            )


def test_what_changed_on_both_sides_goes_as_the_shop_has_it_by_one_word_and_the_brake_counts_it(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    """As after a restore, or when the mapping names another column now: each order looks changed in the ERP."""
    run(erp_url, "UPDATE orders SET payment_means = 'cash'")
    _ledger(middle, "DELETE FROM brake_count")  # the changes counted lately pass again
    rules = Rules("shop", Policy("shop"), apply=True, settle_seconds=0, brake=Brake(orders=2))
    worker = Worker(middle, load_profile(profile_path), erp, rules, "w1")
    mark(middle, *ORDERS)
    drain(worker)
    assert len(held(middle)) == 3
    with pytest.raises(SettingsError, match="cannot clear check 'gap'"):
        let_all_pass(middle, "gap", "Ada", execute=True)
    dry = let_all_pass(middle, "changed in the ERP", "Ada", execute=False)
    assert (sum(group.documents for group in dry.held), dry.released) == (3, 0)
    assert "3 would pass check `changed in the ERP` as they are now" in [*release.all_lines(dry, False)][-2]
    drain(worker)
    assert run(erp_url, "SELECT DISTINCT payment_means FROM orders") == [("cash",)], "a dry run changes nothing"
    assert let_all_pass(middle, "changed in the ERP", "Ada", execute=True).released == 3
    drain(worker)
    assert [reason.split(":")[0] for reason in held(middle)] == ["brake"]
    release_mass(middle, "", "Ada", execute=True)
    drain(worker)
    assert held(middle) == []
    assert _agree(middle, erp, profile_path)
    assert rows(middle, "SELECT count(*)::int FROM history WHERE event = 'released' AND detail LIKE 'changed%'") == [
        (3,)
    ]
    run(erp_url, "UPDATE orders SET payment_means = 'cash' WHERE id = (SELECT min(id) FROM orders)")
    mark(middle, *ORDERS)
    drain(worker)
    assert held(middle) == ["changed in the ERP: payment_means: we wrote card, the ERP has cash"], "it was for once"
    with pytest.raises(SettingsError, match="nothing is held for check `totals`"):
        let_all_pass(middle, "totals", "Ada", execute=True)


def test_a_release_is_for_the_version_that_was_shown(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    run(erp_url, "UPDATE orders SET payment_means = 'cash' WHERE id = (SELECT min(id) FROM orders)")
    _change(middle, worker, "gross = gross")
    found = let_pass(middle, ORDER, "Ada", execute=True)
    assert "    payment_means: the shop has card, the ERP has cash" in [*release.lines(ORDER, found, True)]
    change(middle, "UPDATE orders SET gross = 7.90 WHERE id = 1")
    mark(middle, ORDER)
    drain(worker)
    assert run(erp_url, "SELECT payment_means FROM orders ORDER BY id LIMIT 1") == [("cash",)]
    assert [reason.split(":")[0] for reason in held(middle)] == ["changed in the ERP"]


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("UPDATE orders SET status = 'cancelled'", FORGOTTEN),
        ("DELETE FROM orders", "the order was deleted in the shop; the ERP still has it"),
    ],
    ids=["cancelled", "deleted"],
)
@pytest.mark.parametrize("forgotten", ["true", "type = 'sales_order'"], ids=["with the buyer", "alone"])
def test_what_was_forgotten_and_is_void_in_the_shop_does_not_stay_in_force_unseen(
    worker: Worker, middle: Connection, erp: SqlErp, erp_url: str, what: str, reason: str, forgotten: str
) -> None:
    """Nothing of it has to be made: only a look at the ERP shows that it is there."""
    _ledger(middle, f"DELETE FROM document WHERE {forgotten}")
    change(middle, what)
    mark(middle, *ORDERS)
    drain(worker)
    assert [found.startswith(reason) for found in held(middle)] == [True] * 3
    for ref in ORDERS:
        let_pass(middle, ref, "Ada", execute=True)
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT DISTINCT status FROM orders") == [("cancelled",)]
    assert rows(middle, "SELECT count(*)::int FROM document WHERE type = 'sales_order' AND external IS NULL") == [(0,)]
