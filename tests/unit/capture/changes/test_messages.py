"""Logical messages become Debezium's op m, or records of the outbox pattern; nobody else's are kept."""

from __future__ import annotations

import io
import json

import fastavro
import pytest

from capture.changes.messages import COLLECTION, Messages, Route, refuse_taken
from capture.postgres.pgoutput import LogicalMessage
from schemas.model.errors import SettingsError
from schemas.model.lsn import LSN
from schemas.writing.codec import SourceOrigin
from schemas.writing.json_output import JsonRegistry
from schemas.writing.messages import message_schema

OUTBOX = Route("outbox", "event.{aggregatetype}")
EVENT = {"id": "e1", "type": "Paid", "aggregatetype": "order", "aggregateid": 7, "payload": {"sum": "1.10", "é": [1]}}
BAD_TEXT = b'{"aggregatetype":"order","payload":"\\ud800"}'  # half of a character


def messages(*routes: Route) -> Messages:
    taken = {"shop.position", "event.position"}.__contains__
    return Messages("shop", ["app|own.*"], routes, frozenset({"own.signal"}), lambda *_: 5, lambda _: 1, taken)


def message(prefix: str, content: bytes) -> LogicalMessage:
    return LogicalMessage(True, LSN(500), prefix, content)


SOURCE = SourceOrigin("shop", "shop", "1").transaction(77, 1_000_000, 400, 9 * 10**9)


@pytest.mark.parametrize(
    ("prefix", "wanted"), [("app", True), ("apps", False), ("own.x", True), ("own.signal", False), ("outbox", True)]
)
def test_prefixes_are_matched_as_a_whole_and_internal_ones_never(prefix: str, wanted: bool) -> None:
    assert messages(OUTBOX).wants(prefix) is wanted


def test_a_message_is_debeziums_op_m() -> None:
    counted, (topic, _, key, value, headers) = messages().record(
        message("app", b"\x00raw"), SOURCE, 9 * 10**9, b"1:2:3"
    )
    assert (counted.name, topic, key) == (COLLECTION, "shop.message", b"\x00\x00\x00\x00\x05\x02\x06app")
    read = fastavro.schemaless_reader(io.BytesIO((value or b"")[5:]), message_schema(), None)
    assert read["op"] == "m"
    assert read["message"] == {"prefix": "app", "content": b"\x00raw"}
    assert (read["source"]["txId"], read["source"]["lsn"], read["source"]["table"]) == (77, 500, "")
    assert (read["ts_ms"], read["transaction"], read["source"]["sequence"]) == (9000, None, '["400","500"]')
    assert headers == [("ordertap.stamp", b"1:2:3")]


def test_an_outbox_message_goes_to_its_topic() -> None:
    event = message("outbox", json.dumps(EVENT).encode())
    counted, (topic, partition, key, value, headers) = messages(OUTBOX).record(event, SOURCE, 0, b"1:2:3")
    assert (counted.name, topic, partition, key) == ("event.order", "event.order", -1, b"7")
    assert value == '{"sum":"1.10","é":[1]}'.encode()
    assert dict(headers) == {"ordertap.stamp": b"1:2:3", "id": b"e1", "type": b"Paid"}


def test_with_another_output_only_the_op_m_is_shown_by_it_and_an_outbox_record_stays_as_it_is() -> None:
    registry, routes = JsonRegistry(), [Route("outbox", "shop.message", payload="bytes")]
    made = Messages(
        "shop", ["app"], routes, frozenset(), registry.register, lambda _: 1, lambda _: False, registry.frame
    )
    _, (_, _, key, value, _) = made.record(message("app", b"\x00raw"), SOURCE, 9 * 10**9, b"1:2:3")
    assert key == b'{"prefix":"app"}'
    assert json.loads(value or b"")["message"] == {"prefix": "app", "content": "AHJhdw=="}
    _, outbox = made.record(message("outbox", b"\x00\x00\x00\x00\x00raw"), SOURCE, 0, b"1:2:4")
    assert outbox[:4] == ("shop.message", 0, None, b"\x00\x00\x00\x00\x00raw")


def test_bytes_are_the_value_itself() -> None:
    route = Route("outbox", "events", "bytes")
    _, fields = messages(route).record(message("outbox", b"\x00\xff"), SOURCE, 0, b"1:2:3")
    assert fields[:4] == ("events", 0, None, b"\x00\xff")


@pytest.mark.parametrize(
    "content", [b"\xff", b"[1]", b'{"aggregatetype":"order"}', b'{"payload":1}', b"[" * 9999, BAD_TEXT]
)
def test_what_the_route_cannot_read_is_not_dropped(content: bytes) -> None:
    counted, fields = messages(OUTBOX).record(message("outbox", content), SOURCE, 0, b"1:2:3")
    assert (counted.name, fields[0]) == (COLLECTION, "shop.message")


def test_no_message_gets_to_a_topic_that_is_taken(capsys: pytest.CaptureFixture[str]) -> None:
    """Or whoever can write a message in the shop could write capture's position."""
    event = message("outbox", json.dumps(EVENT | {"aggregatetype": "position"}).encode())
    counted, fields = messages(OUTBOX).record(event, SOURCE, 0, b"1:2:3")
    assert (counted.name, fields[0]) == (COLLECTION, "shop.message")
    assert "is not what its outbox route expects" in capsys.readouterr().out


def test_a_route_whose_topic_is_taken_is_refused() -> None:
    taken = {"shop.position"}.__contains__
    refuse_taken([OUTBOX, Route("outbox", "shop.message")], taken)
    with pytest.raises(SettingsError, match=r"topic shop\.position of prefix o"):
        refuse_taken([OUTBOX, Route("o", "shop.position")], taken)
