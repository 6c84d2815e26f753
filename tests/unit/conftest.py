"""The VFS, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest
from simulated_opfs import Library

from holdfast.vfs.build import build_native


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    path: Path = tmp_path_factory.mktemp("vfs") / "holdfast_vfs.so"
    build_native(path)
    return Library(path)
