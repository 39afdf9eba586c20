"""The YAML file that maps our documents onto an ERP's tables."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Final

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError

from schemas.model.errors import SettingsError
from sink.erp.fields import CHILD_FIELDS, CHILD_LINKS, FIELDS, LINKS
from sink.erp.kinds import KINDS, PARTS, Kind, Milestone

_EXAMPLE: Final = "deploy/erp/mapping.yaml is an example"
_Names = tuple[str, ...]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class IdentityColumn(_Strict):
    """One column of a table."""

    table: str
    column: str


class ItemTable(_Strict):
    """The item master."""

    table: str
    sku: str


class LinkColumn(_Strict):
    """A column that refers to another table of the mapping: to its `id`, or to the column that `by` names."""

    column: str
    by: str | None = None


class LineTable(_Strict):
    """The table of a document's children. Its links: `order_line`, the sold line (of a return or refund)."""

    table: str
    parent: str
    fields: dict[str, str]
    key: str = "external_key"
    id: str = "id"
    links: dict[str, LinkColumn] = {}

    @property
    def columns(self) -> set[str]:
        """All mapped columns."""
        return {self.id} | self.written

    @cached_property
    def read(self) -> tuple[str, ...]:
        """All mapped columns, in the order in which they are read."""
        return tuple(sorted(self.columns))

    @property
    def written(self) -> set[str]:
        """The columns that we write; the ERP numbers its rows itself."""
        links = {link.column for link in self.links.values()}
        return {self.key, self.parent, *self.fields.values(), *links}


class DocumentTable(_Strict):
    """The table of a kind of document. Its links: `account` (of an order), `order` (of a return or refund). `status` is
    the column of its state, and `milestones` gives the meaning of each state. If several states have one meaning, the
    first is written."""

    table: str
    fields: dict[str, str]
    reference: str
    key: str = "external_key"
    id: str = "id"
    revision: str = "revision"
    links: dict[str, LinkColumn] = {}
    status: str | None = None
    milestones: dict[str, Milestone] = {}
    lines: LineTable | None = None

    @property
    def columns(self) -> set[str]:
        """All mapped columns."""
        return {self.id, self.reference} | self.written

    @cached_property
    def read(self) -> tuple[str, ...]:
        """All mapped columns, in the order in which they are read."""
        return tuple(sorted(self.columns))

    @property
    def written(self) -> set[str]:
        """The columns that we write; the ERP numbers its documents itself."""
        links = {link.column for link in self.links.values()}
        status = {self.status} if self.status else set()
        return {self.key, self.revision, *self.fields.values(), *links, *status}

    def state_of(self, milestone: Milestone) -> str | None:
        """The state to write for a milestone; None if the ERP has none."""
        return next((state for state, means in self.milestones.items() if means is milestone), None)


class Mapped(BaseModel):
    """A whole mapping file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: IdentityColumn
    items: ItemTable
    customer: DocumentTable
    order: DocumentTable
    refund: DocumentTable
    price: DocumentTable
    return_: DocumentTable = Field(alias="return")
    _file: str = PrivateAttr("mapping")
    _lines: dict[_Names, int] = PrivateAttr({})

    def of(self, kind: Kind) -> DocumentTable:
        """The table of a kind."""
        document: DocumentTable = getattr(self, "return_" if kind == "return" else kind)
        return document

    def where(self, *names: str) -> str:
        """A place in the file: `mapping.yaml:31: order.fields.net`."""
        return _where(self._file, self._lines, names)


def load_mapping(path: Path) -> Mapped:
    """Reads a mapping. SettingsError names file, line and key of everything that is wrong in it."""
    try:
        text = path.read_text("utf-8")
        content, lines = yaml.safe_load(text), _lines(yaml.compose(text, Loader=yaml.SafeLoader))
        mapping = Mapped.model_validate(content)
    except OSError as error:
        raise SettingsError(f"mapping {path}: {error.strerror}", "set erp.mapping to the YAML file") from None
    except UnicodeDecodeError:
        raise SettingsError(f"mapping {path} is not UTF-8", "save it in that encoding") from None
    except yaml.YAMLError as error:
        line = f":{mark.line + 1}" if (mark := getattr(error, "problem_mark", None)) else ""
        problem = getattr(error, "problem", None) or "characters that no text has"
        raise SettingsError(f"{path}{line}: not YAML: {problem}", f"correct it; {_EXAMPLE}") from None
    except ValidationError as error:
        wrong = [
            f"{_where(str(path), lines, [str(name) for name in one['loc']])}: {one['msg']}"
            for one in error.errors(include_input=False)
        ]
        raise SettingsError("; ".join(wrong), _EXAMPLE) from None
    mapping._file, mapping._lines = str(path), lines
    if unknown := list(_unknown(mapping)):
        raise SettingsError("; ".join(unknown), f"correct the name; {_EXAMPLE}")
    return mapping


def _lines(node: yaml.Node | None, at: _Names = ()) -> dict[_Names, int]:
    """The line of each key in a file, by the names that lead to it. YAMLError if a key is there twice: the library
    would silently take the second."""
    found: dict[_Names, int] = {}
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        here = (*at, str(key.value))
        if here in found:
            raise yaml.MarkedYAMLError(problem=f"`{key.value}` appears twice", problem_mark=key.start_mark)
        found[here] = key.start_mark.line + 1
        found |= _lines(value, here)
    return found


def _where(file: str, lines: Mapping[_Names, int], names: Sequence[str]) -> str:
    """The place of a wrong key; for a missing key, the line of the key that should contain it."""
    known = (lines[tuple(names[:end])] for end in range(len(names), 0, -1) if tuple(names[:end]) in lines)
    return f"{file}:{next(known, 1)}: {'.'.join(names)}"


def _unknown(mapping: Mapped) -> Iterator[str]:
    """Mapped names that no document of ours has, and names that have to be mapped and are not."""
    for kind in KINDS:
        document = mapping.of(kind)
        yield from _strange(mapping, (kind, "fields"), document.fields, FIELDS[kind])
        yield from _strange(mapping, (kind, "links"), document.links, LINKS[kind])
        if document.lines is None:
            continue
        if not PARTS[kind]:
            yield f"{mapping.where(kind, 'lines')}: a {kind} has no lines"
            continue
        yield from _strange(mapping, (kind, "lines", "fields"), document.lines.fields, CHILD_FIELDS[kind])
        yield from _strange(mapping, (kind, "lines", "links"), document.lines.links, CHILD_LINKS[kind])
        if kind in ("order", "return") and "quantity" not in document.lines.fields:
            yield f"{mapping.where(kind, 'lines', 'fields')}: `quantity` is missing: what comes back is counted by it"


def _strange(mapping: Mapped, at: _Names, given: Collection[str], known: Collection[str]) -> Iterator[str]:
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, 1)
            which = f"did you mean `{near[0]}`?" if near else f"there are {', '.join(known) or 'none'}"
            yield f"{mapping.where(*at, name)}: the shop's {at[0]}s have no such {at[-1][:-1]}; {which}"
