"""The middle-layer database: connections, transactions, and the search_path."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Self

import psycopg2
import psycopg2.errors
import psycopg2.extensions

from schemas.model.errors import SettingsError, UnavailableError

Connection = psycopg2.extensions.connection
Cursor = psycopg2.extensions.cursor

# If the server's host is gone, the connection is silent. Without these settings that is noticed after two hours, the
# system's default.
_KEEPALIVES: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_REFUSED: Final = ("authentication failed", "does not exist", "pg_hba", "permission denied", "not permitted")


# 4 s: longer than a change of a staged table that is alone in its transaction, and shorter than a lease.
_GATE: Final = "SET LOCAL lock_timeout = '4s'; LOCK TABLE schema_gate IN ACCESS SHARE MODE"


class NotNowError(UnavailableError):
    """A long transaction is changing the staged tables. Try to read them again later."""


def schema_of(shop: str) -> str:
    """The schema of a shop's ledger and staged tables. The views that its profile reads are in a schema named like the
    shop."""
    return f"ordertap_{shop}"


def connect(url: str, schema: str, what: str = "the middle layer (database_url)") -> Connection:
    """A connection in autocommit with search_path `schema`.

    UnavailableError or SettingsError, with a next step and never with the password.
    """
    try:
        connection: Connection = psycopg2.connect(
            url, connect_timeout=10, application_name="ordertap sink", **_KEEPALIVES
        )
        connection.autocommit = True
        with connection.cursor() as cursor:  # set here, because our own `options` would replace those of the URL
            cursor.execute("SELECT set_config('search_path', quote_ident(%s), false)", (schema,))
    except psycopg2.OperationalError as error:
        reasons = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
        reason = reasons[-1] if reasons else "no reason given"
        if any(word in str(error) for word in _REFUSED):
            raise SettingsError(f"{what}: {reason}", "check its URL in the settings") from None
        raise UnavailableError(f"{what}: {reason}", "check that the database runs and can be reached") from None
    except psycopg2.ProgrammingError:
        raise SettingsError(f"{what}: its URL is not valid", "write postgresql://user@host:port/database") from None
    return connection


@contextmanager
def transaction(connection: Connection, isolation: str = "READ COMMITTED") -> Iterator[Cursor]:
    """One transaction on a connection in autocommit. `isolation` may end in READ ONLY. UnavailableError if the database
    fails."""
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            try:
                yield cursor
            except BaseException:
                if not connection.closed:
                    cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")
    except (psycopg2.OperationalError, psycopg2.InterfaceError, psycopg2.extensions.TransactionRollbackError) as error:
        raise UnavailableError(
            f"the database: {_first_line(error)}", "check that it runs; the sink tries again"
        ) from None


@contextmanager
def names_of(cursor: Cursor, schema: str, unseen: str = "") -> Iterator[None]:
    """Sets the search_path to `schema` for the block, as a profile's SQL needs it.

    `unseen`: "show" if rows are only listed, "" if their values are read (SET ordertap.unseen). If the block raises,
    the settings are not reset here; the caller's rollback, of a savepoint or the transaction, does that.
    """
    cursor.execute(
        "SELECT current_setting('search_path'), set_config('search_path', quote_ident(%s), true),"
        " set_config('ordertap.unseen', %s, true)",
        (schema, unseen),
    )
    before = (cursor.fetchone() or ("",))[0]
    yield
    cursor.execute("SELECT set_config('search_path', %s, true), set_config('ordertap.unseen', '', true)", (before,))


@contextmanager
def reading(connection: Connection, staged: bool = True) -> Iterator[Cursor]:
    """A read-only transaction that sees one moment of the database.

    `staged`: it reads staged tables. It then first locks the gate, before its snapshot is taken: a staged table that is
    rewritten after the snapshot would look empty. NotNowError after 4 s: a large commit that changes a staged table has
    the gate to its end. Other locks are not waited for longer either.
    """
    with transaction(connection, "REPEATABLE READ READ ONLY") as cursor:
        if staged:
            _through_the_gate(cursor)
        yield cursor


def _through_the_gate(cursor: Cursor) -> None:
    try:
        cursor.execute(_GATE)
    except psycopg2.errors.LockNotAvailable:
        raise NotNowError(
            "the staged tables are being altered after a schema change; this can take a while",
            "it continues by itself; `sink status` says what the copy waits for",
        ) from None


def rows_as(name: str, columns: Mapping[str, str]) -> str:
    """SQL of a row source called `name`. Its one placeholder takes rows from `as_json`.

    `columns`: name → type. All rows are one value, because the server would parse thousands of values one by one.
    """
    typed = ", ".join(f"{column} {type_}" for column, type_ in columns.items())
    return f"jsonb_to_recordset(%s) AS {name} ({typed})"


def as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows for `rows_as`. Amounts have to be text, since JSON numbers are not exact. A value that is not there is NULL,
    as are most of an outcome's, and each costs the server some reading."""
    return json.dumps([{name: value for name, value in row.items() if value is not None} for row in rows])


def array_text(values: Iterable[str]) -> str:
    """An array of texts in PostgreSQL's notation. The statement has to give its type (`%s::text[]`)."""
    quoted = ['"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for value in values]
    return f"{{{','.join(quoted)}}}"


class TextArray:
    """Texts as one value of the type text[]. A list would mean the same, but driver and server would handle it element
    by element, which costs both five times as much."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._text = psycopg2.extensions.QuotedString(array_text(texts))

    def __conform__(self, _: object) -> Self:
        return self

    def prepare(self, connection: Connection) -> None:
        """Called by the driver: quoting depends on the connection."""
        self._text.prepare(connection)

    def getquoted(self) -> bytes:
        """Called by the driver: the SQL literal."""
        return bytes(self._text.getquoted()) + b"::text[]"


OF_THESE: Final = "(type, key) IN (SELECT * FROM unnest(%s, %s))"
"""The condition that a row is of one of the documents in `these`."""


def these(refs: Iterable[tuple[str, str]]) -> tuple[TextArray, TextArray]:
    """Documents (type, key) as the two values of `OF_THESE`."""
    known = list(refs)
    return TextArray(type_ for type_, _ in known), TextArray(key for _, key in known)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
