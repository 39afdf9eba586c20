"""A shop, two workers, a real middle layer, an unruly ERP and its clerk: events in any order."""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from deploy.embedded import Postgres
from sink.database import connect, names_of, transaction
from sink.documents.profile import load_profile
from sink.layer import migrate
from sink.staging import snapshots
from tests.stateful.machine import Machine
from tests.stateful.shop import TABLES, write_profile
from tests.stateful.world import World, watch

EXAMPLES = int(os.environ.get("ORDERTAP_TEST_EXAMPLES", "25"))
"""How many sequences of events are tried: 25 in the suite, 1,000 and more in a long run."""
PHASES = [one for one in Phase if EXAMPLES <= 25 or one is not Phase.shrink]
"""A long run reports what it finds as it is. The next short run begins with that and shrinks it."""
STEPS = int(os.environ.get("ORDERTAP_TEST_STEPS", "30"))


@pytest.fixture
def make_world(
    postgres: Postgres, new_database: Callable[[Postgres, str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], World]]:
    """Empty worlds, each on a copy of one empty middle layer."""
    template = new_database(postgres, "empty")
    connection = connect(template, "ordertap_shop")
    migrate(connection, "shop")
    with transaction(connection) as cursor:
        cursor.execute("CREATE SCHEMA shop")
        with names_of(cursor, "shop"):
            cursor.execute(TABLES)
        snapshots.accept(cursor, "the test")
    connection.close()
    server = connect(postgres.dsn("postgres"), "public")
    profile = load_profile(write_profile(tmp_path))
    numbers = itertools.count(1)
    watch(monkeypatch)
    name = template.rpartition("/")[2].partition("?")[0]

    def make() -> World:
        number = next(numbers)
        copy = f"{name}_{number}"
        with server.cursor() as cursor:
            cursor.execute(f'DROP DATABASE IF EXISTS "{name}_{number - 1}" WITH (FORCE)')
            cursor.execute(f'CREATE DATABASE "{copy}" TEMPLATE "{name}"')
        return World(postgres.dsn(copy), profile)

    yield make
    server.close()


def test_whatever_happens_it_ends_well(make_world: Callable[[], World]) -> None:
    class Here(Machine):
        make = staticmethod(make_world)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            phases=PHASES,
            suppress_health_check=[*HealthCheck],
        ),
    )
