"""From Debezium's offset and the state of its slot to where capture goes on, or why it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from capture.commands.adopt import Offset, Start, from_rest, from_topic, parse_offset, start_of
from capture.postgres.replication import Slot
from schemas.model.errors import DataError, SettingsError
from schemas.model.lsn import LSN

# What Debezium 3.7.0.Final with Kafka Connect 4.3.1 left in the offsets topic, octet by octet.
STOPPED = (
    b'["c-s1a",{"server":"s1a"}]',
    (
        b'{"lsn_proc":25649752,"lsn_events_processed":1,"messageType":"UPDATE","lsn_commit":25649752,"lsn":25649752,'
        b'"txId":746,"ts_usec":1795437516302826}'
    ),
)
KILLED_IN_A_TRANSACTION = (
    b'["c-s2",{"server":"s2"}]',
    (
        b'{"lsn_proc":52511160,"lsn_events_processed":1,"messageType":"INSERT","lsn_commit":46747472,"lsn":52511160,'
        b'"txId":789,"ts_usec":1795437691088963}'
    ),
)
ONLY_COPIED = (
    b'["c-s3a",{"server":"s3a"}]',
    (
        b'{"last_snapshot_record":true,"lsn":46739992,"txId":780,"ts_usec":1795437681796038,"snapshot":"INITIAL",'
        b'"snapshot_completed":true}'
    ),
)
KILLED_IN_THE_SNAPSHOT = (
    b'["c-s4",{"server":"s4"}]',
    (
        b'{"last_snapshot_record":false,"lsn":150273232,"txId":852,"ts_usec":1795437906532487,"snapshot":"INITIAL",'
        b'"snapshot_completed":false}'
    ),
)
HEARTBEAT_ALONE = (b'["c-s3c",{"server":"s3c"}]', b'{"lsn":46746936,"txId":785,"ts_usec":1795437683354271}')
REST = (
    '{"offsets":[{"partition":{"server":"s1a"},"offset":{"lsn_proc":25649752,"lsn_events_processed":1,'
    '"messageType":"UPDATE","lsn_commit":25649752,"lsn":25649752,"txId":746,"ts_usec":1795437516302826}}]}'
)

SLOT = Slot("pgoutput", "shop", None, LSN(100), "reserved", 0, None)


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ({"lsn_commit": 120, "lsn_proc": 130, "lsn": 130, "txId": 7}, Offset(LSN(120), LSN(130))),
        ({"lsn": 130, "snapshot": "INITIAL", "last_snapshot_record": False}, Offset(None, LSN(130), True, True)),
        ({"lsn": 130, "snapshot": True, "last_snapshot_record": True}, Offset(None, LSN(130), idle=True)),
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
        (Offset(None, LSN(130)), Start(LSN(100), partly_sent=True)),  # nobody knows how much of it was sent
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
    with pytest.raises(DataError, match="is not JSON"):
        from_topic([*records, (key("shop", "p"), b"{")], "shop", "p")


@pytest.mark.parametrize(
    ("record", "confirmed", "start"),
    [  # with the slot's confirmed_flush_lsn after it
        (STOPPED, 25649752, Start(LSN(25649752), partly_sent=True)),
        (KILLED_IN_A_TRANSACTION, 46747472, Start(LSN(46747472), partly_sent=True)),
        (ONLY_COPIED, 46739992, Start(LSN(46739992), partly_sent=False)),
        (HEARTBEAT_ALONE, 46746936, Start(LSN(46746936), partly_sent=False)),
    ],
)
def test_what_a_real_connector_left(record: tuple[bytes, bytes], confirmed: int, start: Start) -> None:
    connector, server = json.loads(record[0])
    everything = [STOPPED, KILLED_IN_A_TRANSACTION, ONLY_COPIED, HEARTBEAT_ALONE]
    offset = from_topic(everything, connector, server["server"])
    slot = SLOT._replace(confirmed_flush_lsn=LSN(confirmed))
    assert start_of(offset, slot, "dbz", "shop", trust_slot=False) == start


def test_a_real_connector_killed_in_its_snapshot_is_not_taken_over() -> None:
    offset = from_topic([STOPPED, KILLED_IN_THE_SNAPSHOT], "c-s4", "s4")
    with pytest.raises(SettingsError, match="snapshot is not complete"):
        start_of(offset, SLOT._replace(confirmed_flush_lsn=LSN(150273232)), "dbz", "shop", trust_slot=False)


def test_an_offset_that_is_not_written_yet_is_said_to_be_none() -> None:
    with pytest.raises(SettingsError, match=r"has no offset\s") as told:  # the answer while a new connector runs
        from_rest('{"offsets":[]}', "s1a")
    assert "flush" in (told.value.hint or "")
    with pytest.raises(SettingsError, match=r"no offset of connector c-new \(it has c-s1a\)"):
        from_topic([STOPPED], "c-new", "new")


def test_what_connect_answers_is_read_and_so_is_a_bare_offset() -> None:
    assert from_rest(REST, "s1a") == Offset(LSN(25649752), LSN(25649752))
    assert from_rest('{"lsn_commit": 6}', "p") == Offset(LSN(6), None)
    with pytest.raises(DataError, match="not JSON"):
        from_rest("lsn_commit=6", "p")
