"""The YAML file that maps our documents onto an ERP's tables."""

from __future__ import annotations

from pathlib import Path

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


class StatusColumn(_Strict):
    """The column of a document's state, what a new one has, and what a cancelled one."""

    column: str
    new: str
    cancelled: str


class LineTable(_Strict):
    """The table of a document's lines. `order_line`: the column that refers to the sold line (of a return)."""

    table: str
    parent: str
    fields: dict[str, str]
    key: str = "external_key"
    id: str = "id"
    order_line: str | None = None


class DocumentTable(_Strict):
    """The table of a kind of document. `order`: the column that refers to its order (of a return or refund)."""

    table: str
    fields: dict[str, str]
    reference: str
    key: str = "external_key"
    id: str = "id"
    revision: str = "revision"
    order: str | None = None
    status: StatusColumn | None = None
    milestones: dict[str, Milestone] = {}
    lines: LineTable | None = None


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
