"""What a command says: lines for people, or one JSON document for programs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, Final

import typer
from pydantic_core import to_json

from schemas.lsn import LSN

DRY: Final = "nothing was changed; --execute does it"


def say(lines: Iterable[str]) -> None:
    """One by one: what is known is said even if the next cannot be."""
    for line in lines:
        typer.echo(line)


def answer(as_json: bool, found: Callable[[], object], lines: Callable[[], Iterable[str]]) -> None:
    """What an operation returned, for programs; or the lines of the command, for people. Only one of them is made."""
    say(said(found(), (), True) if as_json else lines())


def decided(execute: bool, found: Any) -> Mapping[str, object]:
    """What a verb with a dry run answers programs: whether it was done, and what its operation returned (a record)."""
    return {"executed": execute, **found._asdict()}


def said(found: object, lines: Iterable[str], as_json: bool) -> Iterable[str]:
    """The lines, or what an operation found as JSON: records become objects, amounts text, times ISO 8601, places in
    the log as PostgreSQL writes them."""
    return [to_json(_plain(found)).decode()] if as_json else lines


def _plain(value: Any) -> Any:
    """Records by their names, which JSON encoders take for lists where they are tuples."""
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
