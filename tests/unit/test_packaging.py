"""What is built: the wasm module's surface, the wheel's contents, the errors of a failed build."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """vfs/build.py as the build hook loads it: by path, without the package."""
    path = ROOT / "src" / "holdfast" / "vfs" / "build.py"
    spec = importlib.util.spec_from_file_location("holdfast_vfs_build", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
    )
    (file,) = folder.iterdir()
    return file


class WasmModule:
    """Names of imports and exports of a module (WebAssembly core specification, 5.5)."""

    IMPORT, EXPORT = 2, 7
    FUNCTION, TABLE, MEMORY, GLOBAL = range(4)

    def __init__(self, data: bytes) -> None:
        assert data[:8] == b"\0asm\x01\0\0\0"
        self._data, self._at = data, 8
        self.imported_functions: set[str] = set()
        self.exports: set[str] = set()
        while self._at < len(data):
            section = self._number()
            end = self._number() + self._at
            if section == self.IMPORT:
                self.imported_functions = set(self._imported_functions())
            elif section == self.EXPORT:
                self.exports = set(self._exports())
            self._at = end

    def _number(self) -> int:
        """An unsigned LEB128."""
        value = shift = 0
        while True:
            byte = self._data[self._at]
            self._at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def _name(self) -> str:
        length = self._number()
        self._at += length
        return self._data[self._at - length : self._at].decode()

    def _limits(self) -> None:
        for _ in range(1 + (self._number() & 1)):
            self._number()

    def _imported_functions(self) -> Iterator[str]:
        for _ in range(self._number()):
            module, name, kind = self._name(), self._name(), self._number()
            if kind == self.FUNCTION:
                self._number()
                yield f"{module}.{name}"
            elif kind == self.MEMORY:
                self._limits()
            else:  # a table: element type and limits; a global: value type and mutability
                self._number()
                if kind == self.TABLE:
                    self._limits()
                else:
                    self._number()

    def _exports(self) -> Iterator[str]:
        for _ in range(self._number()):
            yield self._name()
            self._at += 1
            self._number()


def test_the_wheel_is_for_every_python_and_brings_the_module(wheel: Path) -> None:
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {"holdfast/__init__.py", "holdfast/py.typed", "holdfast/vfs/holdfast_vfs.wasm"} <= names
    assert not [name for name in names if name.endswith((".c", ".so", "build.py"))]


def test_the_wheels_description_has_no_link_into_the_repository(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(name).decode()
    assert "\nDescription-Content-Type: text/markdown\n" in text
    assert "\n# Holdfast\n" in text and "Triggers (`docs/triggers.md`)" in text
    assert re.findall(r"\]\((?!https:)[^)]*\)", text) == []


def test_the_commands_of_the_documentation_take_files_out_of_the_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    pages = "\n".join(page.read_text() for page in (ROOT / "docs").glob("*.md"))
    commands = re.findall(r"^unzip .*$", pages, re.M)
    assert len(commands) == 2
    (tmp_path / wheel.name).symlink_to(wheel)
    for command in commands:
        subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True)
    taken = {path.name for path in tmp_path.iterdir() if path.stat().st_size > 0}
    assert taken == {wheel.name, "holdfast.mjs", "holdfast.d.mts", "host.js"}


def test_host_js_has_the_wheels_version(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        script = archive.read("holdfast/browser/host.js").decode()
    assert f'version = "{wheel.name.split("-")[1]}";' in script


def test_the_script_is_one_module_of_all_its_parts(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        script = archive.read("holdfast/javascript/holdfast.mjs").decode()
    assert 'from ".' not in script and 'import ".' not in script
    folder = ROOT / "src" / "holdfast" / "javascript"
    parts = [folder.parent / "browser" / "host.js", *folder.glob("*.mjs")]
    assert len(parts) > 5
    for part in parts:
        # Each once, however many import it.
        first = part.read_text("utf-8").splitlines()[0]
        assert script.splitlines().count(first) == 1, part.name
    # In one module a name that two parts declare is a SyntaxError, of which a browser says nothing.
    declared = re.findall(r"^(?:async )?(?:function\*?|class|const|let) (\w+)", script, re.M)
    assert len(declared) > 50
    assert {name for name in declared if declared.count(name) > 1} == set()


def test_the_module_exports_its_entry_point_and_imports_what_pyodide_has(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        module = WasmModule(archive.read("holdfast/vfs/holdfast_vfs.wasm"))
    # The second name is the dynamic linking convention's, called by the loader.
    assert module.exports == {"sqlite3_holdfastvfs_init", "__wasm_apply_data_relocs"}
    # An import that Pyodide's main module lacks shows only when it is called: as a crash.
    assert module.imported_functions <= {
        f"env.{name}" for name in ("memcmp", "memcpy", "memmove", "memset", "strcmp", "strlen")
    }


def test_the_same_source_makes_the_same_module(build: ModuleType, tmp_path: Path) -> None:
    build.build_wasm(tmp_path / "one.wasm")
    build.build_wasm(tmp_path / "two.wasm")
    assert (tmp_path / "one.wasm").read_bytes() == (tmp_path / "two.wasm").read_bytes()


def test_the_native_extension_registers_the_vfs(build: ModuleType, tmp_path: Path) -> None:
    extension = tmp_path / "holdfast_vfs.so"
    build.build_native(extension)
    # In a process of its own: other tests of this one may have registered the VFS.
    code = (
        "import apsw, sys\n"
        "c = apsw.Connection(':memory:')\n"
        "c.enable_load_extension(True)\n"
        f"c.load_extension(sys.argv[1], {build.ENTRY_POINT!r})\n"
        "c.close()\n"
        "print('holdfast' in apsw.vfs_names())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(extension)], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_missing_headers_are_told_with_what_to_do(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sqlite3.h").touch()
    monkeypatch.setenv("SQLITE_INCLUDE_DIR", str(tmp_path))
    with pytest.raises(build.BuildError) as caught:
        build.find_headers()
    for word in ("sqlite3ext.h", str(tmp_path), "libsqlite3-dev", "SQLITE_INCLUDE_DIR"):
        assert word in str(caught.value)


def test_a_named_header_folder_is_taken(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in build.HEADERS:
        (tmp_path / name).touch()
    monkeypatch.setenv("SQLITE_INCLUDE_DIR", str(tmp_path))
    assert build.find_headers() == tmp_path


def test_a_missing_compiler_is_told(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(build.BuildError, match="no C compiler"):
        build.build_native(tmp_path / "x.so")


def test_emcc_is_asked_for_inside_a_pyodide_build(
    build: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = build.find_headers()
    monkeypatch.setenv("SQLITE_INCLUDE_DIR", str(headers))
    monkeypatch.setenv("PYODIDE", "1")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(build.BuildError, match="emcc is not on PATH"):
        build.build_wasm(tmp_path / "x.wasm")


# A browser takes long to import these, and nothing of them is needed to open a database there.
HEAVY = {"ctypes", "importlib.metadata", "urllib.parse", "uuid", "filelock", "email"}


def test_importing_it_imports_nothing_heavy() -> None:
    """Nor anything of CPython's files, or of copying whole databases."""
    # What apsw imports is its own affair.
    code = """import sys, apsw
before = {*sys.modules}
import holdfast
print(*({*sys.modules} - before))"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert "holdfast" in imported
    assert not imported & HEAVY
    unused = ("holdfast.storage.file", "holdfast.holds.file", "holdfast.local.files")
    assert not {name for name in imported if name.startswith(unused)}


def test_what_is_imported_when_it_is_asked_for() -> None:
    code = "import holdfast; print(holdfast.FileTriggerHoldManager.__name__, holdfast.__version__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "FileTriggerHoldManager"
    metadata = (ROOT / "src" / "holdfast" / "version.py").read_text()
    assert f'"{done.stdout.split()[1]}"' in metadata
    missing = subprocess.run(
        [sys.executable, "-c", "import holdfast; holdfast.nothing"], capture_output=True, text=True
    )
    assert "has no attribute 'nothing'" in missing.stderr
