"""Debezium's own records, and ours of the same changes: what is equal in them, and everything that differs.

Debezium 3.7 wrote its records (tests/data/debezium) with `provide.transaction.metadata`. What depends on the moment,
the server and the run (times, LSNs, xids) is compared by its role in the record; everything else as it is.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import fastavro
import pytest

from deploy.embedded import Kafka, Postgres
from schemas.reading.json_text import without_logical_types
from schemas.registry import wire
from schemas.registry.registry import Registry, open_registry
from tests.consumers.differences import DIFFERENCES
from tests.fix_postgres import AVAILABLE
from tests.programs import standing_still
from tests.proof.records import read_messages
from tests.shop import Shop, open_shop
from tests.unit.schemas.examples import debezium_records

ROOT: Final = Path(__file__).parents[2]
DATA: Final = ROOT / "tests" / "data" / "debezium"
DEBEZIUMS_PREFIX, DEBEZIUMS_DATABASE = "gold_stream", "golden"


@pytest.fixture
def golden(
    server: Postgres, new_database: Callable[[Postgres, str], str], kafka: Kafka, prefix: str, tmp_path: Path
) -> Iterator[Shop]:
    settings = {
        "snapshot_mode": "no_data",
        "topic_creation_default_partitions": 1,
        "provide_transaction_metadata": True,
        "message_prefix_include_list": ["pfx"],
    }
    citext = "EXTENSION citext" if _has_citext(server) else "DOMAIN citext AS text"
    schema = f"CREATE {citext}; {(DATA / 'tables.sql').read_text('utf-8')}"
    with open_shop(server, kafka, new_database(server, "golden"), prefix, tmp_path, settings, schema) as shop:
        yield shop
        shop.drop_slots()


def _has_citext(server: Postgres) -> bool:
    return bool(Shop.value_of(server.dsn(), "SELECT count(*) FROM pg_available_extensions WHERE name = 'citext'"))


def ours(shop: Shop) -> dict[tuple[str, int], dict[str, Any]]:
    """Our records by topic and offset, in the form of Debezium's."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    messages = read_messages(shop.bootstrap_servers, shop.prefix)
    beats = read_messages(shop.bootstrap_servers, "__debezium-heartbeat")
    registry = open_registry(shop.registry)
    for message in (*messages, *(beat for beat in beats if beat.topic().endswith(f".{shop.prefix}"))):
        record: dict[str, Any] = {"headers": [[name, value.decode()] for name, value in message.headers() or []]}
        for part, payload in (("key", message.key()), ("value", message.value())):
            record[part], record[f"{part}_schema"] = _decoded(registry, payload)
        found[message.topic()].append(record)
    named = json.dumps(found, default=_hexadecimal)
    named = named.replace(shop.prefix, DEBEZIUMS_PREFIX).replace(shop.dsn.rpartition("/")[2], DEBEZIUMS_DATABASE)
    return {
        (topic, offset): record for topic, records in json.loads(named).items() for offset, record in enumerate(records)
    }


def _decoded(registry: Registry, payload: bytes | None) -> tuple[Any, Any]:
    if payload is None:
        return None, None
    schema_id, avro = wire.parse(payload)
    schema = registry.schema(schema_id)
    return fastavro.schemaless_reader(io.BytesIO(avro), without_logical_types(schema), None), schema


def _hexadecimal(value: bytes) -> str:
    return value.hex()


def told(record: dict[str, Any]) -> dict[str, Any]:
    """A record's content, path by path."""
    said = _paths("headers", dict(record["headers"]))
    for part in ("key", "value"):
        said |= _paths(part, _by_what_it_is(record[part]))
    for part in ("key_schema", "value_schema"):
        said |= _paths(part, _by_name(record[part]))
    return said


def _by_what_it_is(value: Any) -> Any:
    """The value with roles in place of times, LSNs and xids: two records are equal if the roles are."""
    if not isinstance(value, dict):
        return value
    shown = dict(value)
    for name, unit in (("ts_ms", 1), ("ts_us", 1000), ("ts_ns", 1_000_000)):
        if isinstance(value.get(name), int):
            shown[name] = "now" if value[name] // unit == value["ts_ms"] else value[name]
    source = value.get("source")
    if source is not None:
        shown["source"] = _source(source)
        if value["transaction"] is not None:
            same = value["transaction"]["id"] == f"{source['txId']}:{source['lsn']}"
            shown["transaction"] = value["transaction"] | {"id": "xid and LSN of the change" if same else "another"}
    if re.fullmatch(r"\d+:\d+", str(value.get("id"))):  # of BEGIN and END
        shown["id"] = "xid and LSN"
    return shown


def _source(source: dict[str, Any]) -> dict[str, Any]:
    before, own = json.loads(source["sequence"])
    return source | {
        "ts_ms": "commit" if source["ts_us"] // 1000 == source["ts_ms"] else source["ts_ms"],
        "ts_us": "commit",
        "ts_ns": "commit" if source["ts_us"] * 1000 == source["ts_ns"] else source["ts_ns"],
        "txId": "xid" if source["txId"] else None,
        "lsn": "LSN" if source["lsn"] else None,
        "sequence": (before is None or before.isdigit(), own == str(source["lsn"])),
    }


def _by_name(schema: Any) -> Any:
    """The schema with lists of fields as objects, and their order beside them."""
    if isinstance(schema, dict):
        shown = {name: _by_name(part) for name, part in schema.items() if name != "fields"}
        if "fields" in schema:
            shown |= {"fields": {field["name"]: _by_name(field) for field in schema["fields"]}}
            shown |= {"order": " ".join(field["name"] for field in schema["fields"])}
        return shown
    return {str(at): _by_name(part) for at, part in enumerate(schema)} if isinstance(schema, list) else schema


def _paths(at: str, value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {path: end for name, part in value.items() for path, end in _paths(f"{at}.{name}", part).items()}
    return {at: value}


def differing(theirs: dict[str, Any], own: dict[str, Any]) -> set[str]:
    """The paths at which two records differ."""
    absent = object()
    said, here = told(theirs), told(own)
    return {path for path in said.keys() | here.keys() if said.get(path, absent) != here.get(path, absent)}


def check_sequence(here: dict[tuple[str, int], dict[str, Any]]) -> None:
    """Checks that each `source.sequence` begins where the commit before it ends, as Debezium's does."""
    changes = []
    for record in here.values():
        stamp = dict(record["headers"]).get("ordertap.stamp", "0:0:0").split(":")
        if stamp[2] != "0" and record["value"] is not None and "source" in record["value"]:
            source = record["value"]["source"]
            changes.append((int(stamp[1]), source["lsn"], int(json.loads(source["sequence"])[0])))
    before = 0  # where the record of the commit before begins
    for commit, lsns in groupby(sorted(changes), key=itemgetter(0)):
        for _, lsn, begins in lsns:
            assert before < begins <= lsn <= commit  # a message has the LSN of its commit
        before = commit


@pytest.mark.parametrize("server", AVAILABLE[:1], indirect=True)
def test_every_field_is_debeziums_but_for_the_differences_that_are_named(golden: Shop) -> None:
    golden.capture.start()
    golden.drain()
    with standing_still(golden.capture):  # no heartbeat comes between a change and its commit: see check_sequence
        for transaction in (DATA / "changes.sql").read_text("utf-8").split("\n\n"):
            golden.sql(transaction)
    golden.drain()
    here = ours(golden)
    theirs = json.loads(json.dumps(debezium_records(), default=_hexadecimal))
    found = {path for record in theirs for path in differing(record, here[record["topic"], record["offset"]])}
    named = [path for difference in DIFFERENCES.values() for path in difference.paths]
    assert {path for path in found if not any(re.fullmatch(one, path) for one in named)} == set()
    check_sequence(here)
    assert {one for one in named if not any(re.fullmatch(one, path) for path in found)} == set(), "they are equal now"


def test_the_page_names_these_differences_and_no_others() -> None:
    page = (ROOT / "schemas" / "README.md").read_text("utf-8")
    part = page.partition("## Compared with Debezium")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*?) \|", part, re.MULTILINE)
    assert rows[0] == "what"
    assert rows[2:] == [*DIFFERENCES]


@pytest.mark.parametrize("row", [row for row, difference in DIFFERENCES.items() if not difference.paths])
def test_what_no_record_of_debezium_shows_is_held_by_a_test(row: str) -> None:
    path, _, name = DIFFERENCES[row].test.partition("::")
    assert f"def {name}(" in (ROOT / "tests" / path).read_text("utf-8")
