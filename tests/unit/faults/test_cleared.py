"""The site's data is cleared while tabs are open: nobody writes over anybody."""

from __future__ import annotations

import asyncio

import pytest
from simulated_opfs import Library

import holdfast
from faults.world import World
from holdfast import Database, StorageUnavailableError


async def opened(name: str) -> Database:
    return await holdfast.open(name, storage="opfs")


@pytest.mark.parametrize("first", ["old", "new"])
@pytest.mark.parametrize("had", [True, False], ids=["one that had it open", "one that did not"])
def test_tabs_whose_locks_are_not_each_others_do_not_share_a_database(
    library: Library, first: str, had: bool
) -> None:
    """A browser may give tabs that begin after the clearing other locks than those of before."""
    world = World(library, shared=True)

    async def main() -> None:
        old = world.browser.tab()
        gone = await old.run(opened(f"{old.name}/x.db")) if had else None
        world.browser.clear()
        new = world.browser.tab()
        tabs = (old, new) if first == "old" else (new, old)
        database = await tabs[0].run(opened(f"{tabs[0].name}/y.db"))
        await tabs[0].run(database.execute("CREATE TABLE t(v)"))
        with pytest.raises(StorageUnavailableError, match="data was cleared"):
            await tabs[1].run(opened(f"{tabs[1].name}/y.db"))
        # It goes on, and when it is gone the other has its turn.
        await tabs[0].run(database.execute("INSERT INTO t VALUES(1)"))
        await tabs[0].run(database.close())
        other = await tabs[1].run(opened(f"{tabs[1].name}/y.db"))
        assert await tabs[1].run(other.fetch_value("SELECT count(*) FROM t")) == 1
        await tabs[1].run(other.close())
        if gone is not None:
            await old.run(gone.close())

    world.run(main)


def test_tabs_that_open_a_database_at_once_all_have_it(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        for _ in range(10):
            tabs = [world.browser.tab() for _ in range(4)]
            databases = await asyncio.gather(*(tab.run(opened(f"{tab.name}/x.db")) for tab in tabs))
            for tab, database in zip(tabs, databases, strict=True):
                await tab.run(database.fetch_value("SELECT 1"))
            # One that died has its files for a moment longer than its locks.
            world.browser.kill(tabs[0])
            for tab, database in zip(tabs[1:], databases[1:], strict=True):
                await tab.run(database.close())

    world.run(main)
