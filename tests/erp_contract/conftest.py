"""The ERPs that the contract suite runs on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import Postgres
from tests.erp_contract.records import Sink
from tests.erp_contract.sql_target import SqlTarget
from tests.erp_contract.target import Target


@pytest.fixture(params=["postgresql", "sqlite"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Target]:
    if request.param == "postgresql":
        new_database: Callable[[Postgres, str], str] = request.getfixturevalue("new_database")
        url = new_database(request.getfixturevalue("postgres"), "contract")
    else:
        url = f"sqlite:///{tmp_path}/erp.db"
    made = SqlTarget(url)
    yield made
    made.close()


@pytest.fixture
def sink(target: Target) -> Sink:
    return Sink(target.adapter())
