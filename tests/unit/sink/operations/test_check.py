"""`sink check`: missing topics, advice, and findings that two parts share."""

import threading
from collections.abc import Collection
from typing import Any, cast

import pytest

from schemas.model.errors import UnavailableError
from sink.commands import check as command
from sink.commands.check import line
from sink.erp.contract import Abilities, Advice, Checked
from sink.intake.evidence import Partition
from sink.operations.check import MasterDataFound, check, topics_exist

INDEX, ORDERS, LINES = "ordertap.shop.commits", "shop.public.orders", "shop.public.lines"


class Group:
    """A consumer group whose broker has these topics."""

    def __init__(self, topics: Collection[str]) -> None:
        self._topics = topics

    def partitions(self) -> list[Partition]:
        return [Partition(topic, "id", 0) for topic in self._topics]


def told(*there: str) -> UnavailableError:
    with pytest.raises(UnavailableError) as missing:
        topics_exist(cast(Any, Group(there)), [INDEX, ORDERS, LINES], INDEX)
    return missing.value


def test_the_index_that_is_missing_is_named_with_what_makes_it() -> None:
    said = told(ORDERS, LINES)
    assert said.message == f"Kafka has no topic {INDEX}, the index of commits by which the sink reads"
    assert said.hint == "this release's capture creates it: `capture init`, then `capture run`"
    assert told(ORDERS).message.endswith(f"by which the sink reads, nor {LINES}")


def test_tables_without_topic_are_named() -> None:
    said = told(INDEX)
    assert (said.message, said.hint) == (f"Kafka has no topic {LINES}, {ORDERS}", "`capture init` makes them")


def test_all_is_there() -> None:
    topics_exist(cast(Any, Group([INDEX, ORDERS, LINES, "shop.more"])), [INDEX, ORDERS, LINES], INDEX)


def test_what_may_go_wrong_later_is_said_of_a_part_that_is_well() -> None:
    advice = Advice("orders.external_key is not unique", "CREATE UNIQUE INDEX ON orders (external_key)")
    checked = Checked("erp-1", "postgresql 16", Abilities({}), [advice])
    well, noted = check({"registry": lambda: None, "ERP": lambda: checked})
    assert line(well) == "ok   registry"
    assert line(noted) == (
        "ok   ERP\nnote ERP: orders.external_key is not unique\n     fix: CREATE UNIQUE INDEX ON orders (external_key)"
    )


def test_what_two_parts_say_is_said_once() -> None:
    first, second = Advice("no web shop", "make it"), Advice("no item A", "make it")

    def away() -> object:
        raise UnavailableError("nobody is there", "start it")

    both = {
        "ERP": lambda: Checked("erp-1", "8.2", Abilities({}), [first]),
        "ERP's master data": lambda: MasterDataFound([first, second]),
        "middle layer": away,
        "registry": away,
    }
    assert [(one.part, [*one.advice], one.error and one.error.message) for one in check(both)] == [
        ("ERP", [first], None),
        ("ERP's master data", [second], None),
        ("middle layer", [], "nobody is there"),
    ]


def test_a_look_that_takes_long_says_what_it_waits_for(monkeypatch: pytest.MonkeyPatch) -> None:
    said, told = list[str](), threading.Event()

    def echo(words: str, err: bool) -> None:
        assert err, "stdout is for the findings"
        said.append(words)
        told.set()

    monkeypatch.setattr(command, "_SILENT_SECONDS", 0.0)
    monkeypatch.setattr(command.typer, "echo", echo)
    assert command.told("ERP", lambda: told.wait(60))() is True
    assert said == ["...  ERP: still waiting for an answer"]
