"""docs/triggers.md has every row of what triggers do, and tells where each one is tested.

A test is of a row by its name: `test_p8_…` and `test_b11_b15_…` in Python, "P8: …" and
"P12, B11: …" in the specs of several tabs.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROWS = [f"P{number}" for number in range(1, 15)] + [f"B{number}" for number in range(1, 16)]

# Tests that tests/e2e/rows.spec.mjs leaves out, by their module, their fixtures and their name.
LEFT_OUT = json.loads((ROOT / "tests" / "e2e" / "left_out.json").read_text())


def python_tests() -> list[tuple[Path, str, set[str]]]:
    """(file, name, names of the fixtures) of each test function."""
    found: list[tuple[Path, str, set[str]]] = []
    for path in sorted((ROOT / "tests" / "unit").rglob("test_*.py")):
        # Not by ast: between other tests CPython 3.11 loses count of its depth.
        functions = re.findall(
            r"^((?:@.*\n)*)(?:async )?def (test_\w+)\(([^)]*)\)", path.read_text(), re.M
        )
        for marks, name, parameters in functions:
            used = re.findall(r'@pytest\.mark\.usefixtures\("(\w+)"\)', marks)
            found.append((path, name, {*used, *re.findall(r"(\w+):", parameters)}))
    return found


def places() -> dict[str, set[str]]:
    """Row -> where there are tests of it."""
    where: dict[str, set[str]] = defaultdict(set)
    for path, name, fixtures in python_tests():
        for row in re.match(r"test_((?:[pb]\d+_)*)", name)[1].upper().split("_")[:-1]:  # type: ignore[index]
            where[row].add("CPython")
            if (
                path.parent.name == "triggers"
                and path.stem not in LEFT_OUT["modules"]
                and not fixtures & LEFT_OUT["fixtures"].keys()
            ):
                where[row].add("OPFS")
                if name not in LEFT_OUT["on_indexeddb"]:
                    where[row].add("IndexedDB")
    for path in sorted((ROOT / "tests" / "e2e").glob("*.spec.mjs")):
        for title in re.findall(r"\btest\(\s*[\"`]((?:[PB]\d+(?:, )?)+): ", path.read_text()):
            for row in title.split(", "):
                where[row].add("tabs")
    return where


def told() -> dict[str, set[str]]:
    """The same, as the table has it."""
    lines = re.findall(
        r"^\| ([PB]\d+) \| .+ \| ([^|]+) \|$", (ROOT / "docs" / "triggers.md").read_text(), re.M
    )
    assert [row for row, _ in lines] == ROWS, "one line for each row, in order"
    return {row: set(where.split(", ")) for row, where in lines}


def test_the_table_tells_where_each_row_is_tested() -> None:
    found = places()
    assert found.keys() <= set(ROWS), "tests of rows that the table does not have"
    wrong = {
        row: f"the table says {sorted(where)}, there are {sorted(found.get(row, set()))}"
        for row, where in told().items()
        if where != found.get(row, set())
    }
    assert not wrong


def test_each_row_is_tested_wherever_it_applies() -> None:
    for row, where in places().items():
        # Several processes are a matter of files.
        assert row == "B15" or {"CPython", "OPFS", "IndexedDB"} <= where or "tabs" in where, row


def test_what_is_left_out_is_there_and_has_its_reason() -> None:
    functions = [found for found in python_tests() if found[0].parent.name == "triggers"]
    there = {
        "modules": {path.stem for path, _, _ in functions},
        "fixtures": {fixture for _, _, fixtures in functions for fixture in fixtures},
        "on_indexeddb": {name for _, name, _ in functions},
    }
    assert LEFT_OUT.keys() == there.keys()
    for kind, names in there.items():
        assert LEFT_OUT[kind].keys() <= names and all(LEFT_OUT[kind].values())
