"""`sink run`: the process that stages and applies."""

from __future__ import annotations

import sys

from schemas.process.service import HealthServer, configure_logs, reread_event, stop_event
from sink import wiring
from sink.commands.options import RUN, Config, expect_many_objects, settings_of, verbs
from sink.pipeline import Sink

app = verbs()


@app.command("run", rich_help_panel=RUN)
def _run(config: Config = None) -> None:
    """Stages and applies until SIGTERM or Ctrl-C.

    Any number may run: one stages, all apply.

    Example: `sink run -c config.yaml`
    """
    settings = settings_of(config)
    configure_logs(settings.log_level, settings.log_json)
    stop = stop_event()
    # A thread that returns from PostgreSQL waits this long for the thread that computes. With the default of 5 ms a
    # COPY of many pieces takes three times as long.
    sys.setswitchinterval(0.0002)
    expect_many_objects()
    # These checks fail at the start, before any work. The ERP is not checked: staging goes on while it is away.
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
