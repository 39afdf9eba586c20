"""The shop's PostgreSQL through psycopg2: ordinary connections, and the replication connection."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from typing import Any, Final, NamedTuple, cast

import psycopg2
import psycopg2.errors
import psycopg2.extensions
import psycopg2.extras
from psycopg2 import sql

from capture.metrics import waiting
from capture.postgres.session_settings import KEEPALIVES, NEWER_LIMITS, UNANSWERED, startup_options
from schemas.model.errors import DataError, OrdertapError, SettingsError, UnavailableError
from schemas.model.lsn import LSN

Connection = psycopg2.extensions.connection
Cursor = psycopg2.extensions.cursor

APPLICATION = "ordertap capture"
"""The name of our sessions in pg_stat_activity."""


_CHECK = "run `capture check`: it prints the SQL that fixes it"
# The server decodes its log with the publications of that time, so making one again does not help older changes.
_NO_PUBLICATION = (
    "run `capture check` and create it as that says; if it was dropped and made again, the log of the time between "
    "cannot be read, and `capture repair --execute` makes a new slot and snapshot (without --execute: a dry run)"
)
_NOT_UTF8 = (
    "write it as UTF-8 in the shop: a comment (pg_description), a default (pg_attrdef), a label (pg_enum), a name, or "
    "a value of the table"
)
IN_THE_LOG: Final = (
    "find the value by its bytes and fix it in the shop; the log keeps it, so `capture repair --execute` makes a new "
    "slot behind it (without --execute: a dry run)"
)
"""The next step if the server cannot convert a text in the log to UTF-8."""
_REFUSED = ("authentication failed", "no password supplied", "does not exist", "pg_hba", "permission denied")
_CERTIFICATE = ("certificate", "private key", "SSL error", "does not support SSL", "SSL was required", "tlsv1 alert")


class Server(NamedTuple):
    """How to reach a database. Passwords are never shown. "": libpq's default."""

    host: str
    port: int
    user: str
    password: str
    database: str
    sslmode: str
    sslrootcert: str = ""
    sslcert: str = ""
    sslkey: str = ""
    sslpassword: str = ""

    def __repr__(self) -> str:
        """Without passwords."""
        return f"Server({self.host}:{self.port}, database {self.database}, user {self.user})"

    def connect(self, **options: Any) -> Connection:
        """A connection in autocommit. UnavailableError or SettingsError, with the next step. Its session has the
        settings of session_settings, whatever the database or the role has set."""
        more: dict[str, Any] = {
            name: value
            for name in ("sslrootcert", "sslcert", "sslkey", "sslpassword")
            if (value := getattr(self, name))
        } | options
        try:
            with waiting("PostgreSQL (connecting)"):
                connection: Connection = psycopg2.connect(
                    host=self.host,
                    port=self.port,
                    user=self.user,
                    password=self.password,
                    dbname=self.database,
                    sslmode=self.sslmode,
                    connect_timeout=10,
                    application_name=APPLICATION,
                    options=startup_options(),
                    tcp_user_timeout=UNANSWERED,
                    **KEEPALIVES,
                    **more,
                )
        except psycopg2.OperationalError as error:
            raise self._unreachable(error) from None
        if not options.get("connection_factory"):
            connection.autocommit = True
        with database_errors("clearing timeouts"), connection.cursor() as cursor:
            cursor.execute(NEWER_LIMITS)
        return connection

    def ask(self) -> Connection:
        """A connection for questions: one that waits for a table's lock gives up after ten seconds, and says so. An
        answer may take long, as for thousands of tables of a busy server."""
        connection = self.connect()
        with database_errors("setting lock_timeout"), connection.cursor() as cursor:
            cursor.execute("SET lock_timeout = '10s'")
        return connection

    def _unreachable(self, error: psycopg2.OperationalError) -> OrdertapError:
        reasons = [line for line in str(error).splitlines() if line and not line.startswith("\t")]
        reason = reasons[-1] if reasons else "no reason given"
        where = f"PostgreSQL {self.host}:{self.port}, database {self.database}, user {self.user}"
        if any(word in reason for word in _CERTIFICATE):
            return SettingsError(
                f"{where}: {reason}",
                "check database_sslmode, database_sslrootcert, database_sslcert and database_sslkey; verify-full also "
                "compares database_hostname with the server's certificate",
            )
        if "walsender" in reason or "WAL sender" in reason:  # until PostgreSQL 15; from 16 on
            return SettingsError(f"{where}: {reason}", _CHECK)
        if "too many connections" in reason or "connection slots are reserved" in reason:
            hint = "raise max_connections, or CONNECTION LIMIT of the role or the database: `capture check` says which"
            return UnavailableError(f"{where}: {reason}", hint)
        if "conversion between" in reason:
            hint = "the server cannot convert this database's text to UTF-8: move the shop to one of ENCODING 'UTF8'"
            return SettingsError(f"{where}: {reason}", hint)
        if f'role "{self.user}" does not exist' in reason:
            return SettingsError(f"{where}: {reason}", "`capture init --dry-run` prints the SQL that makes it")
        if any(word in reason for word in _REFUSED):
            hint = "check database_user, database_password and database_dbname, and pg_hba.conf of the server"
            return SettingsError(f"{where}: {reason}", hint)
        hint = "check database_hostname and database_port, and that the server is running"
        return UnavailableError(f"{where}: {reason}", hint)


@contextmanager
def database_errors(doing: str, not_utf8: str = _NOT_UTF8) -> Iterator[None]:
    """Turns psycopg2's errors into ours. `doing`: what was tried; health shows it meanwhile. `not_utf8`: the next step
    for a text that is not UTF-8."""
    try:
        with waiting(f"PostgreSQL ({doing})"):
            yield
    except (psycopg2.errors.CharacterNotInRepertoire, psycopg2.errors.UntranslatableCharacter) as error:
        raise DataError(f"{doing}: the server cannot convert a text to UTF-8 ({first_line(error)})", not_utf8) from None
    except (psycopg2.errors.InsufficientPrivilege, psycopg2.errors.UndefinedObject) as error:
        said = first_line(error)
        raise SettingsError(f"{doing}: {said}", _NO_PUBLICATION if "publication" in said else _CHECK) from None
    except psycopg2.errors.ObjectInUse as error:
        raise SlotInUseError(
            f"{doing}: {first_line(error)}",
            "another reader uses this slot: stop it, or SELECT pg_terminate_backend(its PID), or set another slot_name",
        ) from None
    except psycopg2.errors.LockNotAvailable as error:
        raise UnavailableError(
            f"{doing}: a schema change or TRUNCATE has locked a table or waits for it ({first_line(error)})",
            "see in pg_locks who holds it, and let the ALTER, VACUUM FULL or CLUSTER finish; a snapshot waits for "
            "snapshot_lock_timeout_ms",
        ) from None
    except psycopg2.errors.OutOfMemory as error:  # out of locks: "out of shared memory"
        hint = "raise max_locks_per_transaction and restart the server: `capture check` says how much"
        raise UnavailableError(f"{doing}: {first_line(error)}", hint) from None
    except psycopg2.Error as error:
        if "wal_level" in first_line(error):  # waiting does not change it
            raise SettingsError(f"{doing}: {first_line(error)}", _CHECK) from None
        raise UnavailableError(f"{doing}: {first_line(error)}", "see the server's log") from None


def any_bytes(connection: Connection) -> bool:
    """Whether the database does not know its encoding, so that its text may be any bytes."""
    return encoding_of(connection) == "SQL_ASCII"


def encoding_of(connection: Connection) -> str:
    """The database's encoding, by PostgreSQL's name."""
    return str(connection.info.parameter_status("server_encoding"))


def the_row(cursor: Cursor) -> tuple[Any, ...]:
    """The row of a statement that always returns one."""
    row = cursor.fetchone()
    assert row is not None  # noqa: S101  the caller's condition
    return row


class SlotInUseError(UnavailableError):
    """Another walsender has the slot: another reader's, or one that a dead reader left."""


def first_line(error: Exception) -> str:
    """The text of a PostgreSQL error, without the values that it may contain."""
    if isinstance(error, psycopg2.DataError):  # "invalid input syntax for type integer", and then the value
        return f"{type(error).__name__} (SQLSTATE {error.pgcode})"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return "the server ended the stream" if lines[0] == "no COPY in progress" else lines[0]


class System(NamedTuple):
    """The answer of IDENTIFY_SYSTEM. Source: PostgreSQL manual, "Streaming Replication Protocol"."""

    identifier: str
    timeline: int
    lsn: LSN


class NewSlot(NamedTuple):
    consistent_point: LSN
    snapshot_name: str


class Replication:
    """The replication connection: one slot, one stream."""

    def __init__(self, server: Server, failover: bool = False) -> None:
        """`failover`: slots that it makes are copied to standbys that ask for it (PostgreSQL 17 and later)."""
        self._failover = failover
        factory = psycopg2.extras.LogicalReplicationConnection
        self._connection = server.connect(connection_factory=factory)
        self._cursor = cast("Any", self._connection.cursor())  # psycopg2's stubs know little of replication
        if any_bytes(self._connection):  # else the server ends the stream at the first text that is not UTF-8
            with database_errors("taking text as it is"):
                self._cursor.execute("SET client_encoding = 'SQL_ASCII'")
        self.read = self._cursor.read_message

    def identify(self) -> System:
        """The cluster, its timeline and the end of its log."""
        with database_errors("IDENTIFY_SYSTEM"):
            self._cursor.execute("IDENTIFY_SYSTEM")
            identifier, timeline, lsn, _ = the_row(self._cursor)
        return System(identifier, int(timeline), LSN.parse(lsn))

    def history(self, timeline: int) -> str:
        """The history file of a timeline: where it branched off its ancestors."""
        if timeline == 1:  # the first timeline has no history, and no file
            return ""
        with database_errors("TIMELINE_HISTORY"):
            self._cursor.execute(f"TIMELINE_HISTORY {int(timeline)}")
            _, content = the_row(self._cursor)
        return content if isinstance(content, str) else bytes(content).decode()

    def create_slot(self, slot: str, stopping: Callable[[], bool]) -> NewSlot:
        """Makes the slot and exports its snapshot, which lives until this connection's next command.

        The server waits for all open transactions. `stopping()` ends that wait with an UnavailableError.
        """
        with ThreadPoolExecutor(1, "slot") as aside:
            made = aside.submit(self._create_slot, slot)
            while True:
                try:
                    return made.result(0.5)
                except FutureTimeout:
                    if stopping():
                        self._connection.cancel()

    def _create_slot(self, slot: str) -> NewSlot:
        if self._failover and self._connection.server_version < 170000:
            raise SettingsError("slot_failover needs PostgreSQL 17", "set slot_failover: false")
        with database_errors(f"creating replication slot {slot}"):
            if self._failover:  # psycopg2's method has no such parameter; the settings allow only plain slot names
                self._cursor.execute(
                    f"CREATE_REPLICATION_SLOT \"{slot}\" LOGICAL pgoutput (SNAPSHOT 'export', FAILOVER true)"
                )
            else:
                self._cursor.create_replication_slot(slot, output_plugin="pgoutput")
            _, point, snapshot, _ = the_row(self._cursor)
        return NewSlot(LSN.parse(point), snapshot)

    def start(self, slot: str, lsn: LSN, publication: str) -> None:
        """START_REPLICATION from `lsn`. SlotInUseError while another walsender has the slot."""
        quoted = '"' + publication.replace('"', '""') + '"'
        options = {"proto_version": "1", "publication_names": quoted, "messages": "true"}
        with database_errors(f"reading slot {slot} from {lsn}"):
            self._cursor.start_replication(
                slot_name=slot, start_lsn=int(lsn), decode=False, options=options, status_interval=5
            )

    def wait(self, seconds: float, other: int) -> None:
        """Sleeps until the server sends something or the file descriptor `other` is readable, at most this long."""
        select.select([self._connection.fileno(), other], [], [], max(0.0, seconds))

    @property
    def sent(self) -> LSN:
        """How far the server has sent the log, by the last message or keepalive that was read."""
        return LSN(self._cursor.wal_end or 0)

    def confirm(self, lsn: LSN, force: bool = False) -> None:
        """Tells psycopg2 that everything before `lsn` may be forgotten, and the server soon (with `force`: now)."""
        with database_errors("acknowledging"):
            self._cursor.send_feedback(write_lsn=int(lsn), flush_lsn=int(lsn), force=force)

    def alive(self) -> None:
        """Tells the server that we live, without acknowledging more."""
        with database_errors("keeping the connection alive"):
            self._cursor.send_feedback(force=True)

    def close(self) -> None:
        """Ends the stream; the slot is free at once."""
        self._connection.close()


def drop_slot(connection: Connection, slot: str) -> None:
    """Drops the slot if it exists."""
    with database_errors(f"dropping replication slot {slot}"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = %s", [slot]
        )


class Slot(NamedTuple):
    """A row of pg_replication_slots, and what decoding spilled to disk. None: this server version does not tell.
    Source: PostgreSQL manual, "pg_replication_slots" and "pg_stat_replication_slots"."""

    plugin: str
    database: str
    active_pid: int | None
    confirmed_flush_lsn: LSN | None
    wal_status: str | None
    held_bytes: int | None
    safe_bytes: int | None
    current_lsn: LSN = LSN(0)
    invalidation_reason: str | None = None  # PostgreSQL 17 and later, with those below
    inactive_since: str | None = None  # ISO 8601
    conflicting: bool | None = None  # 16 and later
    spilled_transactions: int | None = None  # since the statistics were reset
    spills: int | None = None  # one may be spilled again and again
    spilled_bytes: int | None = None


def slot_state(connection: Connection, slot: str) -> Slot | None:
    """The slot as the server sees it; None if there is none."""
    statement = """
        SELECT s.plugin, s.database, s.active_pid, s.confirmed_flush_lsn::text, s.wal_status,
               pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::bigint, s.safe_wal_size,
               pg_current_wal_lsn()::text,
               to_jsonb(s) ->> 'invalidation_reason', to_jsonb(s) ->> 'inactive_since',
               (to_jsonb(s) ->> 'conflicting')::boolean, t.spill_txns, t.spill_count, t.spill_bytes
        FROM pg_replication_slots s LEFT JOIN pg_stat_replication_slots t USING (slot_name)
        WHERE s.slot_name = %s"""
    with database_errors("looking at the slot"), connection.cursor() as cursor:
        cursor.execute(statement, [slot])
        row = cursor.fetchone()
    if row is None:
        return None
    plugin, database, pid, confirmed, wal_status, held, safe, current, *more = row
    flushed = None if confirmed is None else LSN.parse(confirmed)
    return Slot(plugin, database, pid, flushed, wal_status, held, safe, LSN.parse(current), *more)


LEAD: Final = "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))"
"""The only statement that a standby runs, with the `leadership_key` of its slot."""


def leadership_key(slot: str) -> str:
    """The text whose hash is the lock that a slot's readers compete for."""
    return f"ordertap:{slot}"


class Leadership:
    """A session advisory lock on the shop's database, named after the slot. Its owner reads and sends heartbeats."""

    def __init__(self, server: Server, slot: str) -> None:
        self._connection = server.ask()
        self._execute(f"SET tcp_user_timeout = {UNANSWERED}")  # would end sessions that may read late
        self._slot = slot

    def _execute(self, statement: str) -> None:
        with database_errors(statement), self._connection.cursor() as cursor:
            cursor.execute(statement)

    def acquire(self) -> bool:
        """Takes the lock if it is free."""
        with database_errors("taking the leadership lock"), self._connection.cursor() as cursor:
            cursor.execute(LEAD, [leadership_key(self._slot)])
            return bool(the_row(cursor)[0])

    def held(self) -> bool:
        """Whether the connection is still up, and the lock with it."""
        try:
            self._execute("SELECT 1")
        except UnavailableError:
            return False
        return True

    def heartbeat(self, prefix: str, content: str) -> LSN:
        """Writes a logical message to the log, outside any transaction, and returns its LSN. It is not flushed, so a
        crash of the server may lose it. UnavailableError if the leadership is lost."""
        with database_errors("writing a heartbeat"), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_logical_emit_message(false, %s, %s)::text", [prefix, content])
            return LSN.parse(the_row(cursor)[0])

    def flushed(self) -> LSN:
        """The LSN up to which the log survives a crash of the server."""
        with database_errors("asking for the end of the log"), self._connection.cursor() as cursor:
            cursor.execute("SELECT pg_current_wal_flush_lsn()::text")
            return LSN.parse(the_row(cursor)[0])

    def open_transactions(self) -> frozenset[int]:
        """The xids of all transactions, prepared ones included, that have changed something and are not visible yet.
        Each keeps its xid locked until then. Source: PostgreSQL manual, "pg_locks"."""
        with database_errors("looking for open transactions"), self._connection.cursor() as cursor:
            cursor.execute("SELECT transactionid::text FROM pg_locks WHERE locktype = 'transactionid' AND granted")
            return frozenset(int(xid) for (xid,) in cursor.fetchall())

    def in_utf8(self, text: bytes) -> bytes:
        """Converts a text from the log out of the database's encoding. Returns it unchanged if it is not valid, or if
        the encoding is unknown."""
        if encoding_of(self._connection) == "UTF8":
            return text
        with database_errors("reading a logical message"), self._connection.cursor() as cursor:
            try:
                cursor.execute("SELECT convert(%s, getdatabaseencoding(), 'UTF8')", [psycopg2.Binary(text)])
            except (psycopg2.DataError, psycopg2.errors.UndefinedFunction):  # there is no conversion from SQL_ASCII
                return text
            return bytes(the_row(cursor)[0])

    def setting(self, name: str) -> str:
        """A server setting as SHOW prints it."""
        with database_errors(f"SHOW {name}"), self._connection.cursor() as cursor:
            cursor.execute(sql.SQL("SHOW {}").format(sql.Identifier(name)))
            value: str = the_row(cursor)[0]
            return value

    @property
    def connection(self) -> Connection:
        """The ordinary connection beside the stream, for the catalogue."""
        return self._connection

    def close(self) -> None:
        """Gives up the leadership."""
        self._connection.close()


def keepalive_seconds(wal_sender_timeout: str) -> float:
    """A third of the server's patience, from `SHOW wal_sender_timeout` (`1min`, `2s`, `500ms`, `0`: for ever)."""
    units = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
    digits = wal_sender_timeout.rstrip("abcdefghijklmnopqrstuvwxyz")
    seconds = float(digits) * units.get(wal_sender_timeout[len(digits) :], 0.001)
    return min(10.0, seconds / 3) if seconds else 10.0
