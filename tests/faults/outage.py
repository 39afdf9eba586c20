"""The ERP is away for two days while the shop goes on selling: `./tests/soak outage`, and a short form in the suite.

The two days are simulated. All times in the ledger (due, next try, marks, deadlines) are set back by two days in one
transaction, and the clock of the sink's circuit breaker is set forward by as much (`later`). So for the sink, which is
not restarted, the outage is that old.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import psycopg2

from deploy.embedded import Kafka, Postgres, free_port
from tests.benchmarks.apply_shop import PUBLICATION, ApplyErp, ApplyShop
from tests.faults.proxy import Proxy
from tests.programs import ROOT, Program, write_settings
from tests.proof.erp import check_erp

HOURS: Final = 48
WORKERS: Final = 2
_BEFORE: Final = 20  # orders in the ERP before the outage
_LONGEST_REST: Final = 60.0  # of the circuit
_SET_BACK: Final = """
UPDATE {0}.unit SET due_at = due_at - interval '{1} h', deadline = deadline - interval '{1} h';
UPDATE {0}.document SET marked_at = marked_at - interval '{1} h', next_try = next_try - interval '{1} h',
    held_since = held_since - interval '{1} h'
"""


_PLACES = (
    "(SELECT row_number() OVER (ORDER BY id) AS erp,"
    " row_number() OVER (ORDER BY split_part(external_key, '/', 3)::bigint) AS shop FROM orders) AS t"
)
"""The ERP numbers orders as they arrive, the shop as they are placed."""


@dataclass
class Result:
    """Times are in seconds. `wrong`: what should not have happened. `displaced`: the most places by which an order came
    before or after its turn."""

    orders: int
    staged: float
    first: float = 0.0
    drained: float = 0.0
    displaced: int = 0
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        took = f"staged meanwhile in {self.staged:.0f} s, the first in the ERP {self.first:.0f} s after its return"
        rate = f"all drained in {self.drained:.0f} s ({self.orders / max(self.drained, 0.001):.0f} orders/s)"
        order = f"oldest first ({self.displaced} places off at most)"
        return f"outage: {self.orders} orders waited {HOURS} h, {took}, {rate}, {order}, {len(self.wrong)} wrong"


class Outage:
    """A shop with capture and one sink, whose ERP is behind a proxy.

    `batch`: orders that a worker takes at once. `patient`: waits for the end of the circuit breaker's rest after the
    outage; otherwise its clock is set forward.
    """

    patience = 180.0

    def __init__(self, folder: Path, server: Postgres, kafka: Kafka, prefix: str, batch: int, patient: bool) -> None:
        self._patient = patient
        # Workers run in parallel: an order comes a moment later if another worker has its buyer.
        self._places = WORKERS * batch * 5
        self._ledger = f"ordertap_{prefix}"
        self._shop_url, self._middle, self._erp_url = (
            server.create_database(f"{prefix}_{name}") for name in ("shop", "middle", "erp")
        )
        self._shop = ApplyShop(self._shop_url)
        self._erp = ApplyErp(self._erp_url, self._shop_url)
        self._proxy = Proxy(server.port)
        self._ahead = folder / "ahead"
        self._set_ahead(0)
        self._health = free_port()
        self._end = 0
        common: dict[str, Any] = {
            "topic_prefix": prefix,
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": (folder / "registry").as_uri(),
        }
        capture = {
            "name": prefix, "database_hostname": "127.0.0.1", "database_port": server.port, "database_user": "postgres",
            "database_dbname": self._shop_url.rpartition("/")[2], "slot_name": prefix, "publication_name": PUBLICATION,
            "heartbeat_interval_ms": 500, "health_port": 0,
        }  # fmt: skip
        mapping = str(ROOT / "deploy/erp/mapping.yaml")
        sink = {
            "shop": prefix, "profile": "sample", "database_url": self._middle, "mode": "apply", "prices_owner": "shop",
            "erp": {"url": self._proxy.url(self._erp_url), "mapping": mapping}, "batch": batch, "workers": WORKERS,
            "health_port": self._health,
        }  # fmt: skip
        config = write_settings(folder / "settings.yaml", capture=common | capture, sink=common | sink)
        self._capture = Program("capture", config, folder / "capture.log")
        self.sink = Program("tests.faults.later", config, folder / "sink.log", ("-X", f"later={self._ahead}"))

    def run(self, orders: int, say: Callable[[str], None] = lambda _: None) -> Result:
        """Runs an outage during which so many orders are placed."""
        try:
            self._capture.start()
            self.sink.start()
            self._shop.place(_BEFORE - 1)
            self._until(lambda: self._in_erp() == _BEFORE, "the first orders are in the ERP")
            pid = self.sink.pid
            with self._proxy.away():
                result = self._wait(orders, say)
            say("the ERP is there again")
            self._drain(result)
            if self.sink.pid != pid or self.sink.ended() is not None:
                result.wrong.append("the sink did not live through it")
            return result
        finally:
            self.sink.stop()
            self._capture.stop()
            self._proxy.close()

    def _wait(self, orders: int, say: Callable[[str], None]) -> Result:
        """Checks what should hold while the ERP is away."""
        began = time.monotonic()
        self._shop.place(orders - 1)
        self._until(lambda: self._marked() == _BEFORE + orders - 1, "all is staged")
        result = Result(orders, time.monotonic() - began)
        self._until(lambda: "the ERP's database" in self._ready(), "ready says what is blocked")
        say(f"{orders} orders are staged; two days pass")
        self._execute(_SET_BACK.format(self._ledger, HOURS))
        self._set_ahead(HOURS * 3600)
        asked = self._asked()
        self._until(lambda: self._asked() > asked, "it asks whether the ERP can be used, and goes on waiting")
        self._shop.place(1)
        self._until(lambda: self._marked() == _BEFORE + orders, "staging goes on")
        if "the ERP's database" not in (said := self._ready()):
            result.wrong.append(f"ready says: {said}")
        result.wrong += self._not_waiting(orders)
        return result

    def _not_waiting(self, orders: int) -> list[str]:
        """Rows of the ledger that are not simply due."""
        of_orders = f"FROM {self._ledger}.document WHERE type = 'sales_order' AND applied IS NULL"
        waiting = self._scalar(f"SELECT count(*) {of_orders} AND state IN ('due', 'retry') AND intent IS NULL")
        attempts = self._scalar(f"SELECT coalesce(max(attempts), 0) FROM {self._ledger}.document")
        wrong = [] if waiting == orders else [f"{waiting} orders are due, of {orders}"]
        return wrong + ([f"an outage counts as an attempt ({attempts})"] if attempts else [])

    def _drain(self, result: Result) -> None:
        """Brings the ERP back."""
        began = time.monotonic()
        if not self._patient:
            self._set_ahead(HOURS * 3600 + _LONGEST_REST)
        self._until(lambda: self._in_erp() > _BEFORE, "the first order is in the ERP")
        result.first = time.monotonic() - began
        self._until(
            lambda: self._in_erp() == _BEFORE + result.orders, "all is in the ERP", max(600, result.orders / 20)
        )
        result.drained = time.monotonic() - began
        self._until(lambda: self._ready().startswith("staging"), "ready says that nothing is blocked")
        self._until(lambda: not check_erp(self._shop_url, self._erp_url, self._middle, self._ledger)[0], "it agrees")
        held = self._scalar(f"SELECT count(*) FROM {self._ledger}.history WHERE event = 'held'")
        result.displaced = self._displaced()
        result.wrong += [f"{held} were held"] if held else []
        if off := self._out_of_place():
            result.wrong.append(f"{off} orders came more than {self._places} places before or after their turn")

    def _set_ahead(self, seconds: float) -> None:
        """In one step, because the sink reads it all the time."""
        new = self._ahead.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._ahead)

    def _displaced(self) -> int:
        """The largest displacement."""
        return self._scalar(f"SELECT max(abs(erp - shop)) FROM {_PLACES}", self._erp_url)

    def _out_of_place(self) -> int:
        """How many orders came further from their turn than allowed."""
        return self._scalar(f"SELECT count(*) FROM {_PLACES} WHERE abs(erp - shop) > {self._places}", self._erp_url)

    def _in_erp(self) -> int:
        return self._scalar("SELECT count(*) FROM orders WHERE status = 'confirmed'", self._erp_url)

    def _marked(self) -> int:
        """The number of orders in the ledger."""
        if not self._scalar(f"SELECT count(to_regclass('{self._ledger}.document'))"):
            return 0
        return self._scalar(f"SELECT count(*) FROM {self._ledger}.document WHERE type = 'sales_order'")

    def _asked(self) -> int:
        """How often the sink logged that the ERP cannot be used."""
        return self.sink.log.read_text().count("the ERP cannot be used now")

    def _ready(self) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/health/ready", timeout=10) as answer:
                return str(json.load(answer)["reason"])
        except urllib.error.HTTPError as answer:
            with answer:
                return str(json.load(answer)["reason"])

    def _until(self, met: Callable[[], bool], what: str, seconds: float = patience) -> None:
        deadline = time.monotonic() + seconds
        while not met():
            assert self.sink.ended() is None, self.sink.tail()
            assert time.monotonic() < deadline, f"not in {seconds:.0f} s: {what}\n{self.sink.tail()}"
            time.sleep(0.1)

    def _execute(self, statement: str) -> None:
        with closing(psycopg2.connect(self._middle)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def _scalar(self, statement: str, url: str = "") -> int:
        with closing(psycopg2.connect(url or self._middle)) as connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return int((cursor.fetchone() or (0,))[0])
