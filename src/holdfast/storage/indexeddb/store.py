"""Databases in IndexedDB, as a whole: see ../store.py. Who has one open: see hub.py.

Scratch databases are in memory, as the database itself is while it is open. What replaces one is
written in one transaction of IndexedDB, a part at a time, so that only the part is copied.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import apsw

from ...bounds import Bound
from ..claimed import ClaimedStore
from ..names import name_segments
from ..store import CACHE_KIB, Scratch
from .blocks import JOURNAL, Blocks
from .hub import claim_lock

if TYPE_CHECKING:
    from ...browser.locks import WebLock


async def names() -> list[str]:
    """Every database of this origin."""
    from ...browser.indexeddb import names

    return sorted(await names())


class IndexedDBStore(ClaimedStore):
    """A database in IndexedDB."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        name_segments(name)

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        blocks = Blocks(self.name, [], 0)
        try:
            yield _BlocksScratch(blocks)
        finally:
            blocks.close()

    @asynccontextmanager
    async def replacing(self, bound: Bound) -> AsyncIterator[apsw.Connection]:
        from ...browser.indexeddb import BlockStore

        async with self.claimed(bound):
            new = Blocks(self.name, [], 0)
            try:
                raw = new.connect_writer()
                try:
                    raw.execute(f"{JOURNAL}; PRAGMA cache_size = -{CACHE_KIB}").fetchall()
                    yield raw
                finally:
                    raw.close(True)
                new.accept()
                store = await BlockStore.open(self.name)
                try:
                    with self.explaining():
                        await store.replace(new.image.size, new.image.blocks)
                finally:
                    store.close()
            finally:
                new.close()

    async def delete(self, bound: Bound) -> bool:
        from ...browser.indexeddb import delete

        async with self.claimed(bound):
            return await delete(self.name)

    async def _claim(self, bound: Bound) -> WebLock:
        from ...browser.locks import WebLocks

        lock = WebLocks().request(claim_lock(self.name), if_available=bound.over)
        try:
            async with asyncio.timeout(bound.left or None):
                granted = await lock.granted
        except TimeoutError:
            granted = False
        except BaseException:
            lock.release()
            raise
        if not granted:
            lock.release()
            raise self.busy(bound)
        return lock


class _BlocksScratch(Scratch):
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks

    def append(self, data: bytes | memoryview) -> None:
        self._blocks.write(bytes(data), self._blocks.size)
        self._blocks.accept()

    def size(self) -> int:
        return self._blocks.size

    def read(self, at: int, n: int) -> bytes:
        return self._blocks.read(at, n)

    def connect(self) -> apsw.Connection:
        # There is no WAL here. What arrived without one is all of a database in WAL mode, which the
        # header's bytes 18 and 19 say (sqlite.org/fileformat2.html, section 1.3).
        if self._blocks.read(18, 2) == b"\2\2":
            self._blocks.write(b"\1\1", 18)
        raw = self._blocks.connect_writer()
        if not self._blocks.size:
            raw.execute(JOURNAL).fetchall()
        return raw
