"""The VFS, compiled once; how thorough the tests of faults are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from simulated_indexeddb import Origin, worker
from simulated_opfs import Library

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


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path: Path = tmp_path_factory.mktemp("vfs") / "holdfast_vfs.so"
    build_native(path)
    return Library(path)
