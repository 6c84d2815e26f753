"""Hatchling's hooks: what is built for the wheel, and the README as an index of packages shows it.

Built are the compiled VFS and the JavaScript as one module, as package data.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

MODULE_IN_WHEEL = "holdfast/vfs/holdfast_vfs.wasm"
SCRIPT_IN_WHEEL = "holdfast/javascript/holdfast.mjs"
# A worker that is made of a blob: URL has nothing beside it to import from.
IMPORT = re.compile(r'^import (?:\{[^}]*\} from )?"(\.[\w./]+)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?=(?:async )?function|class|const)", re.MULTILINE)

# What the README takes from the repository: pictures, each in a paragraph of its own, and pages.
PICTURE = re.compile(r"^!\[[^\]]*\]\((?!https:)[^)]*\)\n\n", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\((?!https:)([^)#]*)[^)]*\)")


class CustomMetadataHook(MetadataHookInterface):
    """The README without what would lead nowhere outside the repository."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = PICTURE.sub("", (Path(self.root) / "README.md").read_text("utf-8"))
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": LINK.sub(_without_link, text),
        }


def _without_link(link: re.Match[str]) -> str:
    text, path = link.groups()
    return f"`{path}`" if text == path else f"{text} (`{path}`)"


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
        script = Path(self._output.name) / "holdfast.mjs"
        script.write_text(_joined_script(Path(self.root) / "src" / "holdfast" / "javascript"))
        build_data["force_include"][str(script)] = SCRIPT_IN_WHEEL

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        output = getattr(self, "_output", None)
        if output is not None:
            output.cleanup()


def _joined_script(folder: Path) -> str:
    """holdfast.mjs, with what it imports in place of the first line that does."""
    script = folder / "holdfast.mjs"
    there = {script.resolve()}

    def part(line: re.Match[str]) -> str:
        path = (folder / line[1]).resolve()
        if path in there:
            return ""
        there.add(path)
        return EXPORT.sub("", IMPORT.sub(part, path.read_text("utf-8")))

    return IMPORT.sub(part, script.read_text("utf-8"))


def _build_script(root: Path) -> ModuleType:
    """src/holdfast/vfs/build.py, loaded by path: the package itself needs apsw to be imported."""
    path = root / "src" / "holdfast" / "vfs" / "build.py"
    spec = importlib.util.spec_from_file_location("holdfast_vfs_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
