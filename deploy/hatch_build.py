"""Compiles schemas/writing/rowpath.pyx with the wheel, and in place for an editable installation. Where that cannot
be done, for want of a C compiler or Python's headers, it is left out: rows then go the plain way."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.errors import BaseError, CCompilerError

MODULE = "schemas.writing.rowpath"


class CompiledRowPath(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling runs before it packs."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Adds the module to the wheel, if it can be made."""
        built = Path(self.root, *MODULE.split("."))
        for former in built.parent.glob(f"{built.name}.*.so"):
            former.unlink()  # of another source or another Python
        try:
            compile_module(built.with_suffix(".pyx"), Path(self.root))
        except (CCompilerError, BaseError) as error:
            self.app.display_warning(f"{MODULE} is not compiled, rows go the plain way: {error}")
            return
        build_data["artifacts"].append(f"{MODULE.replace('.', '/')}.*")
        build_data["infer_tag"] = True
        build_data["pure_python"] = False


def compile_module(source: Path, root: Path) -> None:
    """Puts the module beside its source; CCompilerError or BaseError where it cannot be compiled."""
    with tempfile.TemporaryDirectory() as folder:
        module = Extension(MODULE, [str(source.relative_to(root))], extra_compile_args=["-g0"])
        extensions = cythonize([module], build_dir=folder)
        command = Distribution({"name": "ordertap", "ext_modules": extensions}).get_command_obj("build_ext")
        command.inplace, command.build_temp, command.build_lib = True, folder, folder
        command.ensure_finalized()
        command.run()
