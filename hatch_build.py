"""Hatchling's build hook: puts the compiled VFS into the wheel as package data."""

from __future__ import annotations

import importlib.util
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE_IN_WHEEL = "holdfast/vfs/holdfast_vfs.wasm"


class CustomBuildHook(BuildHookInterface[Any]):
    """Compiles holdfast_vfs.c beside the package, so that the source tree stays clean."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        # An editable install is for CPython, where nothing loads the wasm module.
        if self.target_name != "wheel" or version == "editable":
            return
        self._output = tempfile.TemporaryDirectory(prefix="holdfast-wheel-")
        module = Path(self._output.name) / "holdfast_vfs.wasm"
        _build_script(Path(self.root)).build_wasm(module)
        build_data["force_include"][str(module)] = MODULE_IN_WHEEL

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        output = getattr(self, "_output", None)
        if output is not None:
            output.cleanup()


def _build_script(root: Path) -> ModuleType:
    """src/holdfast/vfs/build.py, loaded by path: the package itself needs apsw to be imported."""
    path = root / "src" / "holdfast" / "vfs" / "build.py"
    spec = importlib.util.spec_from_file_location("holdfast_vfs_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
