"""The index of commits: what is written comes back, and what is not ours is refused."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.model.commits import Commit, IndexRecord, SnapshotState, dump_index, index_topic, parse_index
from schemas.model.errors import DataError

names = st.text(min_size=1, max_size=20)
numbers = st.integers(0, 2**64 - 1)
counts = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10**9)), max_size=4).map(tuple)
commits = st.builds(Commit, numbers, st.integers(0, 2**62), counts, st.none() | names)
snapshots = st.builds(
    SnapshotState,
    names,
    st.sampled_from(["running", "completed", "aborted"]),
    numbers,
    st.booleans(),
    st.lists(names, max_size=3).map(tuple),
    st.dictionaries(names, st.integers(0, 10**12), max_size=3),
)
records = st.builds(
    IndexRecord,
    st.integers(1, 2**62),
    st.integers(1, 2**62),
    numbers,
    numbers,
    st.lists(st.tuples(names, names), max_size=3).map(tuple),
    st.lists(commits, max_size=5).map(tuple),
    st.lists(names, max_size=3).map(tuple),
    st.lists(names, max_size=3).map(tuple),
    st.lists(snapshots, max_size=3).map(tuple),
)


@given(records)
def test_a_record_comes_back_as_it_was_written(record: IndexRecord) -> None:
    assert parse_index(dump_index(record)) == record


def test_the_topic_is_not_one_that_a_pattern_of_the_prefix_meets() -> None:
    assert index_topic("shop") == "ordertap.shop.commits"


@pytest.mark.parametrize("value", [b"", b"{}", b"[]", b"\xff", b'{"version":1}', b"null", b"[" * 100_000])
def test_what_is_not_ours_is_refused(value: bytes) -> None:
    with pytest.raises(DataError, match="not written by capture"):
        parse_index(value)


def test_a_later_version_is_refused_by_name() -> None:
    value = json.dumps({"version": 2}).encode()
    with pytest.raises(DataError, match="version 2"):
        parse_index(value)
