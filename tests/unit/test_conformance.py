"""The simulated browser does what real ones were seen to do; see tests/conformance/README.md."""

from __future__ import annotations

import subprocess
import sys

import pytest
from actors import Blocks, Channels, Cleared, Files, Locks, Scenario
from recorded import FOLDER, Recording, scenarios
from simulated_opfs import Library

ACTORS: dict[str, type[Scenario]] = {
    "locks": Locks,
    "files": Files,
    "channels": Channels,
    "blocks": Blocks,
    "cleared": Cleared,
}


# With shared file handles the simulation is Chromium, with exclusive ones Firefox.
@pytest.mark.parametrize("browser", ["chromium", "firefox"])
@pytest.mark.parametrize("subject", ACTORS)
def test_the_simulation_differs_nowhere(library: Library, subject: str, browser: str) -> None:
    found = {
        text: ACTORS[subject](library, text, shared=browser == "chromium").run()
        for text in scenarios(subject)
    }
    differences = Recording(browser).differences(subject, found)
    assert not differences, "\n".join([f"{len(differences)} of {len(found)}:", *differences])


def test_the_orders_of_requests_are_those_that_the_script_makes() -> None:
    script = [sys.executable, str(FOLDER / "orders.py")]
    made = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    assert made == (FOLDER / "locks-orders.txt").read_text("utf-8")
