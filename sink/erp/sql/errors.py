"""What an error of the ERP's database means, by its own code, never by the driver's class alone.

MariaDB's driver calls a CHECK that refuses a row an operational error. Taken for an outage, it would be tried for ever.
"""

from __future__ import annotations

from typing import Final, Literal

from sqlalchemy import exc

from schemas.model.errors import OrdertapError
from sink.erp.contract import ConflictError, HoldError, RetryError, StopError

# The first characters of SQLSTATE: https://www.postgresql.org/docs/current/errcodes-appendix.html
_PG_STOP: Final = ("28", "3D", "42501", "42P01", "42703", "3F")
_PG_CAME_FIRST: Final = ("40",)
_PG_AGAIN: Final = ("08", "53", "55", "57", "58", "25P0", "XX")
_PG_UNFIT: Final = "22P05"  # a character that a text cannot have, or not in this database's encoding
# https://mariadb.com/kb/en/mariadb-error-code-reference/
_MARIADB_STOP: Final = frozenset({1044, 1045, 1049, 1054, 1142, 1143, 1146, 1698})
_MARIADB_CAME_FIRST: Final = frozenset({1020, 1213})
_MARIADB_AGAIN: Final = frozenset(
    {1021, 1037, 1040, 1041, 1053, 1080, 1158, 1159, 1160, 1161, 1203, 1205, 1290, 1317, 1927, 1969, 3024, 4031}
)

REFUSES_US: Final = "check user, password and name in erp.url, and what the user may do"


class LateError(OrdertapError):
    """The deadline of a call had passed before its COMMIT. Nothing was changed."""


def meaning(error: exc.SQLAlchemyError) -> RetryError | HoldError | StopError:
    """Our error for an error of the database or its driver. Its words contain no values of rows."""
    text = _reason(error)
    if isinstance(error, exc.StatementError) and isinstance(error.orig, ValueError | ArithmeticError | TypeError):
        return unfit(error.orig)
    if isinstance(error, exc.DBAPIError) and error.orig and getattr(error.orig, "pgcode", None) == _PG_UNFIT:
        return unfit(error.orig)
    if not isinstance(error, exc.DBAPIError) or error.connection_invalidated:
        return RetryError(f"the ERP's database: {text}")
    match _by_code(error):
        case "stop":
            return StopError(f"the ERP's database refuses us: {text}", REFUSES_US)
        case "again":
            return RetryError(f"the ERP's database: {text}")
        case "came first":  # a deadlock, or a serialization failure: the server has rolled all back
            return ConflictError(f"another transaction in the ERP came first: {text}")
    return HoldError(f"the ERP refused it: {text}", "fix it in the shop or the ERP, then `sink retry`", "master data")


def unfit(error: BaseException) -> HoldError:
    """The hold for a value that the driver cannot write or read: a character that the ERP's encoding lacks, a year
    above 9999, a zero byte. The driver raises Python's own errors for these, and SQLAlchemy passes them on."""
    odd = "character" if isinstance(error, UnicodeError) else "value"
    reason = f"it has a {odd} that the ERP's database or its driver cannot take ({type(error).__name__})"
    return HoldError(reason, "fix it in the shop or the ERP, then `sink retry`", "data")


_Meaning = Literal["stop", "again", "came first", "hold"]


def _by_code(error: exc.DBAPIError) -> _Meaning:
    """The meaning by the server's code. If a driver has none, as SQLite's, by class and words."""
    state = getattr(error.orig, "pgcode", None)
    if state is not None:
        return _of_postgres(state)
    number = next(iter(getattr(error.orig, "args", ())), None)
    if isinstance(number, int):
        return _of_mariadb(number)
    if isinstance(error, exc.IntegrityError | exc.DataError):
        return "hold"
    text = str(error.orig)
    if any(words in text for words in ("authentication failed", "does not exist", "no such table", "no such column")):
        return "stop"
    return "again" if isinstance(error, exc.OperationalError | exc.InterfaceError) else "hold"


def _of_postgres(state: str) -> _Meaning:
    if state.startswith(_PG_CAME_FIRST):
        return "came first"
    return "stop" if state.startswith(_PG_STOP) else "again" if state.startswith(_PG_AGAIN) else "hold"


def _of_mariadb(number: int) -> _Meaning:
    if number in _MARIADB_CAME_FIRST:
        return "came first"
    if number in _MARIADB_AGAIN or 2000 <= number < 3000:  # those are the client's own: the server is away
        return "again"
    return "stop" if number in _MARIADB_STOP else "hold"


def _reason(error: exc.SQLAlchemyError) -> str:
    """The constraint or column by name; for a connection that failed, the driver's words; else the class."""
    if not isinstance(error, exc.DBAPIError):
        return type(error).__name__
    named = getattr(error.orig, "diag", None)
    for what in ("constraint_name", "column_name"):
        if name := getattr(named, what, None):
            return str(name)
    if error.statement is None and str(error.orig).strip():  # a statement's error may show values
        return str(error.orig).strip().splitlines()[0]
    return type(error.orig).__name__
