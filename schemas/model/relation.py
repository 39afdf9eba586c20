"""What is known about a table: what the log says (Relation), and what the catalogue adds (facts).

The log is true at its own place. The catalogue is read live, so it may be ahead of a lagging stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    """One column in pgoutput's Relation message. `key`: its replica identity flag."""

    name: str
    type_oid: int
    typmod: int = -1
    key: bool = False


@dataclass(frozen=True, slots=True)
class Relation:
    """One version of a table. `replica_identity`: `d`efault, `f`ull, `i`ndex or `n`othing. Source: PostgreSQL manual,
    "Logical Replication Message Formats"."""

    oid: int
    schema: str
    name: str
    replica_identity: str
    columns: tuple[Column, ...]

    @property
    def table(self) -> str:
        """The name used in headers, settings and messages: `public.orders`."""
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """What only the catalogue knows of a column and its type. `default` is the expression that pg_get_expr shows. The
    facts about the type are those of the type that the Relation names, or of what a domain comes down to (through
    domains over domains): `type_name` is pg_type.typname, `type_kind` is pg_type.typtype (`b`ase, `c`omposite, `e`num,
    `r`ange, `m`ultirange), `base_oid` and `base_typmod` are a domain's alone, 0 and -1 when the type is none.
    `element_oid` is pg_type.typelem of an array (typcategory `A`), else 0. `labels` are the labels of an enum, or of
    the enum that an array or a domain is made of, in their order. `element` are the same facts of the array's element
    type, None for elements of a built-in type. `dimensions` are those that an array was declared with, which PostgreSQL
    keeps and does not enforce.
    """

    not_null: bool = False
    default: str | None = None
    comment: str | None = None
    type_name: str = ""
    type_kind: str = "b"
    base_oid: int = 0
    base_typmod: int = -1
    element_oid: int = 0
    labels: tuple[str, ...] = ()
    element: ColumnFacts | None = None
    dimensions: int = 0


@dataclass(frozen=True, slots=True)
class TableFacts:
    """What only the catalogue knows about a table. `primary_key`: in the order of the constraint, empty without one,
    None if the table is gone. `identity_index`: the key of the index that REPLICA IDENTITY USING INDEX names, in its
    order, else empty. `unique_indexes`: for a table without a primary key, the columns of each unique index of NOT NULL
    columns only, by the indexes' names; else empty. The first one that the rules allow is the key."""

    primary_key: tuple[str, ...] | None = ()
    columns: Mapping[str, ColumnFacts] = field(default_factory=dict)
    identity_index: tuple[str, ...] = ()
    unique_indexes: tuple[tuple[str, ...], ...] = ()
