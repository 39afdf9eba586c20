"""Turns librdkafka's errors into ours."""

from __future__ import annotations

from typing import Any, Final

from confluent_kafka import KafkaError

from schemas.model.errors import DataError, OrdertapError, SettingsError, UnavailableError

_NOT_ALLOWED: Final = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
)
_MISCONFIGURED: Final = (
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,
    KafkaError._INVALID_ARG,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.INVALID_CONFIG,  # this and the next ones concern a topic
    KafkaError.INVALID_PARTITIONS,
    KafkaError.TOPIC_EXCEPTION,
    KafkaError.POLICY_VIOLATION,
)
TOO_LARGE: Final = (KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE)
"""Errors of client or broker for a record that is too large."""


class FencedError(UnavailableError):
    """Another producer with our transactional.id started, or our transaction timed out. Start again."""


class NotAllowedError(SettingsError):
    """Our user lacks a right on the broker (an ACL)."""


def kafka_error(doing: str, error: Any, servers: str) -> OrdertapError:
    """Our error for a KafkaError of librdkafka."""
    text = f"{doing}: {error.str()} (Kafka at {servers})"
    if error.code() in _NOT_ALLOWED:
        return NotAllowedError(
            text, "`capture check` prints the kafka-acls.sh commands for what a run needs; drop --topics needs Delete"
        )
    if error.code() in _MISCONFIGURED:
        return SettingsError(text, "check the `kafka` settings; for a topic, topic_creation_… and topic_prefix")
    if error.code() in TOO_LARGE:
        hint = (
            "raise max.message.bytes of the topic and message.max.bytes in `kafka`, then start again; nothing is lost"
        )
        return DataError(text, hint)
    if error.code() in (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
        return FencedError(text, "capture starts again from its position")
    return UnavailableError(text, "check bootstrap_servers and that the broker runs")
