"""What the shop's catalogue says about tables, beyond the log's own Relation messages.

It is read live, so it may be ahead of the log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from capture.postgres.replication import Connection, database_errors, the_row
from schemas.model.errors import SettingsError
from schemas.model.relation import Column, ColumnFacts, Relation, TableFacts
from schemas.writing.codec import key_indexes
from schemas.writing.column_rules import ColumnRules

_COLUMNS = """
    WITH RECURSIVE base (oid, base_oid, base_typmod, dimensions) AS (
        SELECT t.oid, t.typbasetype, t.typtypmod, t.typndims FROM pg_type t WHERE t.typtype = 'd'
        UNION ALL
        SELECT b.oid, t.typbasetype, CASE WHEN b.base_typmod = -1 THEN t.typtypmod ELSE b.base_typmod END,
               greatest(b.dimensions, t.typndims)
        FROM base b JOIN pg_type t ON t.oid = b.base_oid WHERE t.typtype = 'd'
    ), bottom AS (
        SELECT b.* FROM base b JOIN pg_type t ON t.oid = b.base_oid WHERE t.typtype <> 'd'
    )
    SELECT r.oid, r.name,
           coalesce(a.attnotnull, false) AND NOT EXISTS ( -- NOT VALID, from 18 on: older rows may have a NULL
               SELECT FROM pg_constraint c WHERE c.conrelid = a.attrelid AND c.contype = 'n'
               AND c.conkey = ARRAY[a.attnum] AND NOT c.convalidated),
           pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum),
           coalesce(bt.typname, t.typname, ''), coalesce(bt.typtype, t.typtype, 'b'),
           coalesce(b.base_oid, 0), coalesce(b.base_typmod, -1), coalesce(et.oid, 0),
           ARRAY(SELECT e.enumlabel FROM pg_enum e
                 WHERE e.enumtypid IN (t.oid, b.base_oid, et.oid, eb.base_oid) ORDER BY e.enumsortorder),
           coalesce(greatest(a.attndims, b.dimensions), 0),
           coalesce(ebt.typname, et.typname), coalesce(ebt.typtype, et.typtype),
           coalesce(eb.base_oid, 0), coalesce(eb.base_typmod, -1)
    FROM unnest(%(oids)s::oid[], %(names)s::text[], %(types)s::oid[]) r (oid, name, type_oid)
    LEFT JOIN pg_attribute a ON a.attrelid = r.oid AND a.attname = r.name AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_type t ON t.oid = r.type_oid
    LEFT JOIN bottom b ON b.oid = t.oid
    LEFT JOIN pg_type bt ON bt.oid = b.base_oid
    LEFT JOIN pg_type et ON coalesce(bt.typcategory, t.typcategory) = 'A' AND et.oid = coalesce(bt.typelem, t.typelem)
    LEFT JOIN bottom eb ON eb.oid = et.oid
    LEFT JOIN pg_type ebt ON ebt.oid = eb.base_oid
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum AND a.attgenerated = ''"""

_KEYS = """
    SELECT c.oid, coalesce(i.indisprimary, false), coalesce(i.indisreplident, false), ARRAY(
        SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k (attnum, place)
        JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
        WHERE k.place <= i.indnkeyatts ORDER BY k.place)
    FROM pg_class c
    LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indimmediate AND (i.indisprimary OR i.indisreplident OR (
        i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND NOT EXISTS (
            SELECT FROM unnest(i.indkey) WITH ORDINALITY k (attnum, place)
            JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
            WHERE k.place <= i.indnkeyatts AND NOT a.attnotnull)))
    LEFT JOIN pg_class name ON name.oid = i.indexrelid
    WHERE c.oid = ANY (%s::oid[]) ORDER BY name.relname"""
"""A DEFERRABLE key does not identify rows: within a transaction, and so in the log, two rows may share it."""

_PUBLISHED = """
    SELECT c.oid, p.schemaname, p.tablename, c.relreplident, to_jsonb(p) -> 'attnames', to_jsonb(p) ->> 'rowfilter',
           c.relkind = 'p'
    FROM pg_publication_tables p
    JOIN pg_namespace n ON n.nspname = p.schemaname
    JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = p.tablename
    WHERE p.pubname = %(publication)s AND (%(table)s IS NULL OR p.schemaname || '.' || p.tablename = %(table)s)
    ORDER BY 2, 3"""

_TABLES = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relpersistence = 'p'
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    ORDER BY 1"""

_WITHOUT_IDENTITY = """
    SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND c.relreplident <> 'f'
    AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
    AND NOT EXISTS (
        SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indimmediate
        AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END)
    ORDER BY 1"""

_RELATION_COLUMNS = """
    SELECT a.attrelid, a.attname, a.atttypid, a.atttypmod,
           c.relreplident = 'f' OR EXISTS (
               SELECT FROM pg_index i WHERE i.indrelid = a.attrelid AND a.attnum = ANY (i.indkey) AND i.indimmediate
               AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
           a.attgenerated <> ''
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    WHERE a.attrelid = ANY (%s::oid[]) AND a.attnum > 0 AND NOT a.attisdropped
    ORDER BY a.attrelid, a.attnum"""


class Published(NamedTuple):
    """A table of the publication as a snapshot reads it: with the columns and rows that the stream would send."""

    relation: Relation
    row_filter: str | None
    partitioned: bool = False


def table_facts(connection: Connection, relation: Relation) -> TableFacts:
    """Facts about the table with the relation's OID, if it still exists, and about the types that the relation names.
    So a column's type stays known even if the column was dropped, renamed or changed meanwhile."""
    return tables_facts(connection, [relation])[relation.oid]


def tables_facts(connection: Connection, relations: Sequence[Relation]) -> dict[int, TableFacts]:
    """The same for many tables, by OID, with two queries for all of them."""
    asked = [(relation.oid, column.name, column.type_oid) for relation in relations for column in relation.columns]
    oids, names, types = map(list, zip(*asked, strict=True)) if asked else ([], [], [])
    columns: dict[int, dict[str, ColumnFacts]] = {relation.oid: {} for relation in relations}
    keys: dict[int, list[tuple[bool, bool, list[str]]]] = {relation.oid: [] for relation in relations}
    what = relations[0].table if len(relations) == 1 else f"{len(relations)} tables"
    with database_errors(f"reading the catalogue for {what}"), connection.cursor() as cursor:
        cursor.execute(_COLUMNS, {"oids": oids, "names": names, "types": types})
        for oid, name, *rest in cursor.fetchall():
            columns[oid][name] = _facts(*rest)
        cursor.execute(_KEYS, [list(keys)])
        for oid, *key in cursor.fetchall():
            keys[oid].append(tuple(key))
    return {oid: _table_facts(columns[oid], keys[oid]) for oid in columns}


def _table_facts(columns: dict[str, ColumnFacts], keys: Sequence[tuple[bool, bool, list[str]]]) -> TableFacts:
    """`keys`: (is the primary key, is the replica identity, columns) of each; empty if the table is gone."""
    primary = next((tuple(names) for is_primary, _, names in keys if is_primary), ())
    identity = next((tuple(names) for _, is_identity, names in keys if is_identity), ())
    unique = tuple(tuple(names) for is_primary, _, names in keys if not is_primary and names)
    return TableFacts(primary if keys else None, columns, identity, () if primary else unique)


class Facts:
    """table_facts on one connection. Facts that were asked for ahead are given out once."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ahead: dict[Relation, TableFacts] = {}

    def __call__(self, relation: Relation) -> TableFacts:
        """The facts about one relation version."""
        said = self._ahead.pop(relation, None)
        return table_facts(self._connection, relation) if said is None else said

    def ahead(self, relations: Sequence[Relation]) -> None:
        """Asks for all of these at once, because asking one by one takes long for thousands of tables. An empty list
        forgets the rest."""
        found = tables_facts(self._connection, relations) if relations else {}
        self._ahead = {relation: found[relation.oid] for relation in relations}


def _facts(
    not_null: bool,
    default: str | None,
    comment: str | None,
    type_name: str,
    type_kind: str,
    base_oid: int,
    base_typmod: int,
    element_oid: int,
    labels: list[str],
    dimensions: int,
    element_name: str | None,
    element_kind: str,
    element_base_oid: int,
    element_base_typmod: int,
) -> ColumnFacts:
    element = None
    if element_name is not None:
        element = ColumnFacts(
            type_name=element_name,
            type_kind=element_kind,
            base_oid=element_base_oid,
            base_typmod=element_base_typmod,
            labels=tuple(labels),
        )
    return ColumnFacts(
        not_null, default, comment, type_name, type_kind, base_oid, base_typmod, element_oid, tuple(labels), element,
        dimensions,
    )  # fmt: skip


def has_key(connection: Connection, relation: Relation, rules: ColumnRules) -> bool:
    """Whether the table can be read in the order of a key: its primary key, or an index in its place."""
    return bool(key_indexes(relation, table_facts(connection, relation), rules))


def has_pages(connection: Connection, relation: Relation) -> bool:
    """Whether the table or one of its partitions has or had rows. The query is cheap and needs no right to SELECT."""
    statement = """
        SELECT coalesce((SELECT sum(pg_relation_size(relid)) FROM pg_partition_tree(%(oid)s)),
                        pg_relation_size(%(oid)s)) > 0"""
    with database_errors(f"looking at {relation.table}"), connection.cursor() as cursor:
        cursor.execute(statement, {"oid": relation.oid})
        return bool(the_row(cursor)[0])


class Extent(NamedTuple):
    """How much a snapshot of these tables reads, partitions included. Rows are those of the last ANALYZE or VACUUM."""

    tables: int
    parts: int  # tables and their partitions
    rows: int
    bytes: int

    def __str__(self) -> str:
        """For people."""
        return f"about {self.rows:,} rows of {self.tables} tables, {self.bytes / 1e6:,.1f} MB in the shop"


def extent(connection: Connection, published: Iterable[Published]) -> Extent:
    """How much there is to read in these tables."""
    oids = [one.relation.oid for one in published]
    statement = """
        WITH part AS (
            SELECT oid FROM unnest(%s::oid[]) root (oid)
            UNION SELECT tree.relid FROM unnest(%s::oid[]) root (oid), pg_partition_tree(root.oid) tree)
        SELECT count(*), coalesce(sum(greatest(c.reltuples, 0)) FILTER (WHERE c.relkind <> 'p'), 0)::bigint,
               coalesce(sum(pg_table_size(c.oid)), 0)::bigint
        FROM part JOIN pg_class c USING (oid)"""
    with database_errors("measuring the tables"), connection.cursor() as cursor:
        cursor.execute(statement, [oids, oids])
        return Extent(len(oids), *the_row(cursor))


def database_tables(connection: Connection) -> list[str]:
    """schema.table of everything that a publication could contain: no partitions, and nothing that is not logged."""
    with database_errors("listing the tables"), connection.cursor() as cursor:
        cursor.execute(_TABLES)
        return [name for (name,) in cursor.fetchall()]


def tables_without_identity(connection: Connection) -> list[str]:
    """schema.table of tables, partitions included, whose updates and deletes the server refuses once they are
    published."""
    with database_errors("listing the tables without a key"), connection.cursor() as cursor:
        cursor.execute(_WITHOUT_IDENTITY)
        return [name for (name,) in cursor.fetchall()]


def published_tables(connection: Connection, publication: str, table: str | None = None) -> list[Published]:
    """The tables of the publication by name, or only `table` (schema.table). Empty if the publication has none or does
    not exist."""
    with database_errors(f"reading publication {publication}"), connection.cursor() as cursor:
        cursor.execute(_PUBLISHED, {"publication": publication, "table": table})
        sends_generated = connection.server_version >= 180_000
        listed = cursor.fetchall()
        cursor.execute(_RELATION_COLUMNS, [[oid for oid, *_ in listed]])
        of_table: dict[int, list[tuple[Column, bool]]] = {oid: [] for oid, *_ in listed}
        for oid, column, *rest, generated in cursor.fetchall():
            of_table[oid].append((Column(column, *rest), generated))
        found = []
        for oid, schema, name, identity, columns, row_filter, partitioned in listed:
            # Before 15 the server does not list columns; before 18 it may list generated ones, but sends none.
            kept = tuple(
                column
                for column, generated in of_table[oid]
                if (columns is None or column.name in columns) and (not generated or sends_generated)
            )
            found.append(Published(Relation(oid, schema, name, identity, kept), row_filter, partitioned))
        return found


def refuse_namesakes(published: Iterable[Published]) -> None:
    """SettingsError if two tables have the same schema.table, since either name may contain a dot."""
    seen: dict[str, Relation] = {}
    for one in published:
        relation = one.relation
        other = seen.setdefault(relation.table, relation)
        if other is not relation:
            raise SettingsError(
                f'tables "{other.schema}"."{other.name}" and "{relation.schema}"."{relation.name}" are both'
                f" {relation.table} here, and would have one topic",
                "leave one of them out of the publication, or rename it",
            )
