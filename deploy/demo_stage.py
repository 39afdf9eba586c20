"""What the demo starts: servers, databases, settings, capture, sink and the shop's simulator, all in one folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import IO, Any

import psycopg2
import yaml

from deploy.demo_erp import ERPS, DemoErp
from deploy.embedded import Kafka, Part, PartError, Postgres, die_with_parent, port_open

DEPLOY = Path(__file__).parent
MOST_RESTARTS = 10


@dataclass(frozen=True)
class Shop:
    """One of the sample shops. `items`: a SELECT of sku, name and tax rate; `orders`: its table of orders."""

    name: str
    simulator: str
    orders: str
    items: str
    tables: tuple[str, ...] | None  # None: the tables of the example's settings
    pause: float  # seconds between two steps, so that a person can follow


SHOPS = {
    "sample": Shop("sample", "deploy.shop.simulator", "orders", "SELECT sku, name, tax_rate FROM products", None, 0.04),
    "oscar": Shop(
        "oscar",
        "deploy.oscar.simulator",
        "order_order",
        "SELECT partner_sku, partner_sku, CASE WHEN c.name IN ('Books', 'Coffee') THEN 7 ELSE 19 END"
        " FROM partner_stockrecord s JOIN catalogue_product p ON p.id = s.product_id"
        " JOIN catalogue_productclass c ON c.id = p.product_class_id",
        (),
        0.0,
    ),
}


def environment() -> dict[str, str]:
    """Our environment without the caller's ORDERTAP_ settings, and with unbuffered output."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("ORDERTAP_")}
    return ours | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(DEPLOY.parent)}


class Program(Part):
    """`capture run` or `sink run`, restarted when it ends, as a container would be."""

    def __init__(self, name: str, folder: Path, config: Path) -> None:
        super().__init__(folder)
        self.name = name
        self.config = config
        self.restarts = 0
        self.log = folder / f"{name}.log"

    def command(self) -> list[str]:
        return [sys.executable, "-m", self.name, "run", "--config", str(self.config)]

    def account(self) -> dict[str, object]:
        port = {f"ORDERTAP_{self.name.upper()}_HEALTH_PORT": str(self.port)}
        return {"env": environment() | port}

    def answers(self) -> bool:
        return port_open(self.port)

    def look_after(self) -> str | None:
        """Restarts it if it has ended, and says so. PartError if it ends again and again."""
        if self.process is None or self.process.poll() is None:
            return None
        code = self.process.returncode
        self.restarts += 1
        if self.restarts > MOST_RESTARTS:
            raise PartError(f"{self.name} ends again and again; the end of {self.log}:\n{self._tail()}")
        self.start()
        return f"{self.name} ended with exit code {code} and runs again"


class Stage:
    """All parts of a run. `build` starts them; its ExitStack stops them."""

    erp: DemoErp

    def __init__(self, folder: Path, shop: Shop, erp: str, say: Callable[[str], None]) -> None:
        self.folder = folder
        self.shop = shop
        self.say = say
        self._erp_kind = erp
        self.config = folder / "config.yaml"
        self.programs: list[Program] = []
        self.shop_url = self.middle_url = ""
        self._stack: ExitStack

    def build(self, stack: ExitStack) -> None:
        """Starts servers, then the shop, then capture and sink. PartError with a next step if one fails."""
        self._stack = stack
        self.say("starting PostgreSQL for the shop, the middle layer and the ERP")
        settings = {"fsync": "off", "synchronous_commit": "off"}
        postgres = stack.enter_context(Postgres(self.folder / "postgres", settings=settings))
        self.shop_url, self.middle_url = (postgres.create_database(name) for name in ("shop", "middle"))
        self.erp = ERPS[self._erp_kind](postgres, self.folder, stack, self.say)
        self.erp.begin()
        self.say(f"opening the shop ({self.shop.name})")
        shop = self._begin_shop()  # beside Kafka's start: both take seconds
        kafka = Kafka(self.folder / "kafka", say=self.say)
        self.say("starting Apache Kafka")
        stack.enter_context(kafka)
        shop.communicate()
        if shop.returncode:
            raise PartError(f"the shop could not be made:\n{(self.folder / 'shop.log').read_text().strip()}")
        self.erp.ready(self._items())
        self._write_settings(postgres, kafka)
        self.run("capture", "init")
        self.say("starting capture and sink")
        for name in ("capture", "sink"):
            self.programs.append(stack.enter_context(Program(name, self.folder, self.config)))

    def _begin_shop(self) -> subprocess.Popen[str]:
        """Starts to make the shop's tables and products. What goes wrong is in shop.log."""
        errors: IO[str] = self._stack.enter_context((self.folder / "shop.log").open("w"))
        return self._simulator(errors, "--prepare", "--orders", "0")

    def _items(self) -> list[tuple[str, str, Decimal]]:
        shop = psycopg2.connect(self.shop_url)
        with shop, shop.cursor() as cursor:
            cursor.execute(self.shop.items)
            items: list[tuple[str, str, Decimal]] = cursor.fetchall()
        shop.close()
        return items

    def _write_settings(self, postgres: Postgres, kafka: Kafka) -> None:
        """The example's settings with this run's addresses."""
        parts: dict[str, dict[str, Any]] = yaml.safe_load((DEPLOY / "config.example.yaml").read_text("utf-8"))
        both = {
            "topic_prefix": self.shop.name,
            "bootstrap_servers": kafka.bootstrap_servers,
            "schema_registry_url": (self.folder / "registry").as_uri(),
        }
        parts["capture"] |= both | {
            "name": self.shop.name,
            "database_hostname": "127.0.0.1",
            "database_port": postgres.port,
            "database_user": "postgres",
            "heartbeat_interval_ms": 1000,
            "topic_creation_default_partitions": 3,
        }
        if self.shop.tables is not None:
            parts["capture"]["table_include_list"] = list(self.shop.tables)
        parts["sink"] |= both | {
            "shop": self.shop.name,
            "profile": self.shop.name,
            "database_url": self.middle_url,
            "shop_url": self.shop_url,
            "mode": "apply",
            "settle_seconds": 3,
            "brake_orders": 100_000,  # weeks of a shop pass in minutes here
            "brake_prices": 100_000,
            "erp": self.erp.settings(),
        }
        del parts["sink"]["goal"]  # an ERP with states of its own has a goal in its own settings
        self.config.write_text(yaml.safe_dump(parts, sort_keys=False), "utf-8")

    def run(self, *command: str) -> str:
        """Runs a command of capture or sink, and returns its output. PartError if it fails."""
        code, output = self.try_command(*command)
        if code:
            raise PartError(f"{' '.join(command)} ended with exit code {code}:\n{output.strip()}")
        return output

    def try_command(self, *command: str) -> tuple[int, str]:
        """Runs a command of capture or sink, and returns exit code and output."""
        ran = subprocess.run(
            [sys.executable, "-m", *command, "--config", str(self.config)],
            cwd=self.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            preexec_fn=die_with_parent(),
        )
        return ran.returncode, ran.stdout

    def open_shop(self, orders: int, seed: int, pause: float) -> subprocess.Popen[str]:
        """Starts the simulator as a process. Each line of its output is one event."""
        errors: IO[str] = self._stack.enter_context((self.folder / "simulator.log").open("a"))
        return self._simulator(errors, "--orders", str(orders), "--seed", str(seed), "--pause", str(pause))

    def _simulator(self, errors: IO[str], *options: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", self.shop.simulator, "--database-url", self.shop_url, *options],
            cwd=DEPLOY.parent,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_parent(),
        )
        self._stack.callback(_end, process)
        return process


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
