"""Real PostgreSQL servers, started once per session when a test first needs them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
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
def database(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> str:
    """The URL of a new database."""
    return new_database(postgres, "test")


@pytest.fixture
def new_database() -> Iterator[Callable[[Postgres, str], str]]:
    """Makes a new database on a server. It is dropped with the test: all those of a run would be 400,000 files."""
    made: list[tuple[Postgres, str]] = []

    def new(server: Postgres, name: str) -> str:
        made.append((server, f"{name}_{next(_number)}"))
        return server.create_database(made[-1][1])

    yield new
    for server, name in made:
        if server.process is not None:  # a server that has ended is a test's own, and its folder is deleted as a whole
            drop_database(server, name)


def drop_database(server: Postgres, name: str) -> None:
    """Ends its sessions and drops its replication slots first, which would keep it."""
    with closing(psycopg2.connect(server.dsn())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = %s", [name])
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [name]
        )
        cursor.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
