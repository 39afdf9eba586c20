"""`capture check` tells consumers that subscribe by a pattern what they miss, and what they get besides."""

from pathlib import Path

from capture.commands.check_kafka import kafka_findings
from capture.plan import plan_of
from capture.settings import Settings
from deploy.embedded import Kafka


def test_check_names_routed_topics_and_later_versions(kafka: Kafka, prefix: str, tmp_path: Path) -> None:
    routed = {"topic_regex": rf"{prefix}\.public\.(lines)", "topic_replacement": f"crm{prefix}.$1"}
    plan = plan_of(
        Settings.model_validate(
            {
                "topic_prefix": prefix,
                "database_dbname": "shop",
                "bootstrap_servers": kafka.bootstrap_servers,
                "schema_registry_url": tmp_path.as_uri(),
                "topic_routing": [routed],
            }
        )
    )
    tables = [plan.topics.of(f"public.{name}") for name in ("orders", "lines", "log")]
    for name in (*tables, f"{tables[0]}.v2"):
        plan.topics.partitions(name)
    orders, lines, log = tables
    assert (orders, lines) == (f"{prefix}.public.orders", f"crm{prefix}.lines")
    said = [finding.what for finding in kafka_findings(plan, tables)]
    both = f"topic {orders}.v2 continues {orders} after an incompatible schema: subscribers to {prefix}.* read both"
    assert [what for what in said if "subscribers" in what] == [
        f"topic {lines} is routed: subscribers to {prefix}.* do not read it",
        f"{both}, readers of {orders} alone see no more changes of its table",
    ]
    assert not [what for what in said if log in what and "subscribers" in what]
