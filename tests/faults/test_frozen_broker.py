"""A broker that froze for longer than its session leads again, over connections that never broke."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec

from capture.kafka.cluster import Cluster, Making
from deploy.embedded import Kafka
from tests.programs import standing_still

IMPATIENT = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "400"}
PLACE = TopicPartition("topic", 0)


def test_the_end_of_a_partition_is_read_though_its_leader_epoch_is_another_one(parts_folder: Path) -> None:
    with Kafka(parts_folder / "frozen-kafka", IMPATIENT) as broker:
        cluster = Cluster(broker.bootstrap_servers, {})
        cluster.create_topics({"topic": Making(1, 1, {})})
        assert cluster.ends([PLACE]) == {PLACE: 0}
        for _ in range(20):  # if its next heartbeat is quick enough, it keeps its session
            _freeze(broker, 3.0)
            if _asks_with_the_old_epoch(cluster):
                break
        else:
            pytest.fail("the broker never lost its session")
        assert cluster.ends([PLACE]) == {PLACE: 0}
        assert not _asks_with_the_old_epoch(cluster)


def _freeze(broker: Kafka, seconds: float) -> None:
    with standing_still(broker.process):
        time.sleep(seconds)
    time.sleep(1)


def _asks_with_the_old_epoch(cluster: Cluster) -> bool:
    [asked] = cluster.admin.list_offsets({PLACE: OffsetSpec.latest()}, request_timeout=10).values()
    try:
        asked.result()
    except KafkaException as error:
        return bool(error.args[0].code() == KafkaError.FENCED_LEADER_EPOCH)
    return False
