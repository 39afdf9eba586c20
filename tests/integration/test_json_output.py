"""Records as JSON text without a registry say the same as the Avro records of the same shop."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import yaml

from tests.consumers.json_converter import read
from tests.fix_capture import TABLES, Shop
from tests.programs import Program, run, write_settings
from tests.proof.records import Record, changes, read_messages, record

FRAMED = b"\x00\x00\x00\x00\x01what an outbox wrote"


class Json:
    """Takes the place of Schemas. Fails on anything that is not JSON (such as `NaN`) or that its own schema does not
    allow."""

    def decode(self, payload: bytes) -> tuple[Any, dict[str, str]]:
        def refused(name: str) -> None:
            raise ValueError(f"{name} is not JSON")

        content = json.loads(payload, parse_constant=refused)
        if content.keys() != {"schema", "payload"}:
            return content, {}
        read(payload)
        return content["payload"], {}


@pytest.fixture(params=[False, True], ids=["plain", "schemas"])
def beside(shop: Shop, request: pytest.FixtureRequest) -> Shop:
    """A second capture of the same shop, with JSON output, plain or with schemas. The first one writes Avro."""
    common = yaml.safe_load(shop.config.read_text())["capture"] | {
        "message_prefix_include_list": ["app"],
        "provide_transaction_metadata": True,
        "snapshot_max_threads": 2,
    }
    write_settings(shop.config, capture=common)
    prefix = f"{shop.prefix}j"
    settings = common | {"name": prefix, "topic_prefix": prefix, "slot_name": prefix, "output": "json"}
    settings["outbox_routing"] = [{"prefix": "raw", "topic": f"raw-{prefix}.all", "payload": "bytes"}]
    settings["json_schemas_enable"] = request.param
    del settings["schema_registry_url"]
    config = write_settings(shop.folder / "json.yaml", capture=settings)
    capture = Program("capture", config, shop.folder / "json.log")
    shop.programs.append(capture)
    return replace(shop, prefix=prefix, config=config, capture=capture)


def seen(records: Iterable[Record], prefix: str) -> dict[Any, Any]:
    """The content of the tables' records that does not depend on who reads the log, by what identifies each."""
    found: dict[Any, Any] = {}
    for table, ours in changes(records, prefix).items():
        for each in ours:
            value = each.value or {}
            read = each.op == "r"
            source = {
                name: part
                for name, part in value.get("source", {}).items()
                if name not in ("name", "sequence", *(("lsn", "ts_ms", "ts_us", "ts_ns") if read else ()))
            }
            place = each.partition if each.op == "t" else None
            told = (table, each.op, each.key, None if read else each.stamp, each.key_change, place)
            assert told not in found
            found[told] = (value.get("before"), value.get("after"), source, value.get("op"), each.unchanged)
    return found


def amounts(record: Record) -> Record:
    """The record with public.orders' decimals decoded: a big-endian unscaled number with two digits after the point."""
    for part in ("before", "after"):
        row = (record.value or {}).get(part)
        if row is not None and isinstance(row.get("total"), str):
            unscaled = int.from_bytes(base64.b64decode(row["total"], validate=True), "big", signed=True)
            row["total"] = Decimal(unscaled).scaleb(-2)
    return record


def values(shop: Shop, prefix: str, end: str) -> list[bytes]:
    """The values in the topics whose names begin and end like this."""
    return [each.value() for each in read_messages(shop.bootstrap_servers, prefix) if each.topic().endswith(end)]


def copies_of_lines(shop: Shop) -> list[dict[str, Any]]:
    """The rows of public.lines that snapshots wrote, in their order."""
    rows = [Json().decode(value)[0] for value in values(shop, shop.prefix, ".public.lines") if value is not None]
    return sorted((row for row in rows if row["op"] == "r"), key=lambda row: int(row["ts_ns"]))


def test_json_says_what_avro_says(shop: Shop, beside: Shop) -> None:
    checked = run("capture", "check", "--json", config=beside.config)
    said = [finding["what"] for finding in json.loads(checked.stdout)["findings"]]
    assert "records are JSON: there is no schema registry to ask" in said
    for each in (shop, beside):
        each.capture.start()
    for each in (shop, beside):
        each.drain()
    shop.sql("INSERT INTO orders VALUES (1000, 'Grüße \"\\\n€', -0.01), (1001, repeat('x', 9000), 19.90)")
    shop.sql("UPDATE orders SET total = 12345678.90 WHERE id = 1001")  # its note is not in the log again
    shop.sql("UPDATE orders SET id = 2000 WHERE id = 1", "DELETE FROM lines WHERE order_id = 5")
    shop.sql("INSERT INTO log VALUES (1, 'full'), (2, NULL)", "UPDATE log SET what = NULL WHERE id = 1")
    shop.sql("DELETE FROM log WHERE id = 1", "TRUNCATE log")
    shop.sql("SELECT pg_logical_emit_message(true, 'app', 'hello')")
    shop.sql(f"SELECT pg_logical_emit_message(true, 'raw', '\\x{FRAMED.hex()}'::bytea)")
    for each in (shop, beside):
        each.drain()
    avro, messages = seen(shop.records(), shop.prefix), read_messages(shop.bootstrap_servers, beside.prefix)
    records = [record(message, Json()) for message in messages]
    text = seen(map(amounts, records), beside.prefix)
    assert text.keys() == avro.keys()
    assert {told for told, content in text.items() if content != avro[told]} == set()
    ops = {told[1] for told in text}
    assert ops == {"r", "c", "u", "d", "t", "tombstone"}
    assert len([told for told in text if told[1] == "r"]) == 600
    own = {each.topic.removeprefix(f"{beside.prefix}."): each.value for each in records}
    assert own.keys() == {*TABLES, "transaction", "notification", "message"}
    assert (own["message"] or {})["message"] == {"prefix": "app", "content": base64.b64encode(b"hello").decode()}
    assert values(beside, f"raw-{beside.prefix}", ".all") == [FRAMED]  # as it is, though it looks like an Avro record
    beats = values(beside, "__debezium-heartbeat", f".{beside.prefix}")
    assert {len(Json().decode(beat)[0]) for beat in beats} == {1}
    with_schemas = {"schema" in json.loads(value) for value in values(beside, beside.prefix, ".public.orders") if value}
    assert with_schemas == {yaml.safe_load(beside.config.read_text())["capture"]["json_schemas_enable"]}
    beside.signal("snapshot", "public.lines")
    beside.until(lambda: len(copies_of_lines(beside)) == 300 + 299)
    copies = [row["after"] for row in copies_of_lines(beside)]
    assert {*map(str, copies[300:])} == {*map(str, copies[:300])} - {str({"order_id": 5, "number": 1, "sku": None})}
