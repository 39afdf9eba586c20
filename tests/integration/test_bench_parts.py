"""The parts of `./tests/bench sink`: the backlog is as described, and the bare upsert ends with the shop's rows."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Callable

import pytest

from deploy.embedded import Postgres
from tests.benchmarks.sink_shop import PLACED, PUBLICATION, ROWS, TABLES, BenchShop
from tests.benchmarks.upsert import BareUpsert
from tests.benchmarks.usage import cpu, cpu_with_children, peak_megabytes
from tests.fix_erp import run
from tests.proof.wal import Witness
from tests.shop import Shop


@pytest.fixture
def shop(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> BenchShop:
    made = BenchShop(new_database(postgres, "bench_shop"))
    made.place_first()
    return made


def test_backlog_has_four_rows_a_commit_and_two_thirds_inserts(shop: BenchShop) -> None:
    witness = Witness(shop.dsn, PUBLICATION, "witness_of_bench")
    witness.create()
    end = shop.load(400)
    log = witness.read()
    witness.drop()
    assert set(Counter(change.commit_lsn for change in log).values()) == {ROWS}
    assert {change.table for change in log} == {f"public.{table}" for table in TABLES}
    kinds = Counter(change.op for change in log)
    assert kinds == {"c": 268, "u": 132}
    last = max(change.commit_lsn for change in log)
    before = max(change.commit_lsn for change in log if change.commit_lsn != last)
    assert before < end <= last
    rows, size = run(shop.dsn, "SELECT count(*), sum(length(o::text)) / count(*) FROM orders o")[0]
    assert rows == PLACED + 67 + 1
    assert 150 < size < 250


def test_the_bare_way_ends_with_the_rows_of_the_shop(
    shop: BenchShop, postgres: Postgres, new_database: Callable[[Postgres, str], str]
) -> None:
    middle = new_database(postgres, "bench_middle")
    bare = BareUpsert(shop.dsn, middle)
    shop.load(20_000)
    assert bare.take_rows() == 20_000
    assert bare.rows_per_second() > 0
    assert bare.rows_per_second() > 0  # begins anew
    for table in TABLES:
        digest = f"SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM {{}}{table} t"
        assert Shop.value_of(shop.dsn, digest.format("")) == Shop.value_of(middle, digest.format("bare."))


def test_one_commit_may_be_large_and_others_come_at_an_even_pace(shop: BenchShop) -> None:
    newest = shop.newest()
    shop.place_at_once(4_000)
    shop.pace(50, 0.5)
    assert shop.newest() == newest + 1_000 + 25
    times = [at for (at,) in run(shop.dsn, f"SELECT placed_at FROM orders WHERE id > {newest + 1_000} ORDER BY id")]
    assert 0.4 < (times[-1] - times[0]).total_seconds() < 2


def test_cpu_of_a_server_has_that_of_its_children_also_when_they_have_ended(postgres: Postgres) -> None:
    assert postgres.process is not None
    before = cpu_with_children(postgres.process.pid)
    run(postgres.dsn(), "SELECT count(md5(n::text)) FROM generate_series(1, 1000000) n")
    assert cpu_with_children(postgres.process.pid) - before > 0.1
    assert cpu(os.getpid()) > 0
    assert peak_megabytes(os.getpid()) > 10
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert cpu(gone.pid) == 0
