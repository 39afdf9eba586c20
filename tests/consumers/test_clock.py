"""A record's own time is not before its commit, if both clocks are the same."""

import io
import struct
from itertools import count
from typing import Any

import fastavro
import pytest

from schemas.process.settings import PURE_PYTHON
from schemas.writing.codec import compile_codec
from tests.unit.capture.test_ways import FACTS, KEYED, Message, stream, tuple_data

SERVER_EPOCH_US = 946_684_800_000_000


@pytest.mark.parametrize("pure", ["0", "1"])
def test_a_commit_that_is_younger_than_the_last_look_at_the_clock(pure: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PURE_PYTHON, pure)
    committed = 1_700_000_000_500_000
    row = tuple_data([b"1", b"x", None])
    messages = [
        Message(1000, b"B" + struct.pack(">QqI", 1020, committed - SERVER_EPOCH_US, 700)),
        Message(1010, b"I" + struct.pack(">I", KEYED.oid) + b"N" + row),
        Message(1020, b"C\0" + struct.pack(">QQq", 1020, 1025, committed - SERVER_EPOCH_US)),
    ]
    made, writer, _ = stream(messages)
    looks = count(committed // 10**6)  # half a second before the commit, when the round begins; then a second later
    monkeypatch.setattr("time.time_ns", lambda: next(looks) * 10**9)
    made._read_round()
    ((records, *_),) = [added for added in writer.added if len(added) > 1]
    schema = fastavro.parse_schema(compile_codec("shop.public.orders", KEYED, FACTS).value_schema)
    record: Any = fastavro.schemaless_reader(io.BytesIO(records[0][3][5:]), schema, None)
    assert record["source"]["ts_us"] == committed
    assert record["ts_us"] >= committed
