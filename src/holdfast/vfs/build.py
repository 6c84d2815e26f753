"""Compiles holdfast_vfs.c: to the WebAssembly side module of the wheel, or to a native extension.

The C file is a SQLite loadable extension. As WebAssembly it is a side module in the sense of the
"WebAssembly Dynamic Linking" convention (tool-conventions, DynamicLinking.md): position
independent, memory and table imported, undefined functions left to the main module. Pyodide's
main module is what resolves them, so nothing of a C library is linked in.

Needs nothing but the standard library, a compiler and SQLite's two headers, so that the build
hook can load this file by its path, before the package can be imported. By hand:

    python src/holdfast/vfs/build.py wasm holdfast_vfs.wasm
    python src/holdfast/vfs/build.py native holdfast_vfs.so
    python src/holdfast/vfs/build.py headers
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("holdfast_vfs.c")
ENTRY_POINT = "sqlite3_holdfastvfs_init"
HEADERS = ("sqlite3.h", "sqlite3ext.h")

# What the wasm baseline of every browser with OPFS has, and no more: with the compiler's own
# default list, engines as old as Node 20's refuse the module.
WASM_FEATURES = "mvp+bulk_memory+sign_ext+nontrapping_fptoint+mutable_globals"

COMMON_FLAGS = ("-std=c11", "-O2", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")


class BuildError(Exception):
    """The C file could not be compiled; the message says what is missing and how to get it."""


def build_wasm(output: Path, compiler: str | None = None) -> None:
    """Write the wasm side module to `output`.

    `compiler` is "zig" (the ziglang package of this interpreter) or "emcc" (found on PATH). None
    takes emcc inside `pyodide build`, which announces itself with PYODIDE=1, and zig elsewhere.
    """
    if compiler is None:
        compiler = "emcc" if os.environ.get("PYODIDE") == "1" else "zig"
    with tempfile.TemporaryDirectory(prefix="holdfast-vfs-") as directory:
        work = Path(directory)
        # Only these two files: the rest of a system's include folder is for another machine.
        headers = find_headers()
        for name in HEADERS:
            shutil.copy(headers / name, work / name)
        for part in (SOURCE, *SOURCE.parent.glob("*.h")):
            shutil.copy(part, work / part.name)
        module = work / "module.wasm"
        if compiler == "emcc":
            _compile_with_emcc(work, module)
        elif compiler == "zig":
            _compile_with_zig(work, module)
        else:
            raise ValueError(f"unknown compiler {compiler!r}: it is 'zig' or 'emcc'")
        output.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, output)


def build_native(output: Path, flags: Sequence[str] = ()) -> None:
    """Write a loadable extension for CPython's SQLite to `output`, compiled by $CC or `cc`.

    `flags` go to the compiler after the usual ones: defines, sanitizers, coverage.
    """
    compiler = _native_compiler()
    if compiler is None:
        raise BuildError(
            "no C compiler: neither $CC nor a program named cc on PATH. "
            "Install one (Debian: apt-get install gcc libc6-dev) or set CC."
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    _run(
        [
            *compiler,
            *COMMON_FLAGS,
            "-g",
            "-shared",
            f"-I{find_headers()}",
            *flags,
            str(SOURCE),
            "-o",
            str(output),
        ]
    )


def find_headers() -> Path:
    """The folder that holds sqlite3.h and sqlite3ext.h."""
    tried = []
    for folder in _header_folders():
        if all((folder / name).is_file() for name in HEADERS):
            return folder
        tried.append(str(folder))
    raise BuildError(
        f"SQLite's headers {' and '.join(HEADERS)} were not found, and the VFS cannot be compiled "
        f"without them. Looked in: {', '.join(dict.fromkeys(tried)) or 'no folder'}. Install them "
        "(Debian: apt-get install libsqlite3-dev) or set SQLITE_INCLUDE_DIR to their folder."
    )


def _header_folders() -> Iterator[Path]:
    chosen = os.environ.get("SQLITE_INCLUDE_DIR")
    if chosen:
        # A named folder is used or refused: falling back to another would hide a typo.
        yield Path(chosen)
        return
    if shutil.which("pkg-config"):
        answer = subprocess.run(
            ["pkg-config", "--variable=includedir", "sqlite3"],
            capture_output=True,
            text=True,
            check=False,
        ).stdout.strip()
        if answer:
            yield Path(answer)
    yield from _compiler_include_folders()
    yield Path("/usr/local/include")
    yield Path("/usr/include")


def _compiler_include_folders() -> Iterator[Path]:
    compiler = _native_compiler()
    # Inside `pyodide build` CC is a cross compiler, and its folders are Emscripten's.
    if compiler is None or os.environ.get("PYODIDE") == "1":
        return
    lines = subprocess.run(
        [*compiler, "-E", "-v", "-x", "c", os.devnull],
        capture_output=True,
        text=True,
        check=False,
    ).stderr.splitlines()
    # GCC and clang both list the search path as indented lines between two unindented ones.
    inside = False
    for line in lines:
        if line.startswith("#include <...>"):
            inside = True
        elif inside and line.startswith(" "):
            yield Path(line.strip().removesuffix(" (framework directory)"))
        elif inside:
            return


def _native_compiler() -> list[str] | None:
    command = shlex.split(os.environ.get("CC", "")) or ["cc"]
    return command if shutil.which(command[0]) else None


def _compile_with_zig(work: Path, module: Path) -> None:
    zig = [sys.executable, "-m", "ziglang"]
    if subprocess.run([*zig, "version"], capture_output=True, check=False).returncode != 0:
        raise BuildError(
            f"{sys.executable} has no working ziglang package, the compiler of the wasm module. "
            "Build with isolation (pip does by default), or pip install ziglang."
        )
    # A build leaves nothing behind, and needs no home folder that can be written to.
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(work / "zig"), "ZIG_LOCAL_CACHE_DIR": str(work / "zig")}
    _run(
        [
            *zig,
            "cc",
            "-target",
            "wasm32-emscripten",
            f"-mcpu={WASM_FEATURES}",
            *COMMON_FLAGS,
            # -I and no system folder: the source may use what the compiler itself brings
            # (stddef.h, stdint.h, stdarg.h, __builtin_memcpy), and nothing of a C library.
            f"-I{work}",
            "-c",
            str(work / SOURCE.name),
            "-o",
            str(work / "module.o"),
        ],
        cache,
    )
    _run(
        [
            *zig,
            "wasm-ld",
            "-shared",
            "--experimental-pic",
            "--import-memory",
            "--import-undefined",
            "--unresolved-symbols=import-dynamic",
            "--strip-all",
            "--no-entry",
            str(work / "module.o"),
            "-o",
            str(module),
        ],
        cache,
    )


def _compile_with_emcc(work: Path, module: Path) -> None:
    emcc = shutil.which("emcc")
    if emcc is None:
        raise BuildError(
            "emcc is not on PATH, though this is a build for Pyodide. "
            "Activate an Emscripten SDK, or run `make wheel-emscripten`, which brings one."
        )
    _run(
        [
            emcc,
            "-sSIDE_MODULE=2",
            "-sWASM_BIGINT",
            f"-sEXPORTED_FUNCTIONS=_{ENTRY_POINT}",
            *COMMON_FLAGS,
            f"-I{work}",
            str(work / SOURCE.name),
            "-o",
            str(module),
        ]
    )


def _run(command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **(environment or {})},
    )
    # Warnings are shown too: a module that compiles with one deserves a look.
    sys.stderr.write(done.stderr)
    if done.returncode != 0:
        raise BuildError(
            f"compiling the VFS failed with status {done.returncode}:\n"
            f"{shlex.join(command)}\n{done.stdout}{done.stderr}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile holdfast's SQLite VFS.")
    kinds = parser.add_subparsers(dest="kind", required=True)
    wasm = kinds.add_parser("wasm", help="the side module of the wheel")
    wasm.add_argument("output", type=Path)
    wasm.add_argument("--compiler", choices=("zig", "emcc"))
    native = kinds.add_parser("native", help="a loadable extension for CPython's SQLite")
    native.add_argument("output", type=Path)
    kinds.add_parser("headers", help="print the folder of SQLite's headers")
    arguments = parser.parse_args()
    try:
        if arguments.kind == "wasm":
            build_wasm(arguments.output, arguments.compiler)
        elif arguments.kind == "native":
            build_native(arguments.output)
        else:
            print(find_headers())
    except BuildError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
