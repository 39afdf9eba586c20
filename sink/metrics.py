"""The Prometheus metrics of a running sink."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

LEADING = Gauge("ordertap_sink_leading", "1 while this process stages; the sum over all processes of a shop is 1")
STAGED = Counter("ordertap_sink_staged_rows", "Rows of the shop that were staged")
REPLAYED = Counter("ordertap_sink_replayed_records", "Records that were read again and changed nothing")
UNNAMED = Counter("ordertap_sink_unnamed_rows", "Rows dropped because the index passed their commit without naming it")
COPY_LSN = Gauge("ordertap_sink_copy_lsn", "Where the copy stands in the shop's log, bytes")
COPY_BEHIND = Gauge("ordertap_sink_copy_behind_seconds", "Age of the last commit when it became visible in the copy")
APPLYING = Gauge(
    "ordertap_sink_applying", "1 while documents go to the ERP, 0 while the ERP cannot be used or applying is paused"
)
PAUSED = Gauge("ordertap_sink_paused", "1 while a person has paused applying")
BRAKED = Gauge("ordertap_sink_braked", "1 while changes of a kind wait for a person, who releases them", ["kind"])
