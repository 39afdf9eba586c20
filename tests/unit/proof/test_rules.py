"""The proof itself: a sound history has no findings, and each single damage to it is found."""

from dataclasses import replace

import pytest

from tests.proof.content import check_content, replay
from tests.proof.records import Record, Stamp
from tests.proof.verdict import judge_log
from tests.proof.wal import Logged

ORDERS = "shop.public.orders"
LINES = "shop.public.order_lines"
LOG = [
    Logged(90, 1, 6, "public.orders", "c"),  # before the snapshot: its row is there as a read
    Logged(200, 1, 7, "public.orders", "c"),
    Logged(200, 2, 7, "public.order_lines", "c"),
    Logged(200, 3, 7, "public.order_lines", "c"),
    Logged(300, 1, 8, "public.orders", "u"),
    Logged(300, 2, 8, "public.order_lines", "d"),
    Logged(400, 1, 9, "public.orders", "u"),  # of its key
]


def _row(offset: int, stamp: Stamp, size: dict[str, int], op: str, key: int, topic: str = ORDERS) -> Record:
    transaction = {"id": f"{stamp.commit_lsn - 1}:{stamp.commit_lsn}", "size": size}
    value = {"op": op, "before": None, "after": None if op == "d" else {"id": key, "total": stamp.commit_lsn}}
    return Record(topic, 0, offset, f'{{"id": {key}}}', value, stamp, transaction)


def _tombstone(of: Record) -> Record:
    return replace(of, offset=of.offset + 1, value=None)


def _snapshot_row(offset: int, key: int, snapshot: str) -> Record:
    value = {"op": "r", "before": None, "after": {"id": key, "total": 100}, "source": {"snapshot": "true"}}
    return Record(ORDERS, 0, offset, f'{{"id": {key}}}', value, Stamp(1, 100, 0), {"snapshot": snapshot})


def _completed(snapshot: str, rows: str) -> Record:
    data = {"snapshot_id": snapshot, "generation": "1", "lsn": "100", "rows": rows}
    data["data_collections"] = "public.orders,public.order_lines"
    value = {"type": "COMPLETED", "aggregate_type": "Initial Snapshot", "additional_data": data}
    return Record("shop.notification", 0, 0, '{"id": "1"}', value)


def _history() -> list[Record]:
    three = {"public.orders": 1, "public.order_lines": 2}
    two = {"public.orders": 1, "public.order_lines": 1}
    deleted = _row(2, Stamp(1, 300, 2), two, "d", 5, LINES)
    old = replace(_row(4, Stamp(1, 400, 1), {"public.orders": 1}, "d", 2), key_change="old")
    return [
        _snapshot_row(0, 99, "given-up"),
        _snapshot_row(1, 1, "s"),
        _completed("s", '{"public.orders": 1}'),
        _row(2, Stamp(1, 200, 1), three, "c", 2),
        _row(0, Stamp(1, 200, 2), three, "c", 5, LINES),
        _row(1, Stamp(1, 200, 3), three, "c", 6, LINES),
        _row(3, Stamp(1, 300, 1), two, "u", 2),
        deleted,
        _tombstone(deleted),
        old,
        _tombstone(old),
        replace(_row(6, Stamp(1, 400, 1), {"public.orders": 1}, "c", 3), key_change="new"),
    ]


def _kinds(records: list[Record]) -> set[str]:
    return {finding.kind for finding in judge_log(records, "shop", LOG)}


def test_sound_history_has_no_findings() -> None:
    assert judge_log(_history(), "shop", LOG) == []


@pytest.mark.parametrize("number", range(len(_history())))
def test_each_lost_record_is_found(number: int) -> None:
    history = _history()
    lost = history.pop(number)
    if lost.transaction.get("snapshot") == "given-up":  # promises nothing
        assert judge_log(history, "shop", LOG) == []
    else:
        assert _kinds(history) & {"lost", "wrong", "double"}


@pytest.mark.parametrize("number", [n for n, r in enumerate(_history()) if r.topic != "shop.notification"])
def test_each_doubled_record_is_found(number: int) -> None:
    history = _history()
    doubled = history[number]
    history.append(replace(doubled, offset=99))
    if doubled.transaction.get("snapshot") == "given-up":
        assert "out of order" in _kinds(history)
    else:
        assert "double" in _kinds(history)


@pytest.mark.parametrize(("one", "other"), [(1, 3), (3, 6), (4, 5), (6, 9), (9, 10), (10, 11), (7, 8)])
def test_each_swap_in_a_partition_is_found(one: int, other: int) -> None:
    history = _history()
    first, second = history[one], history[other]
    history[one], history[other] = replace(first, offset=second.offset), replace(second, offset=first.offset)
    assert "out of order" in _kinds(history)


def test_lost_source_transaction_is_found() -> None:
    history = [each for each in _history() if each.stamp is None or each.stamp.commit_lsn != 300]
    assert "lost" in _kinds(history)


def test_change_that_the_log_does_not_have_is_found() -> None:
    history = [*_history(), _row(9, Stamp(1, 500, 1), {"public.orders": 1}, "c", 8)]
    assert _kinds(history) == {"double"}


def test_wrong_size_is_found() -> None:
    history = [replace(each, transaction={**each.transaction, "size": {"public.orders": 7}}) for each in _history()]
    assert "wrong" in _kinds(history)


def test_end_replaces_the_size_of_a_large_transaction() -> None:
    history = [
        replace(each, transaction={**each.transaction, "size": None}) if each.stamp and each.stamp[1] == 200 else each
        for each in _history()
    ]
    assert "wrong" in _kinds(history)
    counts = [{"data_collection": "public.orders", "event_count": 1}]
    counts.append({"data_collection": "public.order_lines", "event_count": 2})
    end = Record("shop.transaction", 0, 0, "", {"status": "END", "id": "199:200", "data_collections": counts})
    assert judge_log([*history, end], "shop", LOG) == []


def test_replay_equals_the_shop() -> None:
    played = replay(_history(), "shop")
    shop = {"public.orders": [{"id": 1, "total": 100}, {"id": 3, "total": 400}], "public.order_lines": []}
    shop["public.order_lines"].append({"id": 6, "total": 200})
    assert check_content(played, shop) == []


def test_replay_takes_values_that_were_not_sent_from_the_row_before_its_key_changed() -> None:
    """Also where it moves to a partition that comes first."""
    history = _history()
    for each in history:
        if each.topic == ORDERS and each.value and each.value["after"]:
            each.value["after"]["note"] = f"of {each.value['after']['id']}"
    new = history.pop()
    assert new.value
    new.value["after"]["note"] = "placeholder"
    new = replace(new, partition=-1, old_key='{"id": 2}', unchanged=frozenset(["note"]))
    played = replay([new, *history], "shop")["public.orders"]
    assert played['{"id": 3}'] == {"id": 3, "total": 400, "note": "of 2"}
    assert played.keys() == {'{"id": 1}', '{"id": 3}'}


@pytest.mark.parametrize(
    ("orders", "kind"),
    [
        ([{"id": 1, "total": 100}], "wrong"),
        ([{"id": 1, "total": 100}, {"id": 3, "total": 401}], "wrong"),
        ([{"id": 1, "total": 100}, {"id": 3, "total": 400}, {"id": 4, "total": 1}], "lost"),
    ],
)
def test_replay_that_differs_is_found(orders: list[dict[str, int]], kind: str) -> None:
    found = check_content(replay(_history(), "shop"), {"public.orders": orders})
    assert {finding.kind for finding in found} == {kind}


def test_findings_name_no_values() -> None:
    secret = [{"id": 1, "total": "planted"}]
    assert "planted" not in str(check_content(replay(_history(), "shop"), {"public.orders": secret}))
