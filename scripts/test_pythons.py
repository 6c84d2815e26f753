"""Runs the unit tests under every other Python that this machine has, of those that are supported.

Each gets a virtual environment of its own in .build/, with the packages of the group "test".

    python scripts/test_pythons.py -- -k transactions     # all of the suite, or what is chosen
    python scripts/test_pythons.py --short                # what differs among versions, in a minute
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / ".build"
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
# Where versions differed: how tasks are ordered and collected, what warns, what is closed.
SHORT = (
    "tests/unit/faults/test_scheduler.py",
    "tests/unit/faults/test_schedules.py",
    "tests/unit/triggers/test_trackers.py",
    "tests/unit/test_file_channel.py",
    "tests/unit/test_holds.py",
    "tests/unit/test_parameters.py",
    "tests/unit/test_peer.py",
    "tests/unit/test_readme.py",
)


def find(version: str) -> str | None:
    """An interpreter of this version: from PATH, or one that pyenv has installed."""
    found: list[str | None] = [shutil.which(f"python{version}")]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += map(str, sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}")))
    for path in filter(None, found):
        # A shim of pyenv's may be there for a version that is not chosen.
        done = subprocess.run(
            [path, "-c", "import ssl, venv"], capture_output=True, check=False, cwd="/"
        )
        if done.returncode == 0:
            return path
    return None


def prepare(version: str, python: str) -> str:
    """The interpreter of its environment, made where it is not there or out of date."""
    folder = BUILD / f"venv-{version}"
    inside, ready = str(folder / "bin" / "python"), folder / "ready"
    needs = ROOT / "pyproject.toml"
    if not ready.exists() or ready.stat().st_mtime < needs.stat().st_mtime:
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "pip==26.2"], check=True)
        subprocess.run([*install, "--group", "build", "--group", "test"], check=True, cwd=ROOT)
        editable = [*install, "--no-build-isolation", "--editable", "."]
        subprocess.run(editable, check=True, cwd=ROOT)
        ready.touch()
    return inside


def main() -> int:
    words = sys.argv[1:]
    short = "--short" in words
    options = words[words.index("--") + 1 :] if "--" in words else []
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    failed = []
    for version in SUPPORTED:
        if version == own:
            continue
        python = find(version)
        if python is None:
            print(f"== Python {version} is not on this machine", flush=True)
            continue
        print(f"== Python {version}", flush=True)
        tests = SHORT if short else ("tests/unit",)
        command = [prepare(version, python), "-m", "pytest", "--numprocesses=auto", "--quiet"]
        if subprocess.run([*command, *tests, *options], cwd=ROOT, check=False).returncode:
            failed.append(version)
    if failed:
        print(f"failed under Python {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
