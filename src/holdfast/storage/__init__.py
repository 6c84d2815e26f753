"""Where a database lives: one file for each storage, and the choice among them."""

from __future__ import annotations

import sys

from ..errors import StorageUnavailableError
from .base import Storage, StorageStatus

__all__ = ["Storage", "StorageStatus", "choose"]

KINDS = ("auto", "opfs", "indexeddb", "file", "memory")


async def choose(storage: str, name: str, synchronous: str) -> Storage:
    """The storage for `holdfast.open`, not yet opened; "auto" is decided by trying."""
    if storage not in KINDS:
        raise ValueError(f"storage must be one of {', '.join(KINDS)}, not {storage!r}")
    if not name:
        raise ValueError("the name of a database is empty")
    if "\0" in name:
        raise ValueError(f"the name of a database has a NUL character: {name!r}")
    if storage == "memory":
        from .memory import MemoryStorage

        return MemoryStorage(name, synchronous)
    in_browser = sys.platform == "emscripten"
    if storage == "indexeddb":
        raise StorageUnavailableError(
            'storage="indexeddb" is not part of this version; use "opfs" in a dedicated worker'
        )
    if in_browser and storage in ("auto", "opfs"):
        from .opfs import OpfsStorage

        return OpfsStorage(name, synchronous)
    if in_browser:
        raise StorageUnavailableError(
            'storage="file" is for CPython: in a browser a file would be gone with the page; '
            'use "opfs"'
        )
    if storage == "opfs":
        raise StorageUnavailableError(
            'storage="opfs" needs a browser; on CPython use "file" (or "auto")'
        )
    from .file import FileStorage

    return FileStorage(name, synchronous)
