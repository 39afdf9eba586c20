"""Real PostgreSQL servers, started once per session when a test first asks."""

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
"""Debian's 15 only where Debian's package is installed; `tests/run` says so where it is not."""


@pytest.fixture(scope="session")
def postgres_servers(parts_folder: Path) -> Iterator[Callable[[int], Postgres]]:
    """The server of a version: `postgres_servers(16)`; tests share it and make their own databases."""
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
    """The server of the version that a test is parametrised with (`AVAILABLE`, indirect), else 16."""
    return postgres_servers(getattr(request, "param", 16))


@pytest.fixture
def database(postgres: Postgres) -> str:
    """The address of a fresh database."""
    return postgres.create_database(f"test_{next(_number)}")


@pytest.fixture
def new_database() -> Callable[[Postgres, str], str]:
    """Makes a fresh database on a given server."""
    return lambda server, name: server.create_database(f"{name}_{next(_number)}")
