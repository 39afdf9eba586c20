"""What an operator asks for, as it travels through the shop's log, where everybody may write."""

import json
from typing import Any

import pytest

from capture.demand import Demand, Request, Signal, parse_demand, parse_signal
from capture.snapshot.chunk_reader import Watermark, parse_watermark
from schemas.model.lsn import LSN

SIGNAL = Signal("shop", "one", "execute-snapshot", ("public.orders",), "id > 5")
DEEP = b"[" * 100_000


def test_a_signal_is_what_was_sent_to_its_slot() -> None:
    assert parse_signal(SIGNAL.dump().encode(), "shop") == SIGNAL
    assert parse_signal(SIGNAL.dump().encode(), "other") is None


def test_a_signal_is_signed_by_who_knows_the_key() -> None:
    read = parse_signal(SIGNAL.signed(b"secret").dump().encode(), "shop")
    assert read is not None
    assert read.is_signed(b"secret")
    assert not read.is_signed(b"other")
    assert not read._replace(condition="true").is_signed(b"secret")
    assert not SIGNAL._replace(code="\ud800").is_signed(b"secret")


@pytest.mark.parametrize(
    "other",
    [
        {"id": ["one"]},
        {"type": "drop-database"},
        {"type": []},
        {"tables": [["public.orders"]]},
        {"tables": 5},
        {"condition": 7},
        {"condition": 0},
        {"code": 5},
        {"more": 1},
    ],
    ids=str,
)
def test_what_is_no_signal_is_passed_by(other: dict[str, Any]) -> None:
    assert parse_signal(json.dumps(SIGNAL._asdict() | other).encode(), "shop") is None


@pytest.mark.parametrize("content", [b"", b"5", b"\xff", b"{}", DEEP], ids=["empty", "5", "bytes", "object", "deep"])
def test_other_content_is_neither_signal_nor_mark(content: bytes) -> None:
    assert parse_signal(content, "shop") is None
    assert parse_watermark(content) is None


def test_a_mark_is_what_was_written() -> None:
    assert parse_watermark(Watermark("reader", 3, low=True).dump().encode()) == Watermark("reader", 3, low=True)


def test_a_request_that_an_older_version_wrote_unparked_nothing() -> None:
    scope = (("public.orders", None), ("public.lines", None))
    demand = Demand((Request("one", LSN(5), scope, scope[1:], unparked=("public.lines", "public.orders")),))
    shown = json.loads(json.dumps(demand.shown()))
    assert parse_demand(shown) == demand
    assert demand.unread == {"public.lines"}
    del shown["requests"][0]["unparked"]
    assert parse_demand(shown).unread == frozenset()
