"""kill -9 of capture at random moments, the initial snapshot among them: each change is in Kafka exactly once."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres
from tests.faults.day import await_drained
from tests.faults.workload import SCHEMA, TABLES, Workload, prefill
from tests.programs import Program, write_settings
from tests.proof.verdict import Verdict, judge
from tests.proof.wal import Witness


@pytest.mark.parametrize("seed", [1])
def test_every_change_once_through_kills(
    seed: int, postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path
) -> None:
    witness = _shop(database, prefix)
    prefill(database, 3000)
    program = Program("capture", _settings(tmp_path, postgres, kafka, database, prefix), tmp_path / "capture.log")
    workload = Workload(database, seed)
    workload.start()
    try:
        _run_and_kill(program, random.Random(seed), kills=8)
    finally:
        workload.finish()
    try:
        await_drained(program, database, kafka.bootstrap_servers, prefix)
    finally:
        program.stop()
    _assert_sound(judge(witness, kafka.bootstrap_servers, _registry(tmp_path), prefix, TABLES))
    assert "Traceback" not in program.log.read_text()
    witness.drop()


def test_large_transactions_stream_through_kills(
    postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path
) -> None:
    witness = _shop(database, prefix)
    small = {"transaction_buffer_rows": 500, "max_batch_size": 300}
    config = _settings(tmp_path, postgres, kafka, database, prefix, small)
    program = Program("capture", config, tmp_path / "capture.log")
    program.start()
    try:
        await_drained(program, database, kafka.bootstrap_servers, prefix)
        connection = psycopg2.connect(database)
        with connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO items SELECT n, 'item', 1, now(), 'b' FROM generate_series(1, 30000) n")
            cursor.execute("UPDATE items SET price = 2 WHERE id % 3 = 0")
            cursor.execute("INSERT INTO notes VALUES (1, 'the last of a large transaction')")
        with connection, connection.cursor() as cursor:
            cursor.execute("TRUNCATE items, notes")
        connection.close()
        for seconds in (0.9, 1.2, 1.5):
            time.sleep(seconds)
            program.kill()
            program.start()
        await_drained(program, database, kafka.bootstrap_servers, prefix)
    finally:
        program.stop()
    _assert_sound(judge(witness, kafka.bootstrap_servers, _registry(tmp_path), prefix, TABLES))
    witness.drop()


def _shop(database: str, prefix: str) -> Witness:
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA)
    connection.close()
    witness = Witness(database, "proof", f"proof_{prefix}")
    witness.create()
    return witness


def _registry(folder: Path) -> str:
    return (folder / "registry").as_uri()


def _settings(
    folder: Path, server: Postgres, kafka: Kafka, database: str, prefix: str, more: dict[str, int] | None = None
) -> Path:
    settings = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_dbname": database.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "proof",
        "heartbeat_interval_ms": 500,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": _registry(folder),
        "topic_creation_default_partitions": 3,
        "health_port": 0,
    }
    return write_settings(folder / "settings.yaml", capture=settings | (more or {}))


def _run_and_kill(program: Program, chance: random.Random, kills: int) -> None:
    """The first kills come early, while the snapshot runs."""
    for number in range(kills):
        program.start()
        time.sleep(chance.uniform(0.6, 1.6) if number < 3 else chance.uniform(0.6, 4.0))
        assert program.ended() is None, program.tail()
        program.kill()
    program.start()


def _assert_sound(verdict: Verdict) -> None:
    assert not verdict.findings, str(verdict)
    assert verdict.changes > 500
