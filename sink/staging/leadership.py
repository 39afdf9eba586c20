"""One stager per shop: the process whose session has an advisory lock stages, the others stand by.

The session that stages holds the lock, so losing the lock ends its transaction, too. A killed process loses it with its
connection, a frozen one by the server's time-outs. No time-out covers a process that freezes during a COPY: a standby
ends that session.
"""

from __future__ import annotations

from typing import Final

from sink.database import Connection, transaction

_LOCK: Final = "hashtextextended(current_schema || '.stager', 0)"
_TIMEOUTS: Final = {
    "idle_session_timeout": "8s",  # leader and standby query every second
    "idle_in_transaction_session_timeout": "8s",
    "tcp_keepalives_idle": "3",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10s",
    "lock_timeout": "30s",  # then the lock that a person forgot is reported, and tried again
}
_STANDS_STILL: Final = """
    SELECT pg_terminate_backend(a.pid) FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.database = a.datid AND a.datname = current_database()
    AND (l.classid::bigint << 32 | l.objid::bigint) = hashtextextended(current_schema || '.stager', 0)
    AND l.objsubid = 1
    AND a.state = 'active' AND a.wait_event = 'ClientRead' AND clock_timestamp() - a.query_start > interval '8s'
"""


def lead(connection: Connection) -> bool:
    """Takes the lead if it is free, for as long as the connection lives. Returns whether this session leads.

    PostgreSQL manual, "Advisory Lock Functions" (session level) and "Client Connection Defaults" (time-outs).
    """
    with transaction(connection) as cursor:
        for name, value in _TIMEOUTS.items():
            cursor.execute("SELECT set_config(%s, %s, false)", (name, value))
        cursor.execute(f"SELECT pg_try_advisory_lock({_LOCK})")
        row = cursor.fetchone()
        leads = bool(row and row[0])
        if not leads:
            cursor.execute(_STANDS_STILL)
    return leads
