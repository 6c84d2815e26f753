"""How long a call waits in a tab of a browser that takes its time to answer."""

from __future__ import annotations

import pytest
from simulated_opfs import Library

import holdfast
from faults.world import World
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
