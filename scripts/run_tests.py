"""Runs test suites one after the other and closes with one line: "N passed, N failed".

Each suite keeps its own runner and output; the counts come from the JUnit XML that all of them
write. A suite that ends badly without a failed test (a crash, a collection error) and a suite
that ran nothing each count as one failure, so that green always means tested.

    python scripts/run_tests.py unit browser e2e
    python scripts/run_tests.py unit -- -k transactions -x
"""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / ".build" / "results"

PYTEST = (sys.executable, "-m", "pytest")
PLAYWRIGHT = ("npx", "--no-install", "playwright", "test")
SUITES = {
    "unit": (*PYTEST, "tests/unit", "--numprocesses=auto"),
    "browser": (*PYTEST, "tests/browser"),
    "e2e": PLAYWRIGHT,
    "firefox": (*PLAYWRIGHT, "--project=firefox"),
}


# So much of a failure is repeated at the end.
LINES = 12


@dataclass
class Counts:
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.passed + other.passed,
            self.failed + other.failed,
            self.skipped + other.skipped,
        )

    def __str__(self) -> str:
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"


def run(suite: str, extra: list[str]) -> Counts:
    report = RESULTS / f"{suite}.xml"
    report.unlink(missing_ok=True)
    report.parent.mkdir(parents=True, exist_ok=True)
    command = [*SUITES[suite], *extra]
    environment = dict(os.environ)
    if "playwright" in command:
        environment["PLAYWRIGHT_JUNIT_OUTPUT_FILE"] = str(report)
        environment["PYTHON"] = sys.executable
    else:
        command.append(f"--junitxml={report}")
    print(f"== {suite}", flush=True)
    status = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    counts = read(report) if report.is_file() else Counts()
    if not report.is_file():
        print(f"{suite}: the runner ended with status {status} and left no report")
        counts.failed += 1
    elif counts.passed + counts.failed == 0:
        print(f"{suite}: no test was run (status {status})")
        counts.failed += 1
    elif status != 0 and counts.failed == 0:
        print(f"{suite}: the runner ended with status {status}, though no test failed")
        counts.failed += 1
    return counts


def read(report: Path) -> Counts:
    """The counts of a JUnit XML file: its suites' attributes, added up."""
    counts = Counts()
    for suite in ElementTree.parse(report).iter("testsuite"):
        number = {
            name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped")
        }
        failed = number["failures"] + number["errors"]
        counts += Counts(number["tests"] - failed - number["skipped"], failed, number["skipped"])
    return counts


def failures(report: Path) -> list[str]:
    """What failed, each with the first lines of why: a log may be read from its end only."""
    found = []
    for case in ElementTree.parse(report).iter("testcase"):
        for failure in (*case.iter("failure"), *case.iter("error")):
            text = failure.text or failure.get("message") or ""
            lines = [line for line in text.splitlines() if line.strip()]
            found.append("\n     ".join([case.get("name", "?"), *lines[:LINES]]))
    return found


def main() -> int:
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    suites, extra = words[:split], words[split + 1 :]
    if not suites or not set(suites) <= SUITES.keys():
        print(f"usage: run_tests.py {{{','.join(SUITES)}}}... [-- options of the runner]")
        return 2
    results = {suite: run(suite, extra) for suite in suites}
    print()
    total = Counts()
    for suite in results:
        report = RESULTS / f"{suite}.xml"
        for failure in failures(report) if report.is_file() else ():
            print(f"   {suite}: {failure}")
    for suite, counts in results.items():
        if len(results) > 1:
            print(f"   {suite:8} {counts}")
        total += counts
    print(total)
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
