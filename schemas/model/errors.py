"""What went wrong, where, and what to do next: the one base of all errors that a user can fix.

`__main__` of each process prints such an error once, without a stack trace, and exits with its code (sysexits.h).
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """FAILED: a command found something to fix, or did not do all. The others are of sysexits.h. UNAVAILABLE: another
    system did not answer, so another start may help; the rest need a person."""

    FAILED = 1
    DATA = 65
    UNAVAILABLE = 69
    CONFIG = 78


class OrdertapError(Exception):
    """`message` says what happened and where (table, LSN, topic, partition, offset), `hint` is the next step.

    Neither ever shows a row's values.
    """

    exit_code = ExitCode.FAILED

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  next: {self.hint}" if self.hint else self.message


class SettingsError(OrdertapError):
    """A setting, or something that a person has set up, is wrong. Another start does not help."""

    exit_code = ExitCode.CONFIG


class UnavailableError(OrdertapError):
    """A database, broker or registry does not answer. Another try may help."""

    exit_code = ExitCode.UNAVAILABLE


class DataError(OrdertapError):
    """Bytes that are not what they should be: a record, a log message, a document."""

    exit_code = ExitCode.DATA
