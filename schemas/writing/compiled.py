"""Which way rows go: by the compiled module (rowpath.pyx) where it was built, else by plain Python."""

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
    """The module; None where it was not built, or where the environment wants plain Python."""
    return None if wants_pure_python() else _rowpath


def way_of_rows() -> str:
    """Which way rows go, in words."""
    if wants_pure_python():
        return "plain Python (ORDERTAP_PURE_PYTHON)"
    return "plain Python (the compiled module was not built)" if _rowpath is None else "compiled"
