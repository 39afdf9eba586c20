"""An ERP that is reached through its own database (PostgreSQL, MariaDB, MySQL, SQLite), its tables mapped in YAML."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, get_args

import sqlalchemy as sa

from schemas.model.errors import SettingsError
from sink.erp.apart import apart, unreadable
from sink.erp.contract import (
    Abilities,
    Advice,
    Checked,
    Found,
    HoldError,
    HowFar,
    KeyPage,
    Observed,
    Page,
    Step,
    StepProgress,
    StepResult,
    StopError,
    Verb,
)
from sink.erp.kinds import BY_HAND, KINDS, ErpRef, Fields, Kind, Value
from sink.erp.sql import batches, columns, reads
from sink.erp.sql.connections import ErpDatabase
from sink.erp.sql.mapping import Mapped
from sink.erp.sql.moved import with_moved
from sink.erp.sql.reads import ErpRow
from sink.erp.sql.rights import lacking as rights_lacking

_BATCH = 100
_MOST_FOUND = 100


class SqlErp:
    """The adapter. A call of `apply` is one transaction, unless the ERP refuses it. On PostgreSQL, its last message is
    a look at the server's clock and COMMIT together, so nothing takes effect too late. For other databases see
    `connections`."""

    def __init__(self, url: str, mapping: Mapped, timeout: float = 20.0, connections: int = 8) -> None:
        self._database = ErpDatabase(url, mapping, timeout, connections)
        self._advised: list[Advice] | None = None

    def close(self) -> None:
        """Gives all connections back."""
        self._database.close()

    def check(self) -> Checked:
        """Checks that the mapped tables and columns exist and fit, and reads the identity."""
        with _of_no_document():
            return self._checked()

    def _checked(self) -> Checked:
        looked = columns.look(self._database)
        _refuse(looked.refused)
        rights = rights_lacking(self._database)
        _refuse([Advice(one.said, one.fix) for one in rights if "SELECT" in one.rights])
        place = self._database.mapping.identity
        table = self._database.table(place.table)
        with self._database.connection() as connection:
            rows = connection.execute(sa.select(table.c[place.column]).limit(2)).scalars().all()
        if len(rows) != 1:
            raise StopError(
                f"{place.table} of the ERP has {'several rows' if rows else 'no row'}",
                f"it needs one, whose {place.column} tells this ERP's data from a copy's: insert it there, or correct"
                " `identity` in the mapping",
            )
        abilities = Abilities(dict.fromkeys(get_args(Verb), _BATCH), self._database.settles_within)
        if self._advised is None:  # each worker checks, and the result does not change by itself
            self._advised = columns.keys(self._database)
        # A sink that only plans is of use without a right to write.
        notes = [*(Advice(one.said, one.fix) for one in rights), *looked.notes, *self._advised]
        return Checked(str(rows[0]), self._database.version, abilities, notes)

    def clock(self) -> datetime:
        """The server's clock."""
        with _of_no_document(), self._database.connection() as connection:
            return self._database.clock(connection)

    def observe(self, refs: Collection[ErpRef]) -> Mapping[ErpRef, Observed]:
        """Reads everything in one transaction, with a few queries per kind."""
        found: dict[ErpRef, Observed] = {}
        for some in apart(list(refs), self._observed, lambda ref, e: {ref: unreadable(ref.kind, e)}):
            found |= some
        return found

    def _observed(self, refs: Sequence[ErpRef]) -> dict[ErpRef, Observed]:
        found: dict[ErpRef, Observed] = {}
        with self._database.connection() as connection:
            for kind in dict.fromkeys(ref.kind for ref in refs):
                keys = {ref.external for ref in refs if ref.kind == kind}
                of_kind = list(reads.by_key(self._database, connection, kind, keys).values())
                found |= zip((row.ref for row in of_kind), self._each(connection, kind, of_kind), strict=True)
        return found

    def find(self, kind: Kind, fields: Fields) -> Sequence[Found]:
        """Documents whose mapped columns have these values. If a column cannot hold a value, no document has it."""
        document, table = self._database.document(kind)
        columns = {"reference": document.reference, **document.fields}
        unknown = sorted(fields.keys() - columns.keys())
        if unknown:
            raise SettingsError(f"the ERP's {kind}s have no {', '.join(unknown)}", "name it in the mapping")
        which = sa.and_(*[_is(name, table.c[columns[name]], value) for name, value in fields.items()])
        some = sa.select(table.c[document.id]).where(which).limit(_MOST_FOUND)
        try:
            with self._database.connection() as connection:
                ids = connection.execute(some).scalars().all()
        except HoldError:
            return []
        return self._found(kind, ids)

    def unknown_items(self, skus: Collection[str]) -> set[str]:
        """The SKUs without an item."""
        if not skus:
            return set()
        # A SKU that does not fit the column has no item.
        return set().union(*apart(sorted(skus), self._unknown, lambda sku, _: {sku}))

    def _unknown(self, skus: Sequence[str]) -> set[str]:
        items = self._database.mapping.items
        table = self._database.table(items.table)
        with self._database.connection() as connection:
            known = reads.look_up(connection, table, (items.sku,), items.sku, items.sku, skus)
            return set(skus).difference(str(row[items.sku]) for row in known)

    def progress(self, steps: Sequence[Step]) -> Sequence[StepProgress]:
        """How far each step came, by the key of the last step: every step writes its key in its one transaction."""
        seen = self.observe([step.ref for step in steps])
        return [_progress(step, seen.get(step.ref)) for step in steps]

    def apply(self, steps: Sequence[Step], not_after: datetime) -> Sequence[StepResult]:
        """Does the steps in one transaction, without those that the ERP refuses."""
        return batches.apply(self._database, steps, not_after)

    def page(self, kinds: Collection[Kind], after: str, limit: int) -> Page:
        """The documents of one kind after the other, each by the ERP's own key. A page has documents of one kind."""
        kind, heads, following = self._heads(kinds, after, limit)
        return Page(self._found(kind, [row_id for row_id, _ in heads]), following)

    def keys(self, kinds: Collection[Kind], after: str, limit: int) -> KeyPage:
        """The same pages, with the keys alone."""
        kind, heads, following = self._heads(kinds, after, limit)
        return KeyPage([ErpRef(kind, str(key or f"{BY_HAND}{row_id}")) for row_id, key in heads], following)

    def _heads(
        self, kinds: Collection[Kind], after: str, limit: int
    ) -> tuple[Kind, Sequence[tuple[Any, Any]], str | None]:
        """The kind of a page, its keys (the ERP's, ours), and where the next page begins."""
        wanted = [kind for kind in KINDS if kind in kinds]
        name, _, last = after.partition(":")
        kind = next((one for one in wanted if one == name), wanted[0])
        document, table = self._database.document(kind)
        row_id = table.c[document.id]
        which = row_id > reads.typed(row_id, last) if last else sa.true()
        some = sa.select(row_id, table.c[document.key]).where(which).order_by(row_id).limit(limit)
        with _of_no_document(), self._database.connection() as connection:
            heads = [(found, key) for found, key in connection.execute(some)]
        if len(heads) == limit:
            return kind, heads, f"{kind}:{heads[-1][0]}"
        following = wanted[wanted.index(kind) + 1 :]
        return kind, heads, f"{following[0]}:" if following else None

    def _found(self, kind: Kind, ids: Sequence[Any]) -> list[Found]:
        """Documents by the ERP's own keys, in the same order."""
        document, _ = self._database.document(kind)

        def read(some: Sequence[Any]) -> list[Found]:
            with self._database.connection() as connection:
                rows = reads.rows(self._database, connection, kind, document.id, some)
                return [
                    Found(row.ref, seen) for row, seen in zip(rows, self._each(connection, kind, rows), strict=True)
                ]

        def alone(row_id: Any, error: HoldError) -> list[Found]:
            return [Found(self._ref(kind, row_id), unreadable(kind, error))]

        return [one for some in apart(ids, read, alone) for one in some]

    def _ref(self, kind: Kind, row_id: Any) -> ErpRef:
        """The key of a document that cannot be read as a whole."""
        document, table = self._database.document(kind)
        query = sa.select(table.c[document.key]).where(table.c[document.id] == row_id)
        with _of_no_document(), self._database.connection() as connection:
            key = connection.execute(query).scalar()
        return ErpRef(kind, str(key or f"{BY_HAND}{row_id}"))

    def _each(self, connection: sa.Connection, kind: Kind, rows: Sequence[ErpRow]) -> list[Observed]:
        return with_moved(self._database, connection, rows) if kind == "order" else [row.observed for row in rows]


def _refuse(wrong: Sequence[Advice]) -> None:
    """StopError that names everything that is wrong, with the remedies."""
    if wrong:
        hints = dict.fromkeys(one.hint for one in wrong)
        raise StopError("; ".join(one.message for one in wrong), "; ".join(hints))


def _is(name: str, column: sa.Column[Any], value: Value) -> sa.ColumnElement[bool]:
    """Equal to the value; e-mail addresses in any case."""
    if name == "email" and isinstance(value, str):
        return sa.func.lower(column) == value.lower()
    return column == value


def _progress(step: Step, seen: Observed | None) -> StepProgress:
    if seen is not None and not seen.stamp:  # its row is there, but neither it nor its last step can be read
        return StepProgress(HowFar.UNCLEAR, seen)
    done = seen is not None and seen.key >= step.key
    return StepProgress(HowFar.DONE if done else HowFar.NOT_DONE, seen)


@contextmanager
def _of_no_document() -> Iterator[None]:
    """For reads that concern no single document: if the ERP's database refuses one, everything stops (StopError)."""
    try:
        yield
    except HoldError as error:
        raise StopError(error.message, "correct the mapping, or the ERP's data that it names") from None
