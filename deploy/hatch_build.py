"""Compiles schemas/rowpath.pyx with the wheel, and in place for an editable installation. Where that cannot be done,
for want of a C compiler or Python's headers, it is left out: rows then go the plain way."""

from __future__ import annotations

import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from Cython.Build import cythonize
from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.errors import BaseError, CCompilerError

MODULE = "schemas.rowpath"


class CompiledRowPath(BuildHookInterface):  # type: ignore[type-arg]
    """What hatchling runs before it packs."""

    def initialize(self, _version: str, build_data: dict[str, Any]) -> None:
        """Adds the module to the wheel, if it can be made."""
        source = Path(self.root, *MODULE.split(".")).with_suffix(".pyx")
        built = source.with_suffix(sysconfig.get_config_var("EXT_SUFFIX"))  # what another Python has built stays
        built.unlink(missing_ok=True)
        try:
            compile_module(source, Path(self.root))
        except (CCompilerError, BaseError) as error:
            self.app.display_warning(f"{MODULE} is not compiled, rows go the plain way: {error}")
            return
        build_data["artifacts"].append(str(built.relative_to(self.root)))
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
