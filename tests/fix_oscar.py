"""A django-oscar shop. Tables and catalogue are made once per session; each test gets a copy."""

import itertools
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.embedded import Postgres

_number = itertools.count(1)


def run_oscar(*arguments: str) -> str:
    """Runs oscar's simulator in a process of its own, in which warnings are errors, too. Returns its output."""
    command = [sys.executable, "-W", "error", "-m", "deploy.oscar.simulator", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def oscar_shop(postgres: Postgres) -> Callable[[], str]:
    """Makes a shop that has not sold anything yet, and returns its URL."""
    template = postgres.create_database("oscar_template")
    run_oscar("--database-url", template, "--prepare", "--orders", "0")

    def shop() -> str:
        name = f"oscar_{next(_number)}"
        postgres.psql(f"CREATE DATABASE {name} TEMPLATE oscar_template")
        return postgres.dsn(name)

    return shop
