"""SIGTERM ends a start within two seconds, even if a server that it waits for accepts the connection and says
nothing."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.programs import Program, write_settings


def settings(server: Postgres, kafka: Kafka, database: str, folder: Path) -> dict[str, Any]:
    """Settings that capture could start with."""
    return {
        "name": "stopping",
        "topic_prefix": "stopping",
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_password": "",
        "database_dbname": database,
        "slot_name": "stopping",
        "publication_name": "stopping",
        "snapshot_mode": "no_data",
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": (folder / "registry").as_uri(),
        "health_port": 0,
    }


@pytest.mark.parametrize("part", ["database_port", "bootstrap_servers", "schema_registry_url"])
def test_a_start_that_waits_for_a_silent_part_ends_soon(
    postgres: Postgres, kafka: Kafka, tmp_path: Path, part: str
) -> None:
    database = f"stopping_{part}"
    postgres.create_database(database)
    postgres.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE PUBLICATION stopping FOR TABLE t", database)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        address = {"bootstrap_servers": f"127.0.0.1:{port}", "schema_registry_url": f"http://127.0.0.1:{port}"}
        named = settings(postgres, kafka, database, tmp_path) | {part: address.get(part, port)}
        program = Program("capture", write_settings(tmp_path / "capture.yaml", capture=named), tmp_path / "log")
        program.start()
        silent.settimeout(60)
        with silent.accept()[0]:
            time.sleep(0.2)  # it waits for the answer
            assert program.ended() is None
            began = time.monotonic()
            assert program.stop() == 0
            assert time.monotonic() - began < 2.0


def _until(met: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_snapshot_that_waits_for_its_locks_ends_soon(postgres: Postgres, kafka: Kafka, tmp_path: Path) -> None:
    dsn = postgres.create_database("stopping_locks")
    postgres.psql("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int)", "stopping_locks")
    postgres.psql("CREATE PUBLICATION stopping FOR TABLE t", "stopping_locks")
    named = settings(postgres, kafka, "stopping_locks", tmp_path)
    named |= {"snapshot_mode": "initial", "snapshot_lock_timeout_ms": 60_000, "topic_prefix": "stopping_locks"}
    options = ("-X", "fault=halt-SLOT:1")  # the slot itself would wait for the lock's transaction
    config = write_settings(tmp_path / "capture.yaml", capture=named)
    program = Program("tests.faults.broken", config, tmp_path / "log", options)
    with closing(psycopg2.connect(dsn)) as change, closing(psycopg2.connect(dsn)) as asking, asking.cursor() as answer:
        asking.autocommit = True
        program.start()
        _until(lambda: Path(f"/proc/{program.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
        change.cursor().execute("LOCK TABLE t")
        os.kill(program.pid, signal.SIGCONT)
        waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 't'::regclass"
        _until(lambda: answer.execute(waits) or answer.fetchone() == (1,))
        began = time.monotonic()
        assert program.stop() == 0
        assert time.monotonic() - began < 2.0
    postgres.psql("SELECT pg_drop_replication_slot('stopping')", "stopping_locks")
