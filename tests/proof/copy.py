"""Checks again and again, while everything else happens, that the sink's copy is the shop as of one commit.

The copy has a position (table `copy` of its ledger). Position and rows are read in one snapshot and compared with the
shop's history at that position. Only the names of those tables are shared with the sink.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Final, NamedTuple

import psycopg2
from psycopg2 import errors

from tests.proof.history import History, Table, quoted
from tests.proof.text import Row, plain, rows_of

STEADY: Final = "steady"
_UNSEEN: Final = "OT001"
"""SQLSTATE of a view with a value that never came."""
_KEPT: Final = 200  # findings
_OF_A_TABLE: Final = 5  # at one place


class Claim(NamedTuple):
    """The place that the copy claims to stand at. With an ordinal above 0, it includes what is committed at `lsn`."""

    generation: int
    lsn: int
    ordinal: int

    def __str__(self) -> str:
        return f"{self.generation}:{self.lsn >> 32:X}/{self.lsn & 0xFFFFFFFF:X}:{self.ordinal}"


class Copy(NamedTuple):
    """Claim and rows at one moment, without tables that have a gap."""

    claim: Claim
    tables: Mapping[str, list[Row]]


class Torn(NamedTuple):
    """A row that is not the shop's at the claimed place, without its values."""

    claim: Claim
    table: str
    key: str
    what: str

    def __str__(self) -> str:
        return f"torn: {self.table} {self.key} {self.what}; the copy says that it stands at {self.claim}"


class CopyChecker:
    """Compares the copy of these tables (`public.orders`) with the history. `schema`: of the copy's views. `ledger`:
    the schema of its claim and of the staged tables. `checked` counts the places compared, `torn` those where the copy
    was not the shop."""

    def __init__(self, history: History, middle: str, tables: Sequence[str], schema: str, ledger: str) -> None:
        self.checked = self.torn = 0
        self.findings: list[Torn] = []
        self.last: Claim | None = None
        self._history = history
        self._middle = middle
        self._tables = tables
        self._schema = schema
        self._ledger = ledger
        self._gate = False
        self._last_torn: Claim | None = None

    def check(self) -> Claim | None:
        """Looks once. Returns the place that was compared, None if the copy claims none."""
        copy = self._read()
        if copy is None or (self.last is None and copy.claim.lsn < self._history.at):  # before the history begins
            return None
        if self.last is not None and copy.claim < self.last:
            self._found([Torn(copy.claim, "", "", f"goes back: it stood at {self.last}")], copy.claim)
            return None
        self._history.advance(copy.claim.lsn, included=copy.claim.ordinal > 0)
        self.checked += copy.claim != self.last
        self.last = copy.claim
        self._found(list(self._compare(copy)), copy.claim)
        return copy.claim

    def reach(self, lsn: int, seconds: float) -> bool:
        """Looks until the copy stands at `lsn` or later. False if it does not get there in time."""
        deadline = time.monotonic() + seconds
        while (claim := self.check()) is None or claim.lsn < lsn:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def _found(self, torn: list[Torn], claim: Claim) -> None:
        if torn and claim != self._last_torn:
            self.torn += 1
            self._last_torn = claim
        self.findings += torn[: _KEPT - len(self.findings)]

    def _compare(self, copy: Copy) -> Iterator[Torn]:
        for name, rows in copy.tables.items():
            table = self._history.tables.get(name)
            if table is not None:
                found = (Torn(copy.claim, name, key, what) for key, what in differences(table, rows))
                yield from itertools.islice(found, _OF_A_TABLE)

    def _read(self) -> Copy | None:
        with closing(psycopg2.connect(self._middle, options="-c timezone=UTC -c datestyle=ISO")) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            with connection.cursor() as cursor, suppress(errors.UndefinedTable, errors.InvalidSchemaName):
                return self._read_at_once(cursor)
        return None

    def _read_at_once(self, cursor: Any) -> Copy | None:
        if not self._gate:
            self._gate = _exists(cursor, f"{self._ledger}.schema_gate")
            cursor.connection.rollback()
        if self._gate:  # takes no snapshot: the first one must not be older than a rewrite of a table
            cursor.execute(f"LOCK TABLE {self._ledger}.schema_gate IN ACCESS SHARE MODE")
        cursor.execute(f"SELECT generation, lsn, ordinal, state FROM {self._ledger}.copy")
        row = cursor.fetchone()
        if row is None or row[3] != STEADY:
            return None
        gaps = _gaps(cursor, f"{self._ledger}.table_gap")
        tables = {name: self._rows(cursor, name) for name in self._tables if name not in gaps}
        return Copy(Claim(int(row[0]), int(row[1]), int(row[2])), tables)

    def _rows(self, cursor: Any, table: str) -> list[Row]:
        """The rows of a table; none while there is no view."""
        view = quoted(f"{self._schema}.{table.rpartition('.')[2]}")
        if not _exists(cursor, view):
            return []
        cursor.execute("SAVEPOINT view")
        try:
            return rows_of(cursor, f"SELECT * FROM {view}")
        except psycopg2.Error as error:
            if error.pgcode != _UNSEEN:
                raise
        cursor.execute("ROLLBACK TO SAVEPOINT view")
        return [_seen(row) for row in rows_of(cursor, f'SELECT * FROM {self._ledger}."{table}" WHERE NOT "#deleted"')]


def differences(table: Table, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
    """The key of each differing row, and what is wrong. Only columns that both sides have are compared."""
    found: dict[Any, Row] = {}
    for row in rows:
        key = table.key_of(row)
        if key in found:
            yield str(key), "is there twice"
        found[key] = row
    for key in table.rows.keys() - found.keys():
        yield str(key), "is missing"
    for key, row in found.items():
        shop = table.rows.get(key)
        if shop is None:
            yield str(key), "is not in the shop"
        elif shop != row and (columns := _unequal(table, shop, row)):
            yield str(key), f"differs in {', '.join(columns)}"


def _unequal(table: Table, shop: Row, row: Row) -> list[str]:
    both = [name for name in table.columns if name in shop and name in row]
    return [name for name in both if plain(shop[name], table.columns[name]) != plain(row[name], table.columns[name])]


def _seen(row: Row) -> Row:
    """A staged table's row without our own columns, and without values that never came."""
    unseen = set((row.get("#unseen") or "").strip("{}").split(","))
    return {name: value for name, value in row.items() if name[0] != "#" and name not in unseen}


def _gaps(cursor: Any, table: str) -> set[str]:
    if not _exists(cursor, table):
        return set()
    cursor.execute(f"SELECT table_name FROM {table}")
    return {str(name) for (name,) in cursor.fetchall()}


def _exists(cursor: Any, name: str) -> bool:
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (name,))
    return bool(cursor.fetchone()[0])


class Watch:
    """A thread that looks again and again. It rests twice as long as a look takes, so that others can work."""

    def __init__(self, checker: CopyChecker, pause: float = 0.2) -> None:
        self.checker = checker
        self._pause = pause
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._look, name="copy-checker", daemon=True)

    def start(self) -> None:
        """Starts looking."""
        self._thread.start()

    def finish(self) -> None:
        """Stops looking. Raises what went wrong meanwhile."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._error is not None:
            raise self._error

    def _look(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self.checker.check()
                self._stop.wait(max(self._pause, 2 * (time.monotonic() - began)))
        except Exception as error:  # noqa: BLE001  raised again by finish()
            self._error = error
