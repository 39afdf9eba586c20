"""The deployment in containers, started once when a test first asks."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.containers.deployment import Deployment, deployed


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Only with `./tests/run --containers`: it takes minutes and an engine.

    Image and project have other names than a deployment that may run here. If ORDERTAP_IMAGE is set, that image is
    tested, and none is built.
    """
    if not os.environ.get("ORDERTAP_TEST_CONTAINERS"):
        pytest.skip("containers are NOT tried here: ./tests/run --containers does")
    folder: Path = tmp_path_factory.mktemp("secrets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPOSE_PROJECT_NAME", f"ordertap-test-{os.getpid()}")
        build = "ORDERTAP_IMAGE" not in os.environ
        if build:
            patch.setenv("ORDERTAP_IMAGE", "ordertap:test")
        patch.setenv("ORDERTAP_SECRETS", str(folder))
        with deployed(folder, build) as made:
            yield made
