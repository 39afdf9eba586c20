"""Changes of every kind on a few tables, from several connections at once. The seed decides what each does."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import psycopg2

TABLES = ("public.items", "public.parts", "public.notes", "public.journal")
SCHEMA = """
CREATE TYPE state AS ENUM ('new', 'old');
CREATE TABLE items (id bigint PRIMARY KEY, name text NOT NULL, price numeric(12,2), at timestamptz NOT NULL, body text,
                    state state NOT NULL DEFAULT 'new');
ALTER TABLE items ALTER COLUMN body SET STORAGE EXTERNAL;  -- large values go to TOAST, and updates leave them out
CREATE TABLE parts (item bigint, number int, quantity int NOT NULL, PRIMARY KEY (item, number));
CREATE TABLE notes (id bigint PRIMARY KEY, note text);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE TABLE journal (who int, what text);  -- without key
ALTER TABLE journal REPLICA IDENTITY FULL;
CREATE PUBLICATION tap FOR TABLE items, parts, notes, journal;
"""
_TOASTED: Final = 4000
_LARGE: Final = 3000
_APART: Final = 1_000_000  # between the ids of two writers
_MOVED: Final = 500_000  # between the id of a row and its other id


def prefill(dsn: str, rows: int) -> None:
    """Writes rows that only the snapshot brings."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO items SELECT -n, 'old', n / 100.0, now(), repeat('x', 4000) FROM generate_series(1, %s) n",
            (rows,),
        )
        cursor.execute("INSERT INTO parts SELECT -n, 1, n FROM generate_series(1, %s) n", (rows,))
        cursor.execute("INSERT INTO journal SELECT 0, 'line ' || n FROM generate_series(1, %s) n", (rows // 10,))
    connection.close()


@dataclass
class Workload:
    """Writers in threads, which survive restarts of the server. `finish` joins them and raises an error that one of
    them met."""

    dsn: str
    seed: int | str
    writers: int = 3
    pause: float = 0.01
    ddl_pause: float = 0.0  # seconds between two changes of the schema; 0: none
    most: int = 20_000  # transactions of writers, of some 25 changes: the proof holds all records in memory
    _written: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _errors: list[psycopg2.Error] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Starts the writers."""
        works: list[Callable[[], None]] = [
            self._until_most(_Writer(self.dsn, self.seed, number, self.pause)) for number in range(self.writers)
        ]
        if self.ddl_pause:
            works.append(_Ddl(self.dsn, self.seed, self.ddl_pause).change)
        self._threads = [threading.Thread(target=self._repeat, args=(work,), daemon=True) for work in works]
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Stops the writers and waits for them. The server has to answer."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _until_most(self, writer: _Writer) -> Callable[[], None]:
        def work() -> None:
            if self._written < self.most:
                self._written += 1
                writer.transaction()
            else:
                self._stop.wait(0.1)

        return work

    def _repeat(self, work: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                work()
        except psycopg2.Error as error:
            self._errors.append(error)


LETS_GO = "-c lock_timeout=2s"
"""For DDL: a buyer may have three transactions open, and wait in one of them for another."""


class _Client:
    """A connection that reconnects after the server was away. An open transaction is given up."""

    def __init__(self, dsn: str, seed: str) -> None:
        self._dsn = dsn
        self.chance = random.Random(seed)
        self._connection: psycopg2.extensions.connection | None = None

    def once(self, work: Callable[[psycopg2.extensions.cursor], None], commits: bool = True) -> None:
        """Runs one transaction. If the server ends it (restart, deadlock, lock time-out), it is not repeated."""
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._dsn, options=LETS_GO)
            with self._connection.cursor() as cursor:
                work(cursor)
            if commits:
                self._connection.commit()
            else:
                self._connection.rollback()
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            if self._connection is not None:
                self._connection.close()
            self._connection = None
            time.sleep(0.1)


class _Writer(_Client):
    """Changes rows of its own. Writers meet only in the locks of TRUNCATE and DDL."""

    def __init__(self, dsn: str, seed: int | str, number: int, pause: float) -> None:
        super().__init__(dsn, f"{seed}/{number}")
        self._first = self._last = number * _APART
        self._number = number
        self._pause = pause

    def transaction(self) -> None:
        """One transaction: mostly small, sometimes large, sometimes rolled back as a whole or to a savepoint."""
        self.once(self._changes, commits=self.chance.random() >= 0.1)
        time.sleep(self.chance.random() * 2 * self._pause)

    def _changes(self, cursor: psycopg2.extensions.cursor) -> None:
        if self.chance.random() < 0.003:
            self._large(cursor)
        for _ in range(self.chance.choice((1, 2, 4, 4, 40))):
            if self.chance.random() < 0.05:
                cursor.execute("SAVEPOINT here")
                self._change(cursor)
                cursor.execute("ROLLBACK TO SAVEPOINT here" if self.chance.random() < 0.5 else "RELEASE here")
            self._change(cursor)

    def _large(self, cursor: psycopg2.extensions.cursor) -> None:
        rows = "SELECT %s + n, 'large', n, now(), 'b' FROM generate_series(1, %s) n"
        cursor.execute(f"INSERT INTO items (id, name, price, at, body) {rows}", (self._last, _LARGE))
        cursor.execute("UPDATE items SET price = 2 WHERE id BETWEEN %s AND %s", (self._last, self._last + _LARGE // 2))
        self._last += _LARGE

    def _change(self, cursor: psycopg2.extensions.cursor) -> None:
        kind = self.chance.random()
        some = self.chance.randint(self._first, self._last)
        if kind < 0.4:
            self._insert(cursor)
        elif kind < 0.54:
            cursor.execute("UPDATE items SET price = price + 1 WHERE id IN (%s, %s)", (some, some + _MOVED))
        elif kind < 0.6:
            self._move(cursor, some)
        elif kind < 0.65:
            cursor.execute("UPDATE items SET state = (enum_range(state))[1 + %s %% 2] WHERE id = %s", (some, some))
        elif kind < 0.72:
            cursor.execute("DELETE FROM parts WHERE item = %s AND number = 2", (some,))
        elif kind < 0.8:  # the key itself changes
            cursor.execute("UPDATE parts SET number = number + 10 WHERE item = %s AND number < 100", (some,))
        elif kind < 0.92:
            self._note(cursor, some)
        elif kind < 0.93:
            cursor.execute("SELECT pg_logical_emit_message(true, 'shop', 'a message of the shop')")
        else:
            self._journal(cursor)

    def _insert(self, cursor: psycopg2.extensions.cursor) -> None:
        self._last += 1
        body = "y" * _TOASTED if self.chance.random() < 0.2 else "short"
        price = self.chance.random()
        row = (self._last, f"item {self._last}", price, body)
        cursor.execute("INSERT INTO items (id, name, price, at, body) VALUES (%s, %s, %s, now(), %s)", row)
        cursor.execute("INSERT INTO parts SELECT %s, n, n FROM generate_series(1, 3) n", (self._last,))

    def _note(self, cursor: psycopg2.extensions.cursor, some: int) -> None:
        kind = self.chance.random()
        if kind < 0.6:
            self._last += 1
            note = None if self.chance.random() < 0.3 else "a note"
            cursor.execute("INSERT INTO notes VALUES (%s, %s)", (self._last, note))
        elif kind < 0.85:
            cursor.execute("UPDATE notes SET note = note || '+' WHERE id = %s", (some,))
        else:
            cursor.execute("DELETE FROM notes WHERE id = %s", (some,))

    def _move(self, cursor: psycopg2.extensions.cursor, some: int) -> None:
        """Changes a row's key, and back. The log has the large `body` in neither change."""
        prefilled = -1 - self._number - 10 * self.chance.randint(0, 30)  # only the snapshot has brought this row
        for key in (some, prefilled):
            cursor.execute(
                "UPDATE items SET id = CASE WHEN id = %s THEN %s ELSE %s END, price = 3 WHERE id IN (%s, %s)",
                (key, key + _MOVED, key, key, key + _MOVED),
            )

    def _journal(self, cursor: psycopg2.extensions.cursor) -> None:
        kind = self.chance.random()
        if kind < 0.8:
            cursor.execute("INSERT INTO journal VALUES (%s, 'did something')", (self._number,))
        elif kind < 0.99:
            line = "(SELECT ctid FROM journal WHERE who = %s LIMIT 1)"
            how = "UPDATE journal SET what = what || '!'" if kind < 0.95 else "DELETE FROM journal"
            cursor.execute(f"{how} WHERE ctid = {line}", (self._number,))
        else:
            cursor.execute("TRUNCATE journal")


class _Ddl(_Client):
    """Changes the schema while others write."""

    def __init__(self, dsn: str, seed: int | str, pause: float) -> None:
        super().__init__(dsn, f"{seed}/ddl")
        self._pause = pause
        self._number = 0

    def change(self) -> None:
        """One DDL, with a row in the same transaction."""
        time.sleep(self.chance.uniform(0.5, 1.5) * self._pause)
        self.once(self._change)

    def _change(self, cursor: psycopg2.extensions.cursor) -> None:
        self._number += 1
        new = f"more{self._number}"
        statement = self.chance.choice(
            (
                f"ALTER TABLE items ADD COLUMN {new} int",
                f"ALTER TABLE items ADD COLUMN {new} text NOT NULL DEFAULT 'made later'",
                f"ALTER TABLE parts ADD COLUMN {new} numeric(10,2) DEFAULT 1.5",
                f"ALTER TABLE notes ADD COLUMN {new} state",
                "ALTER TABLE parts ALTER COLUMN quantity TYPE bigint",  # rewrites the table, but logs nothing
                f"ALTER TYPE state ADD VALUE '{new}'",
                f"ALTER TABLE notes REPLICA IDENTITY {self.chance.choice(('DEFAULT', 'FULL'))}",
                "",
            )
        )
        if not statement:
            statement = self._drop(cursor)
        cursor.execute("INSERT INTO journal VALUES (-1, 'before the schema changes')")
        cursor.execute(statement)
        cursor.execute("INSERT INTO journal VALUES (-1, 'and after')")

    @staticmethod
    def _drop(cursor: psycopg2.extensions.cursor) -> str:
        """Drops a column that was added later, if there is one."""
        cursor.execute(
            "SELECT format('ALTER TABLE %s DROP COLUMN %I', attrelid::regclass, attname) FROM pg_attribute"
            " WHERE attname LIKE 'more%' AND NOT attisdropped LIMIT 1"
        )
        found = cursor.fetchone()
        return str(found[0]) if found else "SELECT"


def touch(dsn: str) -> None:
    """Updates every row, so that the newest record of each has the columns that its table has now."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        for statement in ("items SET at = at", "parts SET quantity = quantity", "notes SET note = note"):
            cursor.execute(f"UPDATE {statement}")
        cursor.execute("UPDATE journal SET what = what")
    connection.close()
