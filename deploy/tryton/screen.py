"""Does what a person's client does at Tryton's server: for the demo, and for the clerk in the tests."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Sequence
from decimal import Decimal
from typing import Any


class RefusedError(Exception):
    """Tryton does not let the user do that."""


class Screen:
    """One person's client. Calls name the model and the button: `screen("sale.sale", "quote", [7])`."""

    def __init__(self, url: str, database: str, user: str, password: str) -> None:
        self._path = f"{url}/{database}/rpc/"
        self._session = ""
        number, token, *_ = self._send("common.db.login", [user, {"password": password}])
        self._session = "Session " + base64.b64encode(f"{user}:{number}:{token}".encode()).decode()
        self._context: dict[str, Any] = {}
        self._context = self("res.user", "get_preferences", True)

    def __call__(self, model: str, method: str, *args: Any) -> Any:
        return self._send(f"model.{model}.{method}", [*args, self._context])

    def rows(self, model: str, domain: Sequence[Any], *names: str) -> list[dict[str, Any]]:
        """The rows that meet a domain, by rising ids."""
        found: list[dict[str, Any]] = self(model, "search_read", domain, 0, None, [["id", "ASC"]], [*names])
        return found

    def row(self, model: str, number: int, *names: str) -> dict[str, Any]:
        """One row by its id."""
        (found,) = self(model, "read", [number], [*names])
        return dict(found)

    def wizard(self, name: str, pages: Sequence[tuple[str, Any]], model: str, number: int) -> Any:
        """Goes through a wizard on one record. pages: the state to go to, and the values of the page before it."""
        context = {**self._context, "active_model": model, "active_id": number, "active_ids": [number]}
        session, *_ = self._send(f"wizard.{name}.create", [context])
        answer = [self._send(f"wizard.{name}.execute", [session, data, state, context]) for state, data in pages][-1]
        self._send(f"wizard.{name}.delete", [session, context])
        return answer

    def _send(self, method: str, params: list[Any]) -> Any:
        body = json.dumps({"id": 1, "method": method, "params": params}, default=_encoded).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": self._session} if self._session else {})
        request = urllib.request.Request(self._path, body, headers)  # noqa: S310  (our own server's address)
        with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
            found = json.load(answer, object_hook=_decoded)
        if "error" in found:
            raise RefusedError(f"{method}: {found['error'][:2]}")
        return found["result"]


def _encoded(value: object) -> object:
    if not isinstance(value, Decimal):
        raise TypeError(type(value).__name__)
    return {"__class__": "Decimal", "decimal": str(value)}


def _decoded(value: dict[str, Any]) -> Any:
    if value.get("__class__") == "Decimal":
        return Decimal(value["decimal"])
    return value
