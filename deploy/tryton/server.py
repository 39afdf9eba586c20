"""Tryton's server as a part: JSON-RPC on a free port, with a database of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from deploy.embedded import Part, PartError, Postgres, port_open
from deploy.tryton import provision
from deploy.tryton.environment import DATABASE, Environment, environment, write_settings
from sink.erp.contract import Sells
from sink.erp.tryton import catalogue, setup
from sink.erp.tryton import settings as tryton_settings
from sink.erp.tryton.settings import TrytonSettings
from sink.erp.tryton.setup import TrytonSetup

_INIT = (Path(__file__), *(Path(str(one.__file__)) for one in (setup, catalogue, tryton_settings, provision)))
"""The files that decide what `_init` makes. If one of them changes, the dump is made anew."""


class Tryton(Part):
    """A Tryton 8.2 with the data of provision.py, in a database of this PostgreSQL server. With `web_shop` it also has
    what `sink init` makes, which is kept as well.

    The database ends a call that waits longer than `LOCK_SECONDS` for a row lock, and Tryton tries it up to five times
    more. So a call may take effect until `settles_within` seconds later.

    workers: processes, each with so many `threads`. A caller's connection stays with one process; with one thread it is
    closed after each call, so that two callers never wait for one process while another is idle.
    """

    name = "Tryton"
    LOCK_SECONDS = 1.0
    REPEATS = 5
    settles_within = LOCK_SECONDS * (REPEATS + 1) + 2

    user, password = provision.API, provision.API_PASSWORD
    clerk, clerk_password = provision.CLERK, provision.CLERK_PASSWORD

    def __init__(
        self,
        folder: Path,
        postgres: Postgres,
        say: Callable[[str], None] = print,
        *,
        database: str = DATABASE,
        workers: int = 1,
        threads: int = 4,
        web_shop: bool = True,
    ) -> None:
        super().__init__(folder)
        self.postgres, self.database = postgres, database
        self.workers, self.threads = workers, threads
        self._web_shop = web_shop
        self._say = say
        self._environment: Environment | None = None
        self._command: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Starts with new data the first time; after a stop or kill, with the data that is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._environment is not None:
            super().start()
            return
        self._environment = environment(self._say)
        made = self._environment.later(self.postgres, *(file.read_text() for file in _INIT))
        ready = self._web_shop and made.exists()
        self._environment.restore(self.postgres, self.database, made if ready else None)
        self._command = self._gunicorn(self._environment)
        super().start()
        if self._web_shop and not ready:
            self._say("making in Tryton what a web shop needs, about 12 s, once")
            self._init()
            self._environment.keep(self.postgres, self.database, made)

    def settings(self) -> dict[str, Any]:
        """`sink.erp` of the settings file."""
        return {
            "kind": "tryton", "url": self.url, "database": self.database, "user": self.user, "password": self.password,
            "web_shop": provision.SHOP, "payment_term": provision.PAYMENT_TERM,
            "settles_seconds": self.settles_within,
        }  # fmt: skip

    def _init(self) -> None:
        """Does what a person does with `sink init` and an administrator's log-in."""
        admin = {"user": provision.ADMIN, "password": provision.ADMIN_PASSWORD}
        settings = TrytonSettings.model_validate(self.settings() | admin)
        with closing(TrytonSetup(settings, Sells(price_lists=provision.PRICE_LISTS))) as setup:
            for lack in setup.lacks():
                if lack.make is None:
                    raise PartError(f"{lack.message}\n  next: {lack.hint}")
                lack.make()

    def command(self) -> list[str]:
        return self._command

    def _gunicorn(self, environment: Environment) -> list[str]:
        settings = write_settings(self.folder, self.postgres)
        waits = f"PGOPTIONS=-c lock_timeout={self.LOCK_SECONDS:.0f}s"
        variables = [f"TRYTOND_CONFIG={settings}", f"TRYTOND_DATABASE_NAMES={self.database}", waits]
        gunicorn = [environment.program("gunicorn"), "--bind", f"127.0.0.1:{self.port}", "--timeout", "120"]
        size = ["--workers", str(self.workers), "--threads", str(self.threads), "trytond.application:app"]
        return ["env", *variables, *gunicorn, *size]

    def answers(self) -> bool:
        if not port_open(self.port):
            return False
        body = json.dumps({"id": 0, "method": "common.server.version", "params": []}).encode()
        request = urllib.request.Request(f"{self.url}/rpc/", body, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  (our own address)
                return str(json.load(answer).get("result")).startswith("8.")
        except (urllib.error.URLError, OSError):
            return False
