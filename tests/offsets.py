"""Resets offsets by Kafka's own tool, as operators do."""

from __future__ import annotations

import time

from deploy.embedded import Kafka

PATIENCE = 120.0


def reset_offsets(kafka: Kafka, group: str, *to: str) -> None:
    """`reset_offsets(kafka, group, "--to-earliest")`, for all its topics. Waits, because the tool refuses while the
    group has members, and a killed member stays one until its session times out."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = kafka.consumer_groups("--group", group, "--reset-offsets", "--all-topics", *to, "--execute")
        said = done.stdout + done.stderr
        if done.returncode == 0 and "Error" not in said:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the offsets of {group} cannot be reset:\n{said}")
        time.sleep(1)
