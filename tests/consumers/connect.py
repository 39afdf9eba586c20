"""Kafka Connect: one process with connectors in files, as `connect-standalone.sh` runs it. Parts come from Maven
Central."""

from __future__ import annotations

import json
import os
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from deploy.embedded import (
    QUICK_START,
    REGISTRY,
    Archive,
    Kafka,
    Part,
    PartError,
    class_path,
    java,
    kafka_tools_class_path,
    unpacked,
)

JDBC_SINK: Final = Archive(
    "io.debezium", "debezium-connector-jdbc", "3.5.0.Final", "plugin", "Debezium's JDBC sink", 55
)
AVRO_CONVERTER: Final = f"io.apicurio:apicurio-registry-utils-converter:{REGISTRY.version}"  # 27 MB
CONVERTER_MANIFEST: Final = (
    "META-INF/services/org.apache.kafka.connect.storage.Converter",
    "io.apicurio.registry.utils.converter.AvroConverter",
)
"""What `connect-plugin-path.sh sync-manifests` would write. Without it, Connect looks through all jars at each
start."""
PATIENCE: Final = 120.0


def plugins(say: Callable[[str], None] = print) -> tuple[Path, list[Path]]:
    """The folder of the JDBC sink, and the converter's jars. PartError without Maven Central."""
    jars = class_path("avro-converter", AVRO_CONVERTER, "Apicurio's Avro converter", say)
    return unpacked(JDBC_SINK, f"debezium-jdbc-{JDBC_SINK.version}", say), [*map(Path, jars.split(os.pathsep))]


class Connect(Part):
    """The worker. `connectors`: connector → its property file. It counts as started once each connector has a task."""

    name = "Kafka Connect"

    def __init__(
        self, folder: Path, kafka: Kafka, connectors: Mapping[str, str], say: Callable[[str], None] = print
    ) -> None:
        super().__init__(folder)
        self._kafka = kafka
        self._connectors = connectors
        self._sink, self._converter = plugins(say)
        self._class_path = kafka_tools_class_path(say)  # Connect is among what Kafka's tools need

    def start(self) -> None:
        plugin_path = self.folder / "plugins"
        (plugin_path / "converter").mkdir(parents=True)
        (plugin_path / "sink").symlink_to(self._sink)
        for jar in self._converter:
            if jar.name.startswith(("connect-", "kafka-clients-")):
                continue  # Connect's own, and of another version
            (plugin_path / "converter" / jar.name).symlink_to(jar)
        with zipfile.ZipFile(plugin_path / "converter" / "manifest.jar", "w") as manifest:
            manifest.writestr(*CONVERTER_MANIFEST)
        files = {"worker": _worker(self.port, self._kafka.bootstrap_servers), **self._connectors}
        for name, content in files.items():
            (self.folder / f"{name}.properties").write_text(content, "utf-8")
        (self.folder / "log4j.properties").write_text(
            "log4j.rootLogger=WARN, out\nlog4j.appender.out=org.apache.log4j.ConsoleAppender\n"
            "log4j.appender.out.layout=org.apache.log4j.PatternLayout\n"
            "log4j.appender.out.layout.ConversionPattern=%d %p %c %m%n\n"
        )
        super().start()

    def command(self) -> list[str]:
        files = [f"{name}.properties" for name in ("worker", *self._connectors)]
        flags = ["-XX:+UseSerialGC", QUICK_START, "-Xmx512m", "-Dlog4j.configuration=file:log4j.properties"]
        return [java(), *flags, "-cp", self._class_path, "org.apache.kafka.connect.cli.ConnectStandalone", *files]

    def _tail(self) -> str:
        """What went wrong, without Java's stack traces."""
        lines = self.log.read_text("utf-8", errors="replace").splitlines()
        return "\n".join(line for line in lines if " ERROR " in line or not line.startswith(("\t", "20")))

    def answers(self) -> bool:
        return all(self._tasks(name) for name in self._connectors)

    def _tasks(self, name: str) -> list[dict[str, Any]]:
        """The tasks of a connector: `state`, and `trace` if it FAILED. None before it runs."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/connectors/{name}/status", timeout=5) as answer:
                return list(json.load(answer)["tasks"])
        except (urllib.error.URLError, OSError):
            return []

    def until_read(self, name: str, ends: Mapping[tuple[str, int], int]) -> None:
        """Waits until the offsets that the connector has committed reach these (topic, partition → the next offset)."""
        deadline = time.monotonic() + PATIENCE
        left = ends
        while left:
            failed = [task["trace"] for task in self._tasks(name) if task["state"] == "FAILED"]
            if failed or time.monotonic() > deadline:
                why = failed[0] if failed else f"has not read {sorted(left)}"
                raise PartError(f"{name} {why}\n{self._tail()}")
            time.sleep(0.2)
            read = self._committed(name, ends)
            left = {place: end for place, end in ends.items() if read[place] < end}

    def _committed(self, name: str, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], int]:
        """The offsets of the connector's group; negative if there are none yet."""
        consumer = Consumer({"bootstrap.servers": self._kafka.bootstrap_servers, "group.id": f"connect-{name}"})
        try:
            found = consumer.committed([TopicPartition(*place) for place in places], timeout=10)
            return {(place.topic, place.partition): place.offset for place in found}
        finally:
            consumer.close()


def _worker(port: int, bootstrap_servers: str) -> str:
    """The worker's own file. Each connector says how records are read."""
    settings = {
        "bootstrap.servers": bootstrap_servers,
        "listeners": f"http://127.0.0.1:{port}",
        "plugin.path": "plugins",
        "plugin.discovery": "service_load",
        "key.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "value.converter": "org.apache.kafka.connect.converters.ByteArrayConverter",
        "offset.storage.file.filename": "offsets",
        "offset.flush.interval.ms": "500",
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())
