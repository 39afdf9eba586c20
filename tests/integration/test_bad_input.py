"""User errors on the real processes: one message with a next step, an exit code, no stack trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deploy.embedded import Kafka, Postgres, free_port
from schemas.model.errors import ExitCode
from tests.faults.day import await_drained
from tests.programs import Program, run, write_settings

PLANTED = "planted-secret-value"


@pytest.fixture
def settings(postgres: Postgres, kafka: Kafka, database: str, prefix: str, tmp_path: Path) -> dict[str, Any]:
    """Settings with which capture works, on a database with one published table that holds a planted value."""
    connection = psycopg2.connect(database)
    with connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE people (id int PRIMARY KEY, name text)")
        cursor.execute("INSERT INTO people VALUES (1, %s)", (PLANTED,))
        cursor.execute("CREATE PUBLICATION bad FOR TABLE people")
    connection.close()
    return {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": postgres.port,
        "database_user": "postgres",
        "database_password": PLANTED,
        "database_dbname": database.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "bad",
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": (tmp_path / "registry").as_uri(),
        "health_port": 0,
    }


def _refused(settings: dict[str, Any], folder: Path) -> str:
    """Runs capture until it gives up. Checks what every message must have, and returns the message."""
    config = write_settings(folder / "settings.yaml", capture=settings)
    ended = run("capture", "run", config=config, seconds=60)
    said = ended.stdout + ended.stderr
    assert ended.returncode not in (0, -9), said
    assert "Traceback" not in said
    assert PLANTED not in said
    assert said.count("capture: ") == 1, said
    return said


def test_unknown_setting_names_the_nearest(settings: dict[str, Any], tmp_path: Path) -> None:
    settings["slot_nane"] = settings.pop("slot_name")
    assert "slot_name" in _refused(settings, tmp_path)


def test_wrong_value_names_the_setting(settings: dict[str, Any], tmp_path: Path) -> None:
    assert "linger_ms" in _refused({**settings, "linger_ms": "soon"}, tmp_path)


def test_missing_settings_file(tmp_path: Path) -> None:
    ended = run("capture", "run", config=tmp_path / "absent.yaml")
    assert ended.returncode != 0
    assert "absent.yaml" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_unreachable_database(settings: dict[str, Any], tmp_path: Path) -> None:
    assert "database_hostname" in _refused({**settings, "database_port": free_port()}, tmp_path)


def test_unreachable_broker(settings: dict[str, Any], tmp_path: Path) -> None:
    said = _refused({**settings, "bootstrap_servers": f"127.0.0.1:{free_port()}"}, tmp_path)
    assert "bootstrap_servers" in said


def test_unreachable_registry(settings: dict[str, Any], tmp_path: Path) -> None:
    said = _refused({**settings, "schema_registry_url": f"http://127.0.0.1:{free_port()}"}, tmp_path)
    assert "schema_registry_url" in said


WRONG_FOR_KAFKA = {
    "setting of a topic": ({"topic_creation_groups": [{"include": [".*"], "config": {"x.y": 1}}]}, "topic_creation_"),
    "setting of the client": ({"kafka": {"transaction.timeout.ms": 99_999_999}}, "`kafka` settings"),
}


@pytest.mark.parametrize(("wrong", "hint"), WRONG_FOR_KAFKA.values(), ids=WRONG_FOR_KAFKA)
def test_what_kafka_refuses_is_a_setting_and_no_outage(
    settings: dict[str, Any], tmp_path: Path, wrong: dict[str, Any], hint: str
) -> None:
    config = write_settings(tmp_path / "settings.yaml", capture={**settings, **wrong, "log_json": True})
    checked = run("capture", "check", config=config)
    assert checked.returncode == 1
    assert "kafka-acls" not in checked.stdout
    ended = run("capture", "run", config=config)
    assert ended.returncode == ExitCode.CONFIG
    last = [json.loads(line) for line in ended.stderr.splitlines()][-1]  # every line is JSON, even librdkafka's
    assert last["event"] == "ended"
    assert hint in last["next"]


def test_missing_publication(settings: dict[str, Any], tmp_path: Path) -> None:
    assert "capture init" in _refused({**settings, "publication_name": "absent"}, tmp_path)


def test_foreign_slot_of_that_name(settings: dict[str, Any], database: str, tmp_path: Path) -> None:
    connection = psycopg2.connect(database)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (settings["slot_name"],))
        assert settings["slot_name"] in _refused(settings, tmp_path)
        cursor.execute("SELECT pg_drop_replication_slot(%s)", (settings["slot_name"],))
    connection.close()


def test_logs_hold_no_row_values_and_no_secrets(
    settings: dict[str, Any], database: str, bootstrap_servers: str, prefix: str, tmp_path: Path
) -> None:
    config = write_settings(tmp_path / "settings.yaml", capture={**settings, "log_level": "debug"})
    program = Program("capture", config, tmp_path / "capture.log")
    program.start()
    try:
        await_drained(program, database, bootstrap_servers, prefix)
        connection = psycopg2.connect(database)
        with connection, connection.cursor() as cursor:
            cursor.execute("UPDATE people SET name = name || '!'")
            cursor.execute("INSERT INTO people VALUES (2, %s)", (PLANTED,))
        with connection, connection.cursor() as cursor:
            cursor.execute("DELETE FROM people")
            cursor.execute("ALTER TABLE people ADD COLUMN note text")
        connection.close()
        await_drained(program, database, bootstrap_servers, prefix)
    finally:
        program.stop()
    log = program.log.read_text()
    assert "streaming" in log  # this is the right log
    assert PLANTED not in log
