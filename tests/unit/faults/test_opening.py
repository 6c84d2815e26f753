"""Opening and sweeping look first: they wait for a writer only to reclaim something."""

from __future__ import annotations

import pytest
from simulated_opfs import Library

import holdfast
from faults.world import BUSY_TIMEOUT, Tab, World
from holdfast import Database, DiffContext


async def _ignore(_: DiffContext) -> None:
    pass


@pytest.mark.parametrize("died", [False, True], ids=["all live", "one died"])
def test_who_opens_waits_for_a_writer_only_to_reclaim(library: Library, died: bool) -> None:
    world = World(library, shared=True)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        await b.run(b.db.triggers.track_table_diff("t", _ignore))
        if died:
            # Of its death only the one that opens shall find out.
            a.db._session.storage.on_peer_gone = lambda: None
            world.browser.kill(b.tab)

        newcomer = world.browser.tab()

        async def join() -> Database:
            return await holdfast.open(
                f"{newcomer.name}/x.db", storage="opfs", busy_timeout=BUSY_TIMEOUT
            )

        async def write() -> None:
            async with a.db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(1)")
                if died:
                    with pytest.raises(holdfast.DatabaseBusyError):
                        await newcomer.run(join())
                    return
                c = Tab(newcomer, await newcomer.run(join()))
                assert await c.run(c.db.triggers.sweep()) == []
                assert [one.held for one in await c.run(c.db.triggers.tracked())] == [True]
                assert await c.count() == 0
                await c.close()

        await a.run(write())
        await a.close()
        if not died:
            await b.close()

    world.run(main)
