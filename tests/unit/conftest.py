"""The VFS, compiled once; databases here and across a port; how thorough tests of faults are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from across import Across
from simulated_indexeddb import Origin, worker
from simulated_opfs import Library

import holdfast.files
import holdfast.opening
from holdfast.vfs.build import build_native


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("faults")
    group.addoption(
        "--thorough",
        action="store_true",
        help="crash, fail and fill up at every single call, with more seeds (minutes)",
    )
    group.addoption(
        "--schedules",
        type=int,
        default=None,
        metavar="N",
        help="how many seeded schedules of several tabs to run, in each handle mode",
    )
    group.addoption(
        "--seed",
        type=int,
        default=None,
        help="run the schedule of this seed alone, to replay a failure",
    )


@pytest.fixture(scope="session")
def thorough(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--thorough"))


@pytest.fixture
def origin() -> Iterator[Origin]:
    """This process is a worker of that origin, with IndexedDB."""
    origin = Origin()
    with worker(origin):
        yield origin


# What a turn of the event loop takes by the `clock`, in seconds.
TURN = 1e-5


@pytest.fixture
async def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time goes on when nothing else does, and then at once to when something has to be done.

    For tests of this interpreter's event loop alone, where no process, thread or file is waited
    for: what lasts how long does not depend on the machine.
    """
    selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
    select, now = selector.select, time.monotonic()

    def pass_time(timeout: float | None) -> list[Any]:
        nonlocal now
        assert timeout is not None, "nothing can go on, and no time will change that"
        # A turn of the loop takes some time too, or who turns it for ever would never be too late.
        now += max(timeout, TURN)
        return list(select(0))

    monkeypatch.setattr(selector, "select", pass_time)
    monkeypatch.setattr(time, "monotonic", lambda: now)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path: Path = tmp_path_factory.mktemp("vfs") / "holdfast_vfs.so"
    build_native(path)
    return Library(path)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests marked `everywhere` run with their databases here, and once more across a port."""
    node = metafunc.definition
    if node.get_closest_marker("everywhere") and not node.get_closest_marker("here"):
        metafunc.parametrize("place", ["here", "across"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Across a port one storage will do: what it carries does not depend on that."""
    items[:] = [
        item
        for item in items
        if not (
            isinstance(item, pytest.Function)
            and hasattr(item, "callspec")
            and item.callspec.params.get("place") == "across"
            and {"memory", "indexeddb", "indexeddb, two"}
            & set(map(str, item.callspec.params.values()))
        )
    ]


@pytest.fixture(autouse=True)
async def place(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Where this test's databases live: "here", or "across" a port, at a server."""
    where = getattr(request, "param", "here")
    if where == "here":
        yield where
        return
    across = Across()
    for module in (holdfast.opening, holdfast.files):
        monkeypatch.setattr(module, "elsewhere", across.elsewhere)
    yield where
    if across.client is not None:
        await across.die()
