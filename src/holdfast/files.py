"""Databases as files: which there are, putting one in another's place, deleting one."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import Any

from .api.nesting import write_transactions
from .api.options import OnProgress, check_progress
from .errors import NestedTransactionError
from .local.opening import Name, as_name
from .remote.where import elsewhere
from .storage import choose_store
from .storage.store import STEP


async def import_database(
    name: Name,
    data: Any,
    storage: str = "auto",
    *,
    wait: float = 0.0,
    on_progress: OnProgress | None = None,
    ignore_check_constraints: bool = False,
) -> None:
    """Make the SQLite database in `data` the one called `name`, in place of what was there.

    data: bytes, or anything like them; a binary file; an iterable or async iterable of bytes; in
        a browser a Blob, File, ReadableStream, ArrayBuffer or typed array as well. All but the
        first need little memory, however large the database is.
    wait: how long to wait until nobody has `name` open, in seconds, before the data is read and
        once more before it is replaced.
    on_progress: called with the bytes done and in all (None while that is unknown).
    ignore_check_constraints: whether rows that violate a CHECK of their table are accepted, as a
        program may have written that turns such checks off.

    It is read and checked as a whole before anything is replaced: NotADatabaseError for what is
    no sound SQLite database, or needs an extension that is not here. Then it is replaced in one
    transaction: whatever dies, the old database or the new one is there, whole. DatabaseBusyError:
    a tab, a process or this one has it open. On CPython a file that is no database, and was none,
    is not replaced: NotADatabaseError; nor is a device or a folder: StorageUnavailableError.
    QuotaExceededError: there must be space for the old
    one and twice the new one. Whatever is refused has changed nothing. NestedTransactionError:
    inside a write transaction of that database.
    """
    name = as_name(name)
    _check_wait(wait)
    _check_not_inside("import_database()", name, storage)
    check_progress(on_progress)
    there = await elsewhere(storage)
    if there is None:
        choose_store(storage, name)
    chunks, total = _chunks(data)
    await (there or _here()).import_chunks(
        name, chunks, total, storage, wait, on_progress, bool(ignore_check_constraints)
    )


async def delete_database(name: Name, storage: str = "auto", *, wait: float = 0.0) -> bool:
    """Delete a database; whether there was one.

    wait: how long to wait until nobody has it open, in seconds. DatabaseBusyError: somebody still
    has, and nothing was deleted. NestedTransactionError: inside a write transaction of it.
    NotADatabaseError, StorageUnavailableError: what is there is a file of something else, a device
    or a folder; it was left as it is.
    """
    name = as_name(name)
    _check_wait(wait)
    _check_not_inside("delete_database()", name, storage)
    there = await elsewhere(storage)
    return await (there or _here()).delete_database(name, storage, wait)


async def databases(storage: str = "auto", *, folder: Name | None = None) -> list[str]:
    """The names of the databases there are, as `open` takes them, sorted.

    In a browser all of this origin's. On CPython those that are in the current folder, or in
    `folder`; not those in folders therein. Of memory databases there is no list: it is empty.
    StorageUnavailableError: the folder is not there, or cannot be read.
    """
    if folder is not None:
        folder = as_name(folder, "folder")
    there = await elsewhere(storage)
    return await (there or _here()).databases(storage, folder)


async def persist() -> bool:
    """Ask the browser never to evict this site's data; whether it has promised that.

    A browser may ask its user, or decide by itself. It takes the question from pages alone, so in
    a worker this only tells what was promised; ask there with `navigator.storage.persist()`. On
    CPython nothing is evicted: True.
    """
    if sys.platform != "emscripten":
        return True
    from .browser.files import persist

    return await persist()


def _here() -> Any:
    # Most who open a database never import, delete or list any.
    from .local import files

    return files


# -- what an import takes -------------------------------------------------------------------------


def _chunks(data: Any) -> tuple[AsyncIterator[bytes | memoryview], int | None]:
    """The data in parts, and its size where that is known."""
    if sys.platform == "emscripten":
        from .browser.streams import chunks_of

        if (found := chunks_of(data, STEP)) is not None:
            return found
    if isinstance(data, str):
        raise TypeError("data must be the bytes of a database, not a str; open the file yourself")
    try:
        view = memoryview(data).cast("B")
    except TypeError:
        pass
    else:
        return _parts(view[at : at + STEP] for at in range(0, len(view), STEP)), len(view)
    if isinstance(data, io.TextIOBase):
        raise TypeError(
            "data must be a binary file, and this one is open for text; open it with mode 'rb'"
        )
    if hasattr(data, "read"):
        return _parts(iter(lambda: data.read(STEP), b"")), _rest_of(data)
    if isinstance(data, AsyncIterable):
        return _parts(data), None
    if isinstance(data, Iterable):
        return _parts(data), None
    raise TypeError(
        "data must be bytes, a binary file, or an iterable or async iterable of bytes, not "
        f"{type(data).__name__}"
    )


async def _parts(parts: Any) -> AsyncIterator[bytes | memoryview]:
    """Each checked; large ones as several."""
    if isinstance(parts, AsyncIterable):
        async for part in parts:
            for each in _split(part):
                yield each
    else:
        for part in parts:
            for each in _split(part):
                yield each


def _split(part: Any) -> Iterable[memoryview]:
    try:
        view = memoryview(part).cast("B")
    except TypeError:
        raise TypeError(f"each part of the data must be bytes, not {type(part).__name__}") from None
    return (view[at : at + STEP] for at in range(0, len(view), STEP))


def _rest_of(file: Any) -> int | None:
    """How much a file has from where it stands on; None: it does not say."""
    try:
        here = file.tell()
        end = file.seek(0, 2)
        file.seek(here)
    except (AttributeError, OSError, ValueError):
        return None
    return int(end - here)


def _check_not_inside(what: str, name: str, storage: str) -> None:
    """NestedTransactionError: it would wait for the transaction that it is called in."""
    for transaction in write_transactions.get():
        database: Any = transaction.owner
        kind = database.kind
        # Where there is OPFS, or a file system, "auto" is that.
        same = storage == kind or (storage == "auto" and kind in ("opfs", "file"))
        path = os.path.realpath if kind == "file" else str
        if transaction.is_open and same and path(database.name) == path(name):
            raise NestedTransactionError(
                f"{what} would wait for the write transaction of {name!r} that it is called in; "
                "call it outside, when the database is closed"
            )


def _check_wait(wait: float) -> None:
    if not isinstance(wait, int | float):
        raise TypeError(f"wait must be a number of seconds, not {type(wait).__name__}")
    if not wait >= 0:
        raise ValueError(f"wait must be 0 or more seconds, not {wait!r}")
