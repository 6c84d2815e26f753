"""Both kinds of browsers, and what their dead tabs leave."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(params=[True, False], ids=["shared", "exclusive"])
def shared(request: pytest.FixtureRequest) -> bool:
    """Whether tabs can share file handles."""
    return bool(request.param)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What a tab that died had open is dropped here, where it would be gone with the tab."""
    dropped = pytest.mark.filterwarnings("ignore:.*was dropped and not closed:ResourceWarning")
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(dropped)
