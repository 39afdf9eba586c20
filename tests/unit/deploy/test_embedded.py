"""Downloads of server parts when two processes need them at once."""

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy import embedded


def test_two_that_start_together_on_a_new_machine_fetch_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jars").mkdir()
    (tmp_path / "jars" / "kafka.jar").touch()
    fetched = []

    def build(endpoint: str) -> SimpleNamespace:
        fetched.append(endpoint)
        time.sleep(0.2)
        return SimpleNamespace(path=str(tmp_path))

    monkeypatch.setenv("ORDERTAP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "jgo", SimpleNamespace(build=build))
    with ThreadPoolExecutor(2) as both:
        paths = list(both.map(lambda _: embedded.kafka_class_path(lambda _said: None), range(2)))
    assert paths == [str(tmp_path / "jars" / "kafka.jar")] * 2
    assert fetched == [embedded.KAFKA]
