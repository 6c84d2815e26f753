"""Commits of which nobody told are found, whatever was in the way of looking for them."""

from __future__ import annotations

import asyncio

import pytest
from simulated_opfs import Library

from faults.world import BUSY_TIMEOUT, World


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_who_found_it_busy_looks_again(library: Library, shared: bool) -> None:
    """With exclusive handles nobody reads beside a transaction, however long that takes."""
    world = World(library, shared=shared, unheard=True)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        inside, done, heard = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def listen() -> None:
            async for change in a.db.changes():
                assert change.remote
                heard.set()

        async def work() -> None:
            async with b.db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES('b')")
                inside.set()
                await done.wait()

        listening, working = a.run(listen()), b.run(work())
        await inside.wait()
        await asyncio.sleep(4 * BUSY_TIMEOUT)
        heard.clear()
        done.set()
        await working
        await heard.wait()
        await a.close()
        await listening
        await b.close()

    world.run(main)
