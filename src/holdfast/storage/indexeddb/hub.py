"""A *hub*: the one connection of an IndexedDB database, which every tab's `Database` shares.

All of it lives in one worker (the shared worker): the database's blocks in memory, SQLite on top
of them, and IndexedDB below.

    holdfast:indexeddb:<name>   exclusive   the worker that has the database open, while it has;
                                            who replaces or deletes it

So no two workers ever write the same blocks, whatever version of this package they run.

    lock of the hub -> BEGIN -> the block -> COMMIT, prepared -> IndexedDB -> COMMIT, finished
    -> lock given back -> announced

The lock is kept until IndexedDB has told that the transaction is complete. Others read what is
committed meanwhile. A worker that dies before that has told nobody; IndexedDB keeps all of the
transaction or nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import apsw

from ...bounds import Bound, BoundedLock
from ...errors import DatabaseBusyError, NotADatabaseError, StorageUnavailableError
from ...giving_back import give_back
from ...sqlite.connection import Connection
from ...sqlite.sqltext import quote_name
from ..joined import Joined
from .blocks import JOURNAL, Blocks

if TYPE_CHECKING:
    from ...browser.indexeddb import BlockStore
    from ...browser.locks import WebLock
    from .storage import IndexedDBStorage

# SQLite's page cache for each connection, in KiB; the blocks are in memory anyhow.
CACHE_KIB = 8000


def claim_lock(name: str) -> str:
    """The lock of the worker that has a database for itself."""
    return f"holdfast:indexeddb:{name}"


class Hub(Joined["IndexedDBStorage"]):
    """What this worker has of one database."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.writer_lock = BoundedLock(
            f"other tabs, or other tasks of this one, kept {name!r} busy"
        )
        # Why it cannot be written any more.
        self.failure = ""
        self.blocks: Blocks
        self.main: Connection
        self._store: BlockStore
        # Who made what there is in the temporary schema: (type, name) -> storage.
        self._temporary: dict[tuple[str, str], IndexedDBStorage] = {}

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self, storage: IndexedDBStorage, bound: Bound) -> None:
        """Claim it, read all of it, connect; all or nothing."""
        from ...browser.indexeddb import BlockStore

        with contextlib.ExitStack() as undo:
            lock = await self._claim(bound)
            undo.callback(lock.release)
            self._store = await BlockStore.open(self.name)
            undo.callback(self._store.close)
            size, blocks = await self._store.load()
            self.blocks = Blocks(self.name, blocks, size)
            undo.callback(self.blocks.close)
            self.main = self._connect(storage)
            undo.callback(self.main.close)
            self.is_open = True
            self._undo = undo.pop_all()

    async def _claim(self, bound: Bound) -> WebLock:
        from ...browser.locks import WebLocks

        lock = WebLocks().request(claim_lock(self.name))
        try:
            async with asyncio.timeout(bound.left):
                await lock.granted
        except BaseException as error:
            lock.release()
            if isinstance(error, TimeoutError):
                raise DatabaseBusyError(
                    f"{self.name!r} is open in another worker, as that of a page with another "
                    "version of holdfast is, or it is being imported or deleted, for longer than "
                    f"{bound}; close the other pages of this site, or reload them"
                ) from None
            raise
        return lock

    def _connect(self, storage: IndexedDBStorage) -> Connection:
        raw = self.blocks.connect_writer()
        try:
            raw.execute(f"{JOURNAL}; PRAGMA cache_size = -{CACHE_KIB}").fetchall()
            storage.configure(raw)
            raw.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except (apsw.NotADBError, apsw.CorruptError) as error:
            raw.close(True)
            raise NotADatabaseError(
                f"what IndexedDB has under {self.name!r} is no SQLite database ({error}); it was "
                "left as it is"
            ) from error
        except BaseException:
            raw.close(True)
            raise
        return Connection(raw)

    def left(self) -> None:
        # It does not wait: a tab may be frozen in its transaction for ever.
        if not self.writer_lock.locked():
            self.drop_temporary()
        # Otherwise the tab that has the lock does it, when it releases that.

    async def close(self) -> None:
        from ...browser.locks import arrived

        self.is_open = False
        await give_back(self._undo.close, arrived)

    # -- a commit --------------------------------------------------------------------------------

    def check(self) -> None:
        """StorageUnavailableError: it cannot be written any more."""
        if not self._store.is_open:
            self.failure = (
                f"the browser has closed {self.name!r} in IndexedDB: the site's data was cleared. "
                "Here it can still be read and exported, but not written; for a new one close "
                "every page of the site and load it again"
            )
        if self.failure:
            raise StorageUnavailableError(self.failure)

    async def commit(self, storage: IndexedDBStorage) -> bool:
        """Commit what the main connection has begun; on an error it is still to be rolled back.

        Whether that changed anything.
        """
        raw, blocks = self.main.raw, self.blocks
        if not blocks.prepare(raw):
            return False
        await self._write(storage)
        try:
            blocks.finish(raw)
        except BaseException as error:
            # Memory and disk differ, so no further transaction may begin.
            self.failure = (
                f"a commit of {self.name!r} is durable and could not be finished in memory "
                f"({error}); close the database everywhere and open it again"
            )
            raise
        return True

    async def settle(self, storage: IndexedDBStorage) -> bool:
        """After a statement that commits by itself, as VACUUM: make durable what it wrote."""
        if not self.blocks.changed:
            return False
        await self._write(storage)
        self.blocks.accept()
        return True

    async def _write(self, storage: IndexedDBStorage) -> None:
        blocks = self.blocks
        await self._store.write(blocks.size, blocks.pending, strict=storage.synchronous == "full")

    # -- the others ------------------------------------------------------------------------------

    def announce(self, source: IndexedDBStorage, tables: frozenset[str], ddl: bool) -> None:
        """To the other databases of this worker."""
        if ddl:
            self._note_temporary(source)
        for storage in self.storages:
            if storage is not source:
                storage.on_announcement(tables, ddl)

    def _note_temporary(self, source: IndexedDBStorage) -> None:
        """Whose temporary tables there are: those of all tabs are in one schema."""
        found = self.main.run(
            "SELECT type, name FROM temp.sqlite_master WHERE type <> 'index' "
            # ps_triggers has the records of every tab, so it is no tab's own.
            "AND name NOT LIKE 'sqlite!_%' ESCAPE '!' AND name <> 'ps_triggers'"
        )
        known = self._temporary
        self._temporary = {(kind, name): known.get((kind, name), source) for kind, name in found}

    def drop_temporary(self) -> None:
        """Drop what closed databases left in the temporary schema; between two transactions."""
        if not self.is_open:
            return
        left = [key for key, owner in self._temporary.items() if owner not in self.storages]
        # Triggers and views first: a table takes its triggers along.
        for kind, name in sorted(left, key=lambda key: key[0] == "table"):
            self.main.run(f"DROP {kind} IF EXISTS temp.{quote_name(name)}")
            del self._temporary[kind, name]
        if left:
            self.main.statements.forget()
            self.main.statements.take_ddl()
            self.main.take_touched()
            for storage in self.storages:
                storage.on_announcement(frozenset(), True)


class HubLock(BoundedLock):
    """The hub's lock as one database takes it; that one is the only state."""

    def __init__(self, storage: IndexedDBStorage) -> None:
        super().__init__("")
        self._storage = storage
        # Kept: one that waits may get the lock when its storage is closed.
        self._hub: Hub

    def locked(self) -> bool:
        return self._storage.hub.writer_lock.locked()

    def acquire_now(self) -> bool:
        self._hub = self._storage.hub
        return self._hub.writer_lock.acquire_now()

    async def acquire(self, bound: Bound) -> None:
        self._hub = self._storage.hub
        await self._hub.writer_lock.acquire(bound)

    def release(self) -> None:
        try:
            self._hub.drop_temporary()
        finally:
            self._hub.writer_lock.release()
