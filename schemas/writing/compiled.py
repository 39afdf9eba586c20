"""How rows are encoded: by the compiled module (rowpath.pyx) if it was built, else in plain Python."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

from schemas.process.settings import wants_pure_python

if TYPE_CHECKING:
    from schemas.writing import rowpath as _rowpath
else:
    try:
        from schemas.writing import rowpath as _rowpath
    except ImportError:  # no compiler was there when ordertap was installed
        _rowpath = None


def rowpath() -> ModuleType | None:
    """The module; None if it was not built, or if the environment asks for plain Python."""
    return None if wants_pure_python() else _rowpath


def way_of_rows() -> str:
    """How rows are encoded, in words."""
    if wants_pure_python():
        return "plain Python (ORDERTAP_PURE_PYTHON)"
    return "plain Python (the compiled module was not built)" if _rowpath is None else "compiled"
