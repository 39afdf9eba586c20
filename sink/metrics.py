"""What Prometheus sees of a running sink."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

STAGED = Counter("ordertap_sink_staged_rows", "Rows of the shop that were staged")
REPLAYED = Counter("ordertap_sink_replayed_records", "Records that were read again and changed nothing")
APPLYING = Gauge("ordertap_sink_applying", "1 while documents go to the ERP, 0 while the ERP cannot be used")
