"""The real shop: django-oscar makes its tables and its catalogue once per session; each test gets a copy."""

import itertools
import subprocess
import sys
from collections.abc import Callable

import pytest

from deploy.embedded import Postgres

_number = itertools.count(1)


def run_oscar(*arguments: str) -> str:
    """What oscar's simulator says. It runs in a process of its own, where warnings are errors as they are here."""
    command = [sys.executable, "-W", "error", "-m", "deploy.oscar.simulator", *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="session")
def oscar_shop(postgres: Postgres) -> Callable[[], str]:
    """Makes a shop that is open but has not sold anything yet, and gives its address."""
    template = postgres.create_database("oscar_template")
    run_oscar("--database-url", template, "--prepare", "--orders", "0")

    def shop() -> str:
        name = f"oscar_{next(_number)}"
        postgres.psql(f"CREATE DATABASE {name} TEMPLATE oscar_template")
        return postgres.dsn(name)

    return shop
