"""From Debezium's offset and the state of its slot to where capture goes on, or why it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capture.commands.adopt import Offset, Start, from_rest, from_topic, parse_offset, start_of
from capture.postgres.replication import Slot
from schemas.errors import DataError, SettingsError
from schemas.lsn import LSN

SLOT = Slot("pgoutput", "shop", None, LSN(100), "reserved", 0, None)


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ({"lsn_commit": 120, "lsn_proc": 130, "lsn": 130, "txId": 7}, Offset(LSN(120), LSN(130))),
        ({"lsn": 130, "snapshot": "INITIAL", "last_snapshot_record": False}, Offset(None, LSN(130), copying=True)),
        ({"lsn": 130, "snapshot": True, "last_snapshot_record": True}, Offset(None, LSN(130))),
        ({"lsn_commit": "120", "lsn_proc": None}, Offset(LSN(120), None)),
    ],
)
def test_debeziums_offset(content: dict[str, Any], offset: Offset) -> None:
    assert parse_offset(content) == offset


@pytest.mark.parametrize("content", [{}, {"file": "mysql-bin.3", "pos": 4}, [], None, {"lsn": "x"}])
def test_what_is_no_offset_is_said_to_be_none(content: Any) -> None:
    with pytest.raises(DataError, match="PostgreSQL connector's"):
        parse_offset(content)


@pytest.mark.parametrize(
    ("offset", "start"),
    [
        (Offset(LSN(120), LSN(120)), Start(LSN(120), partly_sent=True)),  # as a real one of a row by itself
        (Offset(LSN(120), LSN(130)), Start(LSN(120), partly_sent=True)),
        (Offset(None, LSN(130)), Start(LSN(100), partly_sent=True)),  # what was sent of it, nobody knows
        (Offset(LSN(100), LSN(90)), Start(LSN(100), partly_sent=False)),
    ],
)
def test_it_goes_on_behind_the_last_whole_transaction(offset: Offset, start: Start) -> None:
    assert start_of(offset, SLOT, "dbz", "shop", trust_slot=False) == start


@pytest.mark.parametrize(
    ("offset", "slot", "said"),
    [
        (Offset(LSN(120), None, copying=True), SLOT, "snapshot is not complete"),
        (Offset(LSN(120), None), None, "no slot dbz"),
        (Offset(LSN(120), None), SLOT._replace(active_pid=7), "in use"),
        (Offset(LSN(120), None), SLOT._replace(plugin="wal2json"), "for wal2json"),
        (Offset(LSN(120), None), SLOT._replace(database="other"), "database other"),
        (Offset(LSN(120), None), SLOT._replace(wal_status="lost"), "invalidated"),
        (Offset(LSN(90), LSN(95)), SLOT, "ahead of Debezium's offset"),
    ],
)
def test_what_would_lose_changes_is_refused(offset: Offset, slot: Slot | None, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        start_of(offset, slot, "dbz", "shop", trust_slot=False)


def test_an_idle_slot_that_its_driver_moved_may_be_trusted() -> None:
    assert start_of(Offset(LSN(90), LSN(95)), SLOT, "dbz", "shop", trust_slot=True) == Start(LSN(100), False)


def test_the_newest_offset_of_the_connector_and_prefix_is_taken() -> None:
    def key(name: str, server: str) -> bytes:
        return json.dumps([name, {"server": server}]).encode()

    records = [
        (key("shop", "p"), b'{"lsn_commit": 1}'),
        (key("other", "p"), b'{"lsn_commit": 9}'),
        (b'["file", {"filename": "x"}]', b"{}"),
        (None, b"{}"),
        (key("shop", "p"), b'{"lsn_commit": 2}'),
    ]
    assert from_topic(records, "shop", "p") == Offset(LSN(2), None)
    with pytest.raises(SettingsError, match="it has other, shop"):
        from_topic(records, "typo", "p")
    with pytest.raises(SettingsError, match="only for p"):
        from_topic(records, "shop", "q")
    with pytest.raises(SettingsError, match="no offset"):
        from_topic([*records, (key("shop", "p"), None)], "shop", "p")


def test_what_connect_answers_is_read_and_so_is_a_bare_offset() -> None:
    answer = {"offsets": [{"partition": {"server": "p"}, "offset": {"lsn_commit": 5}}]}
    assert from_rest(json.dumps(answer), "p") == Offset(LSN(5), None)
    assert from_rest('{"lsn_commit": 6}', "p") == Offset(LSN(6), None)
    with pytest.raises(DataError, match="not JSON"):
        from_rest("lsn_commit=6", "p")
