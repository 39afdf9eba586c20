"""A shop's mapping: a folder with `profile.yaml` and SQL. Data, no Python.

tables:                                 what is staged, and the columns that the SQL reads: it runs before a row came
  public.orders: {id: bigint, number: text}
documents:
  return_order:                         also the name of its files: return_order.sql, return_order.lines.sql
    model: ReturnOrder                  one of sink/documents/models.py
    key: returns.id                     its root row
    order: returns.order_id             the shop order it belongs to: both are applied together
    touched_by:                         which changed rows make it worth another look: a path to its key …
      - returns.id
      - return_lines.return_id
      - return_photos.line_id -> return_lines.return_id
      - orders: "'guest:' || lower(email)"    … or an SQL expression over the columns of one table
      - order_addresses <- orders.address_id    … or a row that the root refers to
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml

from schemas.errors import SettingsError
from sink.documents.models import MODELS, Part


class Step(NamedTuple):
    """`column` of the table before refers to the primary key of `table`; `back`: `column` of `table` to that before."""

    column: str
    table: str
    back: bool = False


@dataclass(frozen=True, slots=True)
class Touch:
    """From a changed row of `table`, over `steps`, to a document's key: `expression` over the last table's columns."""

    table: str
    steps: tuple[Step, ...]
    expression: str

    @property
    def last(self) -> str:
        """The table whose columns the expression reads."""
        return self.steps[-1].table if self.steps else self.table


@dataclass(frozen=True, slots=True)
class DocumentRule:
    """One kind of document: its model, how it is found and how it is read."""

    name: str
    model: type[Part]
    root: str
    key: str
    order: str | None  # the root's column with the key of its shop order; None: stands alone
    touched_by: tuple[Touch, ...]
    head: str
    children: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole mapping. Tables are named as in the shop: `public.orders`."""

    name: str
    tables: tuple[str, ...]
    documents: Mapping[str, DocumentRule]
    columns: Mapping[str, Mapping[str, str]]  # table → column → PostgreSQL's type, where the profile says them

    def of_model(self, model: str) -> list[DocumentRule]:
        """The rules that make documents of a model."""
        return [rule for rule in self.documents.values() if rule.model.__name__ == model]


def load_profile(name_or_path: str) -> Profile:
    """A profile of ours by its name, or a folder; SettingsError that names the file and the key that is wrong."""
    folder = Path(name_or_path)
    if "/" not in name_or_path:
        ours = Path(str(files("sink").joinpath("profiles")))
        folder = ours / name_or_path
        known = sorted(path.parent.name for path in ours.glob("*/profile.yaml"))
        if name_or_path not in known:
            raise SettingsError(
                f"profile {name_or_path!r} is not one of {', '.join(known)}",
                "set `profile` to one, or to a folder's path",
            )
    return _Loader(folder).load()


class _Loader:
    """Reads one folder; every error says where."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "profile.yaml"
        self._tables: dict[str, str] = {}

    def load(self) -> Profile:
        content = self._content()
        self._only(content, ("tables", "documents"), "profile")
        tables = content.get("tables") or ()
        self._tables = {table.rpartition(".")[2]: table for table in tables}
        if len(self._tables) < len(tables):
            raise self._wrong("tables", "two tables of different schemas have the same name")
        rules = content.get("documents") or {}
        documents = {name: self._rule(name, rule or {}) for name, rule in rules.items()}
        columns = {table: dict(given or {}) for table, given in tables.items()} if isinstance(tables, dict) else {}
        return Profile(self._folder.name, tuple(tables), documents, columns)

    def _content(self) -> dict[str, Any]:
        try:
            content = yaml.safe_load(self._file.read_text("utf-8"))
        except OSError as error:
            raise SettingsError(f"{self._file}: {error.strerror}", "a profile is a folder with profile.yaml") from None
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            raise self._wrong(f"line {mark.line + 1}" if mark else "", "not YAML") from None
        if not isinstance(content, dict):
            raise self._wrong("", "not a mapping with `tables` and `documents`")
        return content

    def _rule(self, name: str, rule: dict[str, Any]) -> DocumentRule:
        self._only(rule, ("model", "key", "order", "touched_by"), name)
        for needed in ("model", "key", "touched_by"):
            if needed not in rule:
                raise self._wrong(f"documents.{name}", f"`{needed}` is missing")
        if rule["model"] not in MODELS:
            raise self._unknown(f"documents.{name}.model", rule["model"], MODELS)
        model = MODELS[rule["model"]]
        root, key = self._column(rule["key"], f"documents.{name}.key")
        order = self._of_root(rule["order"], root, f"documents.{name}.order") if "order" in rule else None
        touches = [self._touch(path, root, key, f"documents.{name}.touched_by") for path in rule["touched_by"]]
        # A row that a path leads through marks the document too: it may arrive after the row that refers to it.
        later = [
            Touch(step.table, touch.steps[index + 1 :], touch.expression)
            for touch in touches
            for index, step in enumerate(touch.steps)
        ]
        every = tuple(dict.fromkeys([*touches, *later]))
        return DocumentRule(name, model, root, key, order, every, self._sql(f"{name}.sql"), self._children(name, model))

    def _of_root(self, text: str, root: str, where: str) -> str:
        table, column = self._column(text, where)
        if table != root:
            raise self._wrong(where, f"{text} is not a column of the root {root}")
        return column

    def _touch(self, path: object, root: str, key: str, where: str) -> Touch:
        if isinstance(path, dict) and len(path) == 1:
            ((table, expression),) = path.items()
            return Touch(self._table(str(table), where), (), str(expression))
        if not isinstance(path, str):
            raise self._wrong(where, f"{path!r} is neither a path nor {{table: expression}}")
        if "<-" in path:
            table, _, referring = path.partition("<-")
            column = self._of_root(referring.strip(), root, where)
            return Touch(self._table(table.strip(), where), (Step(column, root, back=True),), f'"{key}"')
        first, *rest = [self._column(part.strip(), where) for part in path.split("->")]
        table, column = first
        steps = []
        for next_table, next_column in rest:
            steps.append(Step(column, next_table))
            column = next_column
        return Touch(table, tuple(steps), f'"{column}"')

    def _column(self, text: str, where: str) -> tuple[str, str]:
        table, dot, column = str(text).rpartition(".")
        if not dot:
            raise self._wrong(where, f"{text!r} is not table.column")
        return self._table(table, where), column

    def _table(self, name: str, where: str) -> str:
        if name in self._tables.values():
            return name
        if name not in self._tables:
            raise self._unknown(where, name, self._tables)
        return self._tables[name]

    def _children(self, name: str, model: type[Part]) -> dict[str, str]:
        known = [field for field, info in model.model_fields.items() if _part_of(info.annotation) is not None]
        children = {}
        for file in sorted(self._folder.glob(f"{name}.*.sql")):
            field = file.name[len(name) + 1 : -4]
            if field not in known:
                raise self._unknown(file.name, field, known)
            children[field] = self._sql(file.name)
        return children

    def _sql(self, name: str) -> str:
        path = self._folder / name
        if not path.exists():
            raise self._wrong(name, "the file is missing")
        # psycopg2 reads % as the start of a parameter; only %(keys)s is one.
        return path.read_text("utf-8").replace("%", "%%").replace("%%(keys)s", "%(keys)s")

    def _only(self, content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in content:
            if key not in known:
                raise self._unknown(where, str(key), known)

    def _unknown(self, where: str, name: str, known: Iterable[str]) -> SettingsError:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
        return self._wrong(where, f"{name!r} is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _wrong(self, where: str, reason: str) -> SettingsError:
        return SettingsError(f"{self._file}: {where}: {reason}", "correct the profile")


def _part_of(annotation: Any) -> type[Part] | None:
    """The model of a tuple field's items."""
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, Part):
            return argument
    return None
