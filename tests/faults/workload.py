"""Changes of every kind on a few tables, from several connections at once; the seed settles what each of them does."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field

import psycopg2

TABLES = ("public.items", "public.parts", "public.notes")
SCHEMA = """
CREATE TABLE items (id bigint PRIMARY KEY, name text NOT NULL, price numeric(12,2), at timestamptz NOT NULL, body text);
ALTER TABLE items ALTER COLUMN body SET STORAGE EXTERNAL;  -- large values go to TOAST, and updates leave them out
CREATE TABLE parts (item bigint, number int, quantity int NOT NULL, PRIMARY KEY (item, number));
CREATE TABLE notes (id bigint PRIMARY KEY, note text);
ALTER TABLE notes REPLICA IDENTITY FULL;
CREATE PUBLICATION proof FOR TABLE items, parts, notes;
"""
_TOASTED = 4000


def prefill(dsn: str, rows: int) -> None:
    """Rows that only the snapshot brings."""
    connection = psycopg2.connect(dsn)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO items SELECT -n, 'old', n / 100.0, now(), repeat('x', 4000) FROM generate_series(1, %s) n",
            (rows,),
        )
        cursor.execute("INSERT INTO parts SELECT -n, 1, n FROM generate_series(1, %s) n", (rows,))
    connection.close()


@dataclass
class Workload:
    """Writers in threads; `finish` joins them and raises what one of them met."""

    dsn: str
    seed: int
    writers: int = 3
    pause: float = 0.01
    _stop: threading.Event = field(default_factory=threading.Event)
    _errors: list[psycopg2.Error] = field(default_factory=list)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        """Begins to write."""
        for number in range(self.writers):
            self._threads.append(threading.Thread(target=self._write, args=(number,), daemon=True))
            self._threads[-1].start()

    def finish(self) -> None:
        """Ends the writers and waits for them."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _write(self, number: int) -> None:
        chance = random.Random(f"{self.seed}/{number}")
        connection = psycopg2.connect(self.dsn)
        ids = [number * 1_000_000]
        try:
            while not self._stop.is_set():
                with connection.cursor() as cursor:
                    for _ in range(chance.choice((1, 2, 4, 4, 40))):
                        _change(cursor, chance, number, ids)
                if chance.random() < 0.1:
                    connection.rollback()
                else:
                    connection.commit()
                time.sleep(chance.random() * 2 * self.pause)
        except psycopg2.Error as error:
            self._errors.append(error)
        finally:
            connection.close()


def _change(cursor: psycopg2.extensions.cursor, chance: random.Random, number: int, ids: list[int]) -> None:
    """One change; `ids` holds the last id that this writer gave. Writers never wait for each other's rows."""
    kind = chance.random()
    some = chance.randint(number * 1_000_000, ids[0])
    if kind < 0.4:
        ids[0] += 1
        body = "y" * _TOASTED if chance.random() < 0.2 else "short"
        cursor.execute("INSERT INTO items VALUES (%s, %s, %s, now(), %s)", (ids[0], f"item {ids[0]}", kind, body))
        cursor.execute("INSERT INTO parts SELECT %s, n, n FROM generate_series(1, 3) n", (ids[0],))
    elif kind < 0.65:
        cursor.execute("UPDATE items SET price = price + 1 WHERE id = %s", (some,))
    elif kind < 0.72:
        cursor.execute("DELETE FROM parts WHERE item = %s AND number = 2", (some,))
    elif kind < 0.8:  # the key itself changes
        cursor.execute("UPDATE parts SET number = number + 10 WHERE item = %s AND number < 100", (some,))
    elif kind < 0.9:
        ids[0] += 1
        cursor.execute("INSERT INTO notes VALUES (%s, %s)", (ids[0], None if chance.random() < 0.3 else "a note"))
    elif kind < 0.96:
        cursor.execute("UPDATE notes SET note = note || '+' WHERE id = %s", (some,))
    elif kind < 0.99:
        cursor.execute("SELECT pg_logical_emit_message(true, 'shop', 'a message of the shop')")
    else:
        cursor.execute("DELETE FROM notes WHERE id = %s", (some,))
