"""From oscar's tables through log and Kafka into the middle layer: the documents there are the shop's."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  psycopg2 names its class in lower case

from deploy.embedded import Kafka, Postgres
from sink import wiring
from sink.database import connect, transaction
from sink.documents.build import build
from sink.documents.models import Built, Missing
from sink.documents.profile import Profile, load_profile
from sink.settings import SinkSettings
from sink.staging import leadership
from sink.staging.position import load_position, why_not_planned
from tests.fix_oscar import run_oscar
from tests.keys import all_keys
from tests.programs import ROOT, Program, write_settings

SECONDS = 90.0


def test_the_middle_layer_holds_the_shops_documents(
    oscar_shop: Callable[[], str], postgres: Postgres, kafka: Kafka, prefix: str, database: str, tmp_path: Path
) -> None:
    shop, profile = oscar_shop(), load_profile("oscar")
    run_oscar("--database-url", shop, "--orders", "4", "--seed", "1")
    registry = (tmp_path / "registry").as_uri()
    config = write_settings(tmp_path / "settings.yaml", capture=_settings(postgres, kafka, prefix, shop, registry))
    capture = Program("capture", config, tmp_path / "capture.log")
    capture.start()
    try:
        with closing(wiring.made_middle(_sink(kafka, prefix, database, registry))) as middle:
            run_oscar("--database-url", shop, "--orders", "12", "--seed", "2")
            with _staging(_sink(kafka, prefix, database, registry)):
                _await_copy(middle, _log_end(shop), capture)
            expected = _documents(shop, profile, "public")
            assert {name: len(found) for name, found in expected.items() if not found} == {}
            assert _documents(database, profile, "oscar") == expected
            marked = _marked(middle)
        assert {(name, key) for name, found in expected.items() for key in found} <= marked
    finally:
        capture.stop(10)


def _settings(server: Postgres, kafka: Kafka, prefix: str, shop: str, registry: str) -> dict[str, object]:
    return {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": server.port,
        "database_user": "postgres",
        "database_dbname": shop.rpartition("/")[2],
        "slot_name": prefix,
        "publication_name": "ordertap",
        "heartbeat_interval_ms": 500,
        "bootstrap_servers": kafka.bootstrap_servers,
        "schema_registry_url": registry,
        "topic_creation_default_partitions": 1,
        "health_port": 0,
    }


def _sink(kafka: Kafka, prefix: str, database: str, registry: str) -> SinkSettings:
    return SinkSettings.model_validate(
        {
            "shop": "oscar",
            "profile": "oscar",
            "topic_prefix": prefix,
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": registry,
            "database_url": database,
            "erp": {"url": "sqlite://", "mapping": str(ROOT / "deploy/erp/mapping.yaml")},
            "prices_owner": "shop",
        }
    )


@contextmanager
def _staging(settings: SinkSettings) -> Iterator[None]:
    """Runs the stager as `sink run` does until the end of the block, and then raises its error."""
    parts, stop, errors = wiring.parts(settings), threading.Event(), []

    def run() -> None:
        try:
            with closing(parts.connect()) as connection:
                assert leadership.lead(connection)
                parts.stager.run(connection, parts.consumer, stop.is_set, lambda _: None)
        except BaseException as error:  # noqa: BLE001  raised below
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(SECONDS)
        if errors:
            raise errors[0]


def _log_end(shop: str) -> int:
    """The present end of the shop's log."""
    with closing(psycopg2.connect(shop)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        (end,) = cursor.fetchone() or (0,)
    return int(end)


def _await_copy(middle: Connection, end: int, capture: Program) -> None:
    """Waits until the copy has everything up to there, including the first snapshot."""
    deadline = time.monotonic() + SECONDS
    while True:
        with transaction(middle) as cursor:
            if not why_not_planned(cursor, require_snapshot=True) and load_position(cursor).stamp.commit_lsn >= end:
                return
        assert time.monotonic() < deadline, capture.tail()
        time.sleep(0.3)


def _documents(url: str, profile: Profile, schema: str) -> dict[str, dict[str, Built]]:
    found: dict[str, dict[str, Built]] = {}
    with closing(connect(url, schema)) as connection, transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        for name, rule in profile.documents.items():
            built = build(cursor, rule, all_keys(cursor, profile, name))
            found[name] = {key: document for key, document in built.items() if not isinstance(document, Missing)}
    return found


def _marked(middle: Connection) -> set[tuple[str, str]]:
    with transaction(middle) as cursor:
        cursor.execute("SELECT type, key FROM ordertap_oscar.document")
        return set(cursor.fetchall())
