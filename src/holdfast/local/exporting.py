"""`Database.export`: a snapshot is copied to a scratch file, stripped there, and read out."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import apsw

from ..api.options import OnProgress, check_progress
from ..storage.store import STEP, Scratch, configure, explained_copy, leave_wal
from ..triggers.strip import strip

if TYPE_CHECKING:
    from ..session.session import Session

logger = logging.getLogger("holdfast")

# The part of the progress that is the snapshot: one over this.
_SNAPSHOT = 8


async def export_chunks(session: Session, on_progress: OnProgress | None) -> AsyncIterator[bytes]:
    """See `Database.export_chunks`.

    How much there will be to read is known after the snapshot: without free pages, and without what
    trackers have recorded. So the snapshot is a small part of the progress, which never goes back.
    """
    progress = check_progress(on_progress)
    store = session.storage.store()
    reported = 0
    async with AsyncExitStack() as stack:
        scratch = await stack.enter_async_context(store.scratch())
        raw = scratch.connect()
        try:
            configure(raw)
            # A scratch file is never recovered, so it needs no syncs. secure_delete zeroes dropped
            # pages, so they cannot be found in the export.
            raw.execute("PRAGMA synchronous = OFF; PRAGMA secure_delete = ON").fetchall()
            async with session.read_transaction() as tx:
                source = tx.connection
                size = int(source.execute("PRAGMA page_size").get)
                free = int(source.execute("PRAGMA freelist_count").get)
                async for done, pages in explained_copy(store, source, raw):
                    tx.check_ended()
                    expected = (pages - free) * size
                    reported = expected * done // pages // _SNAPSHOT
                    await progress(reported, expected)
            with store.explaining():
                # The backup copies the header too, so the copy is still marked WAL.
                leave_wal(raw)
                raw.execute("PRAGMA journal_mode = OFF").fetchall()
                strip(raw)
            if _is_wasteful(raw):
                compact = await stack.enter_async_context(store.scratch())
                if await store.work(raw, lambda: _vacuum(raw, scratch, compact)):
                    scratch.disconnect(raw)
                    scratch, raw = compact, compact.connect()
        finally:
            scratch.disconnect(raw)
        size = scratch.size()
        begun = min(reported, size)
        at = 0
        while at < size:
            chunk = scratch.read(at, STEP)
            at += len(chunk)
            await progress(begun + (size - begun) * at // size, size)
            yield chunk


def _is_wasteful(raw: apsw.Connection) -> bool:
    """Whether more than a twentieth of the pages is free."""
    free = int(raw.execute("PRAGMA freelist_count").get)
    return free * 20 > int(raw.execute("PRAGMA page_count").get)


def _vacuum(raw: apsw.Connection, scratch: Scratch, compact: Scratch) -> bool:
    """Write what is in the scratch database to another, without free pages; False: it cannot be.

    INTO keeps the numbers of all rows, and needs no memory for a copy.
    """
    try:
        if compact.path is None:
            raw.execute("VACUUM").fetchall()
            return False
        raw.execute("VACUUM INTO ?", (compact.path,)).fetchall()
    except (apsw.SQLError, apsw.FullError) as error:
        # An index needs a function or collation that is not here, or there is no space for both.
        logger.debug("the export of %r keeps its free pages: %s", scratch, error)
        return False
    return True
