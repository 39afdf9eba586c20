"""Tables change while capture runs, or long before it reads of it; and a registry does not take every change."""

from __future__ import annotations

import json
import urllib.request
from collections import Counter

import pytest

from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.registry.registry import IncompatibleError, Registry, open_registry
from schemas.writing.codec import compile_codec
from tests.fix_capture import PATIENCE, TABLES, Shop
from tests.proof.content import check_content, replay, shop_tables
from tests.proof.records import changes

CHANGES = (
    "ALTER TABLE orders ADD COLUMN plain text",
    "ALTER TABLE orders ADD COLUMN filled int NOT NULL DEFAULT 7",
    "ALTER TABLE orders ADD COLUMN state mood DEFAULT 'new'",
    "ALTER TYPE mood ADD VALUE 'old' BEFORE 'new'",
    "UPDATE orders SET state = 'old' WHERE id % 2 = 0",
    "ALTER TABLE orders RENAME COLUMN plain TO renamed",
    "UPDATE orders SET renamed = NULL, total = NULL WHERE id = 3",
    "UPDATE orders SET total = 0 WHERE total IS NULL",
    "ALTER TABLE orders ALTER COLUMN total SET NOT NULL",
    "ALTER TABLE orders ALTER COLUMN filled TYPE bigint",
    "ALTER TABLE orders DROP COLUMN note",
    "ALTER TABLE orders ADD COLUMN note varchar(9)",
    "ALTER TABLE orders ALTER COLUMN filled TYPE text USING filled::text",
    "ALTER TABLE lines ADD COLUMN amount numeric(8,2) DEFAULT 1.5",
    "ALTER TABLE log DROP CONSTRAINT log_pkey, ADD COLUMN key uuid PRIMARY KEY DEFAULT gen_random_uuid()",
)
"""Each is followed by changes of rows. Some make today's catalogue wrong for what is still unread."""


def change_schema(shop: Shop) -> None:
    """Makes all CHANGES, with rows between them. At the end each row is written once more, in its last form."""
    for number, statement in enumerate(CHANGES):
        shop.sql(statement)
        shop.sql(
            f"INSERT INTO orders (id, total) VALUES ({1000 + number}, {number})",
            f"UPDATE orders SET at = now() WHERE id % {len(CHANGES)} = {number}",
            f"INSERT INTO lines (order_id, number) VALUES ({number}, 99)",
            f"INSERT INTO log (id, what) VALUES ({number}, 'a')",
            f"UPDATE log SET what = 'b' WHERE id = {number - 1}",
        )
        shop.sql(f"DELETE FROM orders WHERE id = {20 + number}", f"DELETE FROM log WHERE id = {number - 3}")
    shop.sql("UPDATE orders SET at = now()", "UPDATE lines SET sku = 'last'")


@pytest.mark.parametrize("behind", [False, True], ids=["live", "behind the catalogue"])
def test_every_change_of_a_table_keeps_every_row(shop: Shop, behind: bool) -> None:
    shop.sql("CREATE TYPE mood AS ENUM ('new')", "ALTER TABLE orders ALTER COLUMN total DROP NOT NULL")
    shop.capture.start()
    shop.drain()
    if behind:
        assert shop.capture.stop() == 0
    change_schema(shop)
    if behind:
        shop.capture.start()
    shop.drain()
    # Rows of `log` from before its key changed lie under keys that no longer exist.
    findings = [finding for finding in shop.findings() if not finding.text.startswith("public.log ")]
    assert not findings


@pytest.fixture
def apicurio(shop: Shop, registry_url: str) -> Shop:
    """A shop whose schemas go to a real registry, with each subject under BACKWARD once it exists."""
    shop.configure(schema_registry_url=registry_url)
    return shop


def rule(registry_url: str, subject: str, compatibility: str) -> None:
    """Sets a subject's compatibility. Source: Confluent's Schema Registry API, "Config"."""
    request = urllib.request.Request(  # noqa: S310  a registry of ours
        f"{registry_url}/config/{subject}",
        data=json.dumps({"compatibility": compatibility}).encode(),
        headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        method="PUT",
    )
    with urllib.request.urlopen(request, timeout=60):  # noqa: S310
        pass


def retype(shop: Shop) -> str:
    """Makes a change that BACKWARD forbids, with rows before and after it. Returns the subject."""
    subject = f"{shop.prefix}.public.orders-value"
    rule(shop.registry, subject, "BACKWARD")
    shop.sql("UPDATE orders SET note = '12' WHERE id = 7", "INSERT INTO lines VALUES (7, 7, 'before')")
    shop.sql("ALTER TABLE orders ALTER COLUMN note TYPE int USING length(note)")
    shop.sql("UPDATE orders SET note = 5 WHERE id = 8", "INSERT INTO lines VALUES (8, 8, 'after')")
    return subject


def test_stop_says_which_column_clashes_and_goes_on_when_the_registry_takes_it(apicurio: Shop) -> None:
    shop = apicurio
    shop.capture.start()
    shop.drain()
    subject = retype(shop)
    assert shop.capture.wait(PATIENCE) != 0
    said = shop.capture.tail()
    assert "table public.orders" in said
    assert "column note was string or null, is int or null" in said
    assert "incompatible_schema" in said
    rule(shop.registry, subject, "NONE")
    shop.capture.start()
    shop.sql("UPDATE orders SET note = 1")
    shop.drain()
    shop.prove()


@pytest.mark.parametrize(
    ("compatibility", "later"),
    [
        ("BACKWARD", "ALTER TABLE orders ALTER note SET NOT NULL"),
        ("FULL", "ALTER TABLE orders ALTER note SET NOT NULL"),
        # Django adds a column like this.
        ("BACKWARD", "ALTER TABLE orders ADD n int NOT NULL DEFAULT 7; ALTER TABLE orders ALTER n DROP DEFAULT"),
        ("FULL", "ALTER TABLE orders ALTER total DROP NOT NULL"),
        ("FULL", "DROP TABLE orders"),
    ],
)
def test_a_catalogue_that_is_ahead_makes_no_schema_that_the_registry_refuses(
    apicurio: Shop, compatibility: str, later: str
) -> None:
    shop = apicurio
    shop.capture.start()
    shop.drain()
    rule(shop.registry, f"{shop.prefix}.public.orders-value", compatibility)
    assert shop.capture.stop() == 0
    shop.sql("UPDATE orders SET note = NULL WHERE id = 7")
    shop.sql("UPDATE orders SET note = '' WHERE id = 7", "INSERT INTO lines VALUES (7, 7, 'behind')")
    shop.sql(later)
    if "DROP TABLE" not in later:
        shop.sql("UPDATE orders SET at = now()")
    shop.capture.start()
    shop.drain()
    left = TABLES[1:] if "DROP TABLE" in later else TABLES
    shop.prove(left, former=set(TABLES).difference(left))


def test_rows_of_a_table_that_is_gone_keep_their_key(shop: Shop) -> None:
    """Under FULL only the catalogue knows the key. Without it the rows would be in other partitions, and have no
    tombstones."""
    shop.sql('ALTER TABLE log RENAME id TO "the id"')
    shop.capture.start()
    shop.drain()
    assert shop.capture.stop() == 0
    shop.sql("INSERT INTO log VALUES (1, 'a'), (2, 'b')", "UPDATE log SET what = 'c'", "DELETE FROM log")
    shop.sql("DROP TABLE log")
    shop.capture.start()
    shop.drain()
    log = changes(shop.records(), shop.prefix)["public.log"]
    assert Counter(str(each.key) for each in log) == {'{"the_id": 1}': 4, '{"the_id": 2}': 4}
    assert Counter(each.op for each in log if each.value) == {"c": 2, "u": 2, "d": 2}


def test_version_goes_on_in_a_topic_of_its_own_also_after_a_restart(apicurio: Shop) -> None:
    shop = apicurio
    shop.configure(incompatible_schema="version")
    shop.capture.start()
    shop.drain()
    retype(shop)
    shop.drain()
    shop.capture.kill()
    shop.capture.start()
    shop.sql("UPDATE orders SET note = 6 WHERE id IN (8, 9)", "INSERT INTO log VALUES (1, 'x')")
    shop.drain()
    tables = changes(shop.records(), shop.prefix)
    assert sorted(str(row.key) for row in tables["public.orders.v2"]) == ['{"id": 8}', '{"id": 8}', '{"id": 9}']
    assert {row.value["after"]["note"] for row in tables["public.orders.v2"] if row.value} == {5, 6}
    assert not check_content(replay(shop.records(), shop.prefix), shop_tables(shop.dsn, ["public.lines", "public.log"]))


def test_park_leaves_one_table_out_until_a_snapshot_brings_it_back(apicurio: Shop) -> None:
    shop = apicurio
    shop.configure(incompatible_schema="park")
    shop.capture.start()
    shop.drain()
    subject = retype(shop)
    shop.drain()
    assert shop.position()["parked"] == ["public.orders"]
    shop.capture.kill()
    shop.capture.start()
    shop.sql("DELETE FROM orders WHERE id < 5", "INSERT INTO lines VALUES (9, 9, 'flows on')")
    shop.drain()
    others = ["public.lines", "public.log"]
    assert not check_content(replay(shop.records(), shop.prefix), shop_tables(shop.dsn, others))
    rule(shop.registry, subject, "NONE")
    shop.signal("snapshot", "public.orders")
    shop.drain()
    shop.until(lambda: not shop.position()["parked"] and not shop.position()["demand"]["requests"])
    shop.sql("UPDATE orders SET note = 77 WHERE id = 10")
    shop.drain()
    assert not check_content(replay(shop.records(), shop.prefix), shop_tables(shop.dsn, TABLES))


PLAYED = {  # change of a table -> the rules that refuse it
    "enum": ("ALTER TYPE state_{0} ADD VALUE 'old'", ""),
    "renamed": ("ALTER TABLE {0} RENAME v TO w", ""),
    "filled": ("ALTER TABLE {0} RENAME n TO m", "FORWARD FULL"),  # NOT NULL, and readers of the old schema want it
    "again": ("ALTER TABLE {0} DROP v, ADD v text", ""),
    "key": ("ALTER TABLE {0} DROP CONSTRAINT {0}_pkey, ADD PRIMARY KEY (code)", "BACKWARD FORWARD FULL"),
    "moved": ("ALTER TABLE {0} RENAME TO {0}_new", ""),
}


class Play:
    """Tables that change, each under its own registry rule. `refused`: those whose rule refuses the change."""

    def __init__(self, shop: Shop, *rules: str) -> None:
        self._shop = shop
        self._tables = {f"{change}_{of.lower()}": (change, of) for change in PLAYED for of in rules}
        self.refused = sorted(name for name, (change, of) in self._tables.items() if of in PLAYED[change][1].split())
        for name in self._tables:
            shop.sql(
                f"CREATE TYPE state_{name} AS ENUM ('new')",
                f"CREATE TABLE {name} (id int PRIMARY KEY, code int NOT NULL, v text, n int NOT NULL,"
                f" state state_{name})",
                f"INSERT INTO {name} VALUES (1, 11, 'read', 1, 'new')",
            )
        shop.sql(f"ALTER PUBLICATION tap SET TABLE {', '.join(self._tables)}")

    def run(self) -> None:
        """Makes all changes, with rows before and after. At the end each row is written once more, in its last form."""
        for name, (_, of) in self._tables.items():
            self.rule(name, of)
            self._add(name, 2)
        for name, (change, _) in self._tables.items():
            self._shop.sql(PLAYED[change][0].format(name))
        for name, (change, _) in self._tables.items():
            self._add(self._now(name), 3)
            if change == "enum":
                self._shop.sql(f"UPDATE {name} SET state = 'old' WHERE id = 3")
        self._shop.sql(*(f"UPDATE {self._now(name)} SET state = state" for name in self._tables))

    def rule(self, name: str, compatibility: str) -> None:
        """Sets the compatibility of the table's key and value subjects."""
        for part in ("key", "value"):
            rule(self._shop.registry, f"{self._shop.prefix}.public.{name}-{part}", compatibility)

    def _add(self, name: str, number: int) -> None:
        """Adds a row like the first, whatever columns there are."""
        new = json.dumps({"id": number, "code": 10 + number})
        self._shop.sql(
            f"INSERT INTO {name} SELECT (jsonb_populate_record(one, '{new}')).* FROM {name} one WHERE id = 1"
        )

    def _now(self, name: str) -> str:
        return f"{name}_new" if self._tables[name][0] == "moved" else name

    def prove(self, suffix: str = "") -> None:
        """Checks that the shop's rows are in the topics; those of refused tables, in topics with the suffix."""
        there = shop_tables(self._shop.dsn, [f"public.{self._now(name)}" for name in self._tables])
        assert {len(rows) for rows in there.values()} == {3}
        played = replay(self._shop.records(), self._shop.prefix)
        found = {}
        for name, (change, _) in self._tables.items():
            table = f"public.{self._now(name)}"
            rows = played[f"{table}{suffix}" if name in self.refused else table]
            if change == "key":  # rows under the former key stay there
                rows = {key: row for key, row in rows.items() if json.loads(key).keys() == {"code"}}
            found[table] = rows
        assert not check_content(found, there)
        versions = {table.removeprefix("public.") for table in played if table.endswith(".v2")}
        assert versions == {f"{name}{suffix}" for name in self.refused if suffix}


RULES = ("NONE", "BACKWARD", "FORWARD", "FULL")


def test_each_change_under_each_rule_goes_on_or_in_a_version_of_its_own(apicurio: Shop) -> None:
    play = Play(apicurio, *RULES)
    apicurio.configure(incompatible_schema="version")
    apicurio.capture.start()
    apicurio.drain()
    play.run()
    apicurio.drain()
    play.prove(".v2")


def test_each_change_under_each_rule_goes_on_or_parks_its_table(apicurio: Shop) -> None:
    play = Play(apicurio, *RULES)
    apicurio.configure(incompatible_schema="park")
    apicurio.capture.start()
    apicurio.drain()
    play.run()
    apicurio.drain()
    tables = [f"public.{name}" for name in play.refused]
    assert apicurio.position()["parked"] == tables
    for name in play.refused:
        play.rule(name, "NONE")
    apicurio.signal("snapshot", *tables)
    apicurio.until(lambda: not apicurio.position()["parked"] and not apicurio.position()["demand"]["requests"])
    play.prove()


def test_each_change_under_full_goes_on_or_stops_until_the_registry_takes_it(apicurio: Shop) -> None:
    play = Play(apicurio, "FULL")
    apicurio.capture.start()
    apicurio.drain()
    play.run()
    stopped = []
    for _ in play.refused:
        assert apicurio.capture.wait(PATIENCE) == 78, apicurio.capture.tail()
        stopped += [name for name in play.refused if f"table public.{name}" in apicurio.capture.tail(3)]
        play.rule(stopped[-1], "NONE")
        apicurio.capture.start()
    apicurio.drain()
    assert sorted(stopped) == play.refused
    play.prove()


TEXT, INTEGER, LARGE = 25, 23, 20
MATRIX = {  # change of column v -> the rules that take it
    "a new nullable column": ({"w": ColumnFacts()}, (), "NONE BACKWARD FORWARD FULL"),
    "a new column with a default": ({"w": ColumnFacts(True, "0")}, (), "NONE BACKWARD FORWARD FULL"),
    "a new column that must be filled": ({"w": ColumnFacts(True)}, (), "NONE FORWARD"),
    "a nullable column is gone": ({}, ("v",), "NONE BACKWARD FORWARD FULL"),
    "a column with NOT NULL is gone": ({}, ("n",), "NONE BACKWARD"),
    "int becomes bigint": ({"n": ColumnFacts(True, type_name="int8")}, (), "NONE BACKWARD"),
    "int becomes text": ({"n": ColumnFacts(True, type_name="text")}, (), "NONE"),
    "NOT NULL is dropped": ({"n": ColumnFacts()}, (), "NONE BACKWARD"),
}
TYPES = {"text": TEXT, "int8": LARGE}


def codec_of(changed: dict[str, ColumnFacts], gone: tuple[str, ...]) -> dict[str, object]:
    facts = {"id": ColumnFacts(True), "v": ColumnFacts(), "n": ColumnFacts(True)} | changed
    columns = tuple(
        Column(name, TYPES.get(known.type_name, INTEGER), -1, name == "id")
        for name, known in facts.items()
        if name not in gone
    )
    return compile_codec("matrix.t", Relation(1, "public", "t", "d", columns), TableFacts(("id",), facts)).value_schema


def taken(registry: Registry, subject: str, schema: dict[str, object]) -> bool:
    try:
        registry.register(subject, schema)
    except IncompatibleError:
        return False
    return True


@pytest.mark.parametrize("change", MATRIX)
def test_what_each_rule_of_a_registry_takes(registry_url: str, change: str) -> None:
    registry = open_registry(registry_url)
    changed, gone, takers = MATRIX[change]
    found = []
    for compatibility in ("NONE", "BACKWARD", "FORWARD", "FULL"):
        subject = f"matrix.{change.replace(' ', '-')}.{compatibility}-value"
        registry.register(subject, codec_of({}, ()))
        rule(registry_url, subject, compatibility)
        if taken(registry, subject, codec_of(changed, gone)):
            found.append(compatibility)
    assert " ".join(found) == takers
