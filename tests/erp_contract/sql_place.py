"""An empty database for an ERP with other tables and another mapping."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sink.erp.contract import Checked, StopError
from sink.erp.sql.adapter import SqlErp
from sink.erp.sql.mapping import load_mapping
from tests.erp_contract.sql_target import MAPPING, SqlTarget, edited

Edits = Mapping[str, str]


class Place:
    """An empty database, and a folder for the mapping."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self._folder = folder
        self._opened: list[SqlErp] = []

    def erp(self, mapping: Mapping[str, str] = {}, user: str = "") -> SqlErp:
        file = self._folder / "mapping.yaml"
        file.write_text(edited(MAPPING.read_text(), mapping))
        url = self.url.replace("postgres@", f"{user}@") if user else self.url
        self._opened.append(SqlErp(url, load_mapping(file)))
        return self._opened[-1]

    def target(self, tables: Edits) -> SqlTarget:
        return SqlTarget(self.url, tables)

    def refused(self, tables: Edits, mapping: Mapping[str, str] = {}) -> StopError:
        self.target(tables)
        with pytest.raises(StopError) as refusal:
            self.erp(mapping).check()
        return refusal.value

    def notes(self, tables: Edits, mapping: Mapping[str, str] = {}) -> list[tuple[str, str]]:
        self.target(tables)
        return told(self.erp(mapping).check())

    def close(self) -> None:
        for one in self._opened:
            one.close()


def told(checked: Checked) -> list[tuple[str, str]]:
    return [(one.message, one.hint) for one in checked.advice]
