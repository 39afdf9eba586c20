"""Writes batches of records to the staged tables, and marks the documents that they touch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import psycopg2
import structlog
from psycopg2 import sql
from psycopg2.extras import execute_values

from schemas.model.change import Stamp
from schemas.model.errors import DataError
from schemas.model.lsn import LSN
from schemas.registry.wire import FRAME_SIZE
from sink.database import Cursor, names_of
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.intake.decoder import Decoder
from sink.ledger import blocked, marks, moves
from sink.staging import late, parked, row_io, touches
from sink.staging.assembly import Row, stamp_of
from sink.staging.batch import Batch, Decoders, Group, KeyChange, make_batch, reason_of
from sink.staging.gaps import TableGap, open_gap
from sink.staging.row_io import TempTable
from sink.staging.schema import Catalogue, StagedTable

log = structlog.get_logger()

Key = TypeVar("Key", str, bytes)
_FEW: Final = 20  # at most so many parked records of a table and a commit are looked at one by one


class _NoTableError(DataError):
    """The staged table cannot take a group of records."""

    def __init__(self, group: Group, error: DataError) -> None:
        super().__init__(error.message, error.hint)
        self.group = group


class CopyWriter:
    """Writes the staged tables of one shop, and marks its documents. Runs in the stager's transaction."""

    def __init__(
        self,
        shop: str,
        profile: Profile,
        catalogue: Catalogue,
        decoders: Decoders,
        columns: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`columns`: the columns of a table without records yet, from the profile or the registry."""
        self._shop = shop
        self._profile = profile
        self._catalogue = catalogue
        self._decoders = decoders
        self._columns = columns
        self._parked: list[tuple[str, int, int]] = []
        self._parked_topics: set[str] = set()
        self._references = frozenset().union(*(rule.references for rule in profile.documents.values()))
        self._temps = row_io.TempTables()
        self._touched = False  # whether pg_temp.touched may have rows
        self._arrived: set[str] = set()
        self._asked: set[str] = set()

    def prepare(self, cursor: Cursor) -> None:
        """Makes the shop's schema and views, and the session's temporary table. Once per connection."""
        self.forget()
        self._asked |= self._references  # what the session before this one still had to ask is not known
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._shop)))
        for table in self._profile.tables:
            self._catalogue.declare(cursor, table, self._columns(table))
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS touched (type text NOT NULL, key text NOT NULL, of text)"
            " ON COMMIT DELETE ROWS"
        )

    def forget(self) -> None:
        """Forgets what was learnt in a transaction that was rolled back."""
        self._catalogue.forget()
        self._temps.forget()

    def follow(self, cursor: Cursor, stamp: Stamp) -> dict[str, Stamp]:
        """Table → the position from which it is followed. A table that joins now, with the copy at `stamp`, gets a gap,
        because its earlier rows are in no commit still to come. So does one that the profile left out for a while."""
        self._parked_topics = parked.topics(cursor)
        cursor.execute("DELETE FROM followed WHERE table_name <> ALL (%s)", (list(self._profile.tables),))
        cursor.execute("SELECT table_name, generation, lsn FROM followed")
        known = {row[0]: Stamp(row[1], LSN(int(row[2])), 0) for row in cursor.fetchall()}
        new = [table for table in self._profile.tables if table not in known]
        for table in new:
            cursor.execute(
                "INSERT INTO followed (table_name, generation, lsn) VALUES (%s, %s, %s)",
                (table, *map(int, stamp[:2])),
            )
            if known and stamp.generation:
                detail = "the profile now reads it; its earlier rows are not staged"
                open_gap(cursor, TableGap(table, "joined", stamp, detail))
                log.warning("a table was added", table=table, reason=detail, next=f"capture signal snapshot {table}")
        return known | dict.fromkeys(new, stamp)

    def decode(self, rows: Sequence[Row], tables: Mapping[str, str]) -> Batch:
        """Makes a batch of records in the order of their partitions; any thread may call it. `tables`: topic → table.
        UnavailableError if the registry is away."""
        return make_batch(rows, tables, self._decoders)

    def write(
        self, cursor: Cursor, rows: Sequence[Row], batch: Batch, tables: Mapping[str, str]
    ) -> Collection[tuple[str, int, int]]:
        """Writes records with their batch. Records that cannot be staged are parked, and hold the documents of their
        commits. Returns the places of parked records."""
        bad = self._write(cursor, rows, batch, tables)
        moves.note(cursor, self._moved(batch))  # also of a parked record: its row may come again
        if bad:
            self._park(cursor, bad, rows, tables)
        return {row[:3] for row, _ in bad}

    def _write_some(self, cursor: Cursor, rows: Sequence[Row], tables: Mapping[str, str]) -> list[tuple[Row, str]]:
        return self._write(cursor, rows, self.decode(rows, tables), tables)

    def _write(
        self, cursor: Cursor, rows: Sequence[Row], batch: Batch, tables: Mapping[str, str]
    ) -> list[tuple[Row, str]]:
        """Writes the records that can be staged, and returns the others with reasons. Those are found by bisection."""
        if batch.unreadable:  # the records before them are the latest of their keys now
            bad = {one.row[:3] for one in batch.unreadable}
            rest = [row for row in rows if row[:3] not in bad]
            return [(one.row, one.reason) for one in batch.unreadable] + self._write_some(cursor, rest, tables)
        cursor.execute("SAVEPOINT rows")
        try:
            self._batch(cursor, batch)
        except _NoTableError as error:  # all records of the group fail; bisection would try each one
            cursor.execute("ROLLBACK TO SAVEPOINT rows")
            self.forget()
            bad = {row[:3] for row in error.group.rows}
            rest = [row for row in rows if row[:3] not in bad]
            return [(row, reason_of(error)) for row in rows if row[:3] in bad] + self._write_some(cursor, rest, tables)
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            raise
        except (psycopg2.Error, DataError) as error:
            cursor.execute("ROLLBACK TO SAVEPOINT rows")
            self.forget()
            if len(rows) == 1:
                return [(rows[0], _reason(error))]
            middle = len(rows) // 2
            return [one for half in (rows[:middle], rows[middle:]) for one in self._write_some(cursor, half, tables)]
        cursor.execute("RELEASE SAVEPOINT rows")
        return []

    def _batch(self, cursor: Cursor, batch: Batch) -> None:
        for groups in batch.rounds:
            loaded = self._load(cursor, groups)
            relations = self._relations(loaded)
            self._touched = self._touched or bool(relations)
            selects = touches.selects(self._profile, relations)
            with names_of(cursor, self._shop, unseen="show"):
                touches.collect(cursor, self._profile, relations, touches.expressions(self._profile, relations))
                touches.collect(cursor, self._profile, relations, selects)
                for group, table, temp in loaded:
                    self._put(cursor, batch, group, table, temp)
                touches.collect(cursor, self._profile, relations, selects)
        for truncate in batch.truncates:
            self._truncate(cursor, truncate.table, Stamp(truncate.stamp[0], LSN(truncate.stamp[1]), truncate.stamp[2]))

    def _load(self, cursor: Cursor, groups: Sequence[Group]) -> list[tuple[Group, StagedTable, TempTable]]:
        """Puts each group's rows into a temporary table, and makes the staged tables fit. Deletes of tables that are
        not staged are left out."""
        for group in groups:
            if isinstance(group.decoder, Decoder):
                # For one schema any record's stamp will do: schemas do not overlap in the log.
                generation, lsn, ordinal = max(stamp_of(row[5]) for row in (group.rows[0], group.rows[-1]))
                key = self._decoders.key((group.rows[0][3] or b"")[1:FRAME_SIZE])
                at = Stamp(generation, LSN(lsn), ordinal)
                try:
                    self._catalogue.fit(cursor, group.id.table, group.decoder.columns, list(key.columns), at)
                except DataError as error:
                    raise _NoTableError(group, error) from None
        tables = self._catalogue.loaded(cursor)
        staged = [(group, tables[group.id.table]) for group in groups if group.id.table in tables]
        snapshots = list(dict.fromkeys(group.id.snapshot for group, _ in staged))
        uses = [f"{_use(group)} {snapshots.index(group.id.snapshot)}" for group, _ in staged]
        wanted = [(table, group.decoder.columns, use) for (group, table), use in zip(staged, uses, strict=True)]
        temps = self._temps.take(cursor, wanted)
        for (group, _), temp in zip(staged, temps, strict=True):
            self._temps.copy_in(cursor, temp, b"".join(group.lines))
        return [(group, table, temp) for (group, table), temp in zip(staged, temps, strict=True)]

    def _relations(self, loaded: Iterable[tuple[Group, StagedTable, TempTable]]) -> dict[str, sql.Composable]:
        """Table → its changed rows, before and after."""
        found: dict[str, sql.Composable] = {}
        for group, table, temp in loaded:
            fits = [name for name, kind in temp.types.items() if table.takes(name, kind)]
            sent = [name for name in fits if name not in group.id.unchanged]
            one = touches.before_and_after(table, temp.identifier, sent, live=not group.id.deletes)
            before = found.get(table.name)
            found[table.name] = one if before is None else sql.SQL("{} UNION ALL {}").format(before, one)
        return found

    def _put(self, cursor: Cursor, batch: Batch, group: Group, table: StagedTable, temp: TempTable) -> None:
        if group.id.deletes:
            row_io.delete(cursor, table, temp)
            self._take_over(cursor, batch.went, group, table)
            return
        if table.name in self._references and row_io.brings_new(cursor, table, temp):
            self._arrived.add(table.name)
        sent = [name for name in temp.types if name not in group.id.unchanged]
        row_io.upsert(cursor, table, temp, sent, group.id.snapshot, distinct=self._has_twins(group))
        if group.id.unchanged:
            self._take_over(cursor, batch.came, group, table)

    def _has_twins(self, group: Group) -> bool:
        """Whether equal keys may have different bytes."""
        return not self._decoders.key((group.rows[0][3] or b"")[1:FRAME_SIZE]).canonical

    def _take_over(
        self, cursor: Cursor, changes: Mapping[tuple[str, bytes], KeyChange], group: Group, table: StagedTable
    ) -> None:
        if changes:
            row_io.take_over(cursor, table, [changes[at] for row in group.rows if (at := (row[0], row[5])) in changes])

    def _moved(self, batch: Batch) -> dict[DocumentRef, str]:
        """Documents whose key was changed → their old key. Only for documents whose key is the primary key of their
        table."""
        found: dict[DocumentRef, str] = {}
        for one in batch.came.values():  # a key's creates are in one partition, so the last one counts
            for rule in self._profile.documents.values():
                if rule.root == one.table and one.new.keys() == {rule.key} and rule.is_one_row:
                    found[DocumentRef(rule.name, one.new[rule.key])] = one.old[rule.key]
        return found

    def _truncate(self, cursor: Cursor, name: str, stamp: Stamp) -> None:
        table = self._catalogue.loaded(cursor).get(name)
        if table is None:
            return
        self.touch_all(cursor, [name])
        row_io.truncate(cursor, self._catalogue, name, stamp)

    def touch_all(self, cursor: Cursor, names: Iterable[str]) -> None:
        """Touches all documents that have a staged row of these tables."""
        tables = self._catalogue.loaded(cursor)
        relations = {name: touches.all_rows(tables[name]) for name in names if name in tables}
        self._touched = self._touched or bool(relations)
        with names_of(cursor, self._shop, unseen="show"):
            touches.collect(cursor, self._profile, relations, touches.expressions(self._profile, relations))
            touches.collect(cursor, self._profile, relations, touches.selects(self._profile, relations))

    def mark(self, cursor: Cursor) -> int:
        """Marks the touched documents in the ledger, and those that lacked a row that has come. Returns how many.

        Call it once, at the end of the transaction.
        """
        self._wake(cursor)
        touched, self._touched = self._touched, False
        if not touched:
            return 0
        tables = self._catalogue.loaded(cursor)
        if self._profile.selects_orders:
            with names_of(cursor, self._shop, unseen="show"):
                touches.find_orders(cursor, self._profile, tables)
        return marks.mark(cursor, touches.units(self._profile, tables))

    def _wake(self, cursor: Cursor) -> None:
        """Asks for the tables of the last transaction again: a look that began while it committed may have read the old
        rows."""
        arrived, self._arrived = self._arrived, set()
        if arrived or self._asked:
            self._touch_refs(cursor, late.woken(cursor, self._shop, self._profile, arrived | self._asked))
        self._asked = arrived

    def _park(
        self, cursor: Cursor, bad: Sequence[tuple[Row, str]], rows: Sequence[Row], tables: Mapping[str, str]
    ) -> None:
        """Parks records, and holds the documents that their commits touch. If nothing tells a record's documents, as
        for a new row, all documents that read its table are held."""
        places = {row[:3] for row, _ in bad}
        beside = _by(parked.commit_of, (row for row in rows if row[:3] not in places))
        held: set[str] = set()
        for commit, of_commit in _by(parked.commit_of, (row for row, _ in bad)).items():
            # Written as a delete, a record shows what its row touched before, if its key can be read.
            deletes = [(*row[:4], None, *row[5:7], ()) for row in of_commit]
            refs = self._touched_by(cursor, [*beside.get(commit, ()), *deletes], tables)
            topic, partition, offset = of_commit[0][:3]
            reason = f"a record of its shop commit cannot be read ({topic} [{partition}] offset {offset})"
            blocked.block(cursor, refs, parked.cause(commit), reason)
            self._touch_refs(cursor, refs)
            for table, of_table in _by(lambda row: tables[row[0]], deletes).items():
                if table not in held and self._may_touch_any(cursor, of_table, tables):
                    held.add(table)
                    log.warning("records that cannot be staged may be part of any document that reads their table",
                                table=table, next="sink status")  # fmt: skip
        self._keep_parked(cursor, bad, {topic: table for topic, table in tables.items() if table in held})

    def _may_touch_any(self, cursor: Cursor, deletes: Sequence[Row], tables: Mapping[str, str]) -> bool:
        """Whether one of these records, taken as a delete, touches no staged row: then only its content could tell its
        documents. If there are many, they are not tried one by one and count as such."""
        return len(deletes) > _FEW or any(not self._touched_by(cursor, [row], tables) for row in deletes)

    def park_foreign(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Parks records that capture did not write. They are of no commit, so they hold nothing."""
        reason = "its headers are not those of capture"
        self._keep_parked(cursor, [(row, reason) for row in rows], {})

    def _keep_parked(self, cursor: Cursor, bad: Sequence[tuple[Row, str]], holds: Mapping[str, str]) -> None:
        for row, reason in bad:
            log.warning("record parked", topic=row[0], partition=row[1], offset=row[2], reason=reason)
        parked.park(cursor, bad, holds)
        self._parked += [row[:3] for row, _ in bad]
        self._parked_topics |= {row[0] for row, _ in bad}

    def _touched_by(self, cursor: Cursor, rows: Sequence[Row], tables: Mapping[str, str]) -> set[DocumentRef]:
        """What the records would touch. Everything is rolled back."""
        cursor.execute("SAVEPOINT trial")
        cursor.execute("DELETE FROM pg_temp.touched")
        self._write_some(cursor, rows, tables)
        cursor.execute("SELECT DISTINCT type, key FROM pg_temp.touched")
        found = {DocumentRef(*row) for row in cursor.fetchall()}
        cursor.execute("ROLLBACK TO SAVEPOINT trial")
        self.forget()
        return found

    def _touch_refs(self, cursor: Cursor, refs: Iterable[DocumentRef]) -> None:
        values = [tuple(ref) for ref in refs]
        if values:
            self._touched = True
            execute_values(cursor, "INSERT INTO pg_temp.touched (type, key) VALUES %s", values)

    def take_parked(self) -> list[tuple[str, int, int]]:
        """The places of records parked since the last call."""
        found, self._parked = self._parked, []
        return found

    def unpark(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Ends the parking of records that are staged now, and touches the documents that they held."""
        if rows:
            self._free(cursor, parked.unpark(cursor, rows))

    def replace_parked(self, cursor: Cursor, written: Sequence[Row]) -> Sequence[tuple[str, int, int]]:
        """Ends the parking of older records that these rows supersede, and touches the documents that they held.
        Returns their places."""
        rows = [row for row in written if row[0] in self._parked_topics] if self._parked_topics else ()
        return self._done_with(cursor, parked.replace(cursor, rows), "later records have their rows") if rows else ()

    def read_again(self, cursor: Cursor, topics: Collection[str], at: Stamp) -> Sequence[tuple[str, int, int]]:
        """Ends the parking of older records of these topics, whose tables were read again as a whole, and touches the
        documents that they held. Returns their places."""
        return self._done_with(cursor, parked.take_out(cursor, topics, at), "their tables were read again")

    def _done_with(self, cursor: Cursor, ended: parked.Ended, reason: str) -> Sequence[tuple[str, int, int]]:
        places = frozenset(ended.places)
        self._parked = [place for place in self._parked if place not in places]
        self._free(cursor, ended)
        if places:
            log.info("parked records no longer count", records=len(places), reason=reason)
        return ended.places

    def _free(self, cursor: Cursor, ended: parked.Ended) -> None:
        self._touch_refs(cursor, blocked.unblock(cursor, ended.causes))
        if ended.tables:
            self.touch_readers(cursor, ended.tables)

    def touch_readers(self, cursor: Cursor, names: Iterable[str]) -> None:
        """Touches the held documents that read these tables, because a gap has ended."""
        wanted = set(names)
        kinds = [rule.name for rule in self._profile.documents.values() if rule.reads & wanted]
        self._touched = True
        cursor.execute(
            "INSERT INTO pg_temp.touched (type, key) SELECT type, key FROM document"
            " WHERE type = ANY(%s) AND state IN ('held', 'settling')",
            (kinds,),
        )

    def vanish(self, cursor: Cursor, name: str, stamp: Stamp, snapshot: str) -> None:
        """Deletes rows that a snapshot of the whole table did not bring, and touches their documents."""
        table = self._catalogue.loaded(cursor).get(name)
        if table is not None and row_io.vanish(cursor, table, stamp, snapshot):
            self.touch_all(cursor, [name])

    def brought(self, cursor: Cursor, name: str, snapshot: str) -> int:
        """How many rows of a table a snapshot brought, even if newer records have come since."""
        table = self._catalogue.loaded(cursor).get(name)
        if table is None:
            return 0
        cursor.execute(sql.SQL('SELECT count(*) FROM {} WHERE "#snapshot" = %s').format(table.identifier), (snapshot,))
        return int((cursor.fetchone() or (0,))[0])


def _use(group: Group) -> str:
    """Distinguishes groups of a table that are loaded at once. Rows of two schemas with the same columns must not share
    a temporary table."""
    return f"{'deletes' if group.id.deletes else 'rows'} {group.id.schema_id.hex()} {sorted(group.id.unchanged)}"


def _by(what: Callable[[Row], Key], rows: Iterable[Row]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault(what(row), []).append(row)
    return found


def _reason(error: Exception) -> str:
    """Why a record cannot be staged, without its values."""
    if isinstance(error, DataError):
        return reason_of(error)
    diag = getattr(error, "diag", None)
    where = ", ".join(filter(None, (getattr(diag, "table_name", None), getattr(diag, "column_name", None))))
    return f"the staged table refuses it: {type(error).__name__}" + (f" ({where})" if where else "")
