"""Assembles a Pyodide that serves itself: the npm release, the wheels needed here, one lock file.

The npm package has no packages beside the standard library, and its lock file names hundreds
that are not there. In production micropip takes them from PyPI; tests, demo and benchmarks must
run without a network, so the few that they need are put beside Pyodide, and the lock file is
written anew to name exactly those. Wheels are fetched once by pip into a cache folder.

    python scripts/pyodide_dist.py --wheel dist/holdfast-….whl --output .build/pyodide
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Set
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent

# Where Pyodide's own lock file has a version, that one is taken: it was released with it.
# pytest and what follows it are for pytest-pyodide, which runs test functions inside Pyodide.
PACKAGES = ("micropip", "packaging", "pytest", "pluggy", "iniconfig", "pygments", "tblib")
PINNED = {"apsw": "3.54.1.0", "tblib": "3.2.2"}


def assemble(pyodide: Path, wheel: Path, cache: Path, output: Path) -> None:
    """Fill `output` from the npm folder `pyodide` and the holdfast `wheel`."""
    released = json.loads((pyodide / "pyodide-lock.json").read_text())
    versions = {name: released["packages"].get(name, {}).get("version") for name in PACKAGES}
    wheels = [wheel, *_fetch(versions | PINNED, released["info"], cache)]

    shutil.rmtree(output, ignore_errors=True)
    shutil.copytree(pyodide, output, ignore=shutil.ignore_patterns("node_modules"))
    for file in wheels:
        shutil.copy(file, output)
    # For pages that load it themselves, because of their policy or as JavaScript's module.
    with zipfile.ZipFile(wheel) as archive:
        for script in ("browser/host.js", "javascript/holdfast.mjs"):
            (output / Path(script).name).write_bytes(archive.read(f"holdfast/{script}"))

    names = {canonicalize_name(parse_wheel_filename(file.name)[0]) for file in wheels}
    environment = _marker_environment(released["info"])
    entries = [_lock_entry(file, names, environment) for file in wheels]
    lock = {"info": released["info"], "packages": {entry["name"]: entry for entry in entries}}
    (output / "pyodide-lock.json").write_text(json.dumps(lock, indent=1))


def _fetch(versions: dict[str, str], info: dict[str, str], cache: Path) -> list[Path]:
    """The wheels of `versions`, downloaded into `cache` unless they are there already."""
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in versions if not _cached(cache, name, versions[name])]
    if missing:
        subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--only-binary", ":all:", "--implementation", "cp"),
                *("--python-version", ".".join(info["python"].split(".")[:2])),
                *("--platform", f"pyemscripten_{info['abi_version']}_{info['arch']}"),
                *("--dest", str(cache)),
                *(f"{name}=={versions[name]}" for name in missing),
            ],
            check=True,
        )
    return [_cached(cache, name, version)[0] for name, version in versions.items()]


def _cached(cache: Path, name: str, version: str) -> list[Path]:
    return [
        file
        for file in sorted(cache.glob("*.whl"))
        if parse_wheel_filename(file.name)[0] == canonicalize_name(name)
        and str(parse_wheel_filename(file.name)[1]) == version
    ]


def _marker_environment(info: dict[str, str]) -> dict[str, str]:
    """The environment markers as they evaluate inside Pyodide."""
    here = {key: str(value) for key, value in default_environment().items()}
    return here | {
        "os_name": "posix",
        "sys_platform": "emscripten",
        "platform_system": "Emscripten",
        "platform_machine": info["arch"],
        "python_full_version": info["python"],
        "python_version": ".".join(info["python"].split(".")[:2]),
        "extra": "",
    }


def _lock_entry(file: Path, names: Set[str], environment: dict[str, str]) -> dict[str, Any]:
    """One package of pyodide-lock.json (format: the pyodide-lock project's PackageSpec)."""
    with zipfile.ZipFile(file) as archive:
        members = archive.namelist()
        metadata = next(name for name in members if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
    requirements = [Requirement(text) for text in headers.get_all("Requires-Dist") or []]
    depends = [
        canonicalize_name(requirement.name)
        for requirement in requirements
        if requirement.marker is None or requirement.marker.evaluate(environment)
    ]
    absent = set(depends) - names
    if absent:
        raise SystemExit(
            f"error: {file.name} needs {', '.join(sorted(absent))}, which is not put beside "
            f"Pyodide. Add it to PACKAGES or PINNED in {Path(__file__).name}."
        )
    name, version, _, _ = parse_wheel_filename(file.name)
    return {
        "name": name,
        "version": str(version),
        "file_name": file.name,
        "install_dir": "site",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "package_type": "package",
        "imports": _imports(members),
        "depends": depends,
        "unvendored_tests": False,
    }


def _imports(members: list[str]) -> list[str]:
    """The top-level modules of a wheel, from the names of its files."""
    tops = {name.split("/")[0] for name in members if ".dist-info/" not in name}
    return sorted({top.split(".")[0] for top in tops})


def main() -> None:
    parser = argparse.ArgumentParser(description="Assemble a self-contained Pyodide folder.")
    parser.add_argument("--pyodide", type=Path, default=ROOT / "node_modules" / "pyodide")
    parser.add_argument("--wheel", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=ROOT / ".build" / "wheels")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    assemble(arguments.pyodide, arguments.wheel, arguments.cache, arguments.output)


if __name__ == "__main__":
    main()
