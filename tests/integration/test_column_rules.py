"""Values that nobody may see go through everything that capture does. Then everything that it wrote is searched for
them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from deploy.embedded import Kafka, Postgres
from tests.programs import run
from tests.proof.records import Record, changes
from tests.proof.rules import check_index, check_order
from tests.shop import Shop, open_shop, said

SECRET = "Gehe1m"
"""A part of each value that is masked, cut off or left out."""
SHOWN = "not-hidden"
TABLES = """
    CREATE TABLE people (
        id bigint PRIMARY KEY, name text NOT NULL DEFAULT 'Gehe1m by default', iban varchar(12), phone text, notes text,
        story text, score numeric DEFAULT 1, city text
    );
    ALTER TABLE people ALTER COLUMN phone SET STORAGE EXTERNAL, ALTER COLUMN notes SET STORAGE EXTERNAL;
    CREATE TABLE full_people (LIKE people INCLUDING ALL);
    ALTER TABLE full_people REPLICA IDENTITY FULL;
    CREATE TABLE visits (person bigint, day date, what text); ALTER TABLE visits REPLICA IDENTITY FULL;
    CREATE TABLE other (id int);
    CREATE PUBLICATION tap FOR TABLE people, full_people, visits, other;
    CREATE FUNCTION person(n bigint) RETURNS people LANGUAGE sql AS $$
        SELECT n, 'Gehe1m ' || n, 'Gehe1m' || n, CASE WHEN n % 3 > 0 THEN repeat(E'Gehe1m\\t\\\\', 500) END,
        repeat('Gehe1m ', 500), 'not-hidden, then Gehe1m', 1000 + n, 'Ulm' $$;
    INSERT INTO people SELECT (person(n)).* FROM generate_series(1, 200) n;
    INSERT INTO full_people SELECT (person(n)).* FROM generate_series(1, 200) n;
    INSERT INTO visits SELECT n % 10, date '2026-01-01' + n::int, 'Gehe1m' FROM generate_series(1, 40) n;
"""
SETTINGS: dict[str, Any] = {
    "table_include_list": [r"public\.(full_)?people", "public.visits"],
    "column_exclude_list": [r"public\.(full_)?people\.notes", "public.visits.what"],
    "column_mask_with_length_chars": {r"public\..*people\.phone": 7},
    "column_truncate_to_length_chars": {r"public\..*people\.story": len(SHOWN)},
    "column_mask_hash": [{"columns": [r"public\..*people\.(name|iban)"], "salt": SECRET}],
    "message_key_columns": ["public.visits:person,day", "public.full_people:city"],
    "skipped_operations": ["t"],
    "incremental_snapshot_chunk_size": 50,
    "snapshot_max_threads": 2,
    "log_level": "debug",
}


@pytest.fixture
def people(
    postgres: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    database = new_database(postgres, "people")
    with open_shop(postgres, kafka, database, prefix, tmp_path, SETTINGS, TABLES) as made:
        yield made
        made.drop_slots()


def refused(shop: Shop) -> str:
    """The output of a start that ends with an error."""
    ended = run("capture", "run", config=shop.config)
    assert ended.returncode not in (0, -9), ended.stderr
    return ended.stdout + ended.stderr


def raw(shop: Shop) -> Iterator[tuple[str, bytes]]:
    """(topic, all bytes of a record) of every record in every topic, aborted ones included."""
    topics = AdminClient({"bootstrap.servers": shop.bootstrap_servers}).list_topics(timeout=10).topics
    consumer = Consumer(
        {
            "bootstrap.servers": shop.bootstrap_servers, "group.id": f"{shop.prefix}-raw",
            "isolation.level": "read_uncommitted", "enable.auto.commit": False,
        }
    )  # fmt: skip
    parts = [
        TopicPartition(name, number, 0)
        for name, topic in topics.items()
        if shop.prefix in name.split(".")
        for number in topic.partitions
    ]
    ends = {(part.topic, part.partition): consumer.get_watermark_offsets(part, timeout=10)[1] for part in parts}
    consumer.assign(parts)
    while any(ends[part.topic, part.partition] > max(part.offset, 0) for part in consumer.position(parts)):
        for message in consumer.consume(1000, timeout=0.05):
            assert message.error() is None
            headers = b"".join(name.encode() + (text or b"") for name, text in message.headers() or ())
            yield str(message.topic()), (message.key() or b"") + (message.value() or b"") + headers
    consumer.close()


def rows(shop: Shop, table: str) -> list[Record]:
    return changes(shop.records(), shop.prefix)[table]


def hashed(text: str, length: int | None = None) -> str:
    return hashlib.sha256((SECRET + text).encode()).hexdigest()[:length]


def every_kind_of_change(shop: Shop) -> None:
    for table in ("people", "full_people"):
        shop.sql(
            f"INSERT INTO {table} SELECT (person(n)).* FROM generate_series(301, 320) n",
            f"UPDATE {table} SET score = 5 WHERE id < 20",  # phone and notes stay in TOAST
            f"UPDATE {table} SET name = 'Gehe1m, too', iban = NULL WHERE id = 30",
            f"UPDATE {table} SET id = id + 1000 WHERE id < 10",
            f"DELETE FROM {table} WHERE id BETWEEN 40 AND 50",
            f"INSERT INTO {table} (id) VALUES (5000)",
        )
    shop.sql(
        "UPDATE visits SET what = 'Gehe1m!' WHERE person = 1",
        "UPDATE visits SET day = NULL WHERE person = 2 AND day < '2026-01-10'",
        "DELETE FROM visits WHERE person = 3",
    )
    shop.sql("TRUNCATE visits", "INSERT INTO visits VALUES (7, '2026-12-24', 'Gehe1m')")


def test_what_is_masked_or_left_out_is_nowhere(people: Shop, tmp_path: Path) -> None:
    # An SQL expression of the settings fails for this value: PostgreSQL's error has the value.
    bad_select = "SELECT p.id, (p.name::int)::text AS name, iban, phone, notes, story, score, city FROM people p"
    people.configure(snapshot_select_statement_overrides={"public.people": bad_select})
    people.capture.start()
    people.until_said("22P02")
    assert people.capture.stop() == 0
    good_select = "SELECT id, name, iban, phone, story, score, city FROM people WHERE id <> 77"  # notes are left out
    people.configure(snapshot_select_statement_overrides={"public.people": good_select})
    people.capture.start()
    people.drain()
    every_kind_of_change(people)
    people.drain()
    asked = people.signal("snapshot", "public.people", "public.full_people")
    people.drain()
    people.until(lambda: not people.position()["demand"]["requests"])
    asked += people.signal("snapshot", "public.people", "--where", "name::int > 0")
    people.until_said("the condition for public.people is not SQL")
    people.drain()
    assert people.capture.stop() == 0
    skip_more(people)

    told = said(people.capture) + asked
    written = list(raw(people))
    schemas = "".join(path.read_text() for path in (tmp_path / "registry").rglob("*") if path.is_file())
    ours = {f"ordertap.{people.prefix}.position", f"ordertap.{people.prefix}.commits"}
    assert {topic for topic, _ in written} >= {*ours, f"{people.prefix}.public.people"}
    assert any(SHOWN.encode() in content for _, content in written), "what is shown is not found either"
    assert [topic for topic, content in written if SECRET.encode() in content] == []
    assert [line for line in told.splitlines() if SECRET in line] == []
    assert SECRET not in schemas
    assert '"story"' in schemas
    check_people(people)
    check_visits(people)
    records = people.records()
    assert [*check_order(records, people.prefix), *check_index(records, people.index())] == []


def skip_more(shop: Shop) -> None:
    """Skips other operations from a start on."""
    shop.configure(skipped_operations=["c", "d", "t"])
    shop.capture.start()
    shop.sql(
        "INSERT INTO visits VALUES (8, '2026-12-25', 'Gehe1m')",
        "UPDATE people SET id = id + 2000 WHERE id = 60",
        "UPDATE visits SET what = 'Gehe1m?' WHERE person = 7",
        "DELETE FROM visits",
    )
    shop.drain()
    assert shop.capture.stop() == 0
    last = max(rows(shop, "public.visits"), key=lambda record: record.stamp or (0,))
    assert last.stamp is not None
    assert (last.op, last.stamp.ordinal) == ("u", 3)


def check_people(shop: Shop) -> None:
    for table in ("public.people", "public.full_people"):
        records = rows(shop, table)
        ops = Counter(record.op for record in records)
        assert ops["r"] >= 380
        moved = 9 if table == "public.people" else 0  # the key of the other one is its city
        assert (ops["c"], ops["d"]) == (21 + moved, 11 + moved)
        keys = {record.key for record in records}
        assert len(keys) == (2 if "full" in table else 230), keys
        afters = [record.value["after"] for record in records if record.value and record.value["after"]]
        befores = [record.value["before"] for record in records if record.value and record.value["before"]]
        assert all(set(row) == {"id", "name", "iban", "phone", "story", "score", "city"} for row in (*afters, *befores))
        sent = [row["phone"] for row in afters]
        assert set(sent) <= {"*" * 7, "__debezium_unavailable_value"}
        assert sent.count("*" * 7) > 390
        assert {row["story"] for row in afters} == {SHOWN, None}
        assert {row["name"] for row in afters if row["id"] == 15} == {hashed("Gehe1m 15")}
        assert {row["iban"] for row in afters if row["id"] == 15} == {hashed("Gehe1m15", 12)}
        assert [row["iban"] for row in afters if row["id"] == 30][-1] is None
        whole = [row for row in befores if row["name"] == hashed(f"Gehe1m {row['id']}")]
        assert len(whole) >= (30 if "full" in table else 0)


def check_visits(shop: Shop) -> None:
    records = rows(shop, "public.visits")
    assert all(record.key is not None for record in records), "the table has no key of its own"
    ops = Counter(record.op for record in records)
    assert (ops["r"], ops["u"], ops["t"]) == (40, 5, 0)
    moved = [record for record in records if record.key_change == "new"]
    assert [record.key for record in moved] == ['{"day": null, "person": 2}']
    assert ops["d"] == ops["tombstone"] == 4 + len(moved)
    assert all(set(row) == {"person", "day"} for r in records if r.value for row in [r.value["after"]] if row)
    (last,) = [record for record in records if record.op == "c" and not record.key_change]
    assert last.stamp is not None
    assert last.stamp.ordinal == 2, "the TRUNCATE before it is counted, though it is no record"


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"column_exclude_list": ["public.people.id"]}, "public.people.id is of the table's key"),
        ({"column_truncate_to_length_chars": {"public.people.score": 3}}, "public.people.score is not text"),
        ({"message_key_columns": ["public.people:city"]}, "does not have the old city of table public.people"),
        (
            {"column_mask_with_length_chars": {"public.people.fone": 3}},
            "matches column_mask_with_length_chars: public.peo",
        ),
        ({"table_include_list": [r"public\.peoples?", "public.users"]}, "public.users"),
    ],
)
def test_what_a_table_cannot_keep_is_found_by_check_and_refused_at_the_start(
    people: Shop, wrong: dict[str, Any], why: str
) -> None:
    nothing: dict[str, Any] = {"column_mask_with_length_chars": {}, "column_truncate_to_length_chars": {}}
    nothing |= {name: [] for name in ("column_exclude_list", "column_mask_hash", "message_key_columns")}
    people.configure(**{**nothing, "table_include_list": ["public.people"], **wrong})
    found = run("capture", "check", config=people.config)
    assert found.returncode == 1
    assert [line for line in found.stdout.splitlines() if line.startswith("BAD") and why in line], found.stdout
    assert why in refused(people)
    assert people.position() == {}


@pytest.mark.parametrize(
    ("lists", "tables"),
    [
        ({"table_include_list": [r"public\.(full_)?people", "public.other"]}, '"full_people", "other", "people"'),
        ({"table_include_list": [], "table_exclude_list": [r".*\.v.*"]}, '"full_people", "other", "people"'),
    ],
)
def test_init_publishes_what_the_lists_mean(people: Shop, lists: dict[str, Any], tables: str) -> None:
    nothing = {name: [] for name in ("column_exclude_list", "column_mask_hash", "message_key_columns")}
    people.configure(**nothing, publication_name="new", **lists)
    said = run("capture", "init", "--dry-run", config=people.config).stdout
    named = ", ".join(f'"public".{name}' for name in tables.split(", "))
    assert f'CREATE PUBLICATION "new" FOR TABLE {named};' in said
    people.configure(publication_name="tap", table_include_list=[r"public\..*"], table_exclude_list=[])
    people.sql("ALTER PUBLICATION tap DROP TABLE other")
    again = run("capture", "init", "--dry-run", config=people.config).stdout
    assert [line for line in again.splitlines() if "PUBLICATION" in line] == [
        'ALTER PUBLICATION "tap" ADD TABLE "public"."other";'
    ]
    people.configure(table_include_list=[r"public\.no.*"], publication_name="new")
    assert "no table that matches table_include_list" in run("capture", "init", config=people.config).stderr
