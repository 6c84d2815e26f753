"""SQLite's own judgement: `apsw.tests` on the VFS, compiled natively, in a process of its own.

tests/browser/test_apsw_suite.py has the same over OPFS. What is left out, and why, is in
tests/apsw_suite/left_out.py.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE
from simulated_opfs import Library

SUITE = Path(__file__).resolve().parent.parent / "apsw_suite"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("host") / "posix_host.so"
    compiler = shlex.split(os.environ.get("CC") or "cc")
    command = [*compiler, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, str(SUITE / "posix_host.c"), "-o", str(path)], check=True)
    return path


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_apsw_tests_pass(library: Library, host: Path, mode: str) -> None:
    done = subprocess.run(
        [sys.executable, str(SUITE / "suite.py"), str(library.path), str(host), mode],
        capture_output=True,
        text=True,
        check=False,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    print({what: len(tests) for what, tests in report.items()})
    assert not report["wrong"], "\n".join(f"{name} {why}" for name, why in report["wrong"].items())
    assert len(report["passed"]) > {"delete": 230, "wal": 140}[mode]
