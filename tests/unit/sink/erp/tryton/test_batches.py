"""One call for many, and the bad ones found."""

from collections.abc import Collection, Mapping

import pytest

from sink.erp.contract import ConflictError, HoldError, RetryError
from sink.erp.tryton.batches import together
from sink.erp.tryton.errors import StaleError

Items = Mapping[int, str]


class AllOrNone:
    """A server that does all of a call or nothing; refuses "bad", and what has moved."""

    def __init__(self, moved: Collection[int] = ()) -> None:
        self.calls: list[int] = []
        self.done: list[str] = []
        self.gone = moved

    def call(self, items: Items) -> None:
        self.calls.append(len(items))
        if self.gone and items.keys() & self.gone:
            raise StaleError("moved")
        if "bad" in items.values():
            raise HoldError("bad", "fix it")
        if "away" in items.values():
            raise RetryError("away")
        self.done += items.values()

    def moved(self, items: Items) -> Collection[int]:
        return items.keys() & self.gone


def _items(*bad: int, word: str = "bad") -> dict[int, str]:
    return {number: word if number in bad else f"good {number}" for number in range(20)}


@pytest.mark.parametrize(("bad", "most"), [((), 1), ((0,), 12), ((7,), 12), ((1, 9, 19), 25)])
def test_the_bad_ones_are_found_and_the_others_done(bad: tuple[int, ...], most: int) -> None:
    server = AllOrNone()
    found = together(_items(*bad), server.call)
    assert found.keys() == set(bad)
    assert all(isinstance(error, HoldError) for error in found.values())
    assert len(server.done) == 20 - len(bad)
    assert len(server.calls) <= most


def test_what_moved_is_dropped_at_once() -> None:
    server = AllOrNone(moved={3, 11})
    found = together(_items(), server.call, server.moved)
    assert {number: type(error) for number, error in found.items()} == {3: ConflictError, 11: ConflictError}
    assert server.calls == [20, 18]


def test_a_refusal_of_one_that_moved_is_a_conflict() -> None:
    server = AllOrNone(moved={5})
    found = together({5: "bad"}, server.call, server.moved)
    assert isinstance(found[5], ConflictError)


def test_an_outage_is_of_all_and_no_reason_to_look_for_one() -> None:
    server = AllOrNone()
    found = together(_items(4, word="away"), server.call)
    assert len(found) == 20
    assert server.calls == [20]


def test_who_cannot_look_what_moved_knows_nothing() -> None:
    def away(_: Items) -> Collection[int]:
        raise RetryError("away")

    found = together(_items(4), AllOrNone().call, away)
    assert {type(error) for error in found.values()} == {RetryError}


def test_nothing_is_no_call() -> None:
    server = AllOrNone()
    assert together({}, server.call) == {}
    assert server.calls == []
