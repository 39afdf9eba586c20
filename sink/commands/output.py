"""Prints a verb's answer: lines for people, or one JSON document for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Final

import typer
from pydantic_core import to_json

from schemas.model.lsn import LSN

DRY: Final = "nothing was changed; --execute does it"


def say(lines: Iterable[str]) -> None:
    """Prints line by line, so that an error later loses nothing."""
    for line in lines:
        typer.echo(line)


def answer(as_json: bool, found: Callable[[], object], lines: Callable[[], Iterable[str]]) -> None:
    """Prints what an operation returned as JSON, or the verb's lines. Only one of them is evaluated."""
    say(said(found(), (), True) if as_json else lines())


def decided(execute: bool, found: Any) -> Mapping[str, object]:
    """The JSON answer of a verb with a dry run: `executed`, and the fields of what its operation returned."""
    return {"executed": execute, **found._asdict()}


def said(found: object, lines: Iterable[str], as_json: bool) -> Iterable[str]:
    """The lines, or `found` as JSON: records become objects, amounts text, times ISO 8601, LSNs as PostgreSQL writes
    them."""
    return [to_json(_plain(found)).decode()] if as_json else lines


def _plain(value: Any) -> Any:
    """Named tuples as objects; a JSON encoder would make them lists."""
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: _plain(one) for name, one in value._asdict().items()}
    if is_dataclass(value) and not isinstance(value, type):
        return {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    if isinstance(value, LSN):
        return str(value)
    if isinstance(value, dict):
        return {_key(key): _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, Sequence | set) and not isinstance(value, str) else value


def _key(key: Any) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple) else str(key)
