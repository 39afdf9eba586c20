"""A day of the sample shop in containers, each of which is killed once. Our containers may do no more than they
need."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from deploy.shop.catalogue import add_products
from deploy.shop.simulator import Simulator, skus
from tests.containers.deployment import OURS, Deployment, health
from tests.proof.erp import check_erp

SERVICES = ("shop", "middle", "erp", "kafka", "registry", "capture", "sink")
GROUP = "ordertap-shop"
SECRETS = {"capture": {"shop"}, "sink": {"middle_url", "erp_url", "shop_url"}}
ORDERS = 6  # between two kills
ERP = ("customers", "orders", "order_lines", "returns", "return_lines", "refunds", "prices")

pytestmark = pytest.mark.timeout(3600)


def buy(deployment: Deployment, seed: int) -> None:
    """Plays some hours of the day, with their own buyers and staff."""
    with closing(Simulator(deployment.url("shop"), seed)) as simulator:
        simulator.run(ORDERS)


def agreed(deployment: Deployment) -> None:
    """Checks that the ERP has what the shop has, by `sink reconcile` and by a proof that knows nothing of it."""
    code, said = deployment.run("sink", "sink", "reconcile", "--wait", "180", "--config", "/etc/ordertap/config.yaml")
    _, held = deployment.run("sink", "sink", "held", "--config", "/etc/ordertap/config.yaml")
    assert code == 0, f"{said}\n{held}"
    found, difference = check_erp(*(deployment.url(name) for name in ("shop", "erp", "middle")), "ordertap_shop")
    assert (found, difference) == ([], 0)


def documents(deployment: Deployment) -> dict[str, list[Any]]:
    """Every row of the ERP as text."""
    return {table: deployment.sql("erp", f"SELECT t::text FROM {table} t ORDER BY 1") for table in ERP}


def open_the_shop(deployment: Deployment) -> None:
    """Puts products into the shop and items into the ERP, once."""
    if deployment.sql("shop", "SELECT FROM products LIMIT 1"):
        return
    add_products(deployment.url("shop"))
    deployment.sql("erp", "INSERT INTO company VALUES ('containers', 'The factory')")
    for sku in skus(deployment.url("shop")):
        deployment.sql("erp", "INSERT INTO items VALUES (%s, %s)", sku, sku)


def test_everything_is_up_and_ours_is_there_as_often_as_asked(deployment: Deployment) -> None:
    running = deployment.containers()
    assert {each.name: health(each) for each in running if health(each) != "healthy"} == {}
    expected = [*SERVICES, "sink"]
    assert sorted(each.labels["com.docker.compose.service"] for each in running) == sorted(expected)


@pytest.mark.parametrize("service", OURS)
def test_who_stands_still_fails_its_health_check(deployment: Deployment, service: str) -> None:
    container = deployment.containers(service)[0]
    check = container.attrs["Config"]["Healthcheck"]["Test"][1:]  # without the word CMD
    assert container.exec_run(check).exit_code == 0
    container.kill("SIGSTOP")
    try:
        assert container.exec_run(check).exit_code != 0
    finally:
        container.kill("SIGCONT")


@pytest.mark.parametrize("service", OURS)
def test_ours_may_do_no_more_than_it_needs(deployment: Deployment, service: str) -> None:
    """Read-only files are tried as root, whom no file permissions stop."""
    for container in deployment.containers(service):
        host = container.attrs["HostConfig"]
        assert (host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (True, ["ALL"], False)
        assert "no-new-privileges:true" in host["SecurityOpt"]
        assert container.exec_run(["stat", "-c", "%u", "/proc/1"]).output.decode().strip() == "10001"
        for folder in ("/etc/ordertap", "/opt/ordertap"):
            said = container.exec_run(["touch", f"{folder}/new"], user="0").output.decode()
            assert "Read-only file system" in said
        assert container.exec_run(["touch", "/tmp/new"]).exit_code == 0


@pytest.mark.parametrize("service", OURS)
def test_secrets_are_files_and_nowhere_else(deployment: Deployment, service: str) -> None:
    """Each container has only those that it needs."""
    for container in deployment.containers(service):
        told = str(container.attrs) + container.logs().decode()
        assert [name for name, secret in deployment.secrets.items() if secret in told] == []
        assert set(container.exec_run(["ls", "/run/secrets"]).output.decode().split()) == SECRETS[service]
        held = container.exec_run(["sh", "-c", "cat /run/secrets/*"]).output.decode()
        assert any(secret in held for secret in deployment.secrets.values())


def test_the_image_runs_the_compiled_way_of_rows(deployment: Deployment) -> None:
    code, said = deployment.run("capture", "capture", "--version")
    assert code == 0
    assert "compiled" in said


@pytest.mark.parametrize("service", OURS)
def test_ours_stops_within_its_grace_period(deployment: Deployment, service: str) -> None:
    """With exit code 0, so it was not killed."""
    stopped = deployment.containers(service)
    for container in stopped:
        code, seconds = deployment.stop(container)
        assert code == 0, f"after {seconds:.1f} s\n{container.logs(tail=20).decode()}"
    deployment.start(*stopped)


def test_a_day_in_which_each_container_is_killed_ends_in_agreement(deployment: Deployment) -> None:
    """Then offsets are set back to the first day by Kafka's own tool, and the ERP stays as it is."""
    open_the_shop(deployment)
    killed = [container for service in SERVICES for container in deployment.containers(service)]
    for seed, container in enumerate(killed):
        buy(deployment, seed)
        deployment.kill(container)
        if container.labels["com.docker.compose.service"] != "shop":
            buy(deployment, 100 + seed)
        deployment.start(container)
    agreed(deployment)
    assert deployment.sql("erp", "SELECT count(*) FROM orders")[0][0] > ORDERS

    before, sinks = documents(deployment), deployment.containers("sink")
    for sink in sinks:
        assert deployment.stop(sink)[0] == 0
    deployment.reset_offsets(GROUP)
    assert deployment.offsets_behind(GROUP) > len(before["orders"])
    deployment.start(*sinks)
    deployment.until(lambda: deployment.offsets_behind(GROUP) == 0, sinks[0])
    agreed(deployment)
    assert documents(deployment) == before
