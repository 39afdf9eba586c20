"""Calls to Tryton: JSON over HTTP, one session for all threads.

Each call is one transaction of Tryton's. All writes go through WriteCalls, which has the deadline and the session of
one `apply`. Everything else only reads.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from threading import Lock
from typing import Any, Final

import httpx2

from schemas.model.errors import OrdertapError
from sink.erp.contract import ConflictError, HoldError, RetryError, StopError
from sink.erp.tryton import errors

Row = Mapping[str, Any]
Stamps = Mapping[str, str]
"""`model,id` → the `_timestamp` that was read. Tryton refuses to write a record whose `_timestamp` is another one by
now."""

_IDLE: Final = 1.0
"""Seconds after which an idle connection is not used again. The server closes idle connections, and a call on one that
is just being closed would seem to have an unknown outcome."""
_MANY: Final = 1_000
_PARTS: Final = ("year", "month", "day", "hour", "minute", "second", "microsecond")


class Rpc:
    """One log-in. `company`: the name of the company to work in; "": the user's own."""

    def __init__(
        self, url: str, database: str, user: str, password: str, company: str, timeout: float, connections: int
    ) -> None:
        self._user = user
        self._password = password
        self._company = company
        self._path = f"{url.rstrip('/')}/{database}/rpc/"
        limits = httpx2.Limits(max_connections=connections, keepalive_expiry=_IDLE)
        self._client = httpx2.Client(timeout=timeout, limits=limits)
        self._lock = Lock()
        self._session = ""
        self._context: dict[str, Any] = {}

    def call(self, model: str, method: str, *args: Any, **context: Any) -> Any:
        """Calls a method that only reads. Floats come as Decimal, times with a zone. RetryError: Tryton cannot be
        reached. StopError: it refuses us. HoldError: it refuses this one call."""
        return self.ask(f"model.{model}.{method}", [*args], context)

    def ask(self, method: str, args: Sequence[Any], context: Mapping[str, Any] = {}) -> Any:
        """Calls a method by its full name. Logs in again if the session has ended."""
        session = self.session()
        try:
            return self.send(session, method, args, context)
        except errors.SessionEndedError:
            self.forget(session)
        return self.send(self.session(), method, args, context)

    def search(
        self,
        model: str,
        domain: Sequence[Any],
        names: Sequence[str],
        limit: int | None = None,
        order: Sequence[tuple[str, str]] = (("id", "ASC"),),
    ) -> list[dict[str, Any]]:
        """Rows of a model, by rising ids. For `lines.note` in names, row["lines."] is a list of {"id", "note"}; for a
        link to one record it is a dict."""
        return list(self.call(model, "search_read", domain, 0, limit, order, names))

    def among(
        self, model: str, name: str, values: Collection[Any], names: Sequence[str], *more: Any
    ) -> list[dict[str, Any]]:
        """Rows that have one of these values in a field and meet `more`, clauses of a domain. No values: no call, no
        rows."""
        wanted, found = sorted(set(values)), []
        for start in range(0, len(wanted), _MANY):
            found += self.search(model, [(name, "in", wanted[start : start + _MANY]), *more], names)
        return found

    def session(self) -> str:
        """The session, as the value of the header Authorization. Logs in if there is none."""
        with self._lock:
            if not self._session:
                self._session = self._log_in()
            return self._session

    @property
    def company(self) -> int:
        """Id of the company to work in."""
        self.session()
        return int(self._context["company"])

    def forget(self, session: str) -> None:
        """Drops a session that has ended."""
        with self._lock:
            if self._session == session:
                self._session = ""

    def close(self) -> None:
        """Logs out if possible, and closes all connections."""
        with suppress(OrdertapError):
            if self._session:
                self.send(self._session, "common.db.logout", [], None)
        self._session = ""
        self._client.close()

    def send(self, session: str, method: str, args: Sequence[Any], context: Mapping[str, Any] | None) -> Any:
        """Makes one call. context: None for a method that takes none."""
        params = [*args] if context is None else [*args, {**self._context, **context}]
        body = json.dumps({"id": 1, "method": method, "params": params}, default=_encoded, allow_nan=False)
        headers = {"Content-Type": "application/json"} | ({"Authorization": session} if session else {})
        try:
            response = self._client.post(self._path, content=body.encode(), headers=headers)
        except httpx2.TransportError as error:
            raise RetryError(f"Tryton does not answer {method}: {type(error).__name__}") from None
        if response.status_code != 200:
            raise errors.of_status(response.status_code, response.headers.get("Retry-After"), method)
        try:
            answer = json.loads(response.content, object_hook=_decoded, parse_float=Decimal)
        except ValueError:
            raise RetryError(f"what answers {method} is not Tryton") from None
        if "error" in answer:
            raise errors.of_answer(answer["error"])
        return answer.get("result")

    def _log_in(self) -> str:
        self._context = {}
        found = self.send("", "common.db.login", [self._user, {"password": self._password}], None)
        user, token, *_ = found
        session = "Session " + base64.b64encode(f"{self._user}:{user}:{token}".encode()).decode()
        self._context = {"company": self._company_id(session)}
        return session

    def _company_id(self, session: str) -> int:
        """Id of the company of the settings, or else of the user's own."""
        prefers = self.send(session, "model.res.user.get_preferences", [True], {})
        every = [*prefers.get("companies", ())]
        if not self._company and prefers.get("company"):
            return int(prefers["company"])
        rows = self.send(session, "model.company.company.read", [every, ["party.name"]], {}) if every else []
        for row in rows:
            if row["party."]["name"] == self._company:
                return _seen(int(row["id"]), self._company, prefers)
        names = ", ".join(sorted(row["party."]["name"] for row in rows)) or "none"
        raise StopError(
            f"the user of Tryton does not work in the company {self._company!r}" if self._company else "no company",
            f"set erp.company to one that erp.user has (it has {names}), or give it that company",
        )


class WriteCalls:
    """The writing calls of one `apply`. Before each call the clock is looked at; once the deadline has passed, nothing
    more is sent. All calls use one session. If it is ended in between, the rest is not sent: what became of the steps
    is asked first, and the next `apply` logs in again."""

    def __init__(self, rpc: Rpc, not_after: datetime) -> None:
        self._rpc = rpc
        self._not_after = not_after
        self._session = rpc.session()
        self.sent = 0  # calls sent, whatever became of them

    def call(self, model: str, method: str, *args: Any, stamps: Stamps | None = None) -> Any:
        """Writes, or presses a button. StaleError: a record has another stamp by now. HoldError: Tryton refuses it.
        Either way this call changed nothing. ConflictError: the deadline has passed, and nothing was sent. RetryError:
        the outcome is unknown."""
        return self.send(f"model.{model}.{method}", args, {"_timestamp": dict(stamps)} if stamps else {})

    def wizard(self, name: str, state: str, data: Mapping[str, Any], model: str, ids: Sequence[int]) -> None:
        """Goes through one page of a wizard for these records. `state`: the name of its button. `data`: the page's
        values."""
        context = {"active_model": model, "active_id": ids[0], "active_ids": [*ids]}
        found, *_ = self._rpc.ask(f"wizard.{name}.create", [], context)
        self.send(f"wizard.{name}.execute", [found, data, state], context)
        with suppress(RetryError, HoldError):  # the wizard is done; Tryton deletes its session by itself later
            self._rpc.ask(f"wizard.{name}.delete", [found], context)

    def send(self, method: str, args: Sequence[Any], context: Mapping[str, Any]) -> Any:
        """Every write goes through here."""
        if now() >= self._not_after:
            raise ConflictError("the time limit of this call has passed")
        self.sent += 1
        try:
            return self._rpc.send(self._session, method, args, context)
        except errors.SessionEndedError:
            self._rpc.forget(self._session)
            raise


def _seen(company: int, name: str, prefers: Mapping[str, Any]) -> int:
    """The company, if the user can see its records; StopError if not."""
    if prefers.get("company_filter") != "one" or prefers.get("company") == company:
        return company
    hint = f"make {name!r} the company of that user, or set its Company Filter to All"
    raise StopError(f"Tryton's user can only see one company, and it is not {name!r}", hint)


def now() -> datetime:
    """The clock that `not_after` is compared with: this machine's. Tryton's server checks no deadline of ours: a call
    that it has received may take effect until its own time limits have passed (`settles_within`). If this process
    freezes between the look and the sending, the call goes out later still."""
    return datetime.now(UTC)


def stamps_of(model: str, rows: Iterable[Row]) -> dict[str, str]:
    """The stamps of rows that were read with `_timestamp`."""
    return {f"{model},{row['id']}": row["_timestamp"] for row in rows}


def _encoded(value: object) -> object:
    """Values that JSON does not have, in Tryton's notation."""
    match value:
        case Decimal():
            return {"__class__": "Decimal", "decimal": str(value)}
        case datetime():
            at = value.astimezone(UTC)
            return {"__class__": "datetime"} | {part: getattr(at, part) for part in _PARTS}
        case date():
            return {"__class__": "date", "year": value.year, "month": value.month, "day": value.day}
    raise ValueError(f"no JSON for a {type(value).__name__}")


def _decoded(value: dict[str, Any]) -> Any:
    match value.get("__class__"):
        case "Decimal":
            return Decimal(value["decimal"])
        case "date":
            return date(value["year"], value["month"], value["day"])
        case "datetime":
            return datetime(**{part: int(value[part]) for part in _PARTS}, tzinfo=UTC)
        case "timedelta":
            return timedelta(seconds=float(value["seconds"]))
    return value
