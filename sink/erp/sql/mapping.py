"""The YAML file that maps our documents onto an ERP's tables."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.errors import SettingsError
from sink.erp.kinds import Kind, Milestone


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
    links: dict[Literal["order_line"], LinkColumn] = {}

    @property
    def columns(self) -> set[str]:
        """All columns that are named."""
        links = {link.column for link in self.links.values()}
        return {self.key, self.id, self.parent, *self.fields.values(), *links}


class DocumentTable(_Strict):
    """The table of a kind of document. Its links: `account` (of an order), `order` (of a return or refund).

    `status` is the column of its state, and `milestones` says what each of its values means; where several mean the
    same, the first is the one that is written.
    """

    table: str
    fields: dict[str, str]
    reference: str
    key: str = "external_key"
    id: str = "id"
    revision: str = "revision"
    links: dict[Literal["account", "order"], LinkColumn] = {}
    status: str | None = None
    milestones: dict[str, Milestone] = {}
    lines: LineTable | None = None

    @property
    def columns(self) -> set[str]:
        """All columns that are named."""
        links = {link.column for link in self.links.values()}
        status = {self.status} if self.status else set()
        return {self.key, self.id, self.revision, self.reference, *self.fields.values(), *links, *status}

    def state_of(self, milestone: Milestone) -> str | None:
        """The value to write for a milestone; None where the ERP has none."""
        return next((state for state, means in self.milestones.items() if means is milestone), None)


class Mapped(BaseModel):
    """A whole mapping file."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    identity: IdentityColumn
    items: ItemTable
    customer: DocumentTable
    order: DocumentTable
    refund: DocumentTable
    price: DocumentTable
    return_: DocumentTable

    def of(self, kind: Kind) -> DocumentTable:
        """The table of a kind."""
        document: DocumentTable = getattr(self, "return_" if kind == "return" else kind)
        return document


def load_mapping(path: Path) -> Mapped:
    """Reads a mapping; SettingsError names the keys that are wrong."""
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
        if isinstance(content, dict) and "return" in content:
            content["return_"] = content.pop("return")
        return Mapped.model_validate(content)
    except OSError as error:
        raise SettingsError(f"mapping {path}: {error.strerror}", "set erp.mapping to the YAML file") from None
    except yaml.YAMLError:
        raise SettingsError(
            f"mapping {path} is not YAML", "correct it; deploy/erp/mapping.yaml is an example"
        ) from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, p['loc']))}: {p['msg']}" for p in error.errors(include_input=False))
        raise SettingsError(f"mapping {path}: {wrong}", "deploy/erp/mapping.yaml is an example") from None
