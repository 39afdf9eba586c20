"""Topics under other names and with other settings, as consumers and the broker see them."""

from __future__ import annotations

import json
import time

from capture.kafka.broker import topics as described
from capture.kafka.cluster import Cluster, Making
from tests.fix_capture import PATIENCE, Shop
from tests.programs import run
from tests.proof.records import Record
from tests.shop import said


def on(records: list[Record], topic: str) -> list[str]:
    return [each.op for each in records if each.topic == topic]


def test_routed_and_grouped_topics(shop: Shop) -> None:
    shop.configure(
        topic_routing=[{"topic_regex": r".*\.public\.(lines)", "topic_replacement": f"{shop.prefix}.crm-$1"}],
        topic_creation_groups=[
            {"include": [r".*\.crm-lines"], "partitions": 1, "config": {"cleanup.policy": "compact"}},
            {"include": [r".*\.log"], "partitions": 5, "config": {"retention.ms": 86_400_000}},
        ],
        skipped_operations=["t"],
    )
    shop.capture.start()
    shop.drain()
    shop.sql("UPDATE lines SET sku = 'x' WHERE order_id = 1", "INSERT INTO log VALUES (1, 'a')", "TRUNCATE lines")
    shop.drain()
    assert shop.capture.stop() == 0
    routed, log = f"{shop.prefix}.crm-lines", f"{shop.prefix}.public.log"
    found = described(Cluster(shop.bootstrap_servers, {}), [routed, log, f"{shop.prefix}.public.lines"])
    assert found.keys() == {routed, log}
    assert (found[routed].partitions, found[routed].config["cleanup.policy"]) == (1, "compact")
    assert (found[log].partitions, found[log].config["retention.ms"]) == (5, "86400000")
    records = shop.records()
    assert on(records, routed) == ["r"] * 300 + ["u"]
    assert on(records, log) == ["c"]

    shop.configure(topic_creation_groups=[{"include": [".*"], "partitions": 2, "config": {"retention.ms": 1000}}])
    shop.configure(skipped_operations=["none"])
    told = json.loads(run("capture", "check", "--json", config=shop.config).stdout)["findings"]
    said = {(one["level"], one["what"]) for one in told}
    assert ("warn", f"topic {log} has 5 partitions, its group in topic_creation_groups 2") in said
    assert ("warn", f"topic {log} differs from its group in topic_creation_groups: retention.ms") in said
    refused = f"topic {routed} has cleanup.policy compact: Kafka refuses records without a key, such as a TRUNCATE"
    assert ("BAD", refused) in said


def test_a_topic_that_kafka_refuses_is_named_with_its_table_and_stops_nothing_else(shop: Shop) -> None:
    shop.configure(topic_creation_groups=[{"include": [r".*\.log"], "config": {"cleanup.policy": "keep"}}])
    told = json.loads(run("capture", "check", "--json", config=shop.config).stdout)["findings"]
    [bad] = [one for one in told if one["level"] == "BAD"]
    assert bad["what"].startswith(f"table public.log: making topic {shop.prefix}.public.log: ")
    assert "topic_creation_" in bad["remedy"]
    shop.capture.start()
    shop.drain()
    assert shop.position()["parked"] == ["public.log"]
    assert shop.capture.stop() == 0


def test_two_tables_for_one_topic_are_refused_at_the_start(shop: Shop) -> None:
    shop.configure(topic_routing=[{"topic_regex": ".*", "topic_replacement": f"{shop.prefix}.all"}])
    shop.capture.start()
    assert shop.capture.wait(60) == 78
    assert "rows of two tables may have the same key" in shop.capture.tail()


def test_two_tables_of_one_name_are_refused_at_the_start(shop: Shop) -> None:
    """A dot may be part of a schema's name, or of a table's."""
    for schema, table in (("a.b", "c"), ("a", "b.c")):
        shop.sql(
            f'CREATE SCHEMA "{schema}"',
            f'CREATE TABLE "{schema}"."{table}" (id int PRIMARY KEY)',
            f'ALTER PUBLICATION tap ADD TABLE "{schema}"."{table}"',
        )
    said = 'tables "a"."b.c" and "a.b"."c" are both a.b.c here'
    checked = run("capture", "check", config=shop.config)
    assert f"BAD  {said}" in checked.stdout, checked.stdout
    assert "leave one of them out of the publication" in checked.stdout
    shop.capture.start()
    assert shop.capture.wait(60) == 78
    assert said in shop.capture.tail()


def test_c4_a_table_whose_topic_kafka_takes_for_another_waits_alone(shop: Shop) -> None:
    """The table is made while capture runs. The others go on, also after a restart."""
    shop.capture.start()
    shop.drain()
    shop.sql("CREATE SCHEMA public_log")
    shop.sql("CREATE TABLE public_log.more (id int PRIMARY KEY)", "CREATE TABLE public.log_more (id int PRIMARY KEY)")
    shop.sql("ALTER PUBLICATION tap ADD TABLE public.log_more", "INSERT INTO public.log_more VALUES (1)")
    shop.drain()
    shop.sql("ALTER PUBLICATION tap ADD TABLE public_log.more", "INSERT INTO public_log.more VALUES (1)")
    shop.sql("INSERT INTO public.log_more VALUES (2)")
    shop.drain()
    told = json.loads(run("capture", "status", "--json", "--seconds", "0", config=shop.config).stdout)
    assert (told["parked"], told["problems"]) == (["public_log.more"], [])
    checked = run("capture", "check", config=shop.config).stdout
    named = f"topic {shop.prefix}.public_log.more and topic {shop.prefix}.public.log_more"
    assert f"BAD  table public_log.more: {named}" in checked
    assert shop.capture.stop() == 0
    shop.capture.start()
    shop.sql("INSERT INTO public.log_more VALUES (3)", "INSERT INTO public_log.more VALUES (3)")
    shop.drain()
    assert shop.capture.stop() == 0
    assert on(shop.records(), f"{shop.prefix}.public.log_more") == ["c", "c", "c"]


def test_c4_names_that_cannot_be_topics_beside_each_other_keep_nothing_else_from_starting(shop: Shop) -> None:
    """Two that differ by . and _, two that differ by characters that Kafka does not allow, and one like a foreign
    topic."""
    foreign, cluster = f"{shop.prefix}.public.for_eign", Cluster(shop.bootstrap_servers, {})
    cluster.create_topics({foreign: Making(1, 1, {})})
    while foreign not in cluster.partitions():  # the controller answers before the broker knows of it
        time.sleep(0.05)
    names = ['public."a.b_c"', 'public."a_b.c"', 'public."ä"', 'public."ö"', 'public."for.eign"']
    shop.sql(*[f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in names])
    shop.sql(*[f"INSERT INTO {name} VALUES (1)" for name in names])
    shop.sql(f"ALTER PUBLICATION tap ADD TABLE {', '.join(names)}")
    waiting = ["public.a_b.c", "public.for.eign", "public.ö"]
    before = run("capture", "status", "--json", "--seconds", "0", config=shop.config)
    assert (before.returncode, json.loads(before.stdout)["problems"]) == (0, [])
    told = json.loads(run("capture", "check", "--json", config=shop.config).stdout)["findings"]
    assert sorted(one["what"].split(":")[0] for one in told if one["level"] == "BAD") == [
        f"table {name}" for name in waiting
    ]
    made = run("capture", "init", config=shop.config)
    assert made.stdout.count("it is not captured") == len(waiting), made.stdout
    shop.capture.start()
    shop.drain()
    shop.sql(*[f"INSERT INTO {name} VALUES (2)" for name in names], "INSERT INTO log VALUES (1, 'a')")
    shop.drain()
    assert shop.position()["parked"] == waiting
    assert shop.capture.stop() == 0
    shop.capture.start()  # and again
    shop.sql("INSERT INTO log VALUES (2, 'b')")
    shop.drain()
    assert shop.capture.stop() == 0
    assert shop.position()["parked"] == waiting
    records = shop.records()
    assert on(records, f"{shop.prefix}.public.a.b_c") == ["r", "c"]
    assert on(records, f"{shop.prefix}.public._") == ["r", "c"]
    assert on(records, f"{shop.prefix}.public.log") == ["c", "c"]


def test_c4_a_signal_for_a_table_that_can_have_no_topic_stops_nothing(shop: Shop) -> None:
    """The command refuses it. If one is in the log nevertheless, the table stays parked, also after a restart."""
    waiting = "public.a_b.c"
    names = ['public."a.b_c"', 'public."a_b.c"']
    shop.sql(*[f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in names])
    shop.sql(f"ALTER PUBLICATION tap ADD TABLE {', '.join(names)}")
    shop.capture.start()
    shop.drain()
    refused = run("capture", "signal", "snapshot", waiting, config=shop.config)
    assert refused.returncode == 78, refused.stderr
    assert "give one of them another topic in topic_routing" in refused.stderr
    shop.signal("snapshot", "public.a.b_c")
    shop.ask("execute-snapshot", waiting)
    shop.until_said("table is left out of the snapshot")
    shop.sql("INSERT INTO log VALUES (1, 'a')")
    shop.drain()
    assert shop.position()["parked"] == [waiting]
    assert shop.capture.stop() == 0
    shop.capture.start()
    shop.sql("INSERT INTO log VALUES (2, 'b')")
    shop.drain()
    assert shop.capture.stop() == 0
    assert shop.position()["parked"] == [waiting]
    assert on(shop.records(), f"{shop.prefix}.public.log") == ["c", "c"]


def test_c4_the_rest_of_a_first_snapshot_has_no_table_that_can_have_no_topic(shop: Shop) -> None:
    """It is published after the crash that ended the snapshot."""
    waiting = "public.a_b.c"
    names = ['public."a.b_c"', 'public."a_b.c"']
    shop.sql(*[f"CREATE TABLE {name} (id int PRIMARY KEY)" for name in names])
    shop.sql(f"ALTER PUBLICATION tap ADD TABLE {names[0]}")
    victim = shop.copy("victim", "tests.faults.broken", ("-X", "fault=after-COMMIT:4"))
    victim.start()
    assert victim.wait(PATIENCE) == -9, victim.tail()  # with the first table
    shop.sql(f"ALTER PUBLICATION tap ADD TABLE {names[1]}")
    shop.capture.start()
    shop.drain()
    assert "continues while streaming" in said(shop.capture)
    assert "table is left out of the snapshot" not in said(shop.capture)
    assert shop.position()["parked"] == [waiting]
    assert shop.capture.stop() == 0
    shop.prove()


def test_c5_hundreds_of_topics_are_made_in_a_few_calls(shop: Shop) -> None:
    """With a log line for each call. One by one, 2,000 took more than a minute, without a word."""
    count = 600
    shop.sql(*[f"CREATE TABLE many_{number} (id int PRIMARY KEY)" for number in range(count)])
    shop.sql("ALTER PUBLICATION tap ADD TABLE " + ", ".join(f"many_{number}" for number in range(count)))
    made = run("capture", "init", config=shop.config)
    assert made.returncode == 0, made.stderr
    assert made.stdout.count(" made\n") >= count
    assert made.stdout.count("making topics") == 4
