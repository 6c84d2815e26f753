"""storage="indexeddb": one connection for all tabs, in a shared worker, kept in IndexedDB.

For browsers where a worker has no synchronous access to files. Several connections are not an
issue here, so triggers are temporary: a write of any tab fires those of every tab.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from ...bounds import Bound
from ...errors import DatabaseClosedError
from ...sqlite.connection import Connection
from ..base import Storage, StorageStatus
from ..names import name_segments
from .hub import CACHE_KIB, Hub, HubLock
from .store import IndexedDBStore

if TYPE_CHECKING:
    from ...holds import TriggerHoldManager


# Which tab a database is opened for.
current_tab: ContextVar[str | None] = ContextVar("holdfast_tab", default=None)


class IndexedDBStorage(Storage):
    """One tab's access to a database of which this worker has the only connection."""

    kind = "indexeddb"
    persists_triggers = False
    commits_at_once = False
    shortest_wait = 0.05
    shares_temporary = True

    def __init__(self, name: str, synchronous: str) -> None:
        super().__init__(name, synchronous)
        name_segments(name)
        self.hold_prefix = f"{name}#"
        self.writer_lock = HubLock(self)
        # A database that this worker itself opens counts as a tab of its own.
        self._tab = current_tab.get() or self
        self._hub: Hub | None = None
        # Whether the last transaction changed the database.
        self._changed = False

    @property
    def hub(self) -> Hub:
        if self._hub is None:
            raise DatabaseClosedError(f"{self.name!r} is closed")
        return self._hub

    async def open(self, bound: Bound) -> Connection:
        self._hub = await Hub.join(self, bound)
        return self._hub.main

    async def connect_reader(self, bound: Bound) -> Connection:
        raw = self.hub.blocks.connect_reader()
        self.configure(raw)
        raw.execute(f"PRAGMA cache_size = -{CACHE_KIB}; PRAGMA query_only = ON").fetchall()
        return Connection(raw)

    def disconnect(self, connection: Connection) -> None:
        """The hub's connection is closed with the hub."""

    async def close(self) -> None:
        hub, self._hub = self._hub, None
        if hub is not None:
            await hub.leave(self)

    def store(self) -> IndexedDBStore:
        return IndexedDBStore(self.name)

    def default_hold_manager(self) -> TriggerHoldManager:
        from ...holds import MemoryTriggerHoldManager

        return MemoryTriggerHoldManager()

    # -- access ----------------------------------------------------------------------------------

    async def begin_write(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        self.hub.check()
        self._changed = False
        connection.raw.execute("BEGIN IMMEDIATE")

    async def commit(self, connection: Connection) -> None:
        self._changed = await self.hub.commit(self)

    async def settle(self, connection: Connection) -> None:
        self._changed = await self.hub.settle(self)

    def committed(self, connection: Connection) -> bool:
        return self._changed

    def end_write(self, connection: Connection) -> None:
        if self._hub is not None:
            # Of what was committed nothing is pending any more.
            self._hub.blocks.discard()

    # -- the others ------------------------------------------------------------------------------

    def announce(self, tables: frozenset[str], ddl: bool) -> None:
        self.hub.announce(self, tables, ddl)

    async def has_news(self) -> bool:
        # All commits are made on this one connection; what can happen is that it is lost.
        self.hub.check()
        return False

    async def is_alone(self) -> bool:
        return len(self.hub.storages) <= 1

    async def status(self) -> StorageStatus:
        from ...browser.files import estimate

        persisted, usage, quota = await estimate()
        return StorageStatus(
            storage=self.kind,
            persisted=persisted,
            usage=usage,
            quota=quota,
            tabs=len({storage._tab for storage in self.hub.storages}),
        )
