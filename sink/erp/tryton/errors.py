"""What an answer of Tryton's means, by its HTTP status or the kind of error it names. Pure.

Tryton's texts are in its user's language. They are shown to people and never parsed. `hidden` takes personal values out
of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sink.erp.contract import ConflictError, HoldError, RetryError, SlowDownError, StopError
from sink.erp.kinds import ErpRecord, is_personal

_FIX: Final = "fix it in the shop or in Tryton, then `sink retry`"
_LONGEST: Final = 300
_REST: Final = 10.0


class SessionEndedError(RetryError):
    """Tryton no longer knows our session. Nothing was done."""


class StaleError(ConflictError):
    """A record was changed since it was read. Nothing was done."""


class RefusalError(HoldError):
    """Tryton refused a call, because of the data or a missing permission."""


def of_status(status: int, rest: str | None, method: str) -> RetryError | StopError:
    """The error for an HTTP status other than 200. rest: the header Retry-After. method: what was called."""
    if status == 401:
        if method == "common.db.login":
            return StopError("Tryton refuses the login", "check erp.user and erp.password, and the user's companies")
        return SessionEndedError("Tryton has ended our session")
    if status == 403:
        hint = "activate the module that has it, or give erp.user the right; `sink check` lists what is needed"
        return StopError(f"Tryton refuses {method}", hint)
    if status == 404:
        return StopError("Tryton does not answer there, or has no such database", "check erp.url and erp.database")
    if status == 429:
        return SlowDownError("Tryton is rate-limiting us", _seconds(rest))
    if 400 <= status < 500 and status not in (408, 409, 423):
        return StopError(
            f"Tryton rejects calls of {method}: HTTP {status}", "check the proxy or firewall in front of Tryton"
        )
    return RetryError(f"Tryton answers {method} with HTTP {status}")


def of_answer(error: Sequence[object]) -> StaleError | RefusalError | HoldError | StopError:
    """The error for an answer with `error`: [kind, …] for Tryton's own kinds, else the text of an exception in its
    server. Such an exception is not the data's fault and would come again."""
    kind, *rest = error or [""]
    if kind == "ConcurrencyException":
        return StaleError("it was changed in the ERP meanwhile")
    if kind == "LoginException":
        return StopError("Tryton asks for more than a password", "give erp.user a login by password alone")
    if kind in ("UserError", "UserWarning"):
        return RefusalError(f"the ERP refused it: {_words(rest)}", _FIX, "master data")
    return HoldError(f"the ERP failed on it: {_words([kind])}", "see the log of Tryton's server, then `sink retry`")


def hidden(error: HoldError, want: ErpRecord) -> HoldError:
    """The error without the document's personal values, which Tryton likes to name documents by."""
    message = error.message
    for name in sorted(want.fields):
        value = want.fields[name]
        if is_personal(name) and isinstance(value, str) and len(value) > 1:
            message = message.replace(value, "…")
    return HoldError(message, error.hint, error.cause)


def _words(rest: Sequence[object]) -> str:
    """The words on one line, cut to a bearable length."""
    first = rest[0] if rest else ""
    texts = first[:2] if isinstance(first, list | tuple) else [first]
    return " ".join(" ".join(str(text) for text in texts if text).split())[:_LONGEST]


def _seconds(rest: str | None) -> float:
    return float(rest) if rest and rest.isdigit() else _REST
