"""capture reaches each of its servers over TLS with a password, and shows no secret anywhere."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import Postgres, Registry, free_port
from tests.fix_postgres import AVAILABLE
from tests.integration.ops_shop import TABLES, OpsShop
from tests.integration.secure_parts import Authority, Gate, SecureKafka, secure_postgres
from tests.programs import Program, run

WITH_TLS = [version for version in AVAILABLE if version == 15]
"""Debian's server. The wheels' servers are built without TLS."""
SECRETS = {"database": "pg-s3cret", "key": "key-s3cret", "kafka": "kafka-s3cret", "registry": "registry-s3cret"}
WRONG = "wr0ng-s3cret"


@dataclass
class Secure:
    """The parts, and everything that capture printed."""

    shop: OpsShop
    kafka: SecureKafka
    authority: Authority
    said: str = ""

    def run(self, *arguments: str) -> str:
        """Runs one command. Its output and errors are kept."""
        done = run("capture", *arguments, config=self.shop.config)
        self.said += done.stdout + done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        return done.stdout if "--json" in arguments else done.stdout + done.stderr

    def reveals(self) -> list[str]:
        """The secrets that were shown."""
        return [secret for secret in (*SECRETS.values(), WRONG) if secret in self.said]


@pytest.fixture(scope="module")
def authority(parts_folder: Path) -> Authority:
    return Authority(parts_folder / "certificates")


@pytest.fixture(scope="module")
def secure_kafka(parts_folder: Path, authority: Authority) -> Iterator[SecureKafka]:
    with SecureKafka(parts_folder / "secure-kafka", authority.issue("broker")) as broker:
        broker.add_user("tap", SECRETS["kafka"])
        yield broker


@pytest.fixture(scope="module", params=WITH_TLS, ids=lambda version: f"pg{version}")
def secure_server(request: pytest.FixtureRequest, parts_folder: Path, authority: Authority) -> Iterator[Postgres]:
    with secure_postgres(parts_folder / "secure-postgres", request.param, authority) as server:
        yield server


@pytest.fixture(scope="module")
def gate(schema_registry: Registry, authority: Authority) -> Iterator[Gate]:
    with Gate(schema_registry.url, f"tap:{SECRETS['registry']}", authority.issue("gate")) as made:
        yield made


@pytest.fixture
def secure(
    secure_server: Postgres, secure_kafka: SecureKafka, gate: Gate, authority: Authority, prefix: str, tmp_path: Path
) -> Secure:
    """Every secret is in a file."""

    def file(name: str, secret: str) -> str:
        path = tmp_path / name
        path.write_text(f"{secret}\n")
        return str(path)

    certificate, key = authority.issue("capture", SECRETS["key"])
    settings: dict[str, Any] = {
        "name": prefix,
        "topic_prefix": prefix,
        "database_hostname": "127.0.0.1",
        "database_port": secure_server.port,
        "database_user": f"role_{prefix}",
        "database_password_file": file("database", SECRETS["database"]),
        "database_dbname": f"shop_{prefix}",
        "database_sslmode": "verify-full",
        "database_sslrootcert": str(authority.ca),
        "database_sslcert": str(certificate),
        "database_sslkey": str(key),
        "database_sslpassword_file": file("key", SECRETS["key"]),
        "slot_name": prefix,
        "publication_name": "tap",
        "table_include_list": ["public.orders"],
        "heartbeat_interval_ms": 300,
        "bootstrap_servers": f"127.0.0.1:{secure_kafka.secure_port}",
        "kafka": {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.username": "tap",
            "sasl.password_file": file("kafka", SECRETS["kafka"]),
            "ssl.ca.location": str(authority.ca),
        },
        "schema_registry_url": gate.url,
        "schema_registry": {
            "basic.auth.user.info_file": file("registry", f"tap:{SECRETS['registry']}"),
            "ssl.ca.location": str(authority.ca),
        },
        "topic_routing": [{"topic_regex": r".*\.public\.orders", "topic_replacement": f"{prefix}-crm.orders"}],
        "health_port": free_port(),
        "log_level": "debug",
        "log_json": True,
    }
    secure_server.create_database(settings["database_dbname"])
    shop = OpsShop(secure_server, settings["database_dbname"], tmp_path / "settings.yaml", settings)
    shop.sql(TABLES)
    return Secure(shop, secure_kafka, authority)


def set_up(secure: Secure) -> None:
    """Does what a DBA and a Kafka administrator do with what capture prints."""
    shop = secure.shop
    assert "CREATE ROLE" in secure.run("init", "--dry-run")
    statements = [line for line in secure.run("init", "--dry-run").splitlines() if not line.startswith("-- ")]
    shop.sql(*statements, f"ALTER ROLE {shop.role} PASSWORD '{SECRETS['database']}'")
    for _ in range(3):
        findings = json.loads(secure.run("check", "--json"))["findings"]
        secure.kafka.allow("\n".join(finding["remedy"] for finding in findings if finding["level"] == "BAD"))


def test_least_rights_over_tls_with_secrets_from_files_that_are_never_shown(secure: Secure) -> None:
    before = secure.run("check")
    assert "position: Authorization failed" in before, before
    assert "Transactional Id authorization failed" in before
    set_up(secure)
    assert "BAD" not in secure.run("check")
    secure.run("init")
    assert "BAD" not in secure.run("check")
    capture = Program("capture", secure.shop.config, secure.shop.config.with_name("capture.log"))
    capture.start()
    try:
        deadline = time.monotonic() + 40
        while '"event": "streaming"' not in capture.tail(500):
            assert capture.ended() is None, capture.tail()
            assert time.monotonic() < deadline, capture.tail()
            time.sleep(0.2)
        status = json.loads(secure.run("status", "--json"))
        assert status["running"], status
        for path in ("/metrics", "/health/live"):
            with urllib.request.urlopen(f"http://127.0.0.1:{secure.shop.settings['health_port']}{path}") as answer:
                secure.said += answer.read().decode()
        used = "SELECT ssl AND client_dn IS NOT NULL FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)"
        assert secure.shop.value(f"{used} WHERE a.usename = '{secure.shop.role}'") is True
    finally:
        assert capture.stop() == 0, capture.tail()
    secure.said += capture.tail(10_000)
    secure.run("drop", "--yes", "--topics")
    plan = secure.shop.plan()
    secure.said += f"{plan!r} {plan.server!r} {plan.cluster!r} {plan.registry!r}"
    plan.registry.close()
    assert secure.reveals() == []


def test_wrong_secrets_are_said_without_being_shown(secure: Secure) -> None:
    settings = secure.shop.settings
    secure.shop.sql(f"CREATE ROLE {secure.shop.role} LOGIN REPLICATION PASSWORD '{SECRETS['database']}'")
    other = Authority(secure.shop.config.parent / "others")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"database_password_file": None, "database_password": WRONG}, "password authentication failed"),
        ({"database_sslrootcert": str(other.ca)}, "certificate verify failed"),
        ({"database_sslpassword_file": None, "database_sslpassword": WRONG}, "database_sslkey"),
        ({"database_sslcert": str(other.issue("stranger")[0]), "database_sslkey": str(other.folder / "stranger.key")},
         "unknown ca"),
        ({"kafka": settings["kafka"] | {"sasl.password": WRONG}}, "uthentication"),
        ({"kafka": settings["kafka"] | {"ssl.ca.location": str(other.ca)}}, "certificate"),
        ({"kafka": settings["kafka"] | {"sasl.mechanism": WRONG.upper()}}, "check the `kafka` settings"),
        ({"schema_registry": settings["schema_registry"] | {"basic.auth.user.info": f"tap:{WRONG}"}}, "HTTP 401"),
        ({"schema_registry": settings["schema_registry"] | {"ssl.ca.location": str(other.ca)}}, "does not answer"),
    ]  # fmt: skip
    for change, said in cases:
        content = {key: value for key, value in (settings | change).items() if value is not None}
        for part in ("kafka", "schema_registry"):  # a secret is given once
            given = content[part]
            content[part] = {k: v for k, v in given.items() if not (k.endswith("_file") and k[:-5] in given)}
        secure.shop.config.write_text(json.dumps({"capture": content}))
        shown = secure.run("check")
        assert said in shown, (change, shown)
    assert [secret for secret in secure.reveals() if secret != WRONG.upper()] == []
