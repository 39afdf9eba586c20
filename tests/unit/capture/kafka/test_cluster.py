"""Why Kafka is not reached, in librdkafka's words, which come beside the error of the call; how long it is waited
for."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from capture.kafka import broker, cluster
from capture.kafka.cluster import Cluster
from capture.kafka.producer import TransactionalProducer
from schemas.model.errors import UnavailableError


@pytest.fixture
def closing() -> Iterator[str]:
    """A port that ends each connection, as one with TLS and one without do to who speaks the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.recv(100_000)  # reads everything: else the connection ends with a reset
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def said(ask: Callable[[], object], *words: str) -> UnavailableError:
    """The error that has these words: on a slow machine librdkafka finds the cause only after a call has given up."""
    for _ in range(5):
        with pytest.raises(UnavailableError) as caught:
            ask()
        if all(word in caught.value.message for word in words):
            break
    for word in words:
        assert word in caught.value.message
    assert "in state" not in caught.value.message
    return caught.value


def listing(cluster: Cluster) -> Callable[[], object]:
    return lambda: cluster.partitions(timeout=2.0)


def test_a_name_that_is_none() -> None:
    error = said(listing(Cluster("nosuch.invalid:9092", {})), "Failed to resolve 'nosuch.invalid:9092'")
    assert "check bootstrap_servers" in error.hint


def test_tls_to_a_port_without(closing: str) -> None:
    cluster = Cluster(closing, {"security.protocol": "SSL"})
    error = said(listing(cluster), "connecting to a PLAINTEXT broker listener?")
    assert "security.protocol" in error.hint


def test_no_tls_to_a_port_with(closing: str) -> None:
    error = said(listing(Cluster(closing, {})), "as a TLS port does")
    assert "security.protocol" in error.hint


def test_nobody_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    cluster = Cluster(nobody, {})
    monkeypatch.setattr(broker, "_TIMEOUT", 2.0)
    said(lambda: broker.brokers(cluster), "describing the cluster: ", " Connection refused")
    with pytest.raises(UnavailableError, match=r"starting the transactional producer: .* Connection refused"):
        TransactionalProducer(cluster, "ordertap-nobody", timeout=2.0)


@pytest.mark.parametrize("made", [12, 3])
def test_the_ends_of_new_topics_are_awaited_for_as_long_as_their_logs_come(
    made: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker makes the log of one topic in six seconds, up to this many."""
    every = [TopicPartition("t", number) for number in range(12)]
    clock = SimpleNamespace(now=0.0)

    def list_offsets(left: Iterable[TopicPartition], **_: Any) -> dict[TopicPartition, Future[SimpleNamespace]]:
        clock.now += 6
        answers = {partition: Future[SimpleNamespace]() for partition in left}
        for partition, answer in answers.items():
            if partition.partition < min(made, clock.now // 6):
                answer.set_result(SimpleNamespace(offset=partition.partition))
            else:
                answer.set_exception(KafkaException(KafkaError(KafkaError.LEADER_NOT_AVAILABLE)))
        return answers

    monkeypatch.setattr(cluster, "time", SimpleNamespace(monotonic=lambda: clock.now, sleep=lambda _: None))
    asked = Cluster("127.0.0.1:9", {})
    monkeypatch.setattr(asked, "_admin", SimpleNamespace(list_offsets=list_offsets, poll=lambda _: 0))
    monkeypatch.setattr(asked, "partitions", lambda _: {})
    if made == len(every):
        assert asked.ends(every) == {partition: partition.partition for partition in every}
    else:
        with pytest.raises(UnavailableError, match="reading the end of t"):
            asked.ends(every)
        assert clock.now == 6 * made + 12
