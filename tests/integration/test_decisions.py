"""`sink release`, `sink ignore`, `sink retry` by cause: a dry run first, then done, with the name in the history."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from schemas.model.errors import SettingsError
from sink.commands import ignore, release, retry
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.documents.refs import DocumentRef
from sink.erp.contract import ConflictError, NotDone, RetryError, Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.ledger import leases
from sink.operations import holds
from sink.operations.accept import accept_document
from sink.operations.holds import WORDS
from sink.operations.ignore import leave_alone
from sink.operations.release import let_pass
from sink.planning.policy import Check
from sink.planning.ways_out import WAYS, Way, addressed, commands, ways
from sink.reconcile.sides import reconcile
from tests.fix_erp import (
    ORDER,
    REFUND,
    RETURN,
    adapter_of,
    change,
    drain,
    held,
    in_erp,
    look,
    mark,
    pass_deadlines,
    rows,
    run,
)


def _by(middle: Connection) -> list[tuple[Any, ...]]:
    return rows(middle, "SELECT type, key, event, person FROM ordertap_shop.history WHERE person > '' ORDER BY id")


@pytest.fixture
def wrong_totals(profile_path: str) -> str:
    """A shop whose orders' totals are two cents more than their lines."""
    order = Path(f"{profile_path}sales_order.sql")
    order.write_text(order.read_text().replace("round(gross / 1.19, 2) AS net", "round(gross / 1.19, 2) + 0.02 AS net"))
    return profile_path


def test_totals_that_differ_by_a_cent_go_by_a_word_until_the_order_changes(
    middle: Connection, erp: SqlErp, erp_url: str, wrong_totals: str
) -> None:
    worker = in_erp(middle, erp, wrong_totals)
    count = "SELECT count(*)::int FROM orders"
    assert (len(held(middle)), run(erp_url, count)) == (1, [(0,)])
    with pytest.raises(SettingsError, match="check `totals`, which `sink accept` cannot clear"):
        accept_document(middle, ORDER, "Ada", execute=True)
    found = let_pass(middle, ORDER, "Ada", execute=False)
    assert next(release.lines(ORDER, found, False)).startswith("sales_order 1 would pass check `totals` as it is now")
    drain(worker)
    assert run(erp_url, count) == [(0,)]
    let_pass(middle, ORDER, "Ada", execute=True)
    look(worker, middle, ORDER)
    assert (held(middle), run(erp_url, count)) == ([], [(1,)])
    assert _by(middle) == [(*ORDER, "released", "Ada")]
    change(middle, "UPDATE orders SET gross = 9.90")
    look(worker, middle, ORDER)
    assert len(held(middle)) == 1, "of that version nobody has said anything"


def test_a_return_of_more_than_was_sold_goes_by_a_word(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 3, 5)")
    look(worker, middle, RETURN, REFUND)
    assert len(held(middle)) == 1
    let_pass(middle, RETURN, "Ada", execute=True)
    drain(worker)
    assert (held(middle), run(erp_url, "SELECT quantity::int FROM return_lines")) == ([], [(3,)])


def test_what_the_shop_deleted_is_cancelled_in_the_erp_by_a_word(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    look(worker, middle, RETURN, REFUND)
    change(middle, "DELETE FROM orders; DELETE FROM returns")
    look(worker, middle, ORDER, RETURN, REFUND)
    assert len(held(middle)) == 3
    for ref in (RETURN, REFUND, ORDER):
        let_pass(middle, ref, "Ada", execute=True)
        drain(worker)
    states = "SELECT status FROM orders UNION ALL SELECT status FROM returns UNION ALL SELECT status FROM refunds"
    assert (held(middle), run(erp_url, states)) == ([], [("cancelled",)] * 3)
    look(worker, middle, ORDER, RETURN, REFUND)
    state = "SELECT DISTINCT state FROM ordertap_shop.document WHERE type <> 'customer'"
    assert rows(middle, state) == [("gone",)]


class Fails(SqlErp):
    """Fails one call, which changes nothing."""

    error: RetryError | None = None

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        if self.error is None:
            return super().apply(steps, not_after)
        error, self.error = self.error, None
        return [NotDone(error) for _ in steps]


@pytest.mark.parametrize(
    "error", [RetryError("HTTP 503"), ConflictError("a clerk was faster")], ids=["outage", "conflict"]
)
def test_a_release_of_what_the_shop_deleted_outlasts_a_failed_call_and_is_used_up_by_the_one_that_is_done(
    middle: Connection, erp_url: str, profile_path: str, error: RetryError
) -> None:
    fails = adapter_of(Fails, erp_url)
    try:
        worker = in_erp(middle, fails, profile_path)
        change(middle, "DELETE FROM orders")
        look(worker, middle, ORDER)
        let_pass(middle, ORDER, "Ada", execute=True)
        fails.error = error
        worker.step()
        assert (fails.error, run(erp_url, STATUS)) == (None, [("confirmed",)]), "a call was made, and failed"
        pass_deadlines(middle)
        drain(worker)
        assert (held(middle), run(erp_url, STATUS)) == ([], [("cancelled",)])
        run(erp_url, "UPDATE orders SET status = 'confirmed'")  # a clerk opens it again
        look(worker, middle, ORDER)
        assert (len(held(middle)), run(erp_url, STATUS)) == (1, [("confirmed",)])
    finally:
        fails.close()


STATUS = "SELECT status FROM orders"


def test_a_release_of_what_the_shop_deleted_ends_when_the_shop_has_it_again(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "CREATE TABLE away AS TABLE orders; DELETE FROM orders")
    look(worker, middle, ORDER)
    let_pass(middle, ORDER, "Ada", execute=True)
    change(middle, "INSERT INTO orders TABLE away")
    drain(worker)
    change(middle, "DELETE FROM orders")
    look(worker, middle, ORDER)
    assert (len(held(middle)), run(erp_url, STATUS)) == (1, [("confirmed",)]), "nobody was asked about this deletion"


def test_what_the_erp_would_refuse_anyway_is_not_released(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    change(middle, "UPDATE orders SET gross = 9.90")
    look(worker, middle, ORDER)
    with pytest.raises(SettingsError) as refused:
        let_pass(middle, ORDER, "Ada", execute=True)
    assert refused.value.hint == "fix it; commands that clear it: `sink retry`, `sink accept`, `sink ignore`"


def test_an_order_is_ignored_for_ever_with_what_comes_of_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    look(worker, middle, RETURN)
    left = leave_alone(middle, ORDER, False, "Ada", execute=False)
    [(order, number)] = run(erp_url, "SELECT 1, id::text FROM orders")
    assert next(ignore.lines(left, False, False)) == (
        f"sales_order {order} would be ignored from now on; {number} stays in the ERP"
    )
    leave_alone(middle, ORDER, False, "Ada", execute=True)
    change(middle, "UPDATE orders SET gross = 9.90; UPDATE returns SET quantity = 2")
    mark(middle, ORDER, RETURN, REFUND)  # the refund was made later
    drain(worker)
    assert held(middle) == []
    assert run(erp_url, "SELECT gross::text, (SELECT count(*)::int FROM refunds) FROM orders") == [("11.90", 0)]
    state = "SELECT type, state, seen = marked FROM ordertap_shop.document WHERE type <> 'customer' ORDER BY 1"
    ignored = [("refund", "ignored", True), ("return_order", "ignored", True), ("sales_order", "ignored", True)]
    assert rows(middle, state) == ignored
    report = reconcile(middle, None, "shop", load_profile(profile_path), erp, collective=False)
    assert {one.result for one in report.findings} == {"ignored"}
    with pytest.raises(SettingsError, match="no sales_order 1, or it is ignored"):
        retry.line(middle, *ORDER)
    retry.line(middle, "", "", all_states=True)
    drain(worker)
    assert rows(middle, state) == ignored
    leave_alone(middle, ORDER, True, "Ada", execute=True)
    drain(worker)
    assert run(erp_url, "SELECT gross::text, (SELECT count(*)::int FROM refunds) FROM orders") == [("9.90", 1)]
    assert _by(middle)[0] == (*ORDER, "ignored", "Ada")
    assert (*REFUND, "ignore undone", "Ada") in _by(middle)


def test_what_a_worker_has_cannot_be_ignored(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    """The worker would overwrite the decision with its outcome."""
    worker = in_erp(middle, erp, profile_path)
    mark(middle, ORDER)
    with transaction(middle) as cursor:
        [lease] = leases.lease(cursor, "w2", 60.0, 1)
    with pytest.raises(SettingsError, match="a step of sales_order 1 is under way"):
        leave_alone(middle, ORDER, False, "Ada", execute=True)
    assert _by(middle) == []
    with transaction(middle) as cursor:
        leases.release(cursor, [lease])
    leave_alone(middle, ORDER, False, "Ada", execute=True)
    drain(worker)
    assert rows(middle, "SELECT state FROM ordertap_shop.document WHERE type = 'sales_order'") == [("ignored",)]


def test_a_return_is_ignored_alone(middle: Connection, erp: SqlErp, erp_url: str, profile_path: str) -> None:
    worker = in_erp(middle, erp, profile_path)
    change(middle, "INSERT INTO returns VALUES (5, 1, 3, 20)")
    look(worker, middle, RETURN, REFUND)
    assert len(held(middle)) == 2
    [left] = leave_alone(middle, RETURN, False, "Ada", execute=True)
    assert list(ignore.lines([left], False, True)) == [
        "return_order 5 is ignored from now on; the ERP does not have it"
    ]
    drain(worker)
    assert len(held(middle)) == 1
    with pytest.raises(SettingsError, match="there is no return_order 5, or it is ignored already"):
        leave_alone(middle, RETURN, False, "Ada", execute=True)


def test_what_is_held_is_looked_at_again_by_cause_or_check_and_everything_by_a_word(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    change(middle, "UPDATE orders SET sku = 'NEW'")
    worker = in_erp(middle, erp, profile_path)
    assert held(middle) == ["the ERP has no item NEW"]
    assert retry.line(middle, "", "", cause="totals") == "0 to be looked at again"
    for cause in ("master data", "unknown item"):
        assert retry.line(middle, "", "", cause=cause) == "1 to be looked at again"
    drain(worker)
    marked = "SELECT sum(marked)::int FROM ordertap_shop.document"
    before = rows(middle, marked)
    assert retry.line(middle, "", "", all_states=False).startswith(
        "2 to be looked at again, done ones too; nothing was"
    )
    assert rows(middle, marked) == before
    assert retry.line(middle, "", "", all_states=True) == "2 to be looked at again, done ones too"
    assert rows(middle, marked) == [(before[0][0] + 2,)]
    for by_word in (lambda word: retry.line(middle, "", "", cause=word), lambda word: holds.held(middle, word)):
        with pytest.raises(SettingsError, match="there is no cause or check nonsense"):
            by_word("nonsense")
    for words in ({}, {"every": True, "cause": "totals"}):
        with pytest.raises(SettingsError, match="say which"):
            retry.line(middle, "", "", **words)


@pytest.mark.parametrize(
    ("state", "cause", "check", "words"),
    [
        ("held", "data", "totals", {"data", "totals"}),
        ("held", None, None, {"decision"}),  # an earlier release wrote down neither
        ("waits", "waits", None, {"waits"}),
        ("retry", None, None, {"retry"}),
        ("planned", None, None, set()),
    ],
)
def test_the_same_words_name_what_is_shown_and_what_is_looked_at_again(
    middle: Connection, state: str, cause: str | None, check: str | None, words: set[str]
) -> None:
    mark(middle, ORDER)
    with transaction(middle) as cursor:
        cursor.execute("UPDATE document SET (state, cause, check_name) = (%s, %s, %s)", (state, cause, check))
    assert {word for word in WORDS if sum(group.documents for group in holds.held(middle, word))} == words
    assert {word for word in WORDS if holds.retry_by(middle, word)} == words


def test_no_check_is_called_like_a_cause() -> None:
    assert len(set(WORDS)) == len(WORDS)


@pytest.mark.parametrize("is_there", [True, False], ids=["in the ERP", "not there"])
def test_each_way_out_of_each_check_can_be_gone_and_no_other(
    middle: Connection, erp: SqlErp, profile_path: str, is_there: bool
) -> None:
    """Everything that `sink held` suggests is possible."""
    in_erp(middle, erp, profile_path)
    does = {
        Way.RETRY: lambda: retry.line(middle, *ORDER),
        Way.RELEASE: lambda: let_pass(middle, ORDER, "Ada", execute=True),
        Way.ACCEPT: lambda: accept_document(middle, ORDER, "Ada", execute=True),
        Way.IGNORE: lambda: leave_alone(middle, ORDER, False, "Ada", execute=True),
    }
    for check in Check:
        can = {*ways(check, is_there)}
        said = {command.split()[1] for command in commands(check, str(ORDER), is_there)}
        assert said == {str(way) for way in can - {Way.RETRY}}
        for way, do in does.items():
            _is_held(middle, check, is_there)
            if way in can:
                do()
            else:
                with pytest.raises(SettingsError):
                    do()


def _is_held(middle: Connection, check: Check, is_there: bool) -> None:
    """Holds the order for this check. For an unknown outcome there is an intent."""
    applied = "(SELECT applied FROM ordertap_shop.document WHERE type = 'customer')" if is_there else "NULL"
    under_way = "'{}'" if check is Check.UNCLEAR else "NULL"
    with transaction(middle) as cursor:
        cursor.execute(
            "UPDATE ordertap_shop.document SET state = 'held', cause = 'decision', check_name = %s, decisions = NULL,"
            f" reason = 'why', next_step = 'fix it', intent = {under_way}, applied = {applied},"
            ' disputed = \'{"version": "v1", "fields": []}\' WHERE type = \'sales_order\'',
            (check,),
        )


def test_each_check_has_a_way_out() -> None:
    assert set(WAYS) == set(Check)
    assert all(Way.RETRY in found for found in WAYS.values())
    assert commands(Check.TOTALS, "sales_order 1", in_erp=False) == [
        "`sink release sales_order 1 --person NAME`: it is sent as it is",
        "`sink ignore sales_order 1 --person NAME`: it is left alone from now on",
    ]
    assert addressed("fix it, then `sink retry`", "sales_order 1") == "fix it, then `sink retry sales_order 1`"
    assert commands(None, str(DocumentRef("sales_order", "1")), in_erp=True) == []
