"""The compose file against the settings it sets, the files it mounts and the secrets it names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from capture.settings import Settings as CaptureSettings
from schemas.process.settings import Section, load
from sink.settings import SinkSettings

DEPLOY = Path(__file__).parents[3] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
OURS: list[tuple[str, Section, type[BaseModel]]] = [
    ("init", "capture", CaptureSettings),
    ("capture", "capture", CaptureSettings),
    ("sink", "sink", SinkSettings),
]


@pytest.mark.parametrize(("service", "section", "model"), OURS, ids=[name for name, _, _ in OURS])
def test_every_variable_is_a_setting(service: str, section: Section, model: type[BaseModel], tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    for name, value in COMPOSE["services"][service]["environment"].items():
        secret = tmp_path / Path(value).name
        if name.endswith("_FILE"):
            secret.write_text("postgresql://u:p@host/db")
        environment[name] = str(secret) if name.endswith("_FILE") else str(value)
    load(section, model, DEPLOY / "config.example.yaml", environment)


def test_the_image_has_a_python_that_is_named_as_tried() -> None:
    base = re.findall(r"^ARG PYTHON_IMAGE=python:(\d\.\d+)-", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    project = (DEPLOY.parent / "pyproject.toml").read_text("utf-8")
    tried = re.findall(r'"Programming Language :: Python :: (\d\.\d+)"', project)
    assert len(base) == 1
    assert {*base} < {*tried}
    assert f'requires-python = ">={tried[0]}"' in project


def test_every_mounted_file_is_there() -> None:
    mounts = [mount for service in COMPOSE["services"].values() for mount in service.get("volumes", [])]
    files = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert files
    assert [file for file in files if not (DEPLOY / file).exists()] == []


def test_every_secret_is_declared_and_told_how_to_make() -> None:
    used = {secret for service in COMPOSE["services"].values() for secret in service.get("secrets", [])}
    assert used == set(COMPOSE["secrets"])
    header = (DEPLOY / "compose.yaml").read_text("utf-8").partition("\nname:")[0]
    assert [name for name in used if not re.search(rf"\b{name}\b", header)] == []


def test_what_is_waited_for_has_a_health_check_or_ends() -> None:
    services = COMPOSE["services"]
    waits = [item for service in services.values() for item in service.get("depends_on", {}).items()]
    healthy = [name for name, how in waits if how["condition"] == "service_healthy"]
    assert [name for name in healthy if "healthcheck" not in services[name]] == []
