"""The parts of a snapshot: each table in ranges of ctid, which are valid only within one exported snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

import psycopg2
from psycopg2 import sql

from capture.postgres.catalogue import Published
from capture.postgres.replication import Connection, any_bytes, database_errors
from capture.snapshot.copying import Chunk
from schemas.model.errors import SettingsError

CHUNK_BYTES: Final = 16_000_000
_PER_WORKER: Final = 8  # transactions, at least: no worker has much to do when the others are done
_USUAL_WIDTH: Final = 32  # bytes of a value without fixed length, as the planner guesses (get_typavgwidth)
_ROW_HEADER: Final = 28  # bytes, with the pointer to the row
_PAGE_HEADER: Final = 24
_LEAVES: Final = """
    SELECT tree.root, n.nspname, c.relname, pg_relation_size(c.oid) / current_setting('block_size')::int,
           coalesce(am.amname = 'heap', false), c.reltuples::bigint, c.relpages, current_setting('block_size')::int,
           (SELECT coalesce(sum(CASE WHEN t.typlen > 0 THEN t.typlen ELSE {} END), 0)::int
            FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
           has_table_privilege(c.oid, 'SELECT'),
           has_schema_privilege(n.oid, 'USAGE') AND NOT row_security_active(c.oid)
    FROM {} JOIN pg_class c ON c.oid = tree.relid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_am am ON am.oid = c.relam
    WHERE c.relkind <> 'p' ORDER BY 2, 3"""
_TREE: Final = "(SELECT root, relid FROM unnest(%s::oid[]) root, pg_partition_tree(root)) tree"
_ITSELF: Final = "(SELECT root, root AS relid FROM unnest(%s::oid[]) root) tree"


class Leaf(NamedTuple):
    """A relation that holds rows: a table, or one of its partitions. At the last ANALYZE it had `tuples` rows in
    `tuple_pages` pages (-1: never analysed). `width`: what a row's values may take."""

    schema: str
    name: str
    pages: int
    heap: bool
    tuples: int
    tuple_pages: int
    page_bytes: int
    width: int
    readable: bool
    open: bool

    @property
    def rows(self) -> int | None:
        """About how many, as the planner estimates: its present pages by their density; None if unknown. Source:
        PostgreSQL, table_block_relation_estimate_size in src/backend/access/table/tableam.c."""
        if not self.heap:
            return self.tuples if self.tuples >= 0 else None
        if self.tuples >= 0 and self.tuple_pages > 0:
            return round(self.tuples / self.tuple_pages * self.pages)
        return self.pages * ((self.page_bytes - _PAGE_HEADER) // (self.width + _ROW_HEADER))

    def chunk_size(self, largest: int) -> int:
        """About how many bytes a chunk of it has."""
        return min(self.pages * self.page_bytes, largest) if self.heap else largest


class TablePlan(NamedTuple):
    """How a table is read: its chunks, and about how many rows it has (None: unknown)."""

    chunks: tuple[Chunk, ...]
    rows: int | None


def plan_table(
    reader: Connection,
    number: int,
    published: Published,
    leaves: Sequence[Leaf],
    statement: str | None = None,
    skipped: frozenset[str] = frozenset(),
    chunk_bytes: int = CHUNK_BYTES,
) -> TablePlan:
    """The chunks of a table at the reader's snapshot. `leaves`: as measure() found them. `statement`: a SELECT to read
    in place of the table. `skipped`: columns that no record has. SettingsError if our role may not read all of it."""
    columns = column_list(published, skipped)
    if statement is not None:
        chosen = sql.SQL("({}) chosen").format(sql.SQL(statement.strip().rstrip(";")))
        _check_columns(reader, published, chosen, skipped)
        query = sql.SQL("SELECT {} FROM {}").format(columns, chosen)
        return TablePlan((Chunk(number, copy_out(reader, query), chunk_bytes),), None)
    guesses = [leaf.rows for leaf in leaves]
    rows = None if None in guesses else sum(guess or 0 for guess in guesses)
    if published.partitioned and not all(leaf.readable for leaf in leaves):
        # Rights on the root alone: only a query of the root reads them all.
        whole = sql.Identifier(published.relation.schema, published.relation.name)
        _check_rights(reader, published, [whole])
        return TablePlan(
            (Chunk(number, copy_out(reader, _select(published, columns, whole, None)), chunk_bytes),), rows
        )
    _check_rights(reader, published, [_only(leaf) for leaf in leaves if not (leaf.readable and leaf.open)])
    chunks = [
        Chunk(number, copy_out(reader, _select(published, columns, _only(leaf), part)), leaf.chunk_size(chunk_bytes))
        for leaf in leaves
        for part in page_ranges(leaf.pages if leaf.heap else 0, max(1, chunk_bytes // leaf.page_bytes))
    ]
    return TablePlan(tuple(chunks), rows)


def together(chunks: Sequence[Chunk], workers: int) -> Iterator[list[Chunk]]:
    """Chunks that are copied in one Kafka transaction, in their order: those of small tables, since a transaction takes
    longer than they do. Each of the workers gets several."""
    most = max(1, len(chunks) // (_PER_WORKER * workers))
    group: list[Chunk] = []
    size = 0
    for chunk in chunks:
        size += chunk.size
        if group and (size > CHUNK_BYTES or len(group) == most):
            yield group
            group, size = [], chunk.size
        group.append(chunk)
    if group:
        yield group


def _only(leaf: Leaf) -> sql.Composable:
    return sql.SQL("ONLY {}").format(sql.Identifier(leaf.schema, leaf.name))


def _check_rights(reader: Connection, published: Published, sources: Iterable[sql.Composable]) -> None:
    """Raises what the SELECT itself would raise, even if row policies would hide rows."""
    with database_errors(f"reading {published.relation.table}"), reader.cursor() as cursor:
        for source in sources:
            cursor.execute(sql.SQL("EXPLAIN {}").format(_select(published, sql.SQL("*"), source, None)))


def _check_columns(reader: Connection, published: Published, chosen: sql.Composable, skipped: frozenset[str]) -> None:
    """SettingsError if a SELECT of the settings does not return the table's columns."""
    table = published.relation.table
    where = f"snapshot_select_statement_overrides of {table}"
    with reader.cursor() as cursor:
        try:
            cursor.execute(sql.SQL("SELECT * FROM {} LIMIT 0").format(chosen))
        except (psycopg2.ProgrammingError, psycopg2.NotSupportedError) as error:
            raise SettingsError(
                f"{where}: {str(error).splitlines()[0]}", "write one SELECT that runs in psql"
            ) from None
        found = {column.name: column.type_code for column in cursor.description or ()}
    columns = [column for column in published.relation.columns if column.name not in skipped]
    wrong = [column.name for column in columns if found.get(column.name) != column.type_oid]
    if wrong:
        hint = f"select them by these names and with the types of {table}, most simply by SELECT *"
        raise SettingsError(f"{where} does not yield {', '.join(wrong)} as the table has them", hint)


def page_ranges(pages: int, size: int) -> list[tuple[int, int | None]]:
    """From (inclusive) and to (exclusive, None: the end) of each part of a relation, at least one. The last part is
    open: the relation grows while it is read, and visible rows may be anywhere."""
    starts = list(range(0, max(1, pages), size))
    return [*pairwise(starts), (starts[-1], None)]


def measure(reader: Connection, published: Sequence[Published]) -> dict[int, list[Leaf]]:
    """The leaves of tables, by OID: with one query for all that have no partitions, and one for each that has. The
    latter locks the partitions, so together with other tables it could be in a deadlock with a schema change."""
    found: dict[int, list[Leaf]] = {one.relation.oid: [] for one in published}
    plain = [one for one in published if not one.partitioned]
    _measure(reader, _ITSELF, plain, found)
    for one in published:
        if one.partitioned:
            _measure(reader, _TREE, [one], found)
    return found


def _measure(reader: Connection, tree: str, published: Sequence[Published], found: dict[int, list[Leaf]]) -> None:
    what = published[0].relation.table if len(published) == 1 else f"{len(published)} tables"
    with database_errors(f"measuring {what}"), reader.cursor() as cursor:
        cursor.execute(_LEAVES.format(_USUAL_WIDTH, tree), [[one.relation.oid for one in published]])
        for root, *leaf in cursor.fetchall():
            found[root].append(Leaf(*leaf))


def _select(
    published: Published, columns: sql.Composable, source: sql.Composable, part: tuple[int, int | None] | None
) -> sql.Composable:
    conditions: list[sql.Composable] = []
    if published.row_filter:
        conditions.append(sql.SQL("({})").format(sql.SQL(published.row_filter)))
    if part is not None and part != (0, None):
        first, end = part
        conditions.append(sql.SQL("ctid >= {}::tid").format(sql.Literal(f"({first},0)")))
        if end is not None:
            conditions.append(sql.SQL("ctid < {}::tid").format(sql.Literal(f"({end},0)")))
    where = sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions) if conditions else sql.SQL("")
    return sql.SQL("SELECT {} FROM {}{}").format(columns, source, where)


def column_list(published: Published, skipped: frozenset[str]) -> sql.Composable:
    """The columns to select, in the log's order, without those that no record has."""
    nothing = sql.SQL("''")
    columns = published.relation.columns
    return sql.SQL(", ").join(nothing if column.name in skipped else sql.Identifier(column.name) for column in columns)


def copy_out(connection: Connection, select: sql.Composable) -> str:
    """The COPY of a SELECT in text form, in UTF-8, or unconverted if the encoding is unknown."""
    form = sql.SQL(" (ENCODING 'SQL_ASCII')" if any_bytes(connection) else "")
    text: str = sql.SQL("COPY ({}) TO STDOUT{}").format(select, form).as_string(connection)
    return text
