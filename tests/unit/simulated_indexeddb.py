"""IndexedDB and Web Locks of one origin, for `holdfast.browser` on CPython.

A transaction of IndexedDB takes turns of the event loop, in which anything can happen, and is then
complete or nothing of it is there. `Origin.full`, `Origin.fail` and `Origin.gate` say how it goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any
from unittest import mock

import apsw

import holdfast.files
import holdfast.storage
from holdfast.storage import hub
from holdfast.storage.blocks import BLOCK

# How many turns of the event loop a transaction takes.
TURNS = 3


class Lock:
    """A request for a Web Lock."""

    def __init__(self, origin: Origin, name: str, exclusive: bool, if_available: bool) -> None:
        self.origin, self.name, self.exclusive = origin, name, exclusive
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.held = False
        queue = origin.locks.setdefault(name, deque())
        queue.append(self)
        origin.grant(name)
        if if_available and not self.held:
            queue.remove(self)
            self.granted.set_result(False)

    def release(self) -> None:
        # A browser hears of it when JavaScript's turn is over.
        asyncio.get_running_loop().call_soon(self._release)

    def _release(self) -> None:
        queue = self.origin.locks.get(self.name, deque())
        if self in queue:
            queue.remove(self)
            self.held = False
            self.origin.grant(self.name)


class Origin:
    """What outlives a worker: the contents of IndexedDB, and the locks."""

    def __init__(self) -> None:
        # name -> (size, block number -> block)
        self.databases: dict[str, tuple[int, dict[int, bytes]]] = {}
        self.locks: dict[str, deque[Lock]] = {}
        self.full = False
        # Whether the browser has cleared the site's data.
        self.cleared = False
        self.fail: Exception | None = None
        # While it is not set, no transaction completes.
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        # (name, block numbers, strict) of each transaction that completed.
        self.written: list[tuple[str, list[int], bool]] = []

    def grant(self, name: str) -> None:
        queue = self.locks[name]
        for lock in queue:
            if lock.exclusive and lock is not queue[0]:
                break
            if not lock.held:
                lock.held = True
                if not lock.granted.done():
                    lock.granted.set_result(True)
            if lock.exclusive:
                break

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


def _modules(origin: Origin) -> dict[str, ModuleType]:
    class BlockStore:
        def __init__(self, name: str) -> None:
            self.name = name

        @classmethod
        async def open(cls, name: str) -> BlockStore:
            await asyncio.sleep(0)
            origin.databases.setdefault(name, (0, {}))
            return cls(name)

        @property
        def is_open(self) -> bool:
            return not origin.cleared

        async def load(self) -> tuple[int, list[bytes]]:
            await asyncio.sleep(0)
            size, blocks = origin.databases[self.name]
            return size, [blocks[number] for number in sorted(blocks)]

        async def write(self, size: int, blocks: Mapping[int, bytes], *, strict: bool) -> None:
            await self._write(size, -(-size // BLOCK), dict(blocks), strict)

        async def replace(self, size: int, blocks: Sequence[bytes]) -> None:
            await self._write(size, 0, dict(enumerate(blocks)), True)

        async def _write(
            self, size: int, keep: int, blocks: dict[int, bytes], strict: bool
        ) -> None:
            assert all(type(block) is bytes and len(block) == BLOCK for block in blocks.values())
            origin.waiting.set()
            for _ in range(TURNS):
                await asyncio.sleep(0)
            await origin.gate.wait()
            if origin.full:
                raise apsw.FullError("IndexedDB: the quota is used up")
            if origin.fail is not None:
                raise origin.fail
            kept = {n: block for n, block in origin.databases[self.name][1].items() if n < keep}
            origin.databases[self.name] = (size, kept | blocks)
            origin.written.append((self.name, sorted(blocks), strict))
            origin.image(self.name)

        def close(self) -> None: ...

    async def names() -> list[str]:
        return [name for name, (size, _) in origin.databases.items() if size]

    async def delete(name: str) -> bool:
        size, _ = origin.databases.pop(name, (0, {}))
        return size > 0

    class WebLocks:
        def request(self, name: str, *, exclusive: bool = True, if_available: bool = False) -> Lock:
            return Lock(origin, name, exclusive, if_available)

    async def held(prefix: str) -> list[str]:
        return [
            lock.name
            for queue in origin.locks.values()
            for lock in queue
            if lock.held and lock.name.startswith(prefix)
        ]

    async def estimate() -> tuple[bool, int, int]:
        used = sum(size for size, _ in origin.databases.values())
        return False, used, 1 << 30

    indexeddb = ModuleType("holdfast.browser.indexeddb")
    indexeddb.__dict__.update(BlockStore=BlockStore, names=names, delete=delete)
    locks = ModuleType("holdfast.browser.locks")
    locks.__dict__.update(WebLocks=WebLocks, held=held)
    files = ModuleType("holdfast.browser.files")
    files.__dict__.update(estimate=estimate)
    return {module.__name__: module for module in (indexeddb, locks, files)}


@contextlib.contextmanager
def worker(origin: Origin) -> Iterator[None]:
    """The package finds itself in a worker of that origin, which dies with the block."""
    choose_kind = holdfast.storage.choose_kind

    def kind(storage: str) -> str:
        return storage if storage == "indexeddb" else choose_kind(storage)

    with (
        mock.patch.dict(sys.modules, _modules(origin)),
        mock.patch.object(holdfast.storage, "choose_kind", kind),
        mock.patch.object(holdfast.files, "choose_kind", kind),
        mock.patch.dict(hub._hubs, clear=True),
    ):
        try:
            yield
        finally:
            for each in hub._hubs.values():
                each.close()
            origin.locks.clear()
