"""Builds the wheel with `pyodide build`: the VFS compiled by Emscripten instead of zig.

pyodide-build asks the network for an Emscripten SDK and a cross-build environment. Neither is
needed to compile one C file that no Python header is part of, so both are made here: Emscripten
from Debian's packages (emscripten_root.py), the environment from the npm release of Pyodide.

    python scripts/wheel_emscripten.py --output dist/emscripten
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from emscripten_root import make_root, python_version, run_inside

ROOT = Path(__file__).resolve().parent.parent
PYODIDE_BUILD = "pyodide-build==0.39.2"
SOURCES = ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "src")

# Paths inside the root folder.
WORK = "/work"
PYODIDE_ROOT = f"{WORK}/xbuildenv/pyodide-root"

# What pyodide-build reads through `make -f Makefile.envs .output_vars`. The flags are empty:
# vfs/build.py brings its own.
MAKEFILE_ENVS = """\
export PYVERSION = {python}
export PYMAJOR = {major}
export PYMINOR = {minor}
export PYMICRO = {micro}
export PYODIDE_VERSION = {pyodide}
export PYODIDE_ABI_VERSION = {abi}
export PYODIDE_EMSCRIPTEN_VERSION = {emscripten}
export PLATFORM_TRIPLET = wasm32-emscripten
export SYSCONFIG_NAME = {sysconfig}
export CPYTHONINSTALL = $(PYODIDE_ROOT)/cpython/installs/python-{python}
export TARGETINSTALLDIR = $(CPYTHONINSTALL)
export SYSCONFIGDATA_DIR = $(CPYTHONINSTALL)/sysconfigdata
export PYTHONINCLUDE = $(CPYTHONINSTALL)/include/python{major}.{minor}
export HOSTINSTALLDIR = $(PYODIDE_ROOT)/packages/.artifacts
export PIP_CONSTRAINT = $(PYODIDE_ROOT)/tools/constraints.txt
export CFLAGS_BASE =
export CXXFLAGS_BASE =
export LDFLAGS_BASE =

.output_vars:
\tset
"""
SYSCONFIG = "_sysconfigdata__emscripten_wasm32-emscripten"


def build(folder: Path, pyodide: Path, output: Path) -> Path:
    """Build the wheel in the root folder `folder` and copy it to `output`."""
    make_root(folder)
    work = folder / WORK.strip("/")
    shutil.rmtree(work, ignore_errors=True)
    make_cross_build_environment(folder / PYODIDE_ROOT.strip("/"), pyodide)
    fetch_wheels(work / "wheels", python_version(folder))
    project = work / "holdfast"
    project.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, project / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, project)

    environment = {
        "PATH": f"{WORK}/venv/bin:/usr/bin:/usr/sbin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        # Everything was fetched by the machine's own pip, with its settings.
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": f"{WORK}/wheels",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "NO_COLOR": "1",
        "PYODIDE_ROOT": PYODIDE_ROOT,
        # Debian's Emscripten is newer than Pyodide's. The module calls no library function and
        # no runtime support, so all that the two must share is the dynamic linking convention.
        "SKIP_EMSCRIPTEN_VERSION_CHECK": "1",
    }
    run_inside(folder, ["python3", "-m", "venv", f"{WORK}/venv"], environment)
    run_inside(folder, ["pip", "install", "--quiet", PYODIDE_BUILD], environment)
    run_inside(folder, ["emcc", "--version"], environment)
    run_inside(
        folder, ["pyodide", "build", ".", "--outdir", "dist"], environment, f"{WORK}/holdfast"
    )
    (wheel,) = (project / "dist").glob("*.whl")
    output.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(wheel, output))


def make_cross_build_environment(root: Path, pyodide: Path) -> None:
    """What `pyodide xbuildenv install` would download, as far as it is needed here."""
    release = json.loads((pyodide / "package.json").read_text())["version"]
    info = json.loads((pyodide / "pyodide-lock.json").read_text())["info"]
    major, minor, micro = info["python"].split(".")
    install = root / "cpython" / "installs" / f"python-{info['python']}"
    (install / "include" / f"python{major}.{minor}").mkdir(parents=True)
    (install / "sysconfigdata").mkdir()
    with zipfile.ZipFile(pyodide / "python_stdlib.zip") as library:
        data = library.read(f"{SYSCONFIG}.py")
    (install / "sysconfigdata" / f"{SYSCONFIG}.py").write_bytes(data)
    (root / "tools").mkdir()
    (root / "tools" / "constraints.txt").touch()
    # Packages with a cross-build half (numpy and the like): none is used.
    (root.parent / "requirements.txt").touch()
    (root / "dist").mkdir()
    shutil.copy(pyodide / "pyodide-lock.json", root / "dist")
    (root / "Makefile.envs").write_text(
        MAKEFILE_ENVS.format(
            python=info["python"],
            major=major,
            minor=minor,
            micro=micro,
            pyodide=release,
            abi=info["abi_version"],
            emscripten=info["platform"].removeprefix("emscripten_").replace("_", "."),
            sysconfig=SYSCONFIG,
        )
    )


def fetch_wheels(folder: Path, python: str) -> None:
    """pyodide-build and the project's build requirements, for the Python of the root folder."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    # pip takes what is tagged with one of these exactly, not with what they imply.
    manylinux = ("2_5", "1", "2_12", "2010", "2_17", "2014", "2_27", "2_28", "2_31", "2_34")
    platforms = [f"manylinux{'_' if '_' in version else ''}{version}" for version in manylinux]
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)),
            *("--only-binary", ":all:", "--implementation", "cp", "--python-version", python),
            *(f"--platform={name}_{platform.machine()}" for name in platforms),
            *(PYODIDE_BUILD, *project["build-system"]["requires"]),
        ],
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheel with pyodide build and emcc.")
    parser.add_argument("--root", type=Path, default=ROOT / ".build" / "emscripten")
    parser.add_argument("--pyodide", type=Path, default=ROOT / "node_modules" / "pyodide")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    print(build(arguments.root.resolve(), arguments.pyodide, arguments.output))


if __name__ == "__main__":
    main()
