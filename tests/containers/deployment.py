"""deploy/compose.yaml on a Docker engine, started by testcontainers under a project name of its own."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

import docker
import psycopg2
from docker.models.containers import Container
from testcontainers.compose import DockerCompose

from tests.programs import ROOT

OURS = ("capture", "sink")
PATIENCE = 240.0
CONSUMER_GROUPS = "/opt/kafka/bin/kafka-consumer-groups.sh"


class Deployment:
    """All containers of the compose files, by the names of their services."""

    def __init__(self, compose: DockerCompose, secret: dict[str, str]) -> None:
        self._compose = compose
        self._engine = docker.from_env()
        self.secrets = secret

    def containers(self, service: str = "") -> list[Container]:
        """The running containers of a service, or of all."""
        found = self._compose.get_containers()
        return [self._engine.containers.get(each.ID) for each in found if service in ("", each.Service)]

    def run(self, service: str, *command: str) -> tuple[int, str]:
        """Runs a command in the first container of a service, like `docker compose exec`. Returns exit code and
        output."""
        done = self.containers(service)[0].exec_run(list(command))
        return done.exit_code, done.output.decode()

    def kill(self, container: Container) -> None:
        """kill -9 of the container. The engine does not start it again, since it was told to kill it."""
        container.kill()
        container.wait()

    def start(self, *containers: Container) -> None:
        """Starts what was killed or stopped, and waits until its health check passes."""
        for container in containers:
            container.start()
        self.until(lambda: all(health(each) == "healthy" for each in containers), containers[0])

    def stop(self, container: Container) -> tuple[int, float]:
        """Asks it to end, and kills it after its grace period, like `docker stop`. Returns exit code and seconds."""
        began = time.monotonic()
        container.stop(timeout=container.attrs["Config"]["StopTimeout"])
        return int(container.wait()["StatusCode"]), time.monotonic() - began

    def until(self, met: Callable[[], bool], witness: Container, seconds: float = PATIENCE) -> None:
        """Waits for a condition. AssertionError with the end of a container's log if it takes too long."""
        deadline = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < deadline, f"{witness.name}:\n{witness.logs(tail=40).decode()}"
            time.sleep(0.5)

    def url(self, service: str) -> str:
        """The address of a database (shop, middle, erp) from here. It changes with each start."""
        user = "ordertap" if service == "middle" else service
        port = self._compose.get_service_port(service, 5432)
        return f"postgresql://{user}:{self.secrets[service]}@127.0.0.1:{port}/{user}"

    def sql(self, service: str, statement: str, *values: object) -> list[Any]:
        """Runs one transaction in one of them. Returns its rows."""
        with closing(psycopg2.connect(self.url(service))) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def reset_offsets(self, group: str) -> None:
        """Resets the offsets to the earliest, with Kafka's own tool in Kafka's container. It refuses while the group
        has a member."""
        tool = [CONSUMER_GROUPS, "--bootstrap-server", "localhost:9092", "--group", group]
        said: list[str] = []

        def done() -> bool:
            code, output = self.run("kafka", *tool, "--reset-offsets", "--all-topics", "--to-earliest", "--execute")
            said.append(output)
            return code == 0 and "Error" not in output

        kafka = self.containers("kafka")[0]
        self.until(done, kafka)

    def offsets_behind(self, group: str) -> int:
        """How many records of the shop's topics the group has yet to read. The index of commits does not count: nobody
        resumes from its offset, which stays behind."""
        tool = [CONSUMER_GROUPS, "--bootstrap-server", "localhost:9092", "--group", group]
        _, output = self.run("kafka", *tool, "--describe")
        rows = [line.split() for line in output.splitlines() if line.startswith(group)]
        return sum(int(row[5]) for row in rows if row[1].startswith("shop.") and row[5].isdigit())


def health(container: Container) -> str:
    """What its health check says now: starting, healthy, unhealthy."""
    container.reload()
    return str(container.attrs["State"].get("Health", {}).get("Status", "none"))


@contextmanager
def deployed(folder: Path, build: bool) -> Iterator[Deployment]:
    """Starts everything and waits until it is healthy. At the end, containers, networks and volumes are removed.
    `folder` gets the secrets."""
    secret = write_secrets(folder)
    files = ["compose.yaml", str(ROOT / "tests/containers/compose.yaml")]
    compose = DockerCompose(ROOT / "deploy", files, build=build)
    try:
        compose.start()
        yield Deployment(compose, secret)
    except CalledProcessError as error:
        raise AssertionError(f"{compose.get_logs()[0]}\n{error.stderr.decode()[-2000:]}") from error
    finally:
        compose.stop()


def write_secrets(folder: Path) -> dict[str, str]:
    """Makes the secrets as compose.yaml's first lines say. The image's user, who does not exist here, can read them."""
    passwords = {name: secrets.token_hex(16) for name in ("shop", "middle", "erp")}
    urls = {
        "middle_url": f"postgresql://ordertap:{passwords['middle']}@middle/ordertap",
        "erp_url": f"postgresql://erp:{passwords['erp']}@erp/erp",
        "shop_url": f"postgresql://shop:{passwords['shop']}@shop/shop",
    }
    for name, value in (passwords | urls).items():
        (folder / name).write_text(value)
        (folder / name).chmod(0o644)
    return passwords
