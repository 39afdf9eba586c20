"""Errors of the sink's surroundings, on the real processes: wrong settings, servers that are away, records and orders
that cannot be used.

One running chain for all tests. Each has orders of its own, and planted values that no log may show.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import psycopg2
import pytest
import yaml
from confluent_kafka import Producer

from deploy.embedded import Kafka, Postgres, free_port
from deploy.shop.catalogue import Product
from deploy.shop.checkout import Checkout
from deploy.shop.order import Line, add_line, write_totals
from deploy.shop.simulator import Simulator
from deploy.shop.staff import Staff
from schemas.model.errors import ExitCode
from tests.faults.day import Day
from tests.programs import Program, run, write_settings

PLANTED = "planted-secret-value"
PLANT = (
    f"UPDATE customers SET name = '{PLANTED}', email = '{PLANTED}-' || id || '@example.org'",
    f"UPDATE order_addresses SET name = '{PLANTED}', street = '{PLANTED}'",
    f"UPDATE orders SET note = '{PLANTED}'",
)
SECONDS = 30.0
ANSWERS_WITHIN = 45.0


class Chain(Day):
    """A day without kills."""

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka) -> None:
        super().__init__(folder, server, kafka, "badinput", 1)
        self.folder = folder
        self.server, self.kafka = server, kafka
        self.parts: dict[str, dict[str, Any]] = yaml.safe_load(self.config.read_text())
        for part in self.parts.values():
            part["log_level"] = "debug"
        write_settings(self.config, **self.parts)

    def order(self, change: Callable[[Any, int], None] = lambda _cursor, _order: None) -> str:
        """Places a paid order; `change` changes it within its transaction. Returns its key."""
        with closing(psycopg2.connect(self.shop)) as connection, connection, connection.cursor() as cursor:
            order = Checkout(random.Random()).place(cursor)
            change(cursor, order)
            Staff(random.Random()).pay(cursor, order)
            for statement in PLANT:
                cursor.execute(statement)
        return str(order)

    def rows(self, dsn: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs one statement in a database."""
        with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def in_erp(self, order: str) -> bool:
        for program in (self.capture, self.sink):
            assert program.ended() is None, program.tail()
        key = f"{self.prefix}/order/{order}/1"
        return bool(self.rows(self.erp, "SELECT 1 FROM orders WHERE external_key = %s", key))

    def says(self, *command: str) -> str:
        """The output of a command of the sink that must succeed."""
        ended = run("sink", *command, config=self.config)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert silent(ended.stderr)
        return ended.stdout

    def state(self, order: str) -> tuple[str, str]:
        """State and reason of an order in the ledger."""
        statement = "SELECT state, reason FROM ordertap_badinput.document WHERE type = 'sales_order' AND key = %s"
        found = self.rows(self.middle, statement, order)
        return (found[0][0], found[0][1] or "") if found else ("", "")


@pytest.fixture(scope="module")
def chain(postgres: Postgres, kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    """Shop, capture, Kafka, sink and ERP at work, with a few orders."""
    made = Chain(tmp_path_factory.mktemp("chain"), postgres, kafka)
    with closing(Simulator(made.shop, 5)) as simulator:
        simulator.run(5)
    made.capture.start()
    made.sink.start()
    try:
        first = made.order()
        wait_for(lambda: made.in_erp(first), "the first order in the ERP", 3 * SECONDS)
        yield made
    finally:
        made.sink.stop()
        made.capture.stop()
        made.witness.drop()


@pytest.fixture(autouse=True)
def clean_logs(chain: Chain) -> Iterator[None]:
    """Checks that no log line of either process shows a planted value or a stack trace, and that neither process
    ends."""
    yield
    for program in (chain.capture, chain.sink):
        log = program.log.read_text()
        assert program.ended() is None, program.tail()
        assert log.count("\n") > 3
        assert PLANTED not in log
        assert "Traceback" not in log


def wait_for(come: Callable[[], object], what: str, seconds: float = SECONDS) -> None:
    """Waits until it is true."""
    deadline = time.monotonic() + seconds
    while not come():
        assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}"
        time.sleep(0.2)


# Wrong settings, and parts that do not answer


def silent(stderr: str) -> bool:
    """Whether nothing is on stderr but what a slow machine waits for."""
    return all(line.startswith("...  ") for line in stderr.splitlines())


def _nowhere() -> str:
    return f"127.0.0.1:{free_port()}"


WRONG: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], ExitCode, str]] = {
    "unknown setting": (lambda own: {"settle_secnds": 1}, ExitCode.CONFIG, "did you mean settle_seconds?"),
    "wrong value": (lambda own: {"workers": "many"}, ExitCode.CONFIG, "workers: "),
    "price owner missing": (lambda own: {"prices_owner": None}, ExitCode.CONFIG, "- prices_owner is missing. Say who"),
    "unknown profile": (lambda own: {"profile": "sampel"}, ExitCode.CONFIG, "'sampel' is not one of oscar, sample"),
    "no mapping": (lambda own: {"erp": own["erp"] | {"mapping": "/absent.yaml"}}, ExitCode.CONFIG, "set erp.mapping"),
    "middle layer away": (
        lambda own: {"database_url": f"postgresql://u:{PLANTED}@{_nowhere()}/x"}, ExitCode.UNAVAILABLE, "database_url",
    ),
    "no such middle layer": (lambda own: {"database_url": own["database_url"] + "x"}, ExitCode.CONFIG, "database_url"),
    "registry away": (
        lambda own: {"schema_registry_url": f"http://{_nowhere()}"}, ExitCode.UNAVAILABLE, "schema_registry_url",
    ),
    "broker away": (lambda own: {"bootstrap_servers": _nowhere()}, ExitCode.UNAVAILABLE, "bootstrap_servers"),
}  # fmt: skip


@pytest.fixture(scope="module")
def refused(chain: Chain) -> dict[str, tuple[CompletedProcess[str], float]]:
    """How `sink run` ended with each of the settings, and after how many seconds. Three run at a time, to be quick."""

    def ended(name: str) -> tuple[CompletedProcess[str], float]:
        own = chain.parts["sink"]
        changed = own | {"group_id": "badinput-refused"} | WRONG[name][0](own)
        path = write_settings(chain.folder / f"{name}.yaml", sink={k: v for k, v in changed.items() if v is not None})
        began = time.monotonic()
        return run("sink", "run", config=path), time.monotonic() - began

    with ThreadPoolExecutor(3) as pool:
        return dict(zip(WRONG, pool.map(ended, WRONG), strict=True))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_start_ends_with_one_message(
    refused: dict[str, tuple[CompletedProcess[str], float]], name: str
) -> None:
    (ended, seconds), (_, code, text) = refused[name], WRONG[name]
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.startswith("sink: ")
    assert (ended.stderr.count("sink: "), ended.stderr.count("next: ")) == (1, 1), ended.stderr
    assert text in ended.stderr
    assert "Traceback" not in ended.stderr
    assert PLANTED not in ended.stderr + ended.stdout
    assert seconds < ANSWERS_WITHIN


def test_check_names_what_is_wrong_and_what_fixes_it(chain: Chain) -> None:
    assert chain.says("check").splitlines()[-2:] == ["ok   shop", "all is well"]
    own = chain.parts["sink"]
    wrong = own | {"shop_url": chain.erp, "erp": own["erp"] | {"url": f"postgresql://u:{PLANTED}@{_nowhere()}/x"}}
    ended = run("sink", "check", config=write_settings(chain.folder / "check.yaml", sink=wrong))
    assert ended.returncode == ExitCode.FAILED
    assert silent(ended.stderr)
    assert PLANTED not in ended.stdout
    told = ended.stdout.splitlines()
    assert [line[:12].split()[:2] for line in told if line.startswith("BAD")] == [["BAD", "ERP:"], ["BAD", "shop:"]]
    assert [told[n + 1].split()[0] for n, line in enumerate(told) if line.startswith("BAD")] == ["fix:", "fix:"]
    assert told[-1] == "2 to fix"


def test_reconcile_against_a_wrong_shop_is_refused(chain: Chain) -> None:
    wrong = chain.parts["sink"] | {"shop_url": chain.erp}
    ended = run("sink", "reconcile", config=write_settings(chain.folder / "wrong_shop.yaml", sink=wrong))
    assert ended.returncode == ExitCode.CONFIG, ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_erp_that_is_away_is_said_and_staging_goes_on(chain: Chain) -> None:
    middle = chain.server.create_database("badinput_no_erp")
    own = chain.parts["sink"]
    away = own["erp"] | {"url": f"postgresql://u:{PLANTED}@{_nowhere()}/x"}
    settings = own | {"group_id": "badinput-no-erp", "database_url": middle, "erp": away}
    program = Program("sink", write_settings(chain.folder / "erp.yaml", sink=settings), chain.folder / "erp.log")
    program.start()
    try:
        wait_for(lambda: "the ERP cannot be used now" in program.log.read_text(), "a word on the ERP", 2 * SECONDS)
        staged = "SELECT count(*) FROM ordertap_badinput.snapshot WHERE state = 'complete'"
        wait_for(lambda: chain.rows(middle, staged) == [(1,)], "the snapshot, staged meanwhile")
    finally:
        code = program.stop()
    log = program.log.read_text()
    assert code == 0, program.tail()
    assert "Connection refused" in log
    assert "check erp.url" in log
    assert PLANTED not in log
    assert "Traceback" not in log


# Records and orders that cannot be used


def test_unreadable_records_are_parked_and_the_rest_flows_on(chain: Chain) -> None:
    topic = f"{chain.prefix}.public.customers"
    schema = int((chain.folder / "registry" / "subjects" / f"{topic}-value").read_text().split()[-1])
    unread = (
        f"not Avro, {PLANTED}".encode(),
        b"\0" + schema.to_bytes(4, "big") + PLANTED.encode(),  # not what its schema says
        b"\0\x7f\xff\xff\xff" + PLANTED.encode(),  # no such schema
    )
    producer = Producer({"bootstrap.servers": chain.kafka.bootstrap_servers})
    for value in unread:
        producer.produce(topic, value=value, key=PLANTED.encode(), partition=0)
    assert producer.flush(10) == 0
    wait_for(
        lambda: chain.rows(chain.middle, "SELECT count(*) FROM ordertap_badinput.parked") == [(3,)], "parked records"
    )
    later = chain.order()
    wait_for(lambda: chain.in_erp(later), "an order after them in the ERP")
    told = chain.says("status")
    assert told.count(f"parked: {topic} [0] offset ") == 3
    assert told.count("kept in table parked") == 3  # the next step of each
    assert PLANTED not in told
    assert chain.sink.log.read_text().count("record parked") >= 3


def test_totals_that_do_not_add_up_are_held_until_fixed(chain: Chain) -> None:
    def spoil(cursor: Any, order: int) -> None:
        cursor.execute("ALTER TABLE orders DROP CONSTRAINT IF EXISTS orders_check")
        cursor.execute("UPDATE orders SET net = net + 1 WHERE id = %s", (order,))

    order, other = chain.order(spoil), chain.order()
    wait_for(lambda: chain.in_erp(other), "the other order in the ERP")
    wait_for(lambda: chain.state(order)[0] == "held", "the wrong order is held")
    told = chain.says("held")
    assert f"sales_order {order} (S" in told  # the number that people read
    assert "is not its gross" in told
    assert "next: correct the order in the shop" in told
    assert "`sink held` says why" in chain.says("status")
    assert chain.says("retry", "sales_order", order) == "1 to be looked at again\n"
    wait_for(lambda: chain.state(order)[0] == "held", "it is held again")
    assert not chain.in_erp(order)
    chain.rows(chain.shop, "UPDATE orders SET net = net - 1 WHERE id = %s", order)
    chain.says("retry", "sales_order", order)
    wait_for(lambda: chain.in_erp(order), "the fixed order in the ERP")
    assert f"sales_order {order} " not in chain.says("held")


@pytest.mark.parametrize("by", ["itself", "retry"])
def test_an_unknown_item_is_held_until_it_is_made(chain: Chain, by: str) -> None:
    sku = f"NEW-{by}"

    def with_new_product(cursor: Any, order: int) -> None:
        cursor.execute(
            "INSERT INTO products (sku, name, price, tax_rate, active) VALUES (%s, 'New', 10, 19, false) RETURNING id",
            (sku,),
        )
        (product,) = cursor.fetchone()
        add_line(
            cursor, order, Line(Product(product, sku, "New", Decimal(10), Decimal(19)), 1, Decimal(10), Decimal(0))
        )
        write_totals(cursor, order)

    order = chain.order(with_new_product)
    wait_for(lambda: chain.state(order)[0] == "held", "the order is held")
    assert chain.state(order)[1] == f"the ERP has no item {sku}"
    assert "make the item in the ERP" in chain.says("held")
    assert not chain.in_erp(order)
    chain.rows(chain.erp, "INSERT INTO items VALUES (%s, 'New')", sku)
    if by == "retry":
        chain.says("retry", "--all")
    wait_for(lambda: chain.in_erp(order), "the order in the ERP")


# The commands, as operators see them


def test_status_and_offsets_are_columns(chain: Chain) -> None:
    order = chain.order()  # the fixture's own may have come with the snapshot, which is of no commit
    wait_for(lambda: chain.in_erp(order), "an order after the snapshot in the ERP")
    status = chain.says("status").splitlines()
    assert status[0].startswith("copy: steady at ")
    assert "(generation 1), the shop as of " in status[0]
    assert status[1].split()[:2] == ["document", "done"]
    assert status[-1].startswith("lag: ")
    shown = chain.says("offsets", "show").splitlines()
    assert shown[0].split() == ["partition", "committed", "lowest", "end", "staged", "lag"]
    assert len({len(line) for line in shown[:-1]}) == 1


def test_reset_says_what_it_would_do_and_is_refused_while_the_sink_runs(chain: Chain) -> None:
    dry = chain.says("offsets", "reset", "--to", "earliest")
    assert "offsets are read again, which changes nothing in the ERP" in dry
    assert dry.splitlines()[-1] == "nothing was changed; --execute does it"
    told = json.loads(chain.says("offsets", "reset", "--to", "earliest", "--json"))
    assert told["executed"] is False
    assert "read again" in {move["effect"] for move in told["moves"]}
    ended = run("sink", "offsets", "reset", "--to", "earliest", "--execute", config=chain.config)
    assert ended.returncode == ExitCode.CONFIG
    assert "next: stop every sink of this group" in ended.stderr
    ended = run("sink", "offsets", "reset", "--to", "yesterday", config=chain.config)
    assert (ended.returncode, ended.stderr.count("next: ")) == (ExitCode.CONFIG, 1), ended.stderr


def test_reset_to_earliest_changes_nothing_in_the_erp(chain: Chain) -> None:
    last = chain.order()
    wait_for(lambda: chain.in_erp(last), "the last order in the ERP")
    # An order marks the documents of all buyers anew: these, too, have come to rest.
    due = "SELECT 1 FROM ordertap_badinput.unit WHERE due_at IS NOT NULL LIMIT 1"
    wait_for(lambda: not chain.rows(chain.middle, due), "nothing is left to do", 3 * SECONDS)
    chain.says("reconcile", "--wait", "60")
    before = chain.erp_documents()
    chain.sink.stop()
    try:
        done = chain.says("offsets", "reset", "--to", "earliest", "--execute")
    finally:
        chain.sink.start()
    assert done.splitlines()[-1] == "done; next: start `sink run`"
    wait_for(lambda: "lag: 0 offsets" in chain.says("status"), "all is read again", 3 * SECONDS)
    assert chain.erp_documents() == before


def test_retry_of_what_is_not_there_is_refused(chain: Chain) -> None:
    for command in (("retry",), ("retry", "sales_order", "0")):
        ended = run("sink", *command, config=chain.config)
        assert (ended.returncode, ended.stderr.count("next: ")) == (ExitCode.CONFIG, 1), ended.stderr


def test_reconcile_agrees_in_the_end(chain: Chain) -> None:
    assert "difference 0.00" in chain.says("reconcile", "--wait", f"{SECONDS:.0f}").splitlines()[-1]
