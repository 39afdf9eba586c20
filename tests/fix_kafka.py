"""A real Apache Kafka and a real schema registry, started once per session when a test first needs them."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded import Kafka, Registry

_number = itertools.count(1)


@pytest.fixture(scope="session")
def parts_folder() -> Iterator[Path]:
    """The folder of this session's servers. Everybody may enter it, because PostgreSQL does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="ordertap-tests-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(parts_folder: Path) -> Iterator[Kafka]:
    """The broker. Tests use topics with a `prefix` of their own."""
    with Kafka(parts_folder / "kafka") as broker:
        yield broker


@pytest.fixture
def bootstrap_servers(kafka: Kafka) -> str:
    return kafka.bootstrap_servers


@pytest.fixture
def prefix() -> str:
    """A topic prefix that only this test uses."""
    return f"t{os.getpid()}x{next(_number)}"


@pytest.fixture(scope="session")
def schema_registry(parts_folder: Path) -> Iterator[Registry]:
    """Apicurio Registry. A test that stops it has to start it again."""
    with Registry(parts_folder / "registry") as registry:
        yield registry


@pytest.fixture
def registry_url(schema_registry: Registry) -> str:
    """Its Confluent-compatible address."""
    return schema_registry.url


@pytest.fixture
def file_registry_url(tmp_path: Path) -> str:
    return (tmp_path / "registry").as_uri()
