"""What people read: an order with everything, holds with their money, lists, and the plan."""

import json
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import pytest

from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from sink.commands import held as held_said
from sink.commands import listing, output, plan
from sink.commands import show as show_said
from sink.commands.status import told
from sink.database import Connection, transaction
from sink.documents.profile import load_profile
from sink.erp.contract import NotDone, RetryError, Step, StepResult
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.ledger import history
from sink.ledger.history import HistoryLine, Place
from sink.ledger.outcomes import State
from sink.operations import holds
from sink.operations.accept import accept_document
from sink.operations.listing import listing as listed
from sink.operations.listing import planned
from sink.operations.show import Unit, show
from sink.operations.status import status
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    PRICE,
    REFUND,
    RETURN,
    ROOT,
    UNITS,
    change,
    drain,
    make_worker,
    mark,
    pass_deadlines,
    run,
    stand_at,
)
from tests.programs import run as start
from tests.programs import write_settings


def _story(middle: Connection) -> list[HistoryLine]:
    with transaction(middle) as cursor:
        return history.lines(cursor, ORDER)


def _at(middle: Connection, lsn: int) -> None:
    with transaction(middle) as cursor:
        stand_at(cursor, lsn)


def test_the_history_says_what_was_done_on_which_state_of_the_shop(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    _at(middle, 2_000)
    change(middle, "UPDATE orders SET gross = 9.90, quantity = 3")
    mark(middle, ORDER)
    drain(worker)
    _at(middle, 3_000)
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    change(middle, "UPDATE orders SET gross = 8.90")
    mark(middle, ORDER)
    drain(worker)
    made, amended, paid, refused = _story(middle)
    assert (made.event, made.place, made.reached, made.person) == ("create", Place(1, LSN(1_000)), "confirmed", "")
    assert made.detail
    assert made.command is not None
    assert (made.command.before, made.command.after, made.command.currency) == (None, Decimal("11.90"), "EUR")
    assert made.command.changes == ["line l1: 2 x A, 11.90"]
    assert (amended.event, amended.place) == ("amend", Place(1, LSN(2_000)))
    assert amended.command is not None
    assert {"gross: 11.90 → 9.90", "line l1 quantity: 2 → 3"} <= {*amended.command.changes}
    assert paid.command is not None
    assert (paid.event, paid.command.changes) == ("amend", ["paid: 9.90 → 8.90"]), "what the ERP takes goes first"
    assert (refused.event, refused.place, refused.command) == ("held", Place(1, LSN(3_000)), None)
    assert refused.detail.startswith("change prices, but the ERP has invoiced it")


def test_a_refusal_is_told_with_the_command_that_the_erp_refused(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    run(erp_url, "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not on a Sunday'; END $$")
    run(erp_url, "CREATE TRIGGER no BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION no()")
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    (refused,) = _story(middle)
    assert (refused.event, refused.place) == ("held", Place(1, LSN(1_000)))
    assert refused.detail.startswith("the ERP refused it: ")
    assert refused.command is not None
    assert plan.told(refused.command) == "create order (confirmed): 11.90 EUR"


def test_personal_fields_are_only_named_in_the_history(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    customer = Path(profile_path) / "customer.sql"
    customer.write_text(customer.read_text().replace("'Ann'", "'Bea'"))
    mark(middle, CUSTOMER)
    drain(make_worker(middle, erp, profile_path))
    with transaction(middle) as cursor:
        last = history.lines(cursor, CUSTOMER)[-1]
        cursor.execute("SELECT count(*) FROM ordertap_shop.history WHERE history::text ~ 'Ann|Bea'")
        assert cursor.fetchone() == (0,)
    assert last.command is not None
    assert last.command.changes == ["name"]


def _show(middle: Connection, erp_url: str, profile_path: str, *asked: str) -> Unit:
    mapping = load_mapping(ROOT / "deploy/erp/mapping.yaml")
    return show(middle, load_profile(profile_path), "shop", lambda: SqlErp(erp_url, mapping), asked)


def test_show_has_both_sides_what_differs_why_and_each_step(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, RETURN, REFUND)
    drain(worker)
    run(erp_url, "UPDATE orders SET status = 'invoiced'")
    change(middle, "UPDATE orders SET gross = 9.90")
    mark(middle, ORDER)
    drain(worker)
    unit = _show(middle, erp_url, profile_path, "S-1")
    assert [one.ledger.ref for one in unit.documents] == [ORDER, CUSTOMER, RETURN, REFUND]
    order = unit.documents[0]
    assert order.shop is not None
    assert order.shop["gross"] == Decimal("9.90")
    assert order.erp is not None
    assert (order.erp.milestone, order.erp.record["gross"]) == ("invoiced", Decimal("11.90"))
    assert ("gross", Decimal("9.90"), Decimal("11.90")) in [(one.name, one.one, one.other) for one in order.differences]
    assert "account" not in [one.name for one in order.differences]
    assert [one.differences for one in unit.documents[1:]] == [[], [], []]
    said = "\n".join(show_said.lines(unit))
    assert "sales_order 1 (S-1)  9.90 EUR: held since " in said
    assert "  why: change prices, but the ERP has invoiced it" in said
    assert "then `sink retry sales_order 1`" in said
    assert "    or `sink accept document sales_order 1 --person NAME`: it stays in the ERP as it is there" in said
    assert "    gross: the shop has 9.90, the ERP has 11.90" in said
    assert "create order (confirmed): 11.90 EUR  answer: " in said
    assert "    name: Ann" in said, "it is shown to the one who asks"
    (text,) = output.said(unit, (), True)
    first = json.loads(text)["documents"][0]
    assert {"ledger", "shop", "not_built", "erp", "differences", "history", "shares", "accepted"} == first.keys()
    assert first["history"][0]["place"] == {"generation": 1, "lsn": "0/3E8"}
    assert first["history"][0]["command"]["changes"] == ["line l1: 2 x A, 11.90"]


def test_show_says_of_a_difference_who_has_accepted_it(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    drain(worker)
    run(erp_url, "UPDATE orders SET payment_means = 'cash'; UPDATE order_lines SET quantity = 3")
    mark(middle, ORDER)
    drain(worker)

    def differs() -> list[str]:
        said = list(show_said.lines(_show(middle, erp_url, profile_path, "S-1")))
        return [line.strip() for line in said if "the shop has" in line]

    open_still = [
        "payment_means: the shop has card, the ERP has cash",
        "line l1 quantity: the shop has 2, the ERP has 3",
    ]
    assert differs() == open_still
    accept_document(middle, ORDER, "Ada", execute=True)
    drain(worker)
    assert differs() == [f"{line}  (accepted by Ada on {datetime.now().astimezone():%Y-%m-%d})" for line in open_still]
    run(erp_url, "UPDATE orders SET payment_means = 'cheque'")
    mark(middle, ORDER)
    drain(worker)
    assert differs()[0] == "payment_means: the shop has card, the ERP has cheque", "of that nobody has said anything"


def test_show_finds_by_number_key_or_type_and_key(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    change(middle, "INSERT INTO returns VALUES (7, 1, 1, 5.95)")
    mark(middle, ORDER, CUSTOMER, RETURN._replace(key="7"))
    drain(make_worker(middle, erp, profile_path))
    for asked in (["S-1"], ["1"], ["sales_order", "1"]):
        assert _show(middle, erp_url, profile_path, *asked).documents[0].ledger.ref == ORDER
    with pytest.raises(SettingsError, match="2 documents have the number or key 7") as several:
        _show(middle, erp_url, profile_path, "7")
    assert "`sink show customer 7`, `sink show return_order 7`" in several.value.hint
    for unknown in (["S-2"], ["sales_order", "2"], ["a", "b", "c"]):
        with pytest.raises(SettingsError, match="there is no document"):
            _show(middle, erp_url, profile_path, *unknown)


def test_show_says_what_it_knows_when_the_erp_is_away_or_the_shop_has_it_no_more(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str
) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    change(middle, "DELETE FROM orders")

    def away() -> SqlErp:
        raise RetryError("the ERP cannot be reached")

    unit = show(middle, load_profile(profile_path), "shop", away, ["S-1"])
    assert unit.erp_says == "the ERP cannot be reached"
    said = list(show_said.lines(unit))
    assert "  in the shop: the shop does not have it" in said
    assert said[-1] == "the ERP could not be asked: the ERP cannot be reached"


MANY = (
    "INSERT INTO orders SELECT n, 'S-' || n, 'c' || n, '2026-01-01T10:00Z', 'open',"
    " CASE WHEN n < 5 THEN 'NEW' ELSE 'A' END, 2, 11.90 FROM generate_series(2, 9) AS n"
)


def _orders(middle: Connection, first: int, last: int) -> None:
    refs = [one for n in range(first, last + 1) for one in (ORDER._replace(key=f"{n}"), CUSTOMER._replace(key=f"c{n}"))]
    mark(middle, *refs)


def test_held_is_by_cause_and_reason_with_counts_and_money(middle: Connection, erp: SqlErp, profile_path: str) -> None:
    change(middle, MANY)
    change(middle, "UPDATE orders SET sku = 'A', quantity = -id WHERE id IN (7, 8, 9)")
    _orders(middle, 2, 9)
    drain(make_worker(middle, erp, profile_path))
    groups = holds.held(middle, limit=2)
    assert [(one.cause, one.documents, one.money) for one in groups] == [
        ("data", 3, {}),
        ("master data", 3, {"EUR": Decimal("35.70")}),
    ]
    data, lacking = groups
    assert data.without_money == 3
    assert lacking.reason == "the ERP has no item NEW"
    assert [one.key for one in lacking.first] == ["2", "3"]
    said = list(held_said.lines(groups))
    assert "held for the ERP's master data; checked again automatically: 3 documents, 35.70 EUR" in said
    assert "    and 1 more; --limit shows them" in said
    assert "6 documents, 35.70 EUR (3 of them without an amount) held, waiting or tried again" in said
    assert [one.cause for one in holds.held(middle, "master data")] == ["master data"]
    with pytest.raises(SettingsError, match="no cause or check moon"):
        holds.held(middle, "moon")
    assert [one.key for one in listed(middle, State.HELD, "sales_order", 2)] == ["2", "3"]
    assert {one.state for one in listed(middle, None, None, 50)} == {"held", "done"}
    with pytest.raises(SettingsError, match="no document is called nonsense") as refused:
        listed(middle, None, "nonsense", 2, ["price"])
    assert refused.value.hint == "use one of: customer, price, sales_order"
    assert listed(middle, None, "price", 2, ["price"]) == [], "there may be none yet"
    rows = list(listing.lines(listed(middle, State.HELD, None, 2), 2))
    assert rows[0].split() == ["state", "document", "number", "gross", "currency", "since", "in", "the", "ERP"]
    assert rows[-1] == "the first 2; --limit shows more"


def test_held_lists_what_is_tried_again_and_after_some_attempts_a_person_is_told(
    middle: Connection, erp: SqlErp, profile_path: str
) -> None:
    mark(middle)
    drain(make_worker(middle, erp, profile_path))
    for attempts, stuck in ((9, 0), (10, 1)):
        with transaction(middle) as cursor:
            cursor.execute(
                "UPDATE ordertap_shop.document SET state = 'retry', attempts = %s, next_step = 'wait',"
                " reason = 'the ERP is locked', next_try = clock_timestamp() WHERE type = 'sales_order'",
                (attempts,),
            )
        (group,) = holds.held(middle)
        assert (group.cause, group.documents, group.stuck) == ("retry", 1, stuck)
    said = list(held_said.lines([group]))
    assert "    1 of them failed 10 times or more: someone must look at them" in said
    assert any("tried 10 times, the next try at " in line for line in said)


class Locked(SqlErp):
    """Somebody has locked a row that an order needs, and never lets go."""

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        others = iter(super().apply([one for one in steps if one.ref.kind != "order"], not_after))
        locked = NotDone(RetryError("the row is locked"))
        return [locked if one.ref.kind == "order" else next(others) for one in steps]


def test_the_history_tells_the_first_and_the_tenth_failed_attempt(
    middle: Connection, erp_url: str, profile_path: str
) -> None:
    erp = Locked(erp_url, load_mapping(ROOT / "deploy/erp/mapping.yaml"))
    worker = make_worker(middle, erp, profile_path)
    mark(middle)
    for _ in range(12):
        drain(worker)
        pass_deadlines(middle)
    erp.close()
    assert [one.event for one in _story(middle)] == ["retry", "retry"]
    assert all(one.command is not None and one.detail == "the row is locked" for one in _story(middle))
    (group,) = holds.held(middle)
    assert (group.cause, group.reason, group.stuck) == ("retry", "the row is locked", 1)
    assert group.first[0].attempts >= 10
    assert group.money == {"EUR": Decimal("11.90")}


def test_mode_plan_keeps_each_command_with_its_amounts(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V8: documents that others depend on count as done once they are planned, and caps still apply."""
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95), (15, 1, 2, 20)")
    change(middle, "INSERT INTO prices VALUES ('A', 4.1400)")
    more = RETURN._replace(key="15"), REFUND._replace(key="16")
    for one in more:
        monkeypatch.setitem(UNITS, one, UNITS[ORDER])
    mark(middle, ORDER, CUSTOMER, RETURN, REFUND, PRICE, *more)
    worker = make_worker(middle, erp, profile_path, apply=False)
    drain(worker)
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(0,)]
    found = planned(middle, 20)
    said = {(str(one.document.ref), plan.told(command)) for one in found.documents for command in one.commands}
    assert said == {
        ("customer 7", "create customer (confirmed)"),
        ("sales_order 1", "create order (confirmed): 11.90 EUR"),
        ("return_order 5", "create return (confirmed)"),
        ("refund 6", "create refund (draft): 5.95 EUR"),
        ("price A", "create price (confirmed): 4.14 EUR"),
    }
    assert sorted(one.reason for one in holds.held(middle)) == [
        "line:l1: 2 returned now, but 2 were sold and 1 already returned",
        "refund of 20.00 is too high: 11.90 was paid, 5.95 already refunded",
    ]
    sums = {f"{one.verb} {one.kind}": (one.commands, one.after) for one in found.sums}
    assert sums["create refund"] == (1, Decimal("5.95"))
    assert any(line.startswith("create order") and line.endswith("EUR") for line in plan.lines(found))
    drain(make_worker(middle, erp, profile_path))
    assert planned(middle, 20).sums == []
    assert run(erp_url, "SELECT count(*)::int FROM orders") == [(1,)]


def test_in_mode_plan_a_return_waits_for_an_order_that_cannot_be_planned(
    middle: Connection, erp: SqlErp, profile_path: str
) -> None:
    """And an order plans its buyer, who is not due otherwise."""
    worker = make_worker(middle, erp, profile_path, apply=False)
    mark(middle, CUSTOMER)
    drain(worker)
    assert planned(middle, 20).documents == [], "no document needs the buyer"
    change(middle, "UPDATE orders SET sku = 'NEW'")
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 5.95)")
    mark(middle, ORDER, RETURN, REFUND)
    drain(worker)
    assert [str(one.document.ref) for one in planned(middle, 20).documents] == ["customer 7"]
    reasons = [(one.cause, one.reason, one.documents) for one in holds.held(middle)]
    assert reasons == [("master data", "the ERP has no item NEW", 1), ("waits", "waits for sales_order 1", 2)]
    change(middle, "UPDATE orders SET sku = 'A'")
    mark(middle, ORDER)
    drain(worker)
    assert len(planned(middle, 20).documents) == 4
    assert [one.commands for one in planned(middle, 0).sums] == [1, 1, 1, 1]


def test_status_names_what_was_tried_so_often_that_a_person_must_look(middle: Connection) -> None:
    mark(middle)
    with transaction(middle) as cursor:
        cursor.execute("UPDATE ordertap_shop.document SET state = 'retry', attempts = 10, seen = marked")
    seen = status(middle, require_snapshot=False)
    assert seen.stuck == 2
    assert any(line.startswith("2 failed 10 times or more; next: `sink held --cause retry`") for line in told(seen))


def test_the_verbs_answer_people_and_programs(
    middle: Connection, erp: SqlErp, erp_url: str, profile_path: str, tmp_path: Path
) -> None:
    change(middle, "UPDATE orders SET sku = 'NEW'")
    mark(middle)
    drain(make_worker(middle, erp, profile_path, apply=False))
    settings = {
        "profile": profile_path, "topic_prefix": "shop", "bootstrap_servers": "127.0.0.1:1",
        "schema_registry_url": "file:///nowhere", "database_url": middle.dsn, "prices_owner": "shop",
        "erp": {"url": erp_url, "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
    }  # fmt: skip
    config = write_settings(tmp_path / "settings.yaml", sink=settings)
    answers = {
        ("held", "--cause", "master data"): "the ERP has no item NEW",
        ("list", "--state", "held"): "sales_order 1",
        ("plan", "--limit", "5"): "create customer",
        ("show", "S-1"): "the ERP has no item NEW",
    }
    for verb, said in answers.items():
        for more in ([], ["--json"]):
            ended = start("sink", *verb, *more, config=config)
            assert ended.returncode == 0, ended.stderr
            if more:
                assert json.loads(ended.stdout)
            else:
                assert said in ended.stdout
