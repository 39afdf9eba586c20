"""From oscar's tables through the log and Kafka into the middle layer: the documents there are those of the shop."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  psycopg2 names its class in lower case

from deploy.embedded import Kafka, Postgres
from schemas.reader import RecordReader
from schemas.registry import open_registry
from sink.database import connect, migrate, transaction
from sink.documents.build import all_keys, build
from sink.documents.models import Built, Missing
from sink.documents.profile import Profile, load_profile
from sink.intake import evidence
from sink.intake.consumer import ShopConsumer, topic_names
from sink.intake.offsets import GroupOffsets
from sink.ledger import marks
from sink.staging.stager import Staging, decode
from tests.faults.day import position
from tests.fix_oscar import run_oscar
from tests.programs import Program, write_settings

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
        with closing(connect(database)) as middle:
            migrate(middle)
            staging = Staging("oscar", profile, marks.mark)
            staging.prepare(middle)
            run_oscar("--database-url", shop, "--orders", "12", "--seed", "2")
            _await_capture(kafka, prefix, shop, capture)
            with _consumer(kafka, prefix, profile, middle) as consumer:
                offsets = GroupOffsets(
                    {"bootstrap.servers": kafka.bootstrap_servers}, prefix, topic_names(prefix, profile.tables)
                )
                _stage_all(staging, consumer, middle, RecordReader(open_registry(registry)), prefix, offsets)
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


def _consumer(kafka: Kafka, prefix: str, profile: Profile, middle: Connection) -> ShopConsumer:
    def seen(partitions):  # type: ignore[no-untyped-def]
        with transaction(middle) as cursor:
            return evidence.load(cursor, partitions)

    def others(partitions):  # type: ignore[no-untyped-def]
        with transaction(middle) as cursor:
            return evidence.other_ids(cursor, partitions)

    properties = {
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": prefix,
        "topic.metadata.refresh.interval.ms": "500",
    }
    return ShopConsumer(properties, topic_names(prefix, profile.tables), seen, others)


def _await_capture(kafka: Kafka, prefix: str, shop: str, capture: Program) -> None:
    """Until capture has passed the end of the shop's log."""
    with closing(psycopg2.connect(shop)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint")
        (end,) = cursor.fetchone() or (0,)
    deadline = time.monotonic() + SECONDS
    while position(kafka.bootstrap_servers, prefix) < end:
        assert time.monotonic() < deadline, capture.tail()
        time.sleep(0.3)


def _stage_all(
    staging: Staging,
    consumer: ShopConsumer,
    middle: Connection,
    reader: RecordReader,
    prefix: str,
    offsets: GroupOffsets,
) -> None:
    """All that is in Kafka: until the end of each topic is committed."""
    deadline, some = time.monotonic() + SECONDS, False
    while not some or any(shown.lag for shown in offsets.show({})):
        assert time.monotonic() < deadline, offsets.show({})
        batch = consumer.poll()
        staging.stage(middle, decode(reader, batch.records, prefix), batch)
        consumer.commit(batch)
        some = some or bool(batch.records)


def _documents(url: str, profile: Profile, schema: str) -> dict[str, dict[str, Built]]:
    found: dict[str, dict[str, Built]] = {}
    with closing(connect(url)) as connection, transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        cursor.execute(f"SET LOCAL search_path TO {schema}")
        for name, rule in profile.documents.items():
            built = build(cursor, rule, all_keys(cursor, rule))
            found[name] = {key: document for key, document in built.items() if not isinstance(document, Missing)}
    return found


def _marked(middle: Connection) -> set[tuple[str, str]]:
    with transaction(middle) as cursor:
        cursor.execute("SELECT type, key FROM ordertap.document")
        return set(cursor.fetchall())
