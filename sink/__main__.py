"""`sink`: the command line."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from schemas.errors import ExitCode, OrdertapError, SettingsError
from schemas.service import HealthServer, configure_logs, reread_event, stop_event
from schemas.settings import load
from sink import wiring
from sink.commands import accept, check, control, held, migrate, offsets, output, reconcile, retry, status
from sink.commands import brake as brake_lines
from sink.commands import rebuild as rebuild_lines
from sink.operations import brake, go_live, holds, rebuild
from sink.pipeline import Sink
from sink.settings import SinkSettings

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Reads a shop's change records from Kafka and keeps the ERP in step.\n\n"
    "A first time: `sink check`, then `sink run` and `sink status`; `sink go-live` sends what it planned. Later: "
    "`sink held` shows what waits for a person, `sink retry` looks again, `sink reconcile` compares the money.",
)
offsets_app = typer.Typer(no_args_is_help=True, help="Where the sink resumes reading: Kafka's own committed offsets.")
app.add_typer(offsets_app, name="offsets")
accept_app = typer.Typer(no_args_is_help=True, help="Your word for what nobody else can say; a dry run first.")
app.add_typer(accept_app, name="accept")
Person = Annotated[str, typer.Option(help="Your name, for the history.")]
Execute = Annotated[bool, typer.Option("--execute", help="Do it; without this, only say what would be done.")]
Json = Annotated[bool, typer.Option("--json", help="For machines.")]
Config = Annotated[Path | None, typer.Option("--config", "-c", "-F", help="The YAML file; its part `sink` is read.")]


@app.command("run")
def _run(config: Config = None) -> None:
    """Stages and applies until SIGTERM or Ctrl-C. Any number of copies may run."""
    settings = _load(config)
    configure_logs(settings.log_level, settings.log_json)
    stop = stop_event()
    # A thread that comes back from PostgreSQL waits so long for the one that computes: with the usual 5 ms a COPY of
    # many pieces took three times as long.
    sys.setswitchinterval(0.0002)
    # Records that wait are many small objects without cycles: collecting after every 700 new ones, as usual, looks
    # through them again and again.
    gc.freeze()
    gc.set_threshold(50_000)
    # What is wrong at a start is said at once. The ERP may be away: orders are staged meanwhile.
    wiring.migrate(settings)
    wiring.middle(settings).close()
    wiring.registry(settings).check()
    wiring.group(settings).partitions()
    sink = Sink(wiring.parts(settings), stop, reread=reread_event())
    if not settings.health_port:
        sink.run()
        return
    with HealthServer(settings.health_host, settings.health_port, sink.live, sink.ready):
        sink.run()


@app.command("status")
def _status(config: Config = None) -> None:
    """How many documents are where, the lag, and gaps."""
    settings = _load(config)
    version = wiring.profile(settings).version
    _print(status.lines(wiring.middle(settings), wiring.group(settings), settings.require_snapshot, version))


@app.command("held")
def _held(as_json: Json = False, config: Config = None) -> None:
    """Each document that waits for someone: why, and what to do."""
    found = holds.held(wiring.middle(_load(config)))
    _print(output.said(found, held.lines(found), as_json))


@app.command("retry")
def _retry(
    type_: Annotated[str, typer.Argument(metavar="[TYPE", help="As `sink held` shows it.")] = "",
    key: Annotated[str, typer.Argument(metavar="KEY]")] = "",
    every: Annotated[bool, typer.Option("--all", help="All that is held or waits.")] = False,
    config: Config = None,
) -> None:
    """Looks at a held document again, or at all of them. Sends only what the rules allow."""
    ref = retry.which(type_, key, every)
    typer.echo(retry.line(wiring.middle(_load(config)), ref))


@app.command("go-live")
def _go_live(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Lets a shop in `mode: plan` send what was planned, and all that follows. Says first what that is."""
    settings = _load(config)
    applies = settings.mode == "apply"
    found = go_live.go_live(wiring.middle(settings), applies, settings.require_snapshot, person, execute)
    _print(output.said(found, control.go_live(found, execute), as_json))


@app.command("pause")
def _pause(
    person: Person,
    reason: Annotated[str, typer.Option(help="Why, for whoever asks `sink status`.")] = "",
    config: Config = None,
) -> None:
    """Nothing more goes to the ERP, from any copy of the sink, until `sink resume`. Staging goes on."""
    _print(control.pause(wiring.middle(_load(config)), person, reason))


@app.command("resume")
def _resume(person: Person, config: Config = None) -> None:
    """Ends `sink pause`."""
    _print(control.resume(wiring.middle(_load(config)), person))


@app.command("brake")
def _brake(as_json: Json = False, config: Config = None) -> None:
    """Where the brake's counters stand, and what waits since the shop changed too much at once."""
    settings = _load(config)
    found = brake.show(wiring.middle(settings), wiring.rules(settings).brake)
    _print(output.said(found, brake_lines.lines(found), as_json))


@app.command("release")
def _release(
    person: Person,
    mass: Annotated[bool, typer.Option("--mass", help="All that the brake holds back.")] = False,
    kind: Annotated[str, typer.Option(help="orders or prices; both without this.")] = "",
    as_json: Json = False,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Lets what the brake holds back pass once, and counts anew."""
    if not mass:
        raise SettingsError("say what is released", "`sink release --mass` is for what the brake holds back")
    found = brake.release_mass(wiring.middle(_load(config)), kind, person, execute)
    _print(output.said(found, brake_lines.released(found), as_json))


@app.command("rebuild")
def _rebuild(person: Person, as_json: Json = False, execute: Execute = False, config: Config = None) -> None:
    """Says what a changed profile would make of the documents that the ERP has, and has them looked at anew."""
    settings = _load(config)
    with typer.progressbar(length=1, label="builds documents", file=sys.stderr) as bar:

        def progress(looked_at: int, every: int) -> None:
            bar.length = max(every, looked_at)
            bar.update(looked_at - bar.pos)

        found = rebuild.rebuild(
            wiring.middle(settings),
            wiring.profile(settings),
            settings.shop,
            wiring.rules(settings).placeholder_sku,
            settings.require_snapshot,
            person,
            execute,
            progress,
        )
    _print(output.said(found, rebuild_lines.lines(found, execute), as_json))


@app.command("reconcile")
def _reconcile(
    config: Config = None,
    as_json: Json = False,
    wait: Annotated[float, typer.Option(help="Seconds to wait for agreement before saying so.")] = 0.0,
) -> None:
    """Compares counts and money of shop and ERP. Exit code 0 only when both agree, held documents included.

    Each difference has a class; `in flight`, `held`, `planned` and `ignored` are explained, see `--json`.
    """
    settings = _load(config)
    report = reconcile.agreed(lambda: wiring.reconciled(settings), wait)
    _print(reconcile.lines(report, as_json))
    raise typer.Exit(0 if report.agrees else ExitCode.FAILED)


@app.command("check")
def _check(config: Config = None) -> None:
    """Looks at profile, middle layer, ERP, registry, topics and shop; says what mends each finding."""
    bad = 0
    for look in check.check(wiring.looks(_load(config))):
        typer.echo(look.line)
        bad += look.error is not None
    typer.echo(f"{bad} to mend" if bad else "all is well")
    raise typer.Exit(ExitCode.FAILED if bad else 0)


@app.command("migrate")
def _migrate(execute: Execute = False, config: Config = None) -> None:
    """Brings the middle layer to this release. `sink run` does it too, unless staged rows would be lost by it."""
    settings = _load(config)
    connection, group = wiring.not_entered(settings), wiring.group(settings)
    _print(migrate.lines(connection, settings.shop, group, wiring.tables(settings), execute))


@offsets_app.command("show")
def _offsets_show(config: Config = None) -> None:
    """Committed, available and staged offsets per partition."""
    settings = _load(config)
    _print(offsets.show(wiring.middle(settings), wiring.group(settings)))


@offsets_app.command("reset")
def _offsets_reset(
    to: Annotated[str, typer.Option(help="earliest, latest, or a time with its zone: 2026-11-23T08:00:00+01:00")],
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Moves where the sink resumes. Going back changes nothing in the ERP; going forward leaves a gap that is named."""
    settings = _load(config)
    target = offsets.target_of(to)
    _print(offsets.reset(wiring.middle(settings), wiring.group(settings), target, execute))


@accept_app.command("gap")
def _accept_gap(
    table: Annotated[str, typer.Argument(help="As `sink status` names it: public.orders")],
    person: Person,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Takes a table with a gap for complete. `capture signal snapshot TABLE` fills it instead, where that can be."""
    settings = _load(config)
    _print(accept.gap(wiring.middle(settings), table, wiring.topic(settings, table), person, execute))


@accept_app.command("snapshot")
def _accept_snapshot(person: Person, execute: Execute = False, config: Config = None) -> None:
    """Plans without the end of a first snapshot, where the topics do not reach back to it."""
    _print(accept.snapshot(wiring.middle(_load(config)), person, execute))


@accept_app.command("document")
def _accept_document(
    type_: Annotated[str, typer.Argument(metavar="TYPE", help="As `sink held` shows it.")],
    key: Annotated[str, typer.Argument(metavar="KEY")],
    person: Person,
    execute: Execute = False,
    config: Config = None,
) -> None:
    """Takes a document that is held for a decision for settled as the ERP has it, until the shop changes it again; one
    that is held for its number, date or buyer for the one that was sent under its key."""
    _print(accept.document(wiring.middle(_load(config)), type_, key, person, execute))


def _load(config: Path | None) -> SinkSettings:
    return load("sink", SinkSettings, config)


def _print(lines: Iterable[str]) -> None:
    """One by one: what is known is said even if the next cannot be."""
    for line in lines:
        typer.echo(line)


def main() -> None:
    """The console script: errors that a user can mend are printed once, without a stack trace."""
    try:
        app()
    except OrdertapError as error:
        typer.echo(f"sink: {error.message}" + (f"\n  next: {error.hint}" if error.hint else ""), err=True)
        sys.exit(int(error.exit_code))


if __name__ == "__main__":
    main()
