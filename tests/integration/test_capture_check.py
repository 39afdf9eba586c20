"""`capture check`: each thing that can be wrong on a real server is found, and what it prints fixes it."""

from __future__ import annotations

import json
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import psycopg2
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient

from capture.commands import preflight
from capture.commands.check_tables import Schemas, publication_findings
from capture.kafka.cluster import Making
from capture.postgres.replication import Replication, Server, slot_state
from deploy.embedded import Postgres
from schemas.model.errors import ExitCode, SettingsError
from tests.fix_postgres import AVAILABLE
from tests.integration.ops_shop import OpsShop
from tests.programs import Program, run

QUIET = "max_slot_wal_keep_size is -1"


def dry_run(shop: OpsShop) -> str:
    """What `capture init --dry-run` prints."""
    done = run("capture", "init", "--dry-run", config=shop.config)
    assert done.returncode == 0, done.stderr
    return done.stdout


def as_dba(shop: OpsShop, script: str) -> None:
    """Runs a script as a superuser, through psql."""
    options = ["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", shop.server.dsn(shop.database)]
    psql = [str(shop.server.bin / "psql"), *options]
    done = subprocess.run(psql, input=script, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr


def serious(shop: OpsShop) -> dict[str, str]:
    """Text and remedy of what is not well, except the keep size, which the servers of these tests do not set."""
    return {what: f.remedy for what, f in shop.findings().items() if not what.startswith(QUIET)}


@pytest.fixture
def ready(ops_shop: OpsShop) -> OpsShop:
    """Everything that init prints is done."""
    as_dba(ops_shop, dry_run(ops_shop))
    return ops_shop


@pytest.mark.parametrize("server", AVAILABLE, indirect=True, ids=lambda version: f"pg{version}")
def test_a_role_with_no_more_than_init_prints_is_enough_to_run(ops_shop: OpsShop) -> None:
    (missing,) = (finding for what, finding in ops_shop.findings().items() if "does not exist" in what)
    assert "capture init --dry-run" in missing.remedy
    script = dry_run(ops_shop)
    assert "nothing to make" not in script
    as_dba(ops_shop, script)
    as_dba(ops_shop, script)  # the part that could not be asked can be run again
    assert ops_shop.value(f"SELECT rolsuper OR rolcreatedb FROM pg_roles WHERE rolname = '{ops_shop.role}'") is False
    done = run("capture", "init", config=ops_shop.config)
    assert done.returncode == 0, done.stderr
    assert f"topic {ops_shop.settings['topic_prefix']}.public.orders made" in done.stdout
    again = run("capture", "init", config=ops_shop.config)
    assert again.returncode == 0, again.stderr
    assert "publication tap is there" in again.stdout
    assert " made\n" not in again.stdout
    script = dry_run(ops_shop)
    assert "CREATE PUBLICATION" not in script
    assert script.endswith("-- nothing to make: publication tap and all topics are there\n")
    assert serious(ops_shop) == {}
    capture = Program("capture", ops_shop.config, ops_shop.config.with_name("capture.log"))
    capture.start()
    try:
        name = ops_shop.settings["slot_name"]
        slot = f"SELECT confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = '{name}'"
        deadline = time.monotonic() + 40
        while ops_shop.value(f"{slot} AND active") is None and capture.ended() is None:
            assert time.monotonic() < deadline, capture.tail()
            time.sleep(0.2)
        assert capture.ended() is None, capture.tail()
    finally:
        assert capture.stop() == 0, capture.tail()
    checked = run("capture", "check", "--json", config=ops_shop.config)
    assert checked.returncode == 0, checked.stdout
    content = json.loads(checked.stdout)
    assert content["ok"] is True
    assert {"level", "what", "remedy"} == set(content["findings"][0])


BREAKS = {
    "no publication": ("DROP PUBLICATION tap", "publication tap does not exist"),
    "missing table": ("ALTER PUBLICATION tap DROP TABLE lines", "table public.lines is not in publication tap"),
    "silent deletes": ("ALTER PUBLICATION tap SET (publish = 'insert, update, truncate')", "and no delete: consumers"),
    "silent truncates": ("ALTER PUBLICATION tap SET (publish = 'insert, update, delete')", "and no truncate"),
    "unwanted table": ("ALTER PUBLICATION tap ADD TABLE other", "not captured here, read for nothing: public.other"),
    "identity nothing": ("ALTER TABLE lines REPLICA IDENTITY NOTHING", "REPLICA IDENTITY NOTHING: the server refuses"),
    "no select": ("REVOKE SELECT ON lines FROM {role}", "table public.lines may not be read"),
    "no usage": ("REVOKE USAGE ON SCHEMA public FROM PUBLIC, {role}", "schema public of table public"),
    "not replicating": ("ALTER ROLE {role} NOREPLICATION", "may not replicate"),
    "row security": ("ALTER TABLE lines ENABLE ROW LEVEL SECURITY", "row level security: the snapshot would leave out"),
    "few connections": ("ALTER ROLE {role} CONNECTION LIMIT 6", "has CONNECTION LIMIT 6, and capture opens up to 7"),
    "no heartbeats": (
        "REVOKE EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text) FROM PUBLIC",
        "may not write heartbeats",
    ),
    "unlogged": ("ALTER PUBLICATION tap DROP TABLE lines; ALTER TABLE lines SET UNLOGGED", "public.lines is unlogged"),
}


def test_what_is_broken_is_found_and_the_printed_sql_fixes_it(ready: OpsShop) -> None:
    assert serious(ready) == {}
    for statement, said in BREAKS.values():
        ready.sql(*statement.format(role=ready.role).split("; "))
        remedies = serious(ready)
        assert any(said in what for what in remedies), (statement, remedies)
        for _ in range(3):  # a fixed thing may show the next one
            as_dba(ready, "\n".join(remedies.values()))
            remedies = serious(ready)
        assert remedies == {}, statement


def test_a_partition_that_logs_less_than_its_root_says(ready: OpsShop) -> None:
    ready.sql(
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "ALTER TABLE parts REPLICA IDENTITY FULL",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "ALTER PUBLICATION tap ADD TABLE parts",
        "ALTER PUBLICATION tap SET (publish_via_partition_root = true)",
        f"GRANT SELECT ON parts TO {ready.role}",
    )
    ready.write({"table_include_list": [*ready.settings["table_include_list"], "public.parts"]})
    assert any("partition public.parts_1 is not REPLICA IDENTITY FULL" in what for what in serious(ready))
    as_dba(ready, "\n".join(serious(ready).values()))
    assert serious(ready) == {}
    assert "capture signal snapshot public.parts" in run("capture", "check", config=ready.config).stdout  # C6


def test_tables_without_key_and_partitions(ready: OpsShop) -> None:
    ready.sql(
        "CREATE TABLE loose (a int)",
        "CREATE TABLE parts (id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "CREATE VIEW seen AS SELECT 1",
        "ALTER PUBLICATION tap ADD TABLE loose, parts",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ready.role}",
    )
    wanted = [*ready.settings["table_include_list"], "public.loose", "public.parts", "public.seen", "public.gone"]
    ready.write({"table_include_list": wanted})
    found = serious(ready)
    assert "ADD PRIMARY KEY" in next(
        r for what, r in found.items() if "public.loose is published but has no key" in what
    )
    whole = next(r for what, r in found.items() if "public.parts is not in publication tap as a whole" in what)
    assert "publish_via_partition_root = true" in whole
    assert any("public.seen is not a table" in what for what in found)
    assert any("public.gone does not exist" in what for what in found)
    ready.sql("ALTER PUBLICATION tap SET (publish_via_partition_root = true)")
    assert not any("public.parts" in what for what in serious(ready))


def test_a_locked_table_keeps_check_and_status_from_saying_nothing(ready: OpsShop) -> None:
    """VACUUM FULL can hold such a lock for hours. The server needs one of its own to describe a table's columns."""
    with closing(psycopg2.connect(ready.server.dsn(ready.database))) as dba, dba.cursor() as cursor:
        cursor.execute("LOCK TABLE lines")
        told = json.loads(run("capture", "status", "--json", "--seconds", "0", config=ready.config).stdout)
        found = serious(ready)
    assert any("reading publication tap: a schema change" in one for one in told["problems"]), told
    assert any("pg_locks" in remedy for remedy in found.values())


def test_a_table_without_key_is_named_before_it_is_published(ready: OpsShop) -> None:
    ready.sql("DROP PUBLICATION tap", "CREATE TABLE loose (a int)", "CREATE TABLE apart (a int)")
    ready.write({"table_include_list": [*ready.settings["table_include_list"], "public.loose"]})
    (said,) = (what for what in serious(ready) if "has no key: once it is published" in what)
    assert "public.loose" in said  # and not public.apart, which nobody wants
    script = dry_run(ready)
    assert script.index(f"-- {said}") < script.index("CREATE PUBLICATION")
    refused = run("capture", "init", config=ready.config)
    assert refused.returncode == ExitCode.CONFIG
    assert "nothing was made" in refused.stderr
    assert ready.value("SELECT count(*) FROM pg_publication") == 0
    as_dba(ready, script)
    assert said not in dry_run(ready)


def test_what_a_snapshot_would_refuse_is_found_before(ready: OpsShop) -> None:
    ready.write({"slot_failover": True})
    assert serious(ready).keys() == {"slot_failover needs PostgreSQL 17"}
    ready.write({"slot_failover": False})
    statements = {"public.orders": "SELEC * FROM orders", "public.lines": "SELECT 1 AS x", "public.gone": "SELECT 1"}
    ready.write({"snapshot_select_statement_overrides": statements})
    found = "\n".join(serious(ready))
    assert "snapshot_select_statement_overrides of public.orders: syntax error" in found
    assert "snapshot_select_statement_overrides of public.lines does not yield" in found
    assert "public.gone is in snapshot_include_collection_list or" in found
    ready.write({"snapshot_select_statement_overrides": {"public.orders": "SELECT * FROM orders LIMIT 5;"}})
    assert serious(ready) == {}


@pytest.mark.parametrize("server", [18], indirect=True)
def test_a_slot_that_was_made_without_failover_is_altered_by_what_is_printed(ready: OpsShop) -> None:
    name = ready.settings["slot_name"]
    ready.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    foreign = serious(ready).keys()
    ready.write({"slot_failover": True})
    found = serious(ready)
    (said,) = found.keys() - foreign
    assert said == f"slot {name} was made without failover: standbys do not get it, though slot_failover is true"
    psql, *arguments = shlex.split(found[said].removeprefix("stop capture; "))
    done = subprocess.run([ready.server.bin / psql, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ready.value(f"SELECT failover FROM pg_replication_slots WHERE slot_name = '{name}'") is True
    assert serious(ready).keys() == foreign


def test_server_settings(parts_folder, ops_shop: OpsShop) -> None:  # type: ignore[no-untyped-def]
    settings = {"wal_level": "replica", "max_slot_wal_keep_size": "1GB", "max_replication_slots": "1"}
    with Postgres(parts_folder / "bare", 18, settings | {"idle_replication_slot_timeout": "1h"}) as bare:
        bare.psql("CREATE DATABASE shop")
        bare.psql("SELECT pg_create_physical_replication_slot('theirs')")
        more = {"database_port": bare.port, "database_dbname": "shop", "database_user": "postgres"}
        ops_shop.write(more)
        found = ops_shop.findings()
        server = Server("127.0.0.1", bare.port, "postgres", "", "shop", "disable")
        reader = Replication(server)
        with pytest.raises(SettingsError, match="wal_level"):  # a start ends with it, and does not try for ever
            reader.create_slot("ours", lambda: False)
        reader.close()
    levels = {what.split(":")[0]: finding.level for what, finding in found.items()}
    assert levels["wal_level is replica"] == "BAD"
    assert "idle_replication_slot_timeout is 1h" in levels
    assert not any("max_slot_wal_keep_size" in what for what in found)
    assert any("0 of 1 slots are free" in what for what in found)
    assert any("superuser" in what for what in found)


def test_a_slot_that_nobody_read_for_too_long_is_named_with_the_setting(parts_folder: Path, ops_shop: OpsShop) -> None:
    """PostgreSQL 18 and later."""
    with Postgres(parts_folder / "idle", 18, {}) as server:
        server.psql("CREATE DATABASE shop")
        ops_shop.write({"database_port": server.port, "database_dbname": "shop", "database_user": "postgres"})
        name = ops_shop.settings["slot_name"]
        server.psql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')", database="shop")
        server.psql("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
        server.psql("SELECT pg_reload_conf()")
        with closing(psycopg2.connect(server.dsn("shop"))) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            deadline = time.monotonic() + 60
            while slot_state(connection, name).invalidation_reason is None:
                assert time.monotonic() < deadline
                time.sleep(0.5)
                cursor.execute("CHECKPOINT")
        found = {what: finding.remedy for what, finding in ops_shop.findings().items() if f"slot {name}" in what}
        told = json.loads(run("capture", "status", "--json", "--seconds", "0", config=ops_shop.config).stdout)
    (remedy,) = (remedy for what, remedy in found.items() if what.startswith(f"slot {name}: "))
    assert "raise idle_replication_slot_timeout" in remedy
    assert told["slot"]["invalidation_reason"] == "idle_timeout"
    assert told["slot"]["inactive_since"]


def test_servers_that_do_not_answer_are_findings(ops_shop: OpsShop, new_port: Callable[[], int]) -> None:
    ops_shop.write({"database_port": new_port(), "bootstrap_servers": f"127.0.0.1:{new_port()}"})
    done = run("capture", "check", config=ops_shop.config)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stdout.count("BAD ") == 2
    assert "check database_hostname and database_port" in done.stdout
    assert "check bootstrap_servers" in done.stdout


@pytest.fixture
def new_port() -> Callable[[], int]:
    """A port where nothing listens."""
    from deploy.embedded import free_port

    return free_port


def test_topics_that_cannot_do_their_work(ready: OpsShop) -> None:
    prefix = ready.settings["topic_prefix"]
    plan = ready.plan()
    compacted = {"cleanup.policy": "compact", "min.insync.replicas": "2", "max.message.bytes": "5000"}
    plan.cluster.create_topics({f"ordertap.{prefix}.position": Making(2, 1, {"cleanup.policy": "delete"})})
    an_hour = {"cleanup.policy": "compact", "retention.ms": "3600000"}
    plan.cluster.create_topics({f"ordertap.{prefix}.commits": Making(1, 1, an_hour)})
    plan.cluster.create_topics({f"{prefix}.public.orders": Making(1, 1, compacted)})
    while f"{prefix}.public.orders" not in plan.cluster.partitions():
        time.sleep(0.05)
    ready.write({"topic_creation_default_replication_factor": 3})
    found = "\n".join(f"{f.level} {what} {f.remedy}" for what, f in ready.findings().items())
    for said in (
        f"BAD topic ordertap.{prefix}.position has 2 partitions",
        f"BAD topic ordertap.{prefix}.position has cleanup.policy delete",
        f"BAD topic ordertap.{prefix}.commits has cleanup.policy compact: readers of the index need all of it",
        f"warn topic ordertap.{prefix}.commits keeps the index of commits for 0.0 days: no sink may be stopped",
        f"warn topic {prefix}.public.orders has cleanup.policy compact",
        "min.insync.replicas is 2: nothing can be written",
        "accepts records up to 5000 bytes, and capture sends up to 1000000",
        "BAD new topics get 3 replicas, and the number of brokers is 1",
        "kafka-configs.sh --bootstrap-server",
    ):
        assert said in found


def test_a_schema_that_the_registry_would_refuse(ready: OpsShop, registry_url: str) -> None:
    ready.write({"schema_registry_url": registry_url})
    assert serious(ready) == {}
    plan = ready.plan()
    subject = f"{plan.prefix}.public.orders-value"
    plan.registry.register(subject, {"type": "record", "name": "Envelope", "fields": []})
    with SchemaRegistryClient({"url": registry_url}) as client:
        client.set_compatibility(subject, "FULL")
    (found,) = serious(ready)
    assert subject in found
    assert "under FULL" in found
    plan.registry.close()


def test_not_null_that_the_registry_would_refuse_stops_nothing(ready: OpsShop, registry_url: str) -> None:
    ready.write({"schema_registry_url": registry_url})
    plan = ready.plan()
    schemas: Schemas = []
    as_dba(ready, "ALTER TABLE orders ADD seen text")
    with closing(plan.server.connect()) as connection:
        list(publication_findings(connection, plan, schemas))
    for subject, schema in schemas:
        plan.registry.register(subject, schema)
    subject = f"{plan.prefix}.public.orders-value"
    with SchemaRegistryClient({"url": registry_url}) as client:
        client.set_compatibility(subject, "BACKWARD")
    as_dba(ready, "UPDATE orders SET seen = ''; ALTER TABLE orders ALTER seen SET NOT NULL")
    assert serious(ready) == {}
    plan.registry.close()


def test_drop_asks_and_takes_away_only_what_is_ours(ready: OpsShop) -> None:
    prefix = ready.settings["topic_prefix"]
    capture = Program("capture", ready.config, ready.config.with_name("capture.log"))
    capture.start()
    try:
        deadline = time.monotonic() + 40
        while prefix.encode() not in ready.plan().cluster.last_values(f"ordertap.{prefix}.position"):
            assert time.monotonic() < deadline, capture.tail()
        running = run("capture", "drop", "--yes", config=ready.config)
        assert running.returncode == 78
        assert "capture is running" in running.stderr
    finally:
        assert capture.stop() == 0, capture.tail()
    asked = run("capture", "drop", "--topics", config=ready.config)  # nobody answers
    assert asked.returncode != 0
    assert f"slot {prefix}, which holds" in asked.stdout
    assert ready.value(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{prefix}'") == 1
    done = run("capture", "drop", "--topics", "--yes", config=ready.config)
    assert done.returncode == 0, done.stderr
    assert ready.value(f"SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{prefix}'") == 0
    assert ready.value("SELECT count(*) FROM pg_publication") == 1  # a superuser owns it
    assert not [name for name in ready.plan().cluster.partitions() if name.startswith(prefix)]
    again = run("capture", "drop", "--yes", config=ready.config)
    assert "(publication tap stays" in again.stdout
    assert "nothing to drop" in again.stdout


def test_a_start_that_would_refuse_slot_or_position_is_found_before(ready: OpsShop) -> None:
    name = ready.settings["slot_name"]
    never = run("capture", "repair", config=ready.config)
    assert f"topic ordertap.{name}.position has no position of {name}, and no slot" in never.stdout
    unread = run("capture", "signal", "snapshot", "public.orders", config=ready.config)
    assert unread.returncode == 78
    assert f"slot {name} is not there" in unread.stderr
    ready.sql(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')")
    (said,) = serious(ready)
    assert f"slot {name} exists, but topic ordertap.{name}.position has no position" in said
    ready.sql(f"SELECT pg_drop_replication_slot('{name}')")
    ready.write({"snapshot_mode": "no_data"})
    assert serious(ready) == {}
    capture = Program("capture", ready.config, ready.config.with_name("capture.log"))
    capture.start()
    deadline = time.monotonic() + 40
    while "streaming" not in capture.tail():
        assert time.monotonic() < deadline, capture.tail()
        time.sleep(0.1)
    assert serious(ready) == {}
    assert capture.stop() == 0
    ready.sql(f"SELECT pg_drop_replication_slot('{name}')")
    (gone,) = serious(ready).items()
    assert f"slot {name} is gone: changes since" in gone[0]
    assert "capture repair --execute" in gone[1]
    ready.sql("ALTER PUBLICATION tap DROP TABLE lines")
    both = serious(ready)  # one round says all
    assert both.keys() == {gone[0], "table public.lines is not in publication tap"}
    as_dba(ready, both["table public.lines is not in publication tap"])
    shown = run("capture", "status", config=ready.config)
    assert shown.returncode == 1
    assert f"problem    {gone[0]}" in shown.stdout
    done = run("capture", "repair", "--execute", config=ready.config)
    assert gone[0] in done.stdout
    assert "no table is read again (snapshot_mode no_data)" in done.stdout
    assert "a snapshot is not complete" in run("capture", "repair", config=ready.config).stdout


def test_a_health_port_that_is_taken(ready: OpsShop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ready.write({"health_port": port})
        checked = run("capture", "check", config=ready.config)
        started = run("capture", "run", config=ready.config)
    said = f"health_port {port} of 127.0.0.1 cannot be opened on this machine: Address already in use"
    assert f"BAD  {said}\n     fix: set health_port to a free one" in checked.stdout
    assert checked.returncode == 1
    assert started.returncode == ExitCode.CONFIG
    assert f"port {port} of 127.0.0.1 cannot be opened: Address already in use" in started.stderr
    assert f"ok   health_port {port} of 127.0.0.1 is free" in run("capture", "check", config=ready.config).stdout


def test_clocks_that_differ(ready: OpsShop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "time", SimpleNamespace(time=lambda: time.time() + 100))
    (found,) = serious(ready)
    assert re.fullmatch(r"the shop's clock is (9\d|100) s behind this machine's", found)


def test_a_role_that_may_not_make_the_publication_is_sent_to_the_dba(ready: OpsShop) -> None:
    ready.sql("DROP PUBLICATION tap")
    refused = run("capture", "init", config=ready.config)
    assert refused.returncode == 78
    assert "have a DBA run what `capture init --dry-run` prints" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_publication_that_init_made_goes_with_drop(ops_shop: OpsShop) -> None:
    ops_shop.write({"database_user": "postgres"})
    assert "CREATE PUBLICATION" in run("capture", "init", config=ops_shop.config).stdout
    ops_shop.sql("ALTER PUBLICATION tap DROP TABLE lines")
    assert 'ADD TABLE "public"."lines"' in run("capture", "init", config=ops_shop.config).stdout
    assert serious(ops_shop).keys() == {"role postgres is a superuser: REPLICATION, CONNECT and SELECT are enough"}
    done = run("capture", "drop", "--yes", config=ops_shop.config)
    assert "publication tap dropped" in done.stdout, done.stderr
    assert ops_shop.value("SELECT count(*) FROM pg_publication") == 0
