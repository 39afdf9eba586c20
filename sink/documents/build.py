"""Documents from SQL: a profile's SELECTs over the staged rows (or over the shop itself), checked by the models."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, Final, NamedTuple

import psycopg2
import psycopg2.errors
from pydantic import ValidationError

from schemas.model.errors import DataError, SettingsError, UnavailableError
from sink.database import Connection, Cursor, TextArray
from sink.documents.models import Built, Document, Invalid, Missing, NotReady
from sink.documents.profile import DocumentRule, Profile
from sink.documents.refs import DocumentRef
from sink.documents.refusals import in_words
from sink.documents.touched_by import Touch

UNSEEN: Final = "OT001"
"""The SQLSTATE that a staged view raises for a row that lacks a value the profile reads."""


def build(cursor: Cursor, rule: DocumentRule, keys: Sequence[str], as_of: datetime | None = None) -> dict[str, Built]:
    """Builds the documents of one kind that have these keys.

    `as_of`: the shop's time up to which all rows are there, for `ready_at`; None: now. Runs in the caller's
    transaction, which is REPEATABLE READ READ ONLY so that a document is of one moment, with the caller's search_path
    (`names_of`). SettingsError if the profile's SQL does not run.
    """
    if not keys:
        return {}
    cursor.execute("SAVEPOINT build")
    try:
        built = _built(cursor, rule, keys, as_of)
    except _UnfitError as error:
        cursor.execute("ROLLBACK TO SAVEPOINT build")
        if len(keys) == 1:
            return {keys[0]: Invalid(error.message, error.hint)}
        # One document's data must not hold up the others: find it.
        return {key: one for alone in keys for key, one in build(cursor, rule, [alone], as_of).items()}
    cursor.execute("RELEASE SAVEPOINT build")
    return built


class _UnfitError(DataError):
    """The profile's SQL fails on the shop's data: it divides by zero, reads a value that never came, or finds one that
    Python cannot hold, such as the year 20000. The text contains no value."""


def _built(cursor: Cursor, rule: DocumentRule, keys: Sequence[str], as_of: datetime | None) -> dict[str, Built]:
    heads = _heads(cursor, rule, keys, as_of)
    parts: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for field, statement in rule.children.items():
        for row in _select(cursor, f"{rule.name}.{field}.sql", statement, keys):
            parts[str(row.pop("parent"))][field].append(row)
    built: dict[str, Built] = {key: Missing() for key in keys}
    times = Counter(str(head["key"]) for head in heads)
    for head in heads:
        key = str(head["key"])
        if times[key] > 1:
            built[key] = Invalid(f"{rule.name}.sql: {times[key]} rows with the key {key}")
        elif (not_ready := head.pop("not ready")) is not None:
            built[key] = not_ready
        else:
            built[key] = _document(rule, head | parts.get(key, {}))
    return built


def _heads(cursor: Cursor, rule: DocumentRule, keys: Sequence[str], as_of: datetime | None) -> list[dict[str, Any]]:
    """The head rows, with what `ready` and `ready_at` say as `not ready`: a NotReady or None."""
    heads = _select(cursor, f"{rule.name}.sql", rule.head, keys)
    if as_of is None and any(head.get("ready_at") is not None for head in heads):
        cursor.execute("SELECT now()")
        as_of = (cursor.fetchone() or (None,))[0]
    for head in heads:
        ready, ready_at = head.pop("ready", True), head.pop("ready_at", None)
        early = ready_at is not None and as_of is not None and ready_at > as_of
        head["not ready"] = NotReady() if not ready else NotReady(ready_at) if early else None
    return heads


def ready_keys(cursor: Cursor, rule: DocumentRule, keys: Sequence[str]) -> set[str]:
    """The keys whose head row exists and is ready by now. Children are not read. A head that fails is left out."""
    if not keys:
        return set()
    cursor.execute("SAVEPOINT ready")
    try:
        heads = _heads(cursor, rule, keys, None)
    except _UnfitError:
        cursor.execute("ROLLBACK TO SAVEPOINT ready")
        half = len(keys) // 2
        return ready_keys(cursor, rule, keys[:half]) | ready_keys(cursor, rule, keys[half:]) if half else set()
    cursor.execute("RELEASE SAVEPOINT ready")
    return {str(head["key"]) for head in heads if head["not ready"] is None}


def values(
    cursor: Cursor, rule: DocumentRule, part: str, names: Sequence[str], keys: Sequence[str]
) -> set[tuple[Any, ...]]:
    """The distinct values of some columns in a part of these documents ("": the head); none if the profile does not
    have the part. Documents that cannot be read are left out."""
    statement = rule.children.get(part, "") if part else rule.head
    if not statement or not keys:
        return set()
    columns, statement = ", ".join(names), statement.rstrip().removesuffix(";")
    cursor.execute("SAVEPOINT differing")
    try:
        found = _select(cursor, rule.name, f"SELECT DISTINCT {columns} FROM ({statement}\n) AS part", keys)  # noqa: S608
    except _UnfitError:
        cursor.execute("ROLLBACK TO SAVEPOINT differing")
        half = len(keys) // 2
        halves = (keys[:half], keys[half:]) if half else ()
        return {one for some in halves for one in values(cursor, rule, part, names, some)}
    cursor.execute("RELEASE SAVEPOINT differing")
    return {tuple(row.values()) for row in found}


class InUnit(NamedTuple):
    """A document and its unit: the shop order with everything that came of it, or the document itself."""

    ref: DocumentRef
    unit: str


def open_list(cursor: Cursor, profile: Profile, names: Collection[str], hold: bool) -> None:
    """Begins a list of all documents of these names, ready or not, unit by unit. `next_of_list` reads it.

    The server keeps the list, in memory that does not grow with it. `hold`: it is completed at the end of the
    transaction, and outlives that. SettingsError if the profile's SQL does not run.
    """
    orders = profile.of_model("SalesOrder")
    parts = []
    for rule in profile.documents.values():
        if rule.name in names:
            unit = _quoted(f"{orders[0].name if rule.order and orders else rule.name}:")
            head = f"SELECT {_quoted(rule.name)} AS type, key, concat({unit}, coalesce(of, key)) AS unit"
            parts.append(f"{head} FROM ({_keys(rule)}) AS k")
    every = " UNION ALL ".join(parts) or "SELECT NULL AS type, NULL AS key, NULL AS unit WHERE false"
    listed = f'SELECT type, key, unit FROM ({every}) AS every ORDER BY unit COLLATE "C", type, key'  # noqa: S608
    cursor.execute(_LIST_ROWS)
    _ask(cursor, "touched_by", f"DECLARE in_units NO SCROLL CURSOR {'WITH HOLD' if hold else ''} FOR {listed}")


def keep_list(cursor: Cursor) -> None:
    """Completes a held list. Call it last in its transaction."""
    cursor.execute(_LIST_ROWS)


def close_list(connection: Connection) -> None:
    """Drops a held list."""
    with connection.cursor() as cursor:
        cursor.execute("CLOSE in_units")


def next_of_list(cursor: Cursor, documents: int) -> list[InUnit]:
    """The next documents of the list, at most this many; none at its end."""
    cursor.execute(_LIST_ROWS)
    _ask(cursor, "touched_by", f"FETCH {documents:d} FROM in_units")
    found = [InUnit(DocumentRef(type_, key), unit) for type_, key, unit in cursor.fetchall()]
    cursor.execute(_READ_ROWS)
    return found


_LIST_ROWS: Final = "SET LOCAL ordertap.unseen = 'show'"  # rows are listed there, not read
_READ_ROWS: Final = "SET LOCAL ordertap.unseen = ''"


def _keys(rule: DocumentRule) -> str:
    """SQL for the keys of one kind, each with the key of its shop order, which is in its root row."""
    parts = []
    for touch in rule.touched_by:
        if touch.selects:
            continue
        of = _order_of(rule.order) if rule.order and touch.table == rule.root else "NULL"
        table = touch.table.rpartition(".")[2]
        parts.append(f'SELECT ({touch.sql}\n)::text AS key, {of} AS of FROM "{table}" AS changed')  # noqa: S608
    every = " UNION ALL ".join(parts)
    return f"SELECT key, max(of) AS of FROM ({every}) AS k WHERE key IS NOT NULL GROUP BY key"  # noqa: S608


def _order_of(order: Touch) -> str:
    """SQL for the key of a shop order, from a root row called `changed`."""
    if not order.selects:
        return f'changed."{order.sql}"::text'
    keys = f"SELECT NULL AS key WHERE false UNION ALL ({order.sql}\n)"
    return f"(WITH changed AS (SELECT changed.*) SELECT max(key::text) FROM ({keys}) AS o)"  # noqa: S608


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _document(rule: DocumentRule, content: dict[str, Any]) -> Built:
    try:
        document: Document = rule.model.model_validate(content)  # type: ignore[assignment]
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        return Invalid("; ".join(in_words(rule.model, problem, content) for problem in problems[:5]))
    return document


def _select(cursor: Cursor, where: str, statement: str, keys: Sequence[str]) -> list[dict[str, Any]]:
    with _errors(where):
        cursor.execute(statement, {"keys": TextArray(keys)})
        names = [column.name for column in cursor.description or ()]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _ask(cursor: Cursor, where: str, statement: str) -> None:
    """Runs a statement without parameters, so that a percent sign is just that."""
    with _errors(where):
        cursor.execute(statement)


@contextmanager
def _errors(where: str) -> Iterator[None]:
    """Turns PostgreSQL's errors about the profile's SQL into ours."""
    try:
        yield
    except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
        raise UnavailableError(f"selecting {where}: {type(error).__name__}", "check the database") from None
    except (psycopg2.DataError, psycopg2.errors.CardinalityViolation) as error:
        raise _UnfitError(f"{where}: {_words(error)}", "fix it in the shop, or the profile") from None
    except (ValueError, OverflowError):  # PostgreSQL's dates go from 4713 BC to 294276, psycopg2's are Python's
        raise _UnfitError(f"{where}: a date that is not in the years 1 to 9999", "correct it in the shop") from None
    except psycopg2.Error as error:
        if error.pgcode == UNSEEN:
            raise _UnfitError(str(error.diag.message_primary), str(error.diag.message_hint)) from None
        reason = str(error).strip().splitlines()[0]
        raise SettingsError(f"profile: {where}: {reason}", "correct the SQL of the profile") from None


def _words(error: Exception) -> str:
    """The kind of an error, never its own words, which may contain a value: `DivisionByZero` is `division by zero`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__).lower()
