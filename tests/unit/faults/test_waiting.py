"""How long a call waits in a tab of a browser that takes its time to answer."""

from __future__ import annotations

import asyncio

import pytest
from simulated_opfs import Library

import holdfast
from faults.world import Tab, World
from holdfast import Database, DatabaseBusyError


async def opened(name: str, busy_timeout: float) -> Database:
    return await holdfast.open(name, storage="opfs", busy_timeout=busy_timeout)


def test_who_waits_for_nobody_needs_no_time_to_wait(library: Library, shared: bool) -> None:
    """The browser's answers take some, though nobody else has what is asked for."""
    world = World(library, shared=shared)

    async def main() -> None:
        tab, other = world.browser.tab(), world.browser.tab()
        database = await tab.run(opened(f"{tab.name}/x.db", 0))
        await tab.run(database.execute("CREATE TABLE t(v)"))
        if shared:
            second = await other.run(opened(f"{other.name}/x.db", 0))
            await other.run(second.execute("INSERT INTO t VALUES(1)"))
            await other.run(second.close())
            assert await tab.run(database.fetch_value("SELECT v FROM t")) == 1

            async def write() -> None:
                async with database.write_transaction():
                    third = await other.run(opened(f"{other.name}/x.db", 0))
                    with pytest.raises(DatabaseBusyError):
                        await other.run(third.execute("INSERT INTO t VALUES(2)"))
                    await other.run(third.close())

            await tab.run(write())
        await tab.run(database.close())

    world.run(main)


# What a WAL has at most that is short again, in frames.
SHORT = 1000


async def frames(tab: Tab) -> int:
    found = await tab.run(tab.db.status())
    return int(found.wal_frames)


async def reads(tab: Tab, until: asyncio.Event) -> asyncio.Task[None]:
    """A read transaction of that tab, which is open until then."""
    inside = asyncio.Event()

    async def read() -> None:
        async with tab.db.read_transaction() as tx:
            await tx.fetch_value("SELECT count(*) FROM t")
            inside.set()
            await until.wait()

    reading = tab.tab.run(read())
    await inside.wait()
    return reading


async def becomes_short(tab: Tab) -> bool:
    """Though nobody reads or writes any more, within some seconds."""
    for _ in range(100):
        if await frames(tab) < SHORT:
            return True
        await asyncio.sleep(0.1)
    return False


def test_a_wal_is_short_when_readers_have_left_though_another_tab_wrote_when_the_first_did(
    library: Library,
) -> None:
    """The tab that missed its checkpoint waits behind that write for longer than it would."""
    world = World(library, shared=True)

    async def main() -> None:
        a, b, c, d = [await world.open() for _ in range(4)]
        left, written = asyncio.Event(), asyncio.Event()
        reading = await reads(a, left)
        await b.insert(1200)
        # This one tries a checkpoint, and the reader is in its way.
        await b.insert(1)
        assert await frames(b) > SHORT

        began = asyncio.Event()

        async def write() -> None:
            async with d.db.write_transaction():
                began.set()
                await written.wait()

        writing = d.tab.run(write())
        await began.wait()
        world.browser.kill(c.tab)
        await asyncio.sleep(3)
        left.set()
        await reading
        written.set()
        await writing
        assert await becomes_short(b)
        for tab in (a, b, d):
            await tab.run(tab.db.close())

    world.run(main)


def test_a_wal_is_short_when_a_long_reader_of_the_writing_tab_has_left(library: Library) -> None:
    world = World(library, shared=True)

    async def main() -> None:
        tab = await world.open()
        left = asyncio.Event()
        reading = await reads(tab, left)
        await tab.insert(1200)
        await tab.insert(1)
        await asyncio.sleep(3)
        assert await frames(tab) > SHORT
        left.set()
        await reading
        assert await becomes_short(tab)
        await tab.run(tab.db.close())

    world.run(main)
