"""IndexedDB and Web Locks of one origin, for `holdfast.browser` on CPython.

A transaction of IndexedDB takes turns of the event loop, in which anything can happen, and is then
complete or nothing of it is there. `Origin.full`, `Origin.fail` and `Origin.gate` say how it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import apsw
from simulated_javascript import JsBytes, JsException, over, promise
from simulated_locks import LockQueues

import holdfast.local.files
import holdfast.storage

# Else each of these workers would import it anew, and `over` take it away again.
import holdfast.storage.indexeddb.storage
from holdfast.storage.indexeddb import hub
from holdfast.storage.indexeddb.blocks import BLOCK

# How many turns of the event loop a transaction takes.
TURNS = 3

# How many blocks are read at once.
AT_ONCE = 16


class Lock:
    """A request for a Web Lock; answer(granted, error) is called once, in a turn of its own."""

    def __init__(self, name: str, exclusive: bool, answer: Callable[[bool, str], None]) -> None:
        self.name, self.exclusive, self.answer = name, exclusive, answer


def _answer(lock: Lock, granted: bool) -> None:
    asyncio.get_running_loop().call_soon(lock.answer, granted, "")


class Origin:
    """What outlives a worker: the contents of IndexedDB, and the locks."""

    def __init__(self) -> None:
        # name -> (size, block number -> block)
        self.databases: dict[str, tuple[int, dict[int, bytes]]] = {}
        self.opened: list[Database] = []
        self.locks: LockQueues[Lock] = LockQueues(_answer)
        # Locks that were released, of which the browser has not heard.
        self.releasing = 0
        self.full = False
        self.fail: JsException | None = None
        # While it is not set, no transaction completes.
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        # (name, block numbers, strict) of each transaction that completed.
        self.written: list[tuple[str, list[int], bool]] = []

    def clear(self) -> None:
        """The browser clears the site's data, and closes what is open."""
        self.databases.clear()
        for database in self.opened:
            database.is_open, database.cleared = False, True

    def image(self, name: str) -> bytes:
        """What the next worker would read."""
        size, blocks = self.databases[name]
        assert sorted(blocks) == list(range(-(-size // BLOCK))), "blocks without gaps"
        return b"".join(blocks[number] for number in sorted(blocks))[:size]

    def rows(self, name: str, sql: str) -> list[Any]:
        """What a query finds in what the next worker would read."""
        with contextlib.closing(apsw.Connection(":memory:")) as raw:
            if image := self.image(name):
                raw.deserialize("main", image)
            return raw.execute(sql).fetchall()


class Database:
    """An IDBDatabase."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_open, self.cleared = True, False

    def close(self) -> None:
        self.is_open = False

    def check(self) -> None:
        if not self.is_open:
            raise JsException("InvalidStateError", "The database connection is closed.")


class Host:
    """What globalThis.holdfastHost has of IndexedDB, in one worker of an origin."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.dead = False
        self.opened: list[Database] = []
        self._requests: dict[int, Lock] = {}
        self._on_answer: Callable[[int, bool, str], None] = lambda *_: None

    def missingForBlocks(self) -> str:
        return ""

    @promise
    async def openBlocks(self, name: str, create: bool) -> Database | None:
        await asyncio.sleep(0)
        if create:
            self.origin.databases.setdefault(name, (0, {}))
        if name not in self.origin.databases:
            return None
        database = Database(name)
        self.opened.append(database)
        self.origin.opened.append(database)
        return database

    def blocksAreOpen(self, database: Database) -> bool:
        # By the event that the browser sends, and not for closing it oneself.
        return not database.cleared

    @promise
    async def sizeOf(self, database: Database) -> int:
        await asyncio.sleep(0)
        database.check()
        return self.origin.databases[database.name][0]

    @promise
    async def readBlocks(self, database: Database, at: int) -> JsBytes:
        await asyncio.sleep(0)
        database.check()
        _, blocks = self.origin.databases[database.name]
        return JsBytes(b"".join(blocks[number] for number in sorted(blocks)[at : at + AT_ONCE]))

    def writeBlocks(
        self, database: Database, size: int, keep: int, part: Callable[[], Any], durability: str
    ) -> Any:
        # JavaScript begins at once, in the turn of the caller: what closes later comes too late.
        return self._write(database.is_open, database, size, keep, part, durability)

    @promise
    async def _write(
        self,
        was_open: bool,
        database: Database,
        size: int,
        keep: int,
        part: Callable[[], Any],
        durability: str,
    ) -> None:
        origin = self.origin
        if not was_open:
            database.check()
        new: dict[int, bytes] = {}
        while (found := part()) is not None:
            numbers, content = found
            blocks = [content[at : at + BLOCK] for at in range(0, len(content), BLOCK)]
            new.update(zip(map(int, numbers), map(bytes, blocks), strict=True))
        assert all(len(block) == BLOCK for block in new.values())
        origin.waiting.set()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        await origin.gate.wait()
        if database.cleared:
            database.check()
        if origin.full:
            raise JsException("QuotaExceededError", "the quota is used up")
        if origin.fail is not None:
            raise origin.fail
        kept = {n: block for n, block in origin.databases[database.name][1].items() if n < keep}
        origin.databases[database.name] = (size, kept | new)
        origin.written.append((database.name, sorted(new), durability == "strict"))
        origin.image(database.name)

    @promise
    async def namesOfBlocks(self) -> list[str]:
        return [name for name, (size, _) in self.origin.databases.items() if size]

    @promise
    async def deleteBlocks(self, name: str) -> bool:
        # Those that have it open are told, and close it: see host.js.
        for database in self.origin.opened:
            if database.name == name:
                database.close()
        size, _ = self.origin.databases.pop(name, (0, {}))
        return size > 0

    @promise
    async def persist(self) -> bool:
        return False

    @promise
    async def estimate(self) -> list[Any]:
        return [False, sum(size for size, _ in self.origin.databases.values()), 1 << 30]

    def setOnAnswer(self, callback: Callable[[int, bool, str], None]) -> None:
        self._on_answer = callback

    def request(self, id: int, name: str, exclusive: bool, if_available: bool) -> None:
        lock = Lock(name, exclusive, lambda *answer: self._on_answer(id, *answer))
        self._requests[id] = lock
        self.origin.locks.ask(lock, if_available)

    def refuse(self, id: int, error: str) -> None:
        """The answer to a request that is not granted."""
        self._requests.pop(id, None)
        asyncio.get_running_loop().call_soon(self._on_answer, id, False, error)

    def release(self, id: int) -> None:
        if (lock := self._requests.pop(id, None)) is not None and not self.dead:
            # A browser hears of it some time after JavaScript's turn is over.
            self.origin.releasing += 1
            self._release_after(TURNS, lock)

    def _release_after(self, turns: int, lock: Lock) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._release_after, turns - 1, lock)
            return
        self.origin.releasing -= 1
        self.origin.locks.release(lock)

    @promise
    async def releasesArrived(self) -> None:
        while self.origin.releasing:  # noqa: ASYNC110
            await asyncio.sleep(0)

    @promise
    async def heldLocks(self, prefix: str) -> list[str]:
        held = self.origin.locks.held
        return [name for name, by in held.items() if by and name.startswith(prefix)]

    def settle(self, promise: asyncio.Future[Any], callback: Any) -> None:
        def settled(future: asyncio.Future[Any]) -> None:
            # Cancelled: its worker is dead, and all that still waits in it is to end.
            fulfilled = not future.cancelled() and future.exception() is None
            callback(fulfilled, future.result() if fulfilled else None)

        promise.add_done_callback(settled)

    def soon(self, callback: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_soon(callback)

    nextTask = soon


@contextlib.contextmanager
def worker(origin: Origin) -> Iterator[Host]:
    """The package finds itself in a worker of that origin, which dies with the block."""
    host = Host(origin)
    choose_kind = holdfast.storage.choose_kind

    def kind(storage: str) -> str:
        return storage if storage == "indexeddb" else choose_kind(storage)

    with (
        over(host),
        mock.patch.object(holdfast.storage, "choose_kind", kind),
        mock.patch.object(holdfast.local.files, "choose_kind", kind),
        mock.patch.dict(hub.Hub.known, clear=True),
    ):
        try:
            yield host
        finally:
            # Its locks go with it.
            host.dead = True
            for each in hub.Hub.known.values():
                each._undo.close()
            origin.locks = LockQueues(_answer)
