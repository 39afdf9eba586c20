"""Writes a batch of records to the staged tables, and remembers which documents it touches until they are marked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

import psycopg2
import structlog
from psycopg2 import sql
from psycopg2.extras import execute_values

from schemas.change import Stamp
from schemas.errors import DataError
from schemas.lsn import LSN
from schemas.wire import FRAME_SIZE
from sink.database import Cursor, names_of
from sink.documents.profile import Profile
from sink.documents.refs import DocumentRef
from sink.intake.copy_text import unescaped
from sink.intake.decoder import Decoder
from sink.ledger import blocked, marks
from sink.staging import late, parked, row_io, touches
from sink.staging.assembly import Row, stamp_of
from sink.staging.batch import Batch, Decoders, Group, make_batch
from sink.staging.gaps import TableGap, open_gap
from sink.staging.row_io import TempTable
from sink.staging.schema import Catalogue, StagedTable

log = structlog.get_logger()

_TOUCHED: Final = sql.SQL("pg_temp.touched")


class _NoTableError(DataError):
    """The staged table cannot be as a group of records needs it."""

    def __init__(self, group: Group, error: DataError) -> None:
        super().__init__(error.message, error.hint)
        self.group = group


class CopyWriter:
    """The staged tables of one shop, and the marks on its documents. All of it runs in the stager's transaction."""

    def __init__(
        self,
        shop: str,
        profile: Profile,
        catalogue: Catalogue,
        decoders: Decoders,
        columns: Callable[[str], Mapping[str, str]],
    ) -> None:
        """`columns` gives those of a table of which no record came yet, as the profile or the registry has them."""
        self._shop = shop
        self._profile = profile
        self._catalogue = catalogue
        self._decoders = decoders
        self._columns = columns
        self._parked: list[tuple[str, int, int]] = []
        self._references = frozenset().union(*(rule.references for rule in profile.documents.values()))
        self._temps = row_io.TempTables()
        self._touched = False  # whether there may be touched documents
        self._arrived: set[str] = set()
        self._asked: set[str] = set()

    def prepare(self, cursor: Cursor) -> None:
        """Makes the shop's schema and views, and what a session needs. Once per connection."""
        self.forget()
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(self._shop)))
        for table in self._profile.tables:
            self._catalogue.declare(cursor, table, self._columns(table))
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS touched (type text NOT NULL, key text NOT NULL) ON COMMIT DELETE ROWS"
        )

    def forget(self) -> None:
        """What was learnt in a transaction that was rolled back is not so."""
        self._catalogue.forget()
        self._temps.forget()

    def follow(self, cursor: Cursor, stamp: Stamp) -> dict[str, Stamp]:
        """Since where in the log each table of the profile is followed. One that joins now, with the copy at `stamp`,
        has a gap: what was before is in no commit that is still to come. So has one that was left out for a while."""
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
                detail = "the profile reads it since now; its rows of before are not staged"
                open_gap(cursor, TableGap(table, "joined", stamp, detail))
                log.warning("a table joins", table=table, reason=detail, next=f"capture signal snapshot {table}")
        return known | dict.fromkeys(new, stamp)

    def decode(self, rows: Sequence[Row], tables: Mapping[str, str]) -> Batch:
        """The batch of records in the order of their partitions; any thread may. `tables` gives the table of each
        topic. UnavailableError when the registry is away."""
        return make_batch(rows, tables, self._decoders)

    def write(
        self, cursor: Cursor, rows: Sequence[Row], batch: Batch, tables: Mapping[str, str]
    ) -> Collection[tuple[str, int, int]]:
        """Writes records with their batch. What cannot be staged is parked by name, and holds what its commit touches;
        the others go in.

        The places of what was parked.
        """
        bad = self._write(cursor, rows, batch, tables)
        if bad:
            self._park(cursor, bad, rows, tables)
        return {row[:3] for row, _ in bad}

    def _write_some(self, cursor: Cursor, rows: Sequence[Row], tables: Mapping[str, str]) -> list[tuple[Row, str]]:
        return self._write(cursor, rows, self.decode(rows, tables), tables)

    def _write(
        self, cursor: Cursor, rows: Sequence[Row], batch: Batch, tables: Mapping[str, str]
    ) -> list[tuple[Row, str]]:
        """The records that cannot be staged, found by halving, each with the reason; all others are written."""
        if batch.unreadable:  # what was before them is the latest of its key now
            bad = {one.row[:3] for one in batch.unreadable}
            rest = [row for row in rows if row[:3] not in bad]
            return [(one.row, one.reason) for one in batch.unreadable] + self._write_some(cursor, rest, tables)
        cursor.execute("SAVEPOINT rows")
        try:
            self._batch(cursor, batch)
        except _NoTableError as error:  # of all its records; to halve them would try as often as there are records
            cursor.execute("ROLLBACK TO SAVEPOINT rows")
            self.forget()
            bad = {row[:3] for row in error.group.rows}
            rest = [row for row in rows if row[:3] not in bad]
            reason = f"{error.message}; next: {error.hint}"
            return [(row, reason) for row in rows if row[:3] in bad] + self._write_some(cursor, rest, tables)
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
        """Each group's rows in a temporary table, with the staged table that takes them, as it is after all were fit.

        Deletes of a table of which nothing is staged are left out.
        """
        for group in groups:
            if isinstance(group.decoder, Decoder):
                # Of one schema, any record's stamp tells it from those of a schema before or after it.
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
        """By table its changed rows, before and after."""
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
            return
        if table.name in self._references and row_io.brings_new(cursor, table, temp):
            self._arrived.add(table.name)
        sent = [name for name in temp.types if name not in group.id.unchanged]
        row_io.upsert(cursor, table, temp, sent, group.id.snapshot, distinct=self._has_twins(group))
        if group.id.moved:
            for row in group.rows:
                self._take_over(cursor, batch, table, row)

    def _has_twins(self, group: Group) -> bool:
        """Whether equal keys may differ as bytes."""
        return not self._decoders.key((group.rows[0][3] or b"")[1:FRAME_SIZE]).canonical

    def _take_over(self, cursor: Cursor, batch: Batch, table: StagedTable, row: Row) -> None:
        old, new = batch.old_keys.get((row[0], row[5])), row[3]
        if old is None or new is None:
            return
        generation, lsn, ordinal = stamp_of(row[5])
        row_io.take_over(cursor, table, self._key(old), self._key(new), Stamp(generation, LSN(lsn), ordinal))

    def _key(self, key: bytes) -> dict[str, str]:
        """A key's columns as PostgreSQL's text."""
        decoder = self._decoders.key(key[1:FRAME_SIZE])
        cells = decoder.line(key, FRAME_SIZE).split(b"\t")
        return {name: unescaped(cell).decode() for name, cell in zip(decoder.columns, cells, strict=True)}

    def _truncate(self, cursor: Cursor, name: str, stamp: Stamp) -> None:
        table = self._catalogue.loaded(cursor).get(name)
        if table is None:
            return
        self.touch_all(cursor, [name])
        row_io.truncate(cursor, self._catalogue, name, stamp)

    def touch_all(self, cursor: Cursor, names: Iterable[str]) -> None:
        """Touches every document of which any staged row of these tables is a part."""
        tables = self._catalogue.loaded(cursor)
        relations = {name: touches.all_rows(tables[name]) for name in names if name in tables}
        self._touched = self._touched or bool(relations)
        with names_of(cursor, self._shop, unseen="show"):
            touches.collect(cursor, self._profile, relations, touches.expressions(self._profile, relations))
            touches.collect(cursor, self._profile, relations, touches.selects(self._profile, relations))

    def mark(self, cursor: Cursor) -> int:
        """Marks the touched documents in the ledger; how many. With them those that lacked a row that came now.

        Once in a transaction, when all is written: they are forgotten with its commit.
        """
        self._wake(cursor)
        touched, self._touched = self._touched, False
        return marks.mark(cursor, self._units(cursor)) if touched else 0

    def _wake(self, cursor: Cursor) -> None:
        """A look that began while the last transaction committed may have read what was before: asked once more."""
        arrived, self._arrived = self._arrived, set()
        if arrived or self._asked:
            self._touch_refs(cursor, late.woken(cursor, self._shop, self._profile, arrived | self._asked))
        self._asked = arrived

    def _units(self, cursor: Cursor) -> sql.Composable:
        """A SELECT of the touched documents, each with its unit: its shop order, else the document itself."""
        orders = self._profile.of_model("SalesOrder")
        tables = self._catalogue.loaded(cursor)
        parts = []
        for rule in self._profile.documents.values():
            root = tables.get(rule.root)
            joined = bool(rule.order and rule.order != rule.key and orders and root)
            name = orders[0].name if rule.order and orders else rule.name
            unit = sql.SQL("concat({}, ':', {})").format(
                sql.Literal(name),
                sql.SQL("coalesce(r.{}::text, t.key)").format(sql.Identifier(rule.order or ""))
                if joined
                else sql.SQL("t.key"),
            )
            part = sql.SQL(
                "SELECT {0} AS type, t.key, {1} AS unit"
                " FROM (SELECT DISTINCT key FROM {2} WHERE type = {0} OFFSET 0) AS t"
            ).format(sql.Literal(rule.name), unit, _TOUCHED)
            if joined and root is not None:
                part += sql.SQL(" LEFT JOIN {} AS r ON r.{} = t.key::{}").format(
                    root.identifier, sql.Identifier(rule.key), sql.SQL(root.columns[rule.key].type)
                )
            parts.append(part)
        return sql.SQL(" UNION ALL ").join(parts)

    def _park(
        self, cursor: Cursor, bad: Sequence[tuple[Row, str]], rows: Sequence[Row], tables: Mapping[str, str]
    ) -> None:
        """Keeps records that cannot be staged, and holds the documents that their commits touch."""
        for row, reason in bad:
            log.warning("record parked", topic=row[0], partition=row[1], offset=row[2], reason=reason)
        parked.park(cursor, bad)
        self._parked += [row[:3] for row, _ in bad]
        places = {row[:3] for row, _ in bad}
        beside = _by_commit(row for row in rows if row[:3] not in places)
        for commit, of_commit in _by_commit(row for row, _ in bad).items():
            # As a delete a row itself shows what it touched before, if its key can be read.
            deletes = [(*row[:4], None, *row[5:7], ()) for row in of_commit]
            refs = self._touched_by(cursor, [*beside.get(commit, ()), *deletes], tables)
            topic, partition, offset = of_commit[0][:3]
            reason = f"a record of its shop commit cannot be read ({topic} [{partition}] offset {offset})"
            blocked.block(cursor, refs, parked.cause(commit), reason)
            self._touch_refs(cursor, refs)

    def park_foreign(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Keeps records that capture did not write: they are of no commit, so they hold nothing."""
        reason = "its headers are not those of capture, which writes all that is staged"
        for row in rows:
            log.warning("record parked", topic=row[0], partition=row[1], offset=row[2], reason=reason)
        parked.park(cursor, [(row, reason) for row in rows])
        self._parked += [row[:3] for row in rows]

    def _touched_by(self, cursor: Cursor, rows: Sequence[Row], tables: Mapping[str, str]) -> set[DocumentRef]:
        """What records would touch; nothing of them stays."""
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
        """The places of records that were parked since the last call."""
        found, self._parked = self._parked, []
        return found

    def unpark(self, cursor: Cursor, rows: Sequence[Row]) -> None:
        """Records that were parked and could be staged now: what they held looks again."""
        if not rows:
            return
        causes = parked.unpark(cursor, rows)
        self._touch_refs(cursor, blocked.unblock(cursor, causes))

    def read_again(self, cursor: Cursor, topics: Collection[str], at: Stamp) -> list[tuple[str, int, int]]:
        """The tables of these topics were read again as a whole: older records that were parked are done with, and what
        they held looks again. Their places."""
        places, causes = parked.take_out(cursor, topics, at)
        self._parked = [place for place in self._parked if place not in places]
        self._touch_refs(cursor, blocked.unblock(cursor, causes))
        if places:
            log.info("parked records are done with: their tables were read again", records=len(places))
        return places

    def touch_readers(self, cursor: Cursor, names: Iterable[str]) -> None:
        """Touches the documents that are held and of which these tables are a part: a gap of theirs has ended."""
        wanted = set(names)
        kinds = [rule.name for rule in self._profile.documents.values() if rule.reads & wanted]
        self._touched = True
        cursor.execute(
            "INSERT INTO pg_temp.touched SELECT type, key FROM document"
            " WHERE type = ANY(%s) AND state IN ('held', 'settling')",
            (kinds,),
        )

    def vanish(self, cursor: Cursor, name: str, stamp: Stamp, snapshot: str) -> None:
        """Marks the rows deleted that a snapshot of the whole table did not bring, and touches their documents."""
        table = self._catalogue.loaded(cursor).get(name)
        if table is not None and row_io.vanish(cursor, table, stamp, snapshot):
            self.touch_all(cursor, [name])

    def brought(self, cursor: Cursor, name: str, snapshot: str) -> int:
        """How many rows of a table a snapshot brought, whatever is newer."""
        table = self._catalogue.loaded(cursor).get(name)
        if table is None:
            return 0
        cursor.execute(sql.SQL('SELECT count(*) FROM {} WHERE "#snapshot" = %s').format(table.identifier), (snapshot,))
        return int((cursor.fetchone() or (0,))[0])


def _use(group: Group) -> str:
    """What tells apart the groups of a table that are there at once, beside their snapshots. Two schemas may have the
    same columns: their rows must not meet in one temporary table."""
    what = ("rows", "deletes", "moved")[group.id.deletes + 2 * group.id.moved]
    return f"{what} {group.id.schema_id.hex()} {sorted(group.id.unchanged)}"


def _by_commit(rows: Iterable[Row]) -> dict[bytes, list[Row]]:
    found: dict[bytes, list[Row]] = {}
    for row in rows:
        found.setdefault(parked.commit_of(row), []).append(row)
    return found


def _reason(error: Exception) -> str:
    """What went wrong with a record, without its values."""
    if isinstance(error, DataError):
        return error.message
    diag = getattr(error, "diag", None)
    where = ", ".join(filter(None, (getattr(diag, "table_name", None), getattr(diag, "column_name", None))))
    return f"the staged table refuses it: {type(error).__name__}" + (f" ({where})" if where else "")
