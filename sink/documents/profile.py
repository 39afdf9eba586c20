"""A shop's mapping: a folder with `profile.yaml` and SQL. Data, no Python.

tables:                                 what is staged, and the columns that the SQL reads: it runs before a row came
  public.orders: {id: bigint, number: text, email: text}
  public.returns: {id: bigint, order_id: bigint}
  public.return_lines: {id: bigint, return_id: bigint}
  public.return_photos: {line_id: bigint, url: text}
documents:
  return_order:                         also the name of its files: return_order.sql, return_order.lines.sql
    model: ReturnOrder                  one of sink/documents/models.py
    key: returns.id                     its root row
    order: returns.order_id             the key of its order, if it has one: both are applied together. A column of the
                                        root row, or SQL over it: SELECT … FROM changed c JOIN orders o ON …
    series: ""                          of several documents of one model: part of the key in the ERP, so for ever
    touched_by:                         which changed rows make it worth another look: table → SQL that gives its key
      returns: id                         an expression over one changed row
      return_lines: return_id
      return_photos: SELECT l.return_id FROM changed c JOIN return_lines l ON l.id = c.line_id
      orders: SELECT r.id FROM changed c JOIN returns r ON r.order_id = c.id

One table may have several, as a list. `changed` has all columns of the table, the rows before and after, and deleted
ones as they were. NULL touches nothing: "CASE WHEN user_id IS NULL THEN 'guest:' || lower(email) END". A SELECT sees
the shop's other tables as they are before the change, and again as they are after it; `tables` says their columns. The
expressions over whole tables are all keys of a document, so its root must have one.

A table that the SQL reads and `touched_by` does not name is a *reference*: its changes touch nothing, so that one
renamed product does not mark a million orders. Only a row that comes late wakes the documents that lacked it.

A document may be made of many root rows, such as one order per buyer and day: its root has only expressions, none of
them the column in `key`.

extends: sample                         takes what is not here from another profile: tables, documents, files
sales_order.with.sql                    WITH …: comes before each of the document's other SQL
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from schemas.model.errors import SettingsError
from sink.documents.models import MODEL_VERSION, MODELS, Part, SalesOrder, part_of
from sink.documents.sqltext import is_select, named
from sink.documents.touched_by import Touch, rewritten, statements


@dataclass(frozen=True, slots=True)
class DocumentRule:
    """One kind of document: its model, how to find it and how to read it. `reads`: the profile's tables that its SQL
    (files and `touched_by`) names, as a word outside comments and literals. A column with the name of a table counts,
    too."""

    name: str
    model: type[Part]
    root: str
    key: str
    order: Touch | None  # gives the key of its order, from its root row; None: stands alone
    touched_by: tuple[Touch, ...]
    head: str
    children: Mapping[str, str]
    reads: frozenset[str]
    series: str = ""

    @property
    def is_one_row(self) -> bool:
        """Whether the document's key is the column `key`; else several root rows may make one document."""
        return any(touch.table == self.root and touch.column == self.key for touch in self.touched_by)

    @property
    def references(self) -> frozenset[str]:
        """The tables that it reads and whose changes do not touch it."""
        return self.reads - {touch.table for touch in self.touched_by}


@dataclass(frozen=True, slots=True)
class Profile:
    """A whole mapping. Tables have the shop's names: `public.orders`."""

    name: str
    tables: tuple[str, ...]
    documents: Mapping[str, DocumentRule]
    columns: Mapping[str, Mapping[str, str]]  # table → column → PostgreSQL's type, where the profile says them
    file: Path  # for messages
    version: str = ""  # another one for each content of the folder, and for each version of the models

    @property
    def selects_orders(self) -> bool:
        """Whether a SELECT finds the order of some documents."""
        return any(rule.order is not None and rule.order.selects for rule in self.documents.values())

    def of_model(self, model: str) -> list[DocumentRule]:
        """The rules that make documents of this model."""
        return [rule for rule in self.documents.values() if rule.model.__name__ == model]


def load_profile(name_or_path: str) -> Profile:
    """Loads a built-in profile by its name, or a folder. SettingsError names the file and the key that is wrong."""
    return _Loader(_folder(name_or_path)).load()


def _folder(name_or_path: str) -> Path:
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
    return folder


class _Loader:
    """Reads one folder. Every error names its place."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = folder / "profile.yaml"
        self._files: dict[str, Path] = {}
        self._tables: dict[str, str] = {}
        self._columns: dict[str, dict[str, str]] = {}

    def load(self) -> Profile:
        content = self._with_base()
        tables = content.get("tables") or ()
        self._tables = {table.rpartition(".")[2]: table for table in tables}
        if len(self._tables) < len(tables):
            raise self._wrong("tables", "two tables of different schemas have the same name")
        if isinstance(tables, dict):
            self._columns = {table: dict(given or {}) for table, given in tables.items()}
        rules = content.get("documents") or {}
        documents = {name: self._rule(name, rule or {}) for name, rule in rules.items()}
        self._told_apart(documents)
        return Profile(self._folder.name, tuple(tables), documents, self._columns, self._file, self._version())

    def _version(self) -> str:
        found = hashlib.sha256()
        for name, path in sorted(self._files.items()):
            found.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
        return f"{found.hexdigest()[:12]}.{MODEL_VERSION}"

    def _with_base(self, above: tuple[Path, ...] = ()) -> dict[str, Any]:
        """The content of profile.yaml, completed as the files are by those of the profile that it extends."""
        content = self._content()
        self._only(content, ("extends", "tables", "documents"), "profile")
        self._files = {path.name: path for path in (self._file, *self._folder.glob("*.sql"))}
        if "extends" not in content:
            return content
        name = str(content["extends"])
        base = _Loader((self._folder / name).resolve() if "/" in name else _folder(name))
        above = (*above, self._folder.resolve())
        if base._folder in above:
            raise self._wrong("extends", f"{name} extends this one")
        below = base._with_base(above)
        self._files = {**base._files, **self._files, f"{name}/profile.yaml": base._file}
        for part in ("tables", "documents"):
            ours, theirs = content.get(part) or {}, below.get(part) or {}
            if not (isinstance(ours, dict) and isinstance(theirs, dict)):
                raise self._wrong(part, f"not a mapping, here or in {name}")
            below[part] = {**theirs, **ours}
        return below

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

    def _told_apart(self, documents: Mapping[str, DocumentRule]) -> None:
        """Two documents of one model may have the same key. Their series tells them apart in the ERP."""
        names: dict[tuple[type[Part], str], str] = {}
        for name, rule in documents.items():
            other = names.setdefault((rule.model, rule.series), name)
            if other != name:
                hint = f"give one of them a name for ever, `series: {name}`: it is part of the keys in the ERP"
                raise self._wrong(f"documents.{name}", f"it and {other} are both a {rule.model.__name__}", hint)

    def _rule(self, name: str, rule: dict[str, Any]) -> DocumentRule:
        self._only(rule, ("model", "key", "order", "touched_by", "series"), name)
        for needed in ("model", "key", "touched_by"):
            if needed not in rule:
                raise self._wrong(f"documents.{name}", f"`{needed}` is missing")
        if rule["model"] not in MODELS:
            raise self._unknown(f"documents.{name}.model", rule["model"], MODELS)
        model = MODELS[rule["model"]]
        root, key = self._column(rule["key"], f"documents.{name}.key")
        touches = self._touches(rule["touched_by"], root, key, f"documents.{name}.touched_by")
        order = self._order(rule["order"], root, f"documents.{name}.order") if "order" in rule else None
        if model is SalesOrder and order is not None:
            if Touch(root, key) not in touches or order != Touch(root, key):
                raise self._wrong(f"documents.{name}.order", "an order is its own order: leave it out")
            order = None
        head, children = self._sql(f"{name}.sql"), self._children(name, model)
        asked = [*touches, *([order] if order else [])]
        reads = self._named("\n".join([head, *children.values(), *(touch.sql for touch in asked)]))
        every = frozenset(reads | {root} | {touch.table for touch in touches})
        return DocumentRule(name, model, root, key, order, touches, head, children, every, str(rule.get("series", "")))

    def _order(self, given: object, root: str, where: str) -> Touch:
        if is_select(str(given)):
            try:
                (select,) = statements(given)
            except ValueError as error:
                raise self._wrong(where, str(error)) from None
            touch = Touch(root, select)
            self._readable(touch, where)
            return touch
        table, column = self._column(str(given), where)
        if table != root:
            hint = "write a column of it, or SELECT … FROM changed c JOIN …, where `changed` is its row"
            raise self._wrong(where, f"{given} is not a column of the root {root}", hint)
        return Touch(root, column)

    def _touches(self, given: object, root: str, key: str, where: str) -> tuple[Touch, ...]:
        if isinstance(given, list):
            hint = f"write it as table: SQL, with the primary keys as they are:\n{rewritten(given, root, key)}"
            raise self._wrong(where, "a list of paths, which is no longer read", hint)
        if not isinstance(given, dict):
            raise self._wrong(where, f"{given!r} is not a mapping of tables to SQL")
        touches: list[Touch] = []
        for name, value in given.items():
            table = self._table(str(name), where)
            try:
                touches += [Touch(table, sql) for sql in statements(value)]
            except ValueError as error:
                raise self._wrong(f"{where}.{name}", str(error)) from None
        for touch in touches:
            self._readable(touch, f"{where}.{touch.table.rpartition('.')[2]}")
        if not any(touch.table == root and not touch.selects for touch in touches):
            raise self._wrong(where, f"the root has no expression; add `{root.rpartition('.')[2]}: {key}`")
        return tuple(dict.fromkeys(touches))

    def _readable(self, touch: Touch, where: str) -> None:
        """Checks that a SELECT can run as soon as a row of its table has arrived, when the other tables may be
        empty."""
        if not touch.selects:
            return
        for table in sorted(self._named(touch.sql) - {touch.table}):
            if not self._columns.get(table):
                raise self._wrong(where, f"its SELECT reads {table}, of which `tables` says no columns")

    def _named(self, sql: str) -> set[str]:
        return {self._tables[name] for name in named(sql, self._tables)}

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
        known = [field for field, info in model.model_fields.items() if part_of(info.annotation) is not None]
        children = {}
        for file in sorted(self._files):
            field = file[len(name) + 1 : -len(".sql")]
            if not file.startswith(f"{name}.") or not field or field == "with":
                continue
            if field not in known:
                raise self._unknown(file, field, known)
            children[field] = self._sql(file)
        return children

    def _sql(self, name: str) -> str:
        if name not in self._files:
            raise self._wrong(name, "the file is missing")
        before = self._files.get(f"{name.partition('.')[0]}.with.sql")
        text = "\n".join(path.read_text("utf-8") for path in (before, self._files[name]) if path)
        # psycopg2 reads % as the start of a parameter; only %(keys)s is one.
        return text.replace("%", "%%").replace("%%(keys)s", "%(keys)s")

    def _only(self, content: Mapping[str, Any], known: Sequence[str], where: str) -> None:
        for key in content:
            if key not in known:
                raise self._unknown(where, str(key), known)

    def _unknown(self, where: str, name: str, known: Iterable[str]) -> SettingsError:
        near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
        return self._wrong(where, f"{name!r} is unknown" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _wrong(self, where: str, reason: str, hint: str = "correct the profile") -> SettingsError:
        return SettingsError(f"{self._file}: {where}: {reason}", hint)
