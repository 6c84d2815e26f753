"""The scenarios of tests/conformance, and what browsers did with them when they were recorded."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "conformance"


def scenarios(subject: str) -> list[str]:
    """Those of all files whose names begin with it."""
    files = [
        path
        for path in sorted(FOLDER.glob("*.txt"))
        if re.fullmatch(rf"{subject}(-\w+)?", path.stem)
    ]
    lines = [line for path in files for line in path.read_text("utf-8").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


class Recording:
    """Of one browser: its version, and for each subject what came of each scenario."""

    def __init__(self, browser: str) -> None:
        self.path = FOLDER / "recorded" / f"{browser}.json"
        self.content: dict[str, Any] = {}
        if self.path.exists():
            self.content = json.loads(self.path.read_text("utf-8"))

    @property
    def version(self) -> str:
        return str(self.content.get("version", "none"))

    def write(self, version: str, subject: str, found: dict[str, str]) -> None:
        """Subjects that were recorded of another version go."""
        kept = self.content if self.version == version else {}
        self.content = {**kept, "version": version, subject: found}
        text = json.dumps(self.content, indent=1, ensure_ascii=False)
        self.path.write_text(text + "\n", "utf-8")

    def differences(self, subject: str, found: dict[str, str]) -> list[str]:
        recorded = self.content.get(subject, {})
        return [
            f"{scenario}\n  recorded: {recorded.get(scenario)}\n  now:      {found.get(scenario)}"
            for scenario in [*recorded, *(new for new in found if new not in recorded)]
            if recorded.get(scenario) != found.get(scenario)
        ]
