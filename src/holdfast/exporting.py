"""`Database.export`: a snapshot is copied to a scratch file, stripped there, and read out."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

from .storage.store import STEP, configure, copy, leave_wal
from .triggers.strip import strip

if TYPE_CHECKING:
    from .database import Database

# Called with the bytes done, and in all; None where that is not known yet.
OnProgress = Callable[[int, int | None], object]


Report = Callable[[int, int | None], Awaitable[None]]


def check_progress(on_progress: OnProgress | None) -> Report:
    """on_progress as it is used here: awaited, for it may be another interpreter's."""
    if on_progress is None:
        return _report_nothing
    if not callable(on_progress):
        raise TypeError(
            f"on_progress must be callable with (done, total), not {type(on_progress).__name__}"
        )

    async def report(done: int, total: int | None) -> None:
        if inspect.isawaitable(result := on_progress(done, total)):
            await result

    return report


async def _report_nothing(done: int, total: int | None) -> None:
    pass


async def export_chunks(database: Database, on_progress: OnProgress | None) -> AsyncIterator[bytes]:
    """See `Database.export_chunks`. Half of the progress is the snapshot, half the reading."""
    progress = check_progress(on_progress)
    store = database._storage.store()
    async with store.scratch() as scratch:
        raw = scratch.connect()
        try:
            configure(raw)
            # Nobody recovers a scratch file; and what was dropped must not be read in it.
            raw.execute("PRAGMA synchronous = OFF; PRAGMA secure_delete = ON").fetchall()
            async with database.read_transaction() as tx:
                source = tx.connection
                size = int(source.execute("PRAGMA page_size").get)
                with store.explaining():
                    async for done, pages in copy(source, raw):
                        tx.check_ended()
                        await progress(done * size // 2, pages * size)
            with store.explaining():
                # What is copied from a WAL database says that it is one.
                leave_wal(raw)
                raw.execute("PRAGMA journal_mode = OFF").fetchall()
                strip(raw)
        finally:
            scratch.disconnect(raw)
        size = scratch.size()
        at = 0
        while at < size:
            chunk = scratch.read(at, STEP)
            at += len(chunk)
            await progress(size // 2 + (at + 1) // 2 if at < size else size, size)
            yield chunk
