"""The settings of all our sessions, whatever the server, the database or the role has set.

`Server.connect` opens every session: the walsender's, the snapshot workers' and the commands'.
"""

from __future__ import annotations

from typing import Any, Final

from schemas.types.type_table import SESSION_SETTINGS

# A peer that is gone without a word is noticed within a minute: by us, and by the server, where a dead leader's session
# would keep the lock for two hours.
KEEPALIVES: Final[dict[str, Any]] = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
UNANSWERED: Final = 60_000  # milliseconds: for data that nobody answers, which keepalives wait behind

_NO_LIMITS: Final = dict.fromkeys(
    ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "tcp_user_timeout"), "0"
)
"""No limits: a snapshot, or one large commit, takes as long as it takes."""
NEWER_LIMITS: Final = """
    SELECT set_config(name, '0', false) FROM pg_settings
    WHERE name IN ('idle_session_timeout', 'transaction_timeout')"""
"""Sets limits that the oldest supported servers do not have. They would refuse a connection that asks for them."""

_TRANSACTIONS: Final = {
    "default_transaction_isolation": "read\\ committed",
    "default_transaction_read_only": "off",
    "default_transaction_deferrable": "off",
}
_NAMES: Final = {
    # For SQL of the settings or of a signal that names no schema: the same table for every role.
    "search_path": "public",
    "quote_all_identifiers": "off",  # defaults are read as the server prints them
    "standard_conforming_strings": "on",
    "row_security": "off",  # rows that a policy hides are an error, and not left out
}


def startup_options() -> str:
    """Session settings for libpq's `options`. They win over ALTER ROLE and ALTER DATABASE."""
    keepalives = {f"tcp_{name}": str(value) for name, value in KEEPALIVES.items()}
    session = SESSION_SETTINGS | keepalives | _NO_LIMITS | _TRANSACTIONS | _NAMES
    return " ".join(f"-c {name}={value}" for name, value in session.items())
