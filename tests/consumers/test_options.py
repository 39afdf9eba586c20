"""An option of Debezium that does not exist here is answered with what to use instead, never with the nearest other
name."""

import pytest

from capture.settings import Settings
from schemas.model.errors import SettingsError
from schemas.process.settings import load

OPTIONS = """
advanced.metrics.enable connection.validation.timeout.ms create.slot.command.timeout custom.metric.tags
custom.retriable.exception database.exclude.list database.include.list event.converting.failure.handling.mode
guardrail.collections.limit.action guardrail.collections.max include.schema.changes
incremental.snapshot.allow.schema.changes legacy.snapshot.max.threads log.position.check.enable
lsn.flush.timeout.action lsn.flush.timeout.ms multi.partition.mode offset.activity.monitor.interval.ms
offset.mismatch.strategy poll.dispatch.interval.ms post.processors queue.provider.type schema.refresh.mode
skip.messages.without.change slot.seek.to.known.offset.on.start snapshot.max.threads.multiplier
snapshot.mode.configuration.based.snapshot.data snapshot.mode.custom.name snapshot.query.mode
snapshot.query.mode.custom.name snapshot.scan.all.columns.force snapshot.tables.order.by.row.count
sourceinfo.struct.maker statistics.metrics.enabled streaming.delay.ms table.ignore.builtin
transaction.metadata.factory converters datatype.propagate.source.type poll.interval.ms
column.mask.with.10.chars column.truncate.to.20.chars column.mask.hash.v2.SHA-256.with.salt.pepper
database.connection.factory.class database.query.timeout.ms database.sslfactory extended.headers.enabled
topic.cache.size topic.heartbeat.name
""".split()  # noqa: SIM905


@pytest.mark.parametrize("option", OPTIONS)
def test_what_stands_instead_is_said(option: str) -> None:
    name = option.replace(".", "_").replace("-", "_").upper()
    with pytest.raises(SettingsError) as refused:
        load("capture", Settings, environ={f"ORDERTAP_CAPTURE_{name}": "x"})
    said = f"{name.lower()} (ORDERTAP_CAPTURE_{name}): not a setting here: "
    assert said in str(refused.value)
    assert "did you mean" not in str(refused.value)
