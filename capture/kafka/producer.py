"""The transactional producer and its records."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from confluent_kafka import KafkaError, KafkaException, Producer

from capture.kafka.cluster import Cluster
from capture.kafka.errors import TOO_LARGE, kafka_error
from capture.metrics import waiting
from schemas.model.errors import OrdertapError, UnavailableError

Headers = list[tuple[str, str | bytes | None]]
ANY_PARTITION: Final = -1
CLIENT_LIMIT: Final = 1_000_000
"""librdkafka's default of message.max.bytes."""
_QUEUE_PATIENCE: Final = 50  # tenths of a second with a full queue
_MARKING: Final = 0.002
"""Seconds that a broker needs to write the markers of most commits after it has answered. It refuses a transaction that
begins sooner (CONCURRENT_TRANSACTIONS), and librdkafka tries again only after 20 ms."""


class Record(NamedTuple):
    """One Kafka record to write. Partition -1: chosen by the key, as Java's producers do."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Headers


Fields = tuple[str, int, bytes | None, bytes | None, Headers]
"""The fields of a Record; the stream makes plain tuples."""


class TransactionalProducer:
    """Writes one Kafka transaction after the other. After any error but DataError, make a new one."""

    def __init__(self, cluster: Cluster, transactional_id: str, timeout: float = 30.0) -> None:
        """Initialises transactions, which fences every older producer with this id."""
        self._servers = cluster.servers
        self._failure: KafkaError | None = None
        self._largest, self._refused = -1, ""  # of the records that the broker finds too large
        options = {
            "linger.ms": "5",
            "compression.type": "lz4",
            "queue.buffering.max.messages": "1000000",
            "queue.buffering.max.kbytes": "262144",
            "batch.size": "1000000",
            "transaction.timeout.ms": "60000",
            **cluster.options,
            "partitioner": "murmur2_random",  # the keys lie where Java's producers put them
            "enable.idempotence": True,
            "transactional.id": transactional_id,
            "delivery.report.only.error": True,
            "on_delivery": self._failed,
            "error_cb": self._noted,
        }
        self.open_seconds = float(options["transaction.timeout.ms"]) / 1000
        """The broker aborts a transaction that stays open longer, and gives up its producer."""
        try:
            self._producer = Producer(options)
            with waiting("Kafka (starting the transactional producer)"):
                self._producer.init_transactions(timeout)
        except KafkaException as error:
            raise cluster.failure("starting the transactional producer", error.args[0]) from None
        self.begin_transaction = self._call("beginning a transaction", self._producer.begin_transaction)
        self.produce_one = self._producer.produce
        """librdkafka's own, for the snapshot's rows: raises BufferError when the queue is full; wants `errors`."""

    def produce(self, records: Iterable[Fields]) -> None:
        """Queues records in the open transaction. DataError if one is larger than the client may send."""
        produce = self._producer.produce
        topic, value = "", None
        try:
            for topic, partition, key, value, headers in records:
                try:
                    produce(topic, value, key, partition, None, None, 0, headers)
                except BufferError:
                    self.produce_patiently(topic, value, key, partition, headers)
        except KafkaException as error:
            raise self._error(f"writing {len(value or b'')} bytes to topic {topic}", error) from None

    def produce_patiently(
        self, topic: str, value: bytes | None, key: bytes | None, partition: int, headers: Headers
    ) -> None:
        """Queues a record once there is room. UnavailableError if there is none for a while."""
        for _ in range(_QUEUE_PATIENCE):
            self._producer.poll(0.1)
            try:
                self._producer.produce(topic, value, key, partition, headers=headers)
            except BufferError:
                continue
            return
        said = f"writing to topic {topic}: Kafka at {self._servers} accepts nothing"
        raise UnavailableError(said, "check the broker")

    @contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Turns confluent-kafka's errors into ours. `doing`: what was tried."""
        try:
            yield
        except KafkaException as error:
            raise self._error(doing, error) from None

    def _error(self, doing: str, error: KafkaException) -> OrdertapError:
        """Ours for one of confluent-kafka's. A producer that was given up says why only once."""
        cause = error.args[0]
        if cause.code() == KafkaError._FATAL:
            self._producer.poll(0)
            cause = self._failure or cause
        return kafka_error(doing, cause, self._servers)

    def commit(self, timeout: float) -> None:
        """Commits the transaction: all of it is durable on return. Retries retriable errors."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._producer.commit_transaction(max(0.1, deadline - time.monotonic()))
            except KafkaException as error:
                cause = self._failure or error.args[0]
                if error.args[0].retriable() and time.monotonic() < deadline:
                    continue
                raise kafka_error(f"committing to Kafka{self._refused}", cause, self._servers) from None
            time.sleep(_MARKING)
            return

    def abort(self, records: Iterable[Fields], timeout: float) -> None:
        """Writes records and aborts them, together with what is open in their partitions. No `read_committed` reader
        sees them."""
        self.begin_transaction()
        self.produce(records)
        with self.errors("aborting a transaction"):
            self._producer.flush(timeout)
            self._producer.abort_transaction(timeout)
        if self._failure is not None:
            raise kafka_error("aborting a transaction", self._failure, self._servers)

    def abandon(self) -> None:
        """Drops what is queued. The transaction is aborted here, or when the next producer starts."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        try:
            self._producer.abort_transaction(2.0)
        except KafkaException:  # the next init_transactions aborts it on the broker
            return

    def _failed(self, error: KafkaError | None, message: Any) -> None:
        if error is not None and error.code() in TOO_LARGE and len(message) > self._largest:
            self._largest = len(message)
            self._refused = f": {self._largest} bytes for topic {message.topic()}, or the batch around them"
        if error is not None and error.code() not in (KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT):
            self._failure = self._failure or error

    def _noted(self, error: KafkaError) -> None:
        """Of other errors, such as lost connections, what matters comes back from the calls."""
        if error.fatal():
            self._failure = self._failure or error

    def _call(self, doing: str, function: Any) -> Any:
        def call() -> None:
            with self.errors(doing):
                function()

        return call
