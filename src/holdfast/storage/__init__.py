"""Where a database lives: one folder for each storage, and the choice among them."""

from __future__ import annotations

import sys

from ..errors import StorageUnavailableError
from .base import Storage, StorageStatus
from .store import Store

__all__ = ["Storage", "StorageStatus", "Store", "choose", "choose_kind", "choose_store"]

KINDS = ("auto", "opfs", "indexeddb", "file", "memory")


async def choose(storage: str, name: str, synchronous: str) -> Storage:
    """The storage for `holdfast.open`, not yet opened; "auto" is decided by trying."""
    kind = choose_kind(storage)
    _check_name(name)
    if kind == "memory":
        from .memory import MemoryStorage

        return MemoryStorage(name, synchronous)
    if kind == "opfs":
        from .opfs.storage import OpfsStorage

        return OpfsStorage(name, synchronous)
    if kind == "indexeddb":
        from .indexeddb.storage import IndexedDBStorage

        return IndexedDBStorage(name, synchronous)
    from .file.storage import FileStorage

    return FileStorage(name, synchronous)


def choose_store(storage: str, name: str) -> Store:
    """The database of that name as a whole."""
    kind = choose_kind(storage)
    _check_name(name)
    if kind == "memory":
        from .memory import MemoryStore

        return MemoryStore(name)
    if kind == "opfs":
        from .opfs.store import OpfsStore

        return OpfsStore(name)
    if kind == "indexeddb":
        from .indexeddb.store import IndexedDBStore

        return IndexedDBStore(name)
    from .file.store import FileStore

    return FileStore(name)


def choose_kind(storage: str) -> str:
    """What `storage` stands for here. StorageUnavailableError: it is not to be had."""
    if not isinstance(storage, str):
        raise TypeError(f"storage must be a str, not {type(storage).__name__}")
    if storage not in KINDS:
        raise ValueError(f"storage must be one of {', '.join(KINDS)}, not {storage!r}")
    if storage == "memory":
        return "memory"
    in_browser = sys.platform == "emscripten"
    if in_browser and storage == "indexeddb":
        return "indexeddb"
    if in_browser and storage in ("auto", "opfs"):
        from ..browser.page import is_own_shared_worker, is_shared_worker

        if storage == "opfs" or not is_shared_worker():
            return "opfs"
        if is_own_shared_worker():
            return "indexeddb"
        raise StorageUnavailableError(
            'storage="auto" is "opfs" in the pages of this site, which a shared worker cannot '
            "reach: what it opened would be another database of the same name. Open it in a page, "
            'or in a dedicated worker; or use storage="indexeddb" in this worker and in every page'
        )
    if in_browser:
        raise StorageUnavailableError(
            'storage="file" is for CPython: in a browser a file would be gone with the page; '
            'use "opfs"'
        )
    if storage in ("opfs", "indexeddb"):
        raise StorageUnavailableError(
            f'storage="{storage}" needs a browser; on CPython use "file" (or "auto")'
        )
    return "file"


def _check_name(name: str) -> None:
    if not name:
        raise ValueError("the name of a database is empty")
    if "\0" in name:
        raise ValueError(f"the name of a database has a NUL character: {name!r}")
