"""SQLite's own judgement: `apsw.tests` on the VFS, over OPFS, in a worker of Chromium.

tests/unit/test_apsw_suite.py has the same on CPython. What is left out, and why, is in
tests/apsw_suite/left_out.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

SUITE = Path(__file__).resolve().parent.parent / "apsw_suite"
SET_UP = """
import sys
from pathlib import Path
import micropip
await micropip.install({wheel!r})
folder = Path("/home/pyodide/apsw_suite")
folder.mkdir()
for name, text in {sources!r}.items():
    (folder / name).write_text(text)
sys.path.insert(0, str(folder))
import worker
await worker.set_up()
"""


@pytest.fixture(scope="module")
def selenium_suite(selenium_worker_module_scope: Any, wheel_url: str) -> Any:
    """A worker that is ready to run the suite."""
    names = ("suite.py", "left_out.py", "worker.py", "opfs_files.js")
    sources = {name: (SUITE / name).read_text("utf-8") for name in names}
    selenium_worker_module_scope.load_package(["micropip"])
    selenium_worker_module_scope.run_async(SET_UP.format(wheel=wheel_url, sources=sources))
    return selenium_worker_module_scope


# In this order, for one worker: all of the suite leaves something in apsw (an attribute that cannot
# be compared) that no second run would stand; its main part, which "wal" is, leaves nothing.
@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_apsw_tests_pass(selenium_suite: Any, mode: str) -> None:
    report = json.loads(selenium_suite.run_async(f"worker.report({mode!r})"))
    print({what: len(tests) for what, tests in report.items()})
    assert not report["wrong"], "\n".join(f"{name} {why}" for name, why in report["wrong"].items())
    assert len(report["passed"]) > {"delete": 225, "wal": 135}[mode]
