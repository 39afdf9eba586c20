"""Offsets reset as operations do it, by Kafka's own tool."""

from __future__ import annotations

import time

from deploy.embedded import Kafka

PATIENCE = 120.0


def reset_offsets(kafka: Kafka, group: str, *to: str) -> None:
    """`reset_offsets(kafka, group, "--to-earliest")`, of all its topics. The tool refuses while the group has a member,
    and a member that was killed is one until its session has timed out."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = kafka.consumer_groups("--group", group, "--reset-offsets", "--all-topics", *to, "--execute")
        said = done.stdout + done.stderr
        if done.returncode == 0 and "Error" not in said:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"the offsets of {group} cannot be reset:\n{said}")
        time.sleep(1)
