"""What a table's topic is called, and what it is made with."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from capture.kafka.cluster import Cluster, Making
from capture.kafka.topics import Group, Route, Topics
from capture.settings import TopicRoute
from schemas.model.errors import SettingsError

DEFAULT = Making(3, 1, {"cleanup.policy": "delete", "retention.ms": "-1"})


def topics(routes: list[tuple[str, str]] | None = None, groups: list[Group] | None = None) -> Topics:
    given = [TopicRoute(topic_regex=regex, topic_replacement=to) for regex, to in routes or []]
    made = [Route(re.compile(one.topic_regex), one.replacement) for one in given]
    return Topics(Cluster("", {}), "shop", DEFAULT, groups or [], made)


@pytest.mark.parametrize(
    ("routes", "name"),
    [
        ([], "shop.public.orders"),
        ([(r"shop\.public\.(.*)", "crm.$1")], "crm.orders"),
        ([(r"shop\.public\.(.*)", r"crm.\1")], "crm.orders"),
        ([("public", "crm")], "shop.public.orders"),  # of the whole name
        ([("shop.public.o|shop.public.orders", "x"), (".*", "y")], "x"),
    ],
)
def test_the_first_route_that_means_the_whole_name_counts(routes: list[tuple[str, str]], name: str) -> None:
    assert topics(routes).of("public.orders") == name


@pytest.mark.parametrize("replacement", ["a b", "..", "", "x" * 250])
def test_a_name_that_kafka_does_not_take_is_refused(replacement: str) -> None:
    with pytest.raises(SettingsError, match=r"public\.orders: .*not a valid topic name"):
        topics([(".*", replacement)]).of("public.orders")


def test_two_tables_have_no_topic_together() -> None:
    routed = topics([(r".*\.orders_\d+", "all.orders")])
    assert routed.of("public.orders_1") == routed.of("public.orders_1") == "all.orders"
    with pytest.raises(SettingsError, match=r"topic all\.orders is table public\.orders_1's"):
        routed.of("public.orders_2")
    with pytest.raises(SettingsError, match="capture's own"):
        topics([(".*", "shop.position")]).of("public.orders")
    assert routed.has("all.orders")
    assert routed.has("shop.public.anything")
    assert not routed.has("other")


def test_c4_two_names_that_kafka_takes_for_one_are_refused() -> None:
    made = topics()
    made.of("public.a_b")
    with pytest.raises(
        SettingsError, match=r"shop\.public_a\.b and topic shop\.public\.a_b, of table public\.a_b"
    ) as caught:
        made.of("public_a.b")
    assert "topic_routing" in caught.value.hint


@pytest.mark.parametrize(
    ("topic", "taken"),
    [
        ("ordertap.shop.position", True),
        ("ordertap.shop.commits", True),
        ("shop.position", True),
        ("shop.transaction", True),
        ("__debezium-heartbeat.shop", True),
        ("__consumer_offsets", True),
        ("crm.orders", True),
        ("crm.orders.v2", True),
        ("crm.orders.v", False),
        ("shop.public.orders", False),
        ("shop.message", False),
    ],
)
def test_topics_of_ours_and_of_tables_are_nobody_elses(topic: str, taken: bool) -> None:
    routed = topics([(r"shop\.public\.(.*)", "crm.$1")])
    routed.of("public.orders")
    assert routed.taken(topic) is taken


@pytest.mark.parametrize("replacement", ["$2", r"\2", r"\g<name>"])
def test_a_replacement_that_names_what_is_not_there_is_refused(replacement: str) -> None:
    with pytest.raises(ValidationError, match="does not fit"):
        TopicRoute(topic_regex="shop(.*)", topic_replacement=replacement)


def test_the_first_group_counts_and_leaves_the_rest_as_by_default() -> None:
    made = topics(
        groups=[
            Group((re.compile(r".*\.log"),), 6, None, {"retention.ms": "1000"}),
            Group((re.compile(".*"),), None, 2, {}),
        ]
    )
    assert made.making("shop.public.log") == Making(6, 1, {"cleanup.policy": "delete", "retention.ms": "1000"})
    assert made.making("shop.public.orders") == Making(3, 2, DEFAULT.config)
    assert topics().making("shop.public.orders") == DEFAULT
