"""An unexpected error, or an error in a query to the ERP: only its document is held, and the others go on."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime
from functools import partial
from pathlib import Path

import pytest
from psycopg2 import sql

from deploy.embedded import Postgres
from sink.database import Connection, transaction
from sink.erp.contract import Checked, HoldError, Observed, Step, StepProgress, StepResult, StopError
from sink.erp.kinds import ErpRef
from sink.erp.sql.adapter import SqlErp
from sink.ledger import documents, marks
from tests.fix_erp import (
    CUSTOMER,
    ORDER,
    REFUND,
    RETURN,
    ROOT,
    adapter_of,
    change,
    drain,
    held,
    make_worker,
    mark,
    pass_deadlines,
    run,
)

COUNT = 6
MANY = (
    "INSERT INTO orders SELECT n, 'S-' || n, 'c' || n, '2026-01-01T10:00Z', 'open', 'A', 2, 11.90"
    f" FROM generate_series(2, {COUNT}) AS n"
)
SECRET = "Ann Lovelace"


class Refusing(SqlErp):
    """An ERP that refuses questions which concern no single document."""

    asked: Collection[str] = ()

    def check(self) -> Checked:
        self._refuse_if("check" in self.asked)
        return super().check()

    def clock(self) -> datetime:
        self._refuse_if("clock" in self.asked)
        return super().clock()

    def _refuse_if(self, refuses: bool) -> None:
        if refuses:
            raise HoldError("it refused", "fix it")


class Failing(SqlErp):
    """An ERP that fails at each question with a `bad` document. `when`: the kinds of questions."""

    error: Callable[[], Exception] = partial(ValueError, SECRET)
    skus: Collection[str] = ()
    observes: Collection[str] = ()
    tells: Collection[str] = ()
    does: Collection[str] = ()

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        self._fail_if({*skus} & {*self.skus})
        return super().unknown_items(skus)

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        self._fail_if({ref.kind for ref in refs} & {*self.observes})
        return super().observe(refs)

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        self._fail_if({step.want.fields["number"] for step in steps} & {*self.tells})
        return super().progress(steps)

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        self._fail_if({step.want.fields["number"] for step in steps} & {*self.does})
        return super().apply(steps, not_after)

    def _fail_if(self, bad: Collection[object]) -> None:
        if bad:
            raise self.error()


@pytest.fixture
def failing(erp_url: str) -> Iterator[Failing]:
    adapter = adapter_of(Failing, erp_url)
    yield adapter
    adapter.close()


@pytest.fixture
def many(middle: Connection) -> Connection:
    change(middle, MANY)
    _mark_all(middle)
    return middle


def _mark_all(middle: Connection) -> None:
    refs = "SELECT 'sales_order' AS type, id::text AS key, 'sales_order:' || id AS unit FROM shop.orders"
    buyers = "SELECT 'customer', customer, 'customer:' || customer FROM shop.orders"
    with transaction(middle) as cursor:
        marks.mark(cursor, sql.SQL(f"{refs} UNION ALL {buyers}"))


def _states(middle: Connection, type_: str = "sales_order") -> dict[str, int]:
    with transaction(middle) as cursor:
        return {state: count for (name, state), count in documents.counts(cursor).items() if name == type_}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (partial(ValueError, SECRET), "unexpected error in the sink: ValueError"),
        (partial(HoldError, "the item cannot be looked up", "fix it", "data"), "the item cannot be looked up"),
    ],
)
def test_an_order_that_cannot_be_planned_is_held_alone(
    many: Connection, failing: Failing, profile_path: str, capsys: pytest.CaptureFixture[str],
    error: Callable[[], Exception], reason: str,
) -> None:  # fmt: skip
    change(many, "UPDATE orders SET sku = 'BAD' WHERE id = 3")
    failing.error, failing.skus = error, ("BAD",)
    drain(make_worker(many, failing, profile_path))
    assert held(many) == [reason]
    assert _states(many) == {"done": COUNT - 1, "held": 1}
    assert SECRET not in capsys.readouterr().out
    failing.skus = ()
    change(many, "UPDATE orders SET sku = 'A' WHERE id = 3")
    with transaction(many) as cursor:
        marks.retry(cursor, None)
    drain(make_worker(many, failing, profile_path))
    assert _states(many) == {"done": COUNT}


def test_a_name_that_the_erps_database_has_no_letters_for_holds_its_order_alone(
    many: Connection, postgres: Postgres, profile_path: str
) -> None:
    url = _in_latin_1(postgres)
    change(many, "UPDATE orders SET sku = 'Śruba' WHERE id = 3")
    with closing(adapter_of(SqlErp, url)) as erp:
        drain(make_worker(many, erp, profile_path))
    assert _states(many) == {"done": COUNT - 1, "held": 1}
    assert run(url, "SELECT count(*)::int FROM orders") == [(COUNT - 1,)]


def _in_latin_1(postgres: Postgres) -> str:
    """The reference ERP in a database with the encoding that many old ones have."""
    postgres.psql("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = postgres.dsn("latin")
    run(url, (ROOT / "deploy/erp/schema.sql").read_text())
    run(url, "INSERT INTO company VALUES ('erp-latin', 'Works'); INSERT INTO items VALUES ('A', 'a')")
    return url


def test_an_order_with_a_date_that_python_does_not_have_is_held_alone(
    many: Connection, erp: SqlErp, profile_path: str
) -> None:
    change(many, "UPDATE orders SET placed_at = '10000-01-01' WHERE id = 3")
    drain(make_worker(many, erp, profile_path))
    assert len(held(many)) == 1
    assert _states(many) == {"done": COUNT - 1, "held": 1}
    assert _states(many, "customer") == {"done": COUNT}


@pytest.mark.parametrize("apply", [True, False])
def test_the_order_of_a_buyer_who_joins_it_and_cannot_be_built_waits(
    many: Connection, erp: SqlErp, profile_path: str, apply: bool
) -> None:
    """A plan says what would be sent, and not more."""
    comes_to = "done" if apply else "planned"
    sql_of = Path(profile_path) / "customer.sql"
    odd = "CASE WHEN customer = 'c3' THEN DATE '10000-01-01' END AS tax_id FROM"
    sql_of.write_text(sql_of.read_text().replace(" FROM", f", {odd}", 1))
    with transaction(many) as cursor:  # buyers are looked at when their orders need them
        cursor.execute("UPDATE ordertap_shop.unit SET due_at = NULL WHERE unit LIKE 'customer:%'")
    drain(make_worker(many, erp, profile_path, apply=apply))
    assert "waits for customer c3" in held(many)
    assert _states(many) == {comes_to: COUNT - 1, "waits": 1}
    assert _states(many, "customer") == {comes_to: COUNT - 1, "held": 1}


def test_of_an_order_with_its_refund_the_refund_alone_is_held(
    middle: Connection, failing: Failing, profile_path: str, erp_url: str
) -> None:
    mark(middle)
    drain(make_worker(middle, failing, profile_path))
    change(middle, "INSERT INTO returns VALUES (5, 1, 1, 3.30)")
    mark(middle, RETURN, REFUND)
    drain(make_worker(middle, failing, profile_path))
    failing.observes = ("refund",)
    change(middle, "UPDATE orders SET gross = 9.90; UPDATE returns SET quantity = 2, refunded = 6.60")
    mark(middle, ORDER, CUSTOMER, RETURN, REFUND)
    drain(make_worker(middle, failing, profile_path))
    assert held(middle) == ["unexpected error in the sink: ValueError"]
    assert _states(middle, "refund") == {"held": 1}
    assert run(erp_url, "SELECT gross::text FROM orders") == [("9.90",)]
    assert run(erp_url, "SELECT quantity::int FROM return_lines") == [(2,)]


def test_a_step_that_the_erp_cannot_be_asked_for_holds_its_document_alone(
    many: Connection, failing: Failing, profile_path: str
) -> None:
    drain(make_worker(many, failing, profile_path))
    change(many, "UPDATE orders SET gross = 9.90")
    _mark_all(many)
    failing.does = ("S-1",)  # one call for all of them
    drain(make_worker(many, failing, profile_path))
    assert _states(many) == {"retry": COUNT}, "nobody knows what became of them"
    failing.does, failing.tells = (), ("S-3",)
    pass_deadlines(many)
    drain(make_worker(many, failing, profile_path))
    assert _states(many) == {"done": COUNT - 1, "held": 1}


def test_an_adapter_that_fails_by_one_step_fails_by_that_one_alone_the_next_time(
    many: Connection, failing: Failing, profile_path: str, capsys: pytest.CaptureFixture[str]
) -> None:
    failing.does = ("S-3",)
    drain(make_worker(many, failing, profile_path))
    pass_deadlines(many)
    drain(make_worker(many, failing, profile_path))
    assert _states(many) == {"done": COUNT - 1, "retry": 1}
    assert SECRET not in capsys.readouterr().out


@pytest.mark.parametrize("asked", ["check", "clock"])
def test_an_erp_that_refuses_what_concerns_no_document_stops_applying_and_holds_none(
    many: Connection, erp_url: str, profile_path: str, asked: str
) -> None:
    with closing(adapter_of(Refusing, erp_url)) as erp:
        erp.asked = (asked,)
        with pytest.raises(StopError, match="it refused"):
            drain(make_worker(many, erp, profile_path))
        assert held(many) == []
        erp.asked = ()
        drain(make_worker(many, erp, profile_path))
    assert _states(many) == {"done": COUNT}
