"""The ERPs that the contract suite runs on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import Postgres
from tests.erp_contract.records import Sink
from tests.erp_contract.sql_place import Place
from tests.erp_contract.sql_target import MARIADB, SqlTarget, new_mariadb
from tests.erp_contract.target import Target
from tests.stateful.target import DeskTarget

SQL = ["postgresql", "sqlite", *(["mariadb"] if MARIADB else [])]


@pytest.fixture(params=[*SQL, "in memory", "tryton"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == "in memory":
        yield DeskTarget()
        return
    if request.param == "tryton":
        yield from _tryton(request)
        return
    yield from _sql(request, tmp_path)


@pytest.fixture(params=SQL)
def sql_target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlTarget]:
    yield from _sql(request, tmp_path)


def _sql(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlTarget]:
    if request.param == "postgresql":
        new_database: Callable[[Postgres, str], str] = request.getfixturevalue("new_database")
        url = new_database(request.getfixturevalue("postgres"), "contract")
    elif request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/erp.db"
    else:
        url = new_mariadb(MARIADB)
    made = SqlTarget(url)
    yield made
    made.close()


def _tryton(request: pytest.FixtureRequest) -> Iterator[Target]:
    from tests.erp_contract.tryton_target import TrytonTarget

    made = TrytonTarget(request.getfixturevalue("tryton"), request.getfixturevalue("tryton_data"))
    yield made
    made.close()


@pytest.fixture
def sink(target: Target) -> Sink:
    return Sink(target.adapter())


@pytest.fixture
def in_postgres(postgres: Postgres, new_database: Callable[[Postgres, str], str], tmp_path: Path) -> Iterator[Place]:
    place = Place(new_database(postgres, "columns"), tmp_path)
    yield place
    place.close()


@pytest.fixture(params=["postgresql", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "postgresql":
        yield request.getfixturevalue("in_postgres")
        return
    made = Place(f"sqlite:///{tmp_path}/erp.db", tmp_path)
    yield made
    made.close()
