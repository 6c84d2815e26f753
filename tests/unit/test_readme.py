"""The README's code runs, and prints what it says. (Its pages: tests/e2e/readme.spec.mjs.)"""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S)


def test_every_block_is_of_a_kind_that_is_run() -> None:
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds == ["sh", *["html"] * 4, *["python", "text"] * 3]


@pytest.mark.parametrize("at", [i for i, (kind, _) in enumerate(BLOCKS) if kind == "python"])
def test_an_example_prints_what_it_says(at: int, tmp_path: Path) -> None:
    code, (_, expected) = BLOCKS[at][1], BLOCKS[at + 1]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stdout, done.stderr) == (expected, "")


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    commands = [line.split("#")[0].split() for line in BLOCKS[0][1].splitlines()]
    assert commands == [["make", "demo"], ["make", "test"]]
    for command in commands:
        # What they would do, without doing it: this test is run by one of them.
        done = subprocess.run(
            [*command, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_demo_is_served() -> None:
    server = subprocess.Popen(
        [sys.executable, "scripts/serve.py"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        found = re.search(r"http://\S+", server.stdout.readline())
        assert found is not None
        with urllib.request.urlopen(found.group(), timeout=PATIENCE) as page:
            assert b"Holdfast" in page.read()
    finally:
        server.terminate()
        server.wait(timeout=PATIENCE)
        server.stdout.close()
