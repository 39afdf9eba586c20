"""The checker of the sink's copy, against a copy that the test keeps itself: first right, then wrong in each way."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg2
import pytest
from psycopg2.extras import execute_values

from deploy.embedded import Postgres
from tests.proof.copy import Claim, CopyChecker, Watch
from tests.proof.history import History
from tests.proof.text import rows_of
from tests.proof.wal import Witness
from tests.shop import Shop

SCHEMA = """
CREATE TABLE orders (id bigint PRIMARY KEY, note text, gross numeric(12,2), paid boolean, country char(3), count int);
ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL;
CREATE TABLE lines (order_id bigint, number int, sku text, PRIMARY KEY (order_id, number));
CREATE TABLE log (what text);
CREATE PUBLICATION tap FOR TABLE orders, lines, log;
INSERT INTO orders VALUES (1, E'a\\tb\\\\N\\n', 9.90, true, 'DE', 1), (2, NULL, 5.00, false, 'A', 2);
INSERT INTO lines VALUES (1, 1, 'x'), (2, 1, 'y');
"""
TABLES = ("public.orders", "public.lines")
BEHIND = 2**62


class Fake:
    """A shop, and a copy of it that becomes whole at each `copy`. `say` moves only its claim."""

    def __init__(self, shop: str, middle: str) -> None:
        self.dsn, self.middle = shop, middle
        self.shop(SCHEMA)
        self.history = History(shop, "tap", f"history_{shop.rpartition('/')[2]}")
        self.history.create()
        self.sql("CREATE SCHEMA ordertap_shop; CREATE SCHEMA shop")
        self.sql("CREATE TABLE ordertap_shop.copy (generation bigint, lsn numeric(20), ordinal bigint, state text)")
        self.sql("CREATE TABLE ordertap_shop.table_gap (table_name text); CREATE TABLE ordertap_shop.schema_gate ()")
        self.checker = CopyChecker(self.history, middle, TABLES, "shop", "ordertap_shop")

    def shop(self, statement: str) -> None:
        run(self.dsn, statement)

    def sql(self, statement: str) -> None:
        run(self.middle, statement)

    def copy(self, *tables: str) -> None:
        """Brings these tables, or all, to the shop's present state. The claim follows."""
        for table in tables or ("orders", "lines"):
            columns = Shop.value_of(
                self.dsn,
                "SELECT string_agg(format('%I text', attname), ', ' ORDER BY attnum) FROM pg_attribute"
                f" WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped",
            )
            self.sql(f"DROP TABLE IF EXISTS shop.{table}; CREATE TABLE shop.{table} ({columns})")
            with psycopg2.connect(self.dsn) as shop, shop.cursor() as cursor:
                rows = [tuple(row.values()) for row in rows_of(cursor, f"SELECT * FROM {table}")]
            with psycopg2.connect(self.middle) as middle, middle.cursor() as cursor:
                execute_values(cursor, f"INSERT INTO shop.{table} VALUES %s", rows) if rows else None
        self.say(int(Shop.value_of(self.dsn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")))

    def say(self, lsn: int, ordinal: int = 0, state: str = "steady") -> None:
        self.sql(
            f"DELETE FROM ordertap_shop.copy; INSERT INTO ordertap_shop.copy VALUES (1, {lsn}, {ordinal}, '{state}')"
        )

    def change(self, number: int) -> None:
        """Commits once in both tables. A copy with only one of them is torn."""
        rows = f"INSERT INTO orders VALUES ({number}, 'n', 1.50, true, 'DE', 1); INSERT INTO lines VALUES ({number}, 1)"
        self.shop(f"{rows}; UPDATE orders SET gross = gross + 1 WHERE id = 1")

    def found(self) -> list[str]:
        """What is torn now."""
        before = len(self.checker.findings)
        self.checker.check()
        return sorted(f"{one.table} {one.key} {one.what}" for one in self.checker.findings[before:])


def run(dsn: str, statement: str) -> None:
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(statement)
    connection.close()


@pytest.fixture
def fake(postgres: Postgres, new_database: Callable[[Postgres, str], str]) -> Iterator[Fake]:
    made = Fake(new_database(postgres, "shop"), new_database(postgres, "middle"))
    yield made
    made.history.drop()


_TOUCH = "UPDATE orders SET paid = NOT paid WHERE id = 1"
CHANGES = {
    "insert": "INSERT INTO orders VALUES (7, repeat('x', 5000), 1, NULL, NULL, NULL)",
    "update": "UPDATE orders SET gross = 7",
    "delete": "DELETE FROM orders WHERE id = 2",
    "key": "UPDATE lines SET number = number + 10; UPDATE orders SET id = id + 100",
    "swap of keys": "UPDATE orders SET id = -1 WHERE id = 1; UPDATE orders SET id = 1 WHERE id = 2",
    "truncate": "TRUNCATE lines, log; INSERT INTO lines VALUES (9, 9, 'after')",
    "large value left alone": "UPDATE orders SET note = repeat('y', 5000); UPDATE orders SET gross = 1, id = id + 5",
    "full identity": f"ALTER TABLE orders REPLICA IDENTITY FULL; {_TOUCH}; DELETE FROM orders WHERE id = 2",
    "rolled back": "SAVEPOINT s; DELETE FROM orders; ROLLBACK TO s",
    "without key": "INSERT INTO log VALUES ('a')",
    "new table": "CREATE TABLE n (id int PRIMARY KEY); ALTER PUBLICATION tap ADD TABLE n; INSERT INTO n VALUES (1)",
    "column added": f"ALTER TABLE orders ADD COLUMN more int DEFAULT 5; {_TOUCH}",
    "column dropped": f"ALTER TABLE orders DROP COLUMN note; {_TOUCH}",
    "column renamed": f"ALTER TABLE orders RENAME note TO remark; {_TOUCH}",
    "type widened": f"ALTER TABLE orders ALTER count TYPE bigint, ALTER gross TYPE numeric(14,4); {_TOUCH}",
    "type changed": f"ALTER TABLE orders ALTER count TYPE text USING 'n' || count; {_TOUCH}",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_copy_that_is_right_is_found_right(fake: Fake, change: str) -> None:
    fake.copy()
    assert fake.found() == []
    fake.shop(change)
    assert fake.found() == []  # the copy stands where it stood
    fake.copy()
    fake.shop("DELETE FROM orders")  # what comes later is not in it
    assert fake.found() == []
    assert (fake.checker.checked, fake.checker.torn) == (2, 0)


_ONE = "public.orders ('1',) differs in gross"
DAMAGES = {
    "torn": (_ONE, "public.orders ('5',) is missing"),
    "late": ("public.lines ('5', '1') is missing", _ONE, "public.orders ('5',) is missing"),
    "early": ("public.lines ('6', '1') is not in the shop", _ONE, "public.orders ('6',) is not in the shop"),
    "doubled": ("public.lines ('1', '1') is there twice",),
    "missing": ("public.lines ('2', '1') is missing",),
    "changed": ("public.orders ('2',) differs in note, count",),
    "back": ("  goes back: it stood at ",),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found(fake: Fake, name: str) -> None:
    fake.copy()
    fake.change(5)
    assert fake.found() == []
    DAMAGE[name](fake)
    found = fake.found()
    assert [text[: len(whole)] for text, whole in zip(found, DAMAGES[name], strict=True)] == list(DAMAGES[name])
    assert fake.checker.torn == 1
    assert fake.found() == found
    assert fake.checker.torn == 1  # counted once for a place


def _early(fake: Fake) -> None:
    """Gives the copy a commit that is after the place that it claims."""
    end = int(Shop.value_of(fake.dsn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn"))
    fake.change(6)
    fake.copy()
    fake.say(end)


def _late(fake: Fake) -> None:
    fake.say(int(Shop.value_of(fake.dsn, "SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")))


def _damage(statement: str) -> Callable[[Fake], None]:
    def damage(fake: Fake) -> None:
        fake.copy()
        fake.sql(statement)

    return damage


DAMAGE: dict[str, Callable[[Fake], None]] = {
    "torn": lambda fake: fake.copy("lines"),
    "late": _late,
    "doubled": _damage("INSERT INTO shop.lines SELECT * FROM shop.lines WHERE order_id = '1'"),
    "missing": _damage("DELETE FROM shop.lines WHERE order_id = '2'"),
    "early": _early,
    "changed": _damage("UPDATE shop.orders SET note = '', count = NULL WHERE id = '2'"),
    "back": lambda fake: fake.say(fake.history.at - 1),
}


def test_the_commit_at_the_place_is_in_the_copy_by_its_ordinal(fake: Fake) -> None:
    witness = Witness(fake.dsn, "tap", "witness_of_place")
    witness.create()
    fake.copy()
    fake.change(5)
    (lsn,) = {change.commit_lsn for change in witness.read()}
    witness.drop()
    fake.say(lsn)
    assert fake.found() == []
    fake.copy()
    fake.say(lsn, BEHIND)
    assert fake.found() == []
    assert fake.checker.last == Claim(1, lsn, BEHIND)
    assert fake.checker.checked == 2


def test_a_copy_that_claims_nothing_is_not_counted(fake: Fake) -> None:
    assert fake.checker.check() is None
    fake.copy("lines")
    fake.say(fake.history.at + 10**6, state="catching up")
    assert fake.checker.check() is None
    fake.sql("DROP TABLE ordertap_shop.copy")
    assert fake.checker.check() is None
    assert (fake.checker.checked, fake.checker.torn) == (0, 0)


def test_a_table_is_not_compared_while_it_has_a_gap(fake: Fake) -> None:
    fake.copy()
    fake.change(5)
    fake.sql("INSERT INTO ordertap_shop.table_gap VALUES ('public.orders')")
    fake.copy("lines")
    assert fake.found() == []
    fake.sql("DELETE FROM ordertap_shop.table_gap")
    assert len(fake.found()) == 2


def test_values_that_never_came_are_not_compared_and_the_others_are(fake: Fake) -> None:
    fake.copy()
    fake.sql("""ALTER TABLE shop.orders SET SCHEMA ordertap_shop;
        ALTER TABLE ordertap_shop.orders RENAME TO "public.orders";
        ALTER TABLE ordertap_shop."public.orders" ADD COLUMN "#deleted" boolean DEFAULT false,
            ADD COLUMN "#unseen" text[];
        CREATE FUNCTION ordertap_shop.unseen(text) RETURNS text LANGUAGE plpgsql AS
            $$BEGIN RAISE 'never came' USING ERRCODE = 'OT001'; END$$;
        CREATE VIEW shop.orders AS SELECT id, ordertap_shop.unseen(note) AS note, gross, paid, country, count
            FROM ordertap_shop."public.orders" WHERE NOT "#deleted";
        UPDATE ordertap_shop."public.orders" SET note = 'placeholder', "#unseen" = '{note}' WHERE id = '1';
        INSERT INTO ordertap_shop."public.orders" (id, "#deleted") VALUES (8, true)""")
    assert fake.found() == []
    fake.sql("""UPDATE ordertap_shop."public.orders" SET gross = '0' WHERE id = '1'""")
    assert fake.found() == ["public.orders ('1',) differs in gross"]


def test_it_looks_again_and_again_and_waits_for_a_place(fake: Fake) -> None:
    watch = Watch(fake.checker, pause=0.01)
    watch.start()
    for number in range(10, 40):
        fake.change(number)
        with psycopg2.connect(fake.middle) as middle, middle.cursor() as cursor:  # one transaction, as in a stager
            _stage(fake, cursor)
    watch.finish()
    assert fake.checker.torn == 0, fake.checker.findings
    assert fake.checker.checked > 3
    assert fake.checker.reach(fake.history.at, 5)
    assert not fake.checker.reach(fake.history.at + 10**9, 0)


def _stage(fake: Fake, cursor: psycopg2.extensions.cursor) -> None:
    with psycopg2.connect(fake.dsn) as shop, shop.cursor() as reading:
        for table in ("orders", "lines"):
            rows = rows_of(reading, f"SELECT * FROM {table}")
            cursor.execute(f"CREATE TABLE IF NOT EXISTS shop.{table} ({', '.join(f'{name} text' for name in rows[0])})")
            cursor.execute(f"DELETE FROM shop.{table}")
            execute_values(cursor, f"INSERT INTO shop.{table} VALUES %s", [tuple(row.values()) for row in rows])
        reading.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn")
        cursor.execute("DELETE FROM ordertap_shop.copy")
        cursor.execute("INSERT INTO ordertap_shop.copy VALUES (1, %s, 0, 'steady')", reading.fetchone())


def test_what_keeps_it_from_looking_is_told_at_the_end(fake: Fake) -> None:
    fake.copy()
    fake.sql("ALTER TABLE ordertap_shop.copy DROP COLUMN state")
    watch = Watch(fake.checker, pause=0.01)
    watch.start()
    watch._thread.join(20)
    with pytest.raises(psycopg2.errors.UndefinedColumn):
        watch.finish()
