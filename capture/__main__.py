"""`capture`: the command line."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import structlog
import typer

from capture.commands import adopt as adoption
from capture.commands import preflight, setup, signals
from capture.commands.proposal import Proposal
from capture.commands.repair import Repair
from capture.commands.status import lines
from capture.commands.status import status as status_of
from capture.demand import SignalType
from capture.kafka import broker
from capture.metrics import Metrics
from capture.pipeline import Capture
from capture.plan import Plan, limits_of, options_of, plan_of
from capture.settings import REREAD_AT_ONCE, REREAD_TO_CONNECT, Settings
from capture.stopping import end_deaf_start
from schemas.model.errors import ExitCode, OrdertapError, SettingsError
from schemas.process import command_line
from schemas.process.command_line import offer_version, own_version, rewrap_help
from schemas.process.service import HealthServer, configure_logs, reread_event, stop_event
from schemas.process.settings import load
from schemas.writing.compiled import way_of_rows

log = structlog.get_logger("capture")
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tails a shop's PostgreSQL log and writes change records to Kafka.\n\n"
    "To begin: `capture check` says what is missing, `capture init` makes publication and topics, `capture run` "
    "takes the snapshot and streams until it is stopped.",
)
Config = Annotated[Path | None, typer.Option("--config", "-c", help="The YAML file; its `capture` section is read.")]
Json = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without this, only say what would be done.")]


offer_version(app, lambda: f"capture {own_version()}, rows: {way_of_rows()}")


@app.command()
def run(config: Config = None) -> None:
    """Takes the initial snapshot if there is none, then streams until SIGTERM or Ctrl-C.

    A second `capture run` stands by and takes over when the first is gone.
    """
    settings = load("capture", Settings, config)
    configure_logs(settings.log_level, settings.log_json)
    log.info("starting", version=own_version(), rows=way_of_rows())
    stop, hangup = stop_event(), reread_event()
    metrics = Metrics(settings.heartbeat_interval_ms / 1000)
    end_deaf_start(lambda: not metrics.writing)
    plan = plan_of(settings)

    def stopping() -> bool:
        """The loop calls this at every turn, so it also notices SIGHUP."""
        nonlocal settings, plan
        if hangup.is_set():
            hangup.clear()
            settings, plan = _reread(config, settings, plan)
            capture.reread(plan)
        return stop.is_set()

    capture = Capture(plan, metrics, stopping, stop.wait)
    try:
        if not settings.health_port:
            capture.run()
            return
        with HealthServer(settings.health_host, settings.health_port, metrics.live, metrics.ready):
            capture.run()
    except OrdertapError as error:
        if not settings.log_json:
            raise
        log.critical("ended", reason=error.message, next=error.hint, exit_code=int(error.exit_code))
        raise typer.Exit(error.exit_code) from None


@app.command()
def check(config: Config = None, as_json: Json = False) -> None:
    """Checks database, role, publication, tables, slot, broker and registry, and prints how to fix each finding.

    Exit code 0 when nothing is BAD (warnings may be there), else 1.
    """
    settings = load("capture", Settings, config)
    found = []
    for finding in preflight.check(plan_of(settings), (settings.health_host, settings.health_port)):
        found.append(finding)
        if not as_json:
            typer.echo(f"{finding.level:4} {finding.what}")
            typer.echo(f"     fix: {finding.remedy}") if finding.remedy else None
    bad = sum(finding.level == "BAD" for finding in found)
    warned = sum(finding.level == "warn" for finding in found)
    if as_json:
        typer.echo(json.dumps({"ok": not bad, "findings": [finding._asdict() for finding in found]}, indent=1))
    else:
        typer.echo(f"{bad} to fix, warnings: {warned}" if bad or warned else "all is well")
    raise typer.Exit(ExitCode.FAILED if bad else 0)


@app.command()
def init(
    config: Config = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print the SQL for a DBA, and the topics.")] = False,
    keyless: Annotated[
        bool, typer.Option("--keyless", help="Also publish tables without a key, for inserts only.")
    ] = False,
) -> None:
    """Creates the missing publication and topics, and says what it does. Safe to run again.

    With --dry-run it prints the SQL for a DBA to run once, including the role and its rights.
    """
    plan = plan_of(load("capture", Settings, config))
    for line in setup.script(plan) if dry_run else setup.init(plan, keyless):
        typer.echo(line)


@app.command()
def drop(
    config: Config = None,
    topics: Annotated[bool, typer.Option("--topics", help="Delete the topics, too, with all their records.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Removes the slot, the publication if `capture init` made it, and the position. Asks first.

    Refuses while capture runs. The registry's subjects stay: records that others keep may need them.
    """
    plan = plan_of(load("capture", Settings, config))
    with setup.Removal(plan, topics) as removal:
        for line in removal.lines():
            typer.echo(line)
        if removal.empty:
            typer.echo("nothing to drop")
            return
        slot = plan.options.slot
        asked = f"These will be deleted. Type the slot's name ({slot}) to continue"
        if not yes and typer.prompt(asked, default="", show_default=False) != slot:
            raise SettingsError("nothing was dropped", "type the slot's name, or use --yes")
        for line in removal.execute():
            typer.echo(line)


@app.command()
def status(
    config: Config = None,
    as_json: Json = False,
    seconds: Annotated[float, typer.Option("--seconds", min=0, help="How long to measure the rate.")] = 1.0,
) -> None:
    """Shows where capture is: position, lag, WAL held and the budget, rate, topics, snapshot, and who runs.

    Asks PostgreSQL and Kafka, so it works from any machine. Exit code 1 when one of them does not answer, or the slot
    is lost.
    """
    settings = load("capture", Settings, config)
    told = status_of(plan_of(settings), seconds, (settings.health_host, settings.health_port))
    if as_json:
        typer.echo(json.dumps(told, indent=1))
    else:
        for line in lines(told):
            typer.echo(line)
    raise typer.Exit(ExitCode.FAILED if told["problems"] else 0)


@app.command()
def repair(config: Config = None, execute: Execute = False) -> None:
    """After a lost slot, a restore or a move: a new generation, a new slot and a new snapshot at the next start.

    The sink then marks what is no longer in the shop. Stop `capture run` first.
    """
    with Repair(plan_of(load("capture", Settings, config)), int(time.time())) as repairs:
        _say_or_do(repairs, execute)


@app.command()
def adopt(
    from_debezium: Annotated[bool, typer.Option("--from-debezium", help="Required; nothing else can be adopted.")],
    config: Config = None,
    connector: Annotated[str, typer.Option(help="The connector's name in Kafka Connect.")] = "",
    offsets_topic: Annotated[str, typer.Option(help="Kafka Connect's offset.storage.topic.")] = "connect-offsets",
    offsets: Annotated[
        typer.FileText | None,
        typer.Option(help="A file with the response of GET /connectors/NAME/offsets; - is standard input."),
    ] = None,
    trust_slot: Annotated[bool, typer.Option("--trust-slot", help="Even if the slot is ahead of the offset.")] = False,
    execute: Execute = False,
) -> None:
    """Continues where a Debezium connector stopped: takes over its slot and offset, without a new snapshot.

    Stop the connector first. topic_prefix, slot_name and publication_name must be Debezium's topic.prefix, slot.name
    and publication.name. Then start `capture run`.
    """
    plan = plan_of(load("capture", Settings, config))
    if not from_debezium or bool(connector) == (offsets is not None):
        raise SettingsError("whose offset?", "use --from-debezium with --connector NAME or with --offsets FILE")
    if offsets is not None:
        offset = adoption.from_rest(offsets.read(), plan.prefix)
    elif offsets_topic not in plan.cluster.partitions():
        raise SettingsError(f"there is no topic {offsets_topic}", "use --offsets-topic: Connect's offset.storage.topic")
    else:
        offset = adoption.from_topic(broker.read_all(plan.cluster, offsets_topic), connector, plan.prefix)
    with adoption.Adoption(plan, offset, trust_slot, int(time.time())) as adopts:
        _say_or_do(adopts, execute)


def _say_or_do(proposal: Proposal, execute: bool) -> None:
    for line in proposal.lines():
        typer.echo(line)
    for line in proposal.execute() if execute else ["nothing done; --execute does it"]:
        typer.echo(line)


signal_app = typer.Typer(
    no_args_is_help=True,
    help="Sends capture a request through the shop's log. If capture is stopped, it acts on it after its next start.",
)
app.add_typer(signal_app, name="signal")


@signal_app.command("snapshot")
def signal_snapshot(
    tables: Annotated[list[str], typer.Argument(help="schema.table, one or more")],
    config: Config = None,
    where: Annotated[str | None, typer.Option("--where", help="Only rows that meet this SQL condition.")] = None,
) -> None:
    """Reads tables again while streaming continues: new ones, or after something was lost.

    The rows come as op `r` and win over older ones. `sink` then marks rows that are gone (not with --where).
    """
    plan = plan_of(load("capture", Settings, config))
    signal = signals.send(plan, "execute-snapshot", tables, where)
    for table in sorted(plan.snapshot.overrides.keys() & set(tables)):
        rows = "the rows of --where" if where else "all rows"
        typer.echo(f"{table}: reads {rows}; its SELECT override is for the first snapshot only")
    typer.echo(f"snapshot {signal.id} of {', '.join(tables)} requested; `capture status` shows its progress")


@signal_app.command("pause")
def signal_pause(config: Config = None) -> None:
    """Stops reading between two chunks; streaming continues."""
    _signal(config, "pause-snapshot")


@signal_app.command("resume")
def signal_resume(config: Config = None) -> None:
    """Continues where it paused."""
    _signal(config, "resume-snapshot")


@signal_app.command("stop")
def signal_stop(config: Config = None) -> None:
    """Cancels the requested snapshots. Rows already written stay."""
    _signal(config, "stop-snapshot")


rewrap_help(app)


def _signal(config: Path | None, kind: SignalType) -> None:
    signals.send(plan_of(load("capture", Settings, config)), kind)
    typer.echo(f"{kind} requested")


def _reread(config: Path | None, old: Settings, plan: Plan) -> tuple[Settings, Plan]:
    """Reads the settings again and takes what can change now; a wrong file changes nothing. Logs names, no values."""
    try:
        new = load("capture", Settings, config)
        changed = {name for name in Settings.model_fields if getattr(old, name) != getattr(new, name)}
        later = changed - REREAD_AT_ONCE - REREAD_TO_CONNECT
        kept = new.model_copy(update={name: getattr(old, name) for name in later})
        if changed & REREAD_TO_CONNECT:
            plan = plan_of(kept)
    except OrdertapError as error:
        log.warning("settings not reloaded: the old ones stay in use", reason=error.message, next=error.hint)
        return old, plan
    if not changed:
        log.info("settings reloaded: nothing changed")
        return old, plan
    configure_logs(kept.log_level, kept.log_json)
    log.warning(
        "settings reloaded",
        changed=sorted(changed & REREAD_AT_ONCE),
        at_the_next_connection=sorted(changed & REREAD_TO_CONNECT),
        after_a_restart=sorted(later),
    )
    return kept, plan._replace(limits=limits_of(kept), options=options_of(kept))


def main() -> None:
    """The console script."""
    command_line.run(app, "capture")


if __name__ == "__main__":
    main()
