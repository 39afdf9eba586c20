"""Real PostgreSQL servers, started once per session when a test first needs them."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.embedded import DEBIAN_POSTGRES, Postgres

VERSIONS = (15, 16, 18)
_number = itertools.count(1)


def _available(version: int) -> bool:
    return version != 15 or (Path(DEBIAN_POSTGRES.format(version=15)) / "postgres").exists()


AVAILABLE = tuple(version for version in VERSIONS if _available(version))
"""15 needs Debian's package; `tests/run` says so if it is missing."""


@pytest.fixture(scope="session")
def postgres_servers(parts_folder: Path) -> Iterator[Callable[[int], Postgres]]:
    """The server of a version: `postgres_servers(16)`. Tests share it and make databases of their own."""
    running: dict[int, Postgres] = {}

    def server(version: int) -> Postgres:
        if version not in running:
            settings = {"fsync": "off", "max_connections": "200", "max_prepared_transactions": "10"}
            running[version] = Postgres(parts_folder / f"postgres-{version}", version, settings)
            running[version].start()
        return running[version]

    yield server
    for part in running.values():
        part.stop()


@pytest.fixture(scope="session")
def postgres(postgres_servers: Callable[[int], Postgres]) -> Postgres:
    """The server that most tests use: 16, from the wheel."""
    return postgres_servers(16)


@pytest.fixture
def server(request: pytest.FixtureRequest, postgres_servers: Callable[[int], Postgres]) -> Postgres:
    """The server of the version that a test is parametrised with (`AVAILABLE`, indirect), or 16."""
    return postgres_servers(getattr(request, "param", 16))


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The URL of a new database."""
    return postgres.create_database(f"test_{next(_number)}")


@pytest.fixture
def new_database() -> Callable[[Postgres, str], str]:
    """Makes a new database on a server."""
    return lambda server, name: server.create_database(f"{name}_{next(_number)}")
