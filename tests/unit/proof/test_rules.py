"""The proof itself: a sound history has no findings, and each single damage is found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.proof.content import check_content, replay
from tests.proof.records import Listing, Record, Stamp
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


def _row(offset: int, stamp: Stamp, op: str, key: int, topic: str = ORDERS) -> Record:
    transaction = {"id": f"{stamp.commit_lsn - 1}:{stamp.commit_lsn}"}
    value = {"op": op, "before": None, "after": None if op == "d" else {"id": key, "total": stamp.commit_lsn}}
    source = {"schema": "public", "table": topic.rpartition(".")[2], "snapshot": "false"}
    return Record(topic, 0, offset, f'{{"id": {key}}}', value | {"source": source}, stamp, transaction)


def _tombstone(of: Record) -> Record:
    return replace(of, offset=of.offset + 1, value=None)


def _snapshot_row(offset: int, key: int, snapshot: str) -> Record:
    value = {
        "op": "r",
        "before": None,
        "after": {"id": key, "total": 100},
        "source": {"schema": "public", "table": "orders", "snapshot": "true"},
    }
    return Record(ORDERS, 0, offset, f'{{"id": {key}}}', value, Stamp(1, 100, 0), {"snapshot": snapshot})


def _completed(snapshot: str, rows: str) -> Record:
    data = {"snapshot_id": snapshot, "generation": "1", "lsn": "100", "rows": rows}
    data["data_collections"] = "public.orders,public.order_lines"
    value = {"type": "COMPLETED", "aggregate_type": "Initial Snapshot", "additional_data": data}
    return Record("shop.notification", 0, 0, '{"id": "1"}', value)


def _history() -> list[Record]:
    deleted = _row(2, Stamp(1, 300, 2), "d", 5, LINES)
    old = replace(_row(4, Stamp(1, 400, 1), "d", 2), key_change="old")
    return [
        _snapshot_row(0, 99, "given-up"),
        _snapshot_row(1, 1, "s"),
        _completed("s", '{"public.orders": 1}'),
        _row(2, Stamp(1, 200, 1), "c", 2),
        _row(0, Stamp(1, 200, 2), "c", 5, LINES),
        _row(1, Stamp(1, 200, 3), "c", 6, LINES),
        _row(3, Stamp(1, 300, 1), "u", 2),
        deleted,
        _tombstone(deleted),
        old,
        _tombstone(old),
        replace(_row(6, Stamp(1, 400, 1), "c", 3), key_change="new"),
    ]


def _listing(offset: int, serial: int, previous: int, end: int, *commits: list[Any], **more: Any) -> Listing:
    tables = [["public.orders", ORDERS], ["public.order_lines", LINES]]
    content = {"serial": serial, "generation": 1, "previous": previous, "end": end, "tables": tables}
    return Listing(offset, Stamp(1, end, 0), content | {"commits": list(commits), "snapshots": []} | more)


def _index() -> list[Listing]:
    first = [{"id": name, "first": True} for name in ("given-up", "s")]
    return [
        _listing(0, 1, 100, 100, snapshots=first),
        _listing(2, 2, 100, 350, [200, 5, [0, 1, 1, 2]], [300, 6, [0, 1, 1, 1]]),
        _listing(4, 3, 350, 450, [400, 7, [0, 2]]),
        _listing(6, 4, 450, 500),
    ]


def _kinds(records: list[Record]) -> set[str]:
    return {finding.kind for finding in judge_log(records, _index(), "shop", LOG)}


def test_sound_history_has_no_findings() -> None:
    assert judge_log(_history(), _index(), "shop", LOG) == []


@pytest.mark.parametrize("number", range(len(_history())))
def test_each_lost_record_is_found(number: int) -> None:
    history = _history()
    lost = history.pop(number)
    if lost.transaction.get("snapshot") == "given-up":  # promises nothing
        assert judge_log(history, _index(), "shop", LOG) == []
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
    history = [*_history(), _row(9, Stamp(1, 500, 1), "c", 8)]
    assert _kinds(history) == {"double", "lost"}, "and the index does not have it"


def test_a_row_of_another_transaction_is_found() -> None:
    history = _history()
    history[4] = replace(history[4], transaction={"id": "198:200"})
    assert _kinds(history) == {"wrong"}


_WRONG_INDEX: dict[str, Callable[[list[Listing]], object]] = {
    "a record is missing": lambda index: index.pop(2),
    "a record twice": lambda index: index.append(index[-1]),
    "the first record is not the first": lambda index: index.pop(0),
    "a serial number left out": lambda index: index[3].content.update(serial=5),
    "an end that nobody goes on from": lambda index: index[2].content.update(end=440),
    "an end that goes back": lambda index: index[3].content.update(end=430),
    "a stamp that is not its end": lambda index: index.__setitem__(3, replace(index[3], stamp=Stamp(1, 499, 0))),
    "a commit is missing": lambda index: index[1].content["commits"].pop(),
    "a commit twice": lambda index: index[2].content["commits"].append([400, 7, [0, 2]]),
    "a commit in a later record, too": lambda index: index[3].content["commits"].append([400, 7, [0, 2]]),
    "commits in another order": lambda index: index[1].content["commits"].reverse(),
    "a commit of after its record": lambda index: index[1].content["commits"][1].__setitem__(0, 360),
    "one change too few": lambda index: index[2].content["commits"][0].__setitem__(2, [0, 1]),
    "one change too many": lambda index: index[1].content["commits"][0].__setitem__(2, [0, 1, 1, 3]),
    "another table": lambda index: index[2].content["commits"][0].__setitem__(2, [1, 2]),
    "another topic": lambda index: index[2].content["tables"][0].__setitem__(1, "shop.public.orders.v2"),
    "a snapshot is no commit": lambda index: index[0].content.update(snapshots=[]),
}


@pytest.mark.parametrize("what", _WRONG_INDEX)
def test_each_damage_to_the_index_is_found(what: str) -> None:
    index = _index()
    _WRONG_INDEX[what](index)
    assert judge_log(_history(), index, "shop", LOG)


def test_a_chunk_is_listed_by_its_mark_and_its_rows() -> None:
    chunk = [_row(offset, Stamp(1, 470, 0), "r", key) for offset, key in ((8, 2), (9, 3))]
    history = [*_history(), *(replace(row, transaction={"snapshot": "asked"}) for row in chunk)]
    index = _index()
    assert _kinds(history) == {"lost"}
    index[3].content["commits"].append([470, 0, [0, 2], "asked"])
    assert judge_log(history, index, "shop", LOG) == []
    index[3].content["commits"][0][2] = [0, 3]
    assert judge_log(history, index, "shop", LOG)


def test_a_chain_begins_anew_in_a_new_generation_only() -> None:
    again = _listing(8, 1, 700, 700)
    assert judge_log(_history(), [*_index(), again], "shop", LOG)
    again.content["generation"] = 2
    assert judge_log(_history(), [*_index(), replace(again, stamp=Stamp(2, 700, 0))], "shop", LOG) == []


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
