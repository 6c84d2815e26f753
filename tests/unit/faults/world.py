"""A few tabs of one simulated browser, with the whole package, each told what to do by a test."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from simulated_opfs import Library

import holdfast
from faults.browser import Browser, SimulatedTab
from faults.client import Client
from faults.disk import Disk
from faults.schedule import simulated_package
from holdfast import Database

# How long its tabs wait for others, in the simulated browser's seconds.
BUSY_TIMEOUT = 5.0


class World:
    """Tabs of one simulated browser. unheard: no message of theirs reaches another."""

    def __init__(self, library: Library, *, shared: bool, unheard: bool = False) -> None:
        self.library = library
        self.disk = Disk()
        lossy = 1.0 if unheard else 0.0
        self.browser = Browser(library, self.disk, random.Random(1), shared=shared, lossy=lossy)

    def run(self, main: Callable[[], Coroutine[Any, Any, None]]) -> None:
        with simulated_package(self.browser):
            self.browser.loop.run(main())
        assert not self.browser.loop.errors, self.browser.loop.errors

    async def open(self) -> Tab:
        return await Tab.open(self.browser.tab())

    @property
    def wal(self) -> int:
        """Its bytes."""
        return self.disk.size("x.db-wal")

    def rows(self, files: dict[str, bytes] | None = None) -> int:
        """What the next one finds."""
        client = Client(self.library, Disk(self.disk.files() if files is None else files))
        try:
            assert client.read("PRAGMA integrity_check") == [("ok",)]
            return int(client.read("SELECT count(*) FROM t")[0][0])
        finally:
            client.die()


class Tab:
    """A tab with the database open."""

    def __init__(self, tab: SimulatedTab, database: Database) -> None:
        self.tab = tab
        self.db = database

    @classmethod
    async def open(cls, tab: SimulatedTab) -> Tab:
        async def opened() -> Database:
            database = await holdfast.open(
                f"{tab.name}/x.db", storage="opfs", busy_timeout=BUSY_TIMEOUT
            )
            await database.execute("CREATE TABLE IF NOT EXISTS t(v)")
            return database

        return cls(tab, await tab.run(opened()))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Awaitable[Any]:
        return self.tab.run(coroutine)

    async def insert(self, rows: int) -> None:
        """Each of them fills a page."""
        many = [(b"x" * 4000,)] * rows
        await self.run(self.db.execute_many("INSERT INTO t VALUES(?)", many))

    async def count(self) -> int:
        found: int = await self.run(self.db.fetch_value("SELECT count(*) FROM t"))
        return found

    async def close(self) -> None:
        await self.run(self.db.close())

    async def knows(self, others: int) -> None:
        """Of so many other tabs."""
        while len(self.db._session.storage.node._peers) != others:  # type: ignore[attr-defined] # noqa: ASYNC110
            await asyncio.sleep(0.001)
