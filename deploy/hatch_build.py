"""Compiles schemas/writing/rowpath.pyx for the wheel, or in place for an editable installation. Without a C compiler or
Python's headers the module is left out, and rows are encoded by the Python code."""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.errors import BaseError, CCompilerError

MODULE = "schemas.writing.rowpath"


class CompiledRowPath(BuildHookInterface):  # type: ignore[type-arg]
    """The build hook, which hatchling runs before it packs."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Adds the module to the wheel if it can be compiled."""
        source = Path(self.root, *MODULE.split(".")).with_suffix(".pyx")
        built = source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))  # modules built by other Pythons stay
        built.unlink(missing_ok=True)
        try:
            compile_module(source, Path(self.root))
        except (CCompilerError, BaseError) as error:
            self.app.display_warning(f"{MODULE} is not compiled, rows are encoded by the Python code: {error}")
            return
        build_data["artifacts"].append(str(built.relative_to(self.root)))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False


def compile_module(source: Path, root: Path) -> None:
    """Compiles the module next to its source. CCompilerError or BaseError if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        module = Extension(MODULE, [str(source.relative_to(root))], extra_compile_args=["-g0"])
        extensions = cythonize([module], build_dir=folder)
        command = Distribution({"name": "ordertap", "ext_modules": extensions}).get_command_obj("build_ext")
        command.inplace, command.build_temp, command.build_lib = True, folder, folder
        command.ensure_finalized()
        command.run()
