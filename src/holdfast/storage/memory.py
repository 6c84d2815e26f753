"""storage="memory": a database of its opener's own, gone when it is closed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, NoReturn

import apsw

from ..bounds import Bound
from ..errors import DatabaseClosedError
from ..sqlite.connection import Connection
from ..sqlite.settings import RawConnection
from .base import Storage, StorageStatus
from .store import Scratch, Store

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager


class MemoryStorage(Storage):
    """One connection, and copies of its contents for read transactions."""

    kind = "memory"
    persists_triggers = False
    has_readers = False
    occupants = "other tasks"

    _main: apsw.Connection | None = None

    async def open(self, bound: Bound) -> Connection:
        self._main = self._connect()
        return Connection(self._main)

    async def connect_reader(self, bound: Bound) -> Connection:
        """A copy of the last committed state: SQLite keeps no older versions in memory."""
        if self._main is None:
            raise DatabaseClosedError(f"{self.name!r} is closed")
        raw = self._connect()
        image = self._main.serialize("main")
        if image:
            raw.deserialize("main", image)
        raw.execute("PRAGMA query_only = ON")
        return Connection(raw)

    def _connect(self) -> apsw.Connection:
        raw = RawConnection(":memory:")
        self.configure(raw)
        return raw

    def store(self) -> Store:
        return MemoryStore(self.name)

    def default_hold_manager(self) -> TriggerHoldManager:
        from ..holds import MemoryTriggerHoldManager

        return MemoryTriggerHoldManager()

    def begin_write_now(self, connection: Connection) -> bool:
        connection.raw.execute("BEGIN IMMEDIATE")
        return True

    async def begin_write(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        connection.run("BEGIN IMMEDIATE")

    async def status(self) -> StorageStatus:
        usage = None
        if self._main is not None:
            pages = int(self._main.execute("PRAGMA page_count").get)
            usage = pages * int(self._main.execute("PRAGMA page_size").get)
        return StorageStatus(storage=self.kind, persisted=False, usage=usage, tabs=1)

    async def close(self) -> None:
        self._main = None


class MemoryStore(Store):
    """Scratch databases in memory. A memory database itself cannot be imported or deleted."""

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        yield _MemoryScratch()

    async def check_free(self, bound: Bound) -> NoReturn:
        raise ValueError(
            f'there is nothing at {self.name!r} in storage="memory": each database there is its '
            'opener\'s own, and gone when it is closed; use "file" or "opfs"'
        )

    def replacing(self, bound: Bound) -> AbstractAsyncContextManager[apsw.Connection]:
        raise NotImplementedError("check_free says no")

    async def delete(self, bound: Bound) -> bool:
        await self.check_free(bound)


class _MemoryScratch(Scratch):
    def __init__(self) -> None:
        self._image = b""

    def append(self, data: bytes | memoryview) -> None:
        raise NotImplementedError("nothing is imported into memory")

    def size(self) -> int:
        return len(self._image)

    def read(self, at: int, n: int) -> bytes:
        return self._image[at : at + n]

    def connect(self) -> apsw.Connection:
        return apsw.Connection(":memory:")

    def disconnect(self, raw: apsw.Connection) -> None:
        self._image = raw.serialize("main")
        super().disconnect(raw)
