"""`sink`: the command line, and the only reader of settings."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from schemas.errors import ExitCode, OrdertapError, SettingsError, UnavailableError
from schemas.reader import RecordReader
from schemas.registry import Registry, open_registry
from schemas.service import HealthServer, configure_logs, stop_event
from schemas.settings import load
from sink import views
from sink.apply.rules import Rules
from sink.apply.worker import Worker
from sink.database import Connection, connect, migrate, transaction
from sink.documents.profile import Profile, load_profile
from sink.documents.refs import DocumentRef
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from sink.intake import evidence
from sink.intake.consumer import SESSION_SECONDS, ShopConsumer, topic_names
from sink.intake.evidence import Partition, Seen
from sink.intake.offsets import GroupOffsets
from sink.ledger import binding, documents, marks
from sink.pipeline import Parts, Sink
from sink.planning.planner import Policy
from sink.reconcile.report import Report
from sink.reconcile.sides import readable
from sink.reconcile.sides import reconcile as compare
from sink.settings import Settings
from sink.staging import inbox, snapshots
from sink.staging import parked as parked_rows
from sink.staging.stager import Staging, registered_columns

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reads a shop's change records from Kafka and keeps the ERP in step.\n\n"
    "A first time: `sink check`, then `sink run` with `mode: plan` and `sink status`; `mode: apply` sends. Later: "
    "`sink held` shows what waits for a person, `sink retry` looks again, `sink reconcile` compares the money.",
)
offsets_app = typer.Typer(no_args_is_help=True, help="Where the sink resumes reading: Kafka's own committed offsets.")
app.add_typer(offsets_app, name="offsets")
Config = Annotated[Path | None, typer.Option("--config", "-c", "-F", help="The YAML file; its part `sink` is read.")]


@app.command()
def run(config: Config = None) -> None:
    """Stages and applies until SIGTERM or Ctrl-C. Any number of copies may run."""
    settings = _load(config)
    configure_logs(settings.log_level, settings.log_json)
    stop = stop_event()
    _start_checks(settings)
    sink = Sink(_parts(settings), stop)
    if not settings.health_port:
        sink.run()
        return
    with HealthServer(settings.health_host, settings.health_port, sink.live, sink.ready):
        sink.run()


@app.command()
def status(config: Config = None) -> None:
    """How many documents are where, the lag, and gaps."""
    settings = _load(config)
    connection = _middle(settings)
    with transaction(connection) as cursor:
        parked = [views.Parked(*row) for row in parked_rows.parked(cursor)]
        waiting = [(one.transaction_id, one.since) for one in inbox.waiting(cursor)]
        shown = views.status(
            snapshots.ready(cursor), documents.counts(cursor), evidence.open_gaps(cursor), parked, waiting
        )
    _print(shown)
    lag = sum(part.lag for part in _group(settings).show(_evidence(connection, _group(settings).partitions())))
    typer.echo(f"lag: {lag} offsets")


@app.command()
def held(config: Config = None) -> None:
    """Each document that waits for someone: why, and what to do."""
    with transaction(_middle(_load(config))) as cursor:
        found = documents.held(cursor)
    _print(views.held(found))


@app.command()
def retry(
    type_: Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink held` shows it.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY]")] = "",
    every: Annotated[bool, typer.Option("--all", help="All that is held or waits.")] = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them. Sends only what the rules allow."""
    if every == bool(type_) or bool(type_) != bool(key):
        raise SettingsError("say which document, or --all", "sink retry sales_order 17, or sink retry --all")
    connection = _middle(_load(config))
    with transaction(connection) as cursor:
        count = marks.retry(cursor, None if every else DocumentRef(type_, key))
    if not count and not every:
        raise SettingsError(f"there is no {type_} {key}", "`sink held` shows type and key")
    typer.echo(f"{count} to be looked at again")


@app.command()
def reconcile(
    config: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for agreement before saying so.")] = 0.0,
) -> None:
    """Compares counts and money of shop and ERP. Exit code 0 only when both agree, held documents included.

    Each difference has a class; `in flight`, `held`, `planned` and `ignored` are explained, see `--json`.
    """
    settings = _load(config)
    until = time.monotonic() + wait
    report = _reconciled(settings)
    while not report.agrees and time.monotonic() < until:
        time.sleep(0.5)
        report = _reconciled(settings)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        typer.echo("\n".join(report.lines()))
    raise typer.Exit(0 if report.agrees else ExitCode.FAILED)


@app.command()
def check(config: Config = None) -> None:
    """Looks at profile, middle layer, ERP, registry, topics and shop; says what mends each finding."""
    settings = _load(config)
    bad = 0
    for name, look in _looks(settings).items():
        try:
            look()
            typer.echo(f"ok   {name}")
        except OrdertapError as error:
            bad += 1
            typer.echo(f"BAD  {name}: {error.message}\n     mend: {error.hint}")
    typer.echo(f"{bad} to mend" if bad else "all is well")
    raise typer.Exit(ExitCode.FAILED if bad else 0)


@offsets_app.command("show")
def offsets_show(config: Config = None) -> None:
    """Committed, available and staged offsets per partition."""
    settings = _load(config)
    group = _group(settings)
    _print(views.offsets(group.show(_evidence(_middle(settings), group.partitions()))))


@offsets_app.command("reset")
def offsets_reset(
    to: Annotated[str, typer.Option(help="earliest, latest, or a time with its zone: 2026-11-23T08:00:00+01:00")],
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it; without this, only say what would be done.")
    ] = False,
    config: Config = None,
) -> None:
    """Moves where the sink resumes. Going back changes nothing in the ERP; going forward leaves a gap that is named."""
    settings = _load(config)
    group = _group(settings)
    moves = group.plan(_target(to), _evidence(_middle(settings), group.partitions()))
    _print(views.moves(moves))
    if execute:
        if group.members():
            typer.echo(f"a sink is still in the group; one that was killed leaves in {SESSION_SECONDS} s: waiting")
        group.reset(moves, patience=1.5 * SESSION_SECONDS)
    typer.echo("done; next: start `sink run`" if execute else "nothing was changed; --execute does it")


def _target(text: str) -> Literal["earliest", "latest"] | datetime:
    if text == "earliest" or text == "latest":
        return text  # type: ignore[return-value]
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise SettingsError(
            f"--to {text} is neither earliest, latest nor a time", "write a time like 2026-11-23T08:00:00+01:00"
        ) from None


def _print(lines: Iterable[str]) -> None:
    typer.echo("\n".join(lines))


def _load(config: Path | None) -> Settings:
    return load("sink", Settings, config)


def _middle(settings: Settings) -> Connection:
    connection = connect(settings.database_url.get_secret_value())
    migrate(connection)
    with transaction(connection) as cursor:
        binding.bind(cursor, "shop", settings.shop, "shop")
    return connection


def _profile(settings: Settings) -> Profile:
    return load_profile(settings.profile)


def _erp(settings: Settings) -> SqlErp:
    mapping = load_mapping(Path(settings.erp.mapping))
    return SqlErp(settings.erp.url.get_secret_value(), mapping, settings.erp.timeout_seconds, settings.workers + 1)


def _registry(settings: Settings) -> Registry:
    options = {name: value.get_secret_value() for name, value in settings.schema_registry.items()}
    return open_registry(settings.schema_registry_url, options)


def _kafka(settings: Settings) -> dict[str, str]:
    options = {name: secret.get_secret_value() for name, secret in settings.kafka.items()}
    return {"bootstrap.servers": settings.bootstrap_servers, **options}


def _topics(settings: Settings) -> list[str]:
    return topic_names(settings.topic_prefix, _profile(settings).tables)


def _group(settings: Settings) -> GroupOffsets:
    return GroupOffsets(_kafka(settings), settings.group, _topics(settings))


def _start_checks(settings: Settings) -> None:
    """What is wrong at a start is said at once. The ERP may be away: orders are staged meanwhile."""
    _middle(settings).close()
    _registry(settings).check()
    _group(settings).partitions()


def _looks(settings: Settings) -> dict[str, Callable[[], object]]:
    looks: dict[str, Callable[[], object]] = {
        "profile": lambda: _profile(settings),
        "middle layer": lambda: _middle(settings).close(),
        "ERP": lambda: _check_erp(settings),
        "registry": lambda: _registry(settings).check(),
        "broker and topics": lambda: _topics_exist(settings),
    }
    return looks | ({"shop": lambda: _check_shop(settings)} if settings.shop_url else {})


def _check_erp(settings: Settings) -> None:
    erp = _erp(settings)
    try:
        erp.check()
    finally:
        erp.close()


def _check_shop(settings: Settings) -> None:
    """As `sink reconcile` reads it: the profile's SQL runs there."""
    profile, connection = _profile(settings), _shop(settings)
    if connection is None:
        return
    try:
        readable(connection, profile)
    except SettingsError as error:
        raise SettingsError(error.message, "let shop_url lead to the shop, as a user who may read its tables") from None
    finally:
        connection.close()


def _shop(settings: Settings) -> Connection | None:
    return connect(settings.shop_url.get_secret_value(), "the shop (shop_url)") if settings.shop_url else None


def _topics_exist(settings: Settings) -> None:
    found = {partition.topic for partition in _group(settings).partitions()}
    missing = sorted(set(_topics(settings)) - found)
    if missing:
        raise UnavailableError(f"Kafka has no topic {', '.join(missing)}", "`capture init` makes them")


def _evidence(connection: Connection, partitions: Sequence[Partition]) -> Mapping[Partition, Seen]:
    with transaction(connection) as cursor:
        return evidence.load(cursor, partitions)


def _other_ids(connection: Connection, partitions: Sequence[Partition]) -> set[str]:
    with transaction(connection) as cursor:
        return evidence.other_ids(cursor, partitions)


def _parts(settings: Settings) -> Parts:
    profile, erp = _profile(settings), _erp(settings)
    policy = Policy(settings.prices_owner, settings.order_deleted)
    rules = Rules(
        settings.shop, policy, settings.mode == "apply", settings.customers, settings.collective_account,
        settings.placeholder_sku if settings.unknown_sku == "placeholder" else "",
        settings.settle_seconds, settings.recheck_seconds, settings.lease_seconds,
    )  # fmt: skip
    owner = f"{socket.gethostname()}:{os.getpid()}"
    registry = _registry(settings)
    columns = registered_columns(registry, settings.topic_prefix)
    properties = {**_kafka(settings), "group.id": settings.group}
    return Parts(
        connect=lambda: connect(settings.database_url.get_secret_value()),
        consumer=lambda connection: ShopConsumer(
            properties, _topics(settings), lambda p: _evidence(connection, p), lambda p: _other_ids(connection, p)
        ),
        reader=RecordReader(registry),
        staging=Staging(settings.shop, profile, marks.mark, columns),
        worker=lambda connection, number: Worker(connection, profile, erp, rules, f"{owner}:{number}"),
        topic_prefix=settings.topic_prefix,
        workers=settings.workers,
        require_snapshot=settings.require_snapshot,
    )


def _reconciled(settings: Settings) -> Report:
    middle, erp = _middle(settings), _erp(settings)
    shop = _shop(settings)
    try:
        collective, prices = settings.customers == "collective", settings.prices_owner == "shop"
        return compare(middle, shop, settings.shop, _profile(settings), erp, collective, prices)
    finally:
        middle.close()
        erp.close()
        if shop is not None:
            shop.close()


def main() -> None:
    """The console script: errors that a user can mend are printed once, without a stack trace."""
    try:
        app()
    except OrdertapError as error:
        typer.echo(f"sink: {error.message}" + (f"\n  next: {error.hint}" if error.hint else ""), err=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
