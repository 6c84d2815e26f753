"""The README's code and that of docs/ runs, and prints what it says. (Pages: readme.spec.mjs.)"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import urllib.request
from itertools import pairwise
from pathlib import Path

import pytest
from patience import PATIENCE

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
ALL = [
    *PAGES,
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    ROOT / "tests" / "conformance" / "README.md",
]


def blocks(page: Path) -> list[tuple[str, str]]:
    """(kind, code) of each block of code."""
    return re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), re.M | re.S)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def lines_of_shell() -> list[str]:
    return [
        line
        for page in ALL
        for kind, code in blocks(page)
        if kind == "sh"
        for line in code.splitlines()
    ]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_of_a_kind_that_is_run(page: Path) -> None:
    kinds = [kind for kind, _ in blocks(page)]
    assert page.read_text().count("```") == 2 * len(kinds)
    assert set(kinds) <= {"sh", "html", "js", "python", "text"}
    for before, kind in pairwise([None, *kinds]):
        # A text is what the block before it prints.
        assert kind != "text" or before in ("python", "js")


@pytest.mark.parametrize(
    "page", [page for page in PAGES if "python" in dict(blocks(page))], ids=name_of
)
def test_the_examples_print_what_they_say(page: Path, tmp_path: Path) -> None:
    found = [*blocks(page), ("", "")]
    examples = [
        (code, after if kind_after == "text" else "")
        for (kind, code), (kind_after, after) in pairwise(found)
        if kind == "python"
    ]
    done = subprocess.run(
        [sys.executable, "-W", "error", str(Path(__file__).with_name("notebook.py"))],
        cwd=tmp_path,
        input=json.dumps(examples),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert json.loads(done.stdout) == [printed for _, printed in examples]


def test_the_first_example_and_the_readme_are_short() -> None:
    first = next(code for kind, code in blocks(README) if kind == "python")
    assert len(first.splitlines()) < 15
    assert len(README.read_text().splitlines()) < 150


def test_the_readme_begins_with_two_commands() -> None:
    kind, code = blocks(README)[0]
    assert kind == "sh"
    assert [line.split("#")[0].split() for line in code.splitlines()] == [
        ["make", "demo"],
        ["make", "test"],
    ]


@pytest.mark.parametrize("line", lines_of_shell())
def test_a_command_is_there(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        # What it would do, without doing it: this test is run by one of them.
        done = subprocess.run(
            [*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    else:
        # test_packaging.py runs it.
        assert words[0] == "unzip"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", text, re.M)
    }


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.is_file(), target
        assert not anchor or anchor in headings(there), target


@pytest.mark.parametrize("page", ALL, ids=name_of)
def test_what_is_said_to_be_in_the_wheel_is_in_the_package(page: Path) -> None:
    for path in re.findall(r"\bholdfast/[\w/]+\.[\w*]+", page.read_text()):
        assert list((ROOT / "src").glob(path)), path


def test_the_readme_names_every_page() -> None:
    assert set(re.findall(r"\]\((docs/[\w-]+\.md)", README.read_text())) == set(map(name_of, DOCS))


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
