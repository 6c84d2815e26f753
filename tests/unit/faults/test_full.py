"""A full disk: what frees space goes on where the WAL has room, and nothing else changes anything.

The WAL cannot grow then, so a DELETE finds no room behind what is in it; once that was checkpointed
it is written over it.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import apsw
import apsw.ext
import pytest
from simulated_opfs import Library

import holdfast
from faults.world import Tab, World
from holdfast import Database, QuotaExceededError

FRAME = 24 + 4096
HANDLES = pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])


# -- OPFS ----------------------------------------------------------------------------------------

FREEING = {
    "delete": lambda db: db.execute("DELETE FROM t WHERE rowid <= 100"),
    "delete many": lambda db: db.execute_many(
        "DELETE FROM t WHERE rowid = ?", [(n,) for n in range(1, 101)]
    ),
    "drop": lambda db: db.execute("DROP TABLE other"),
}


async def filled(world: World) -> Tab:
    """A tab on a database whose WAL has a little in it, and room for no more."""
    tab = await world.open()
    await tab.insert(200)
    await tab.run(tab.db.execute("CREATE TABLE other AS SELECT * FROM t"))
    # All of that into the database; then the WAL is written anew from its beginning to its end.
    tab.db._storage.make_room()
    update = "UPDATE t SET v = randomblob(4000) WHERE rowid = 1"
    await tab.run(tab.db.execute(update))
    wal = tab.db._storage.node.wal  # type: ignore[attr-defined]
    room = (world.wal - 32) // FRAME
    for _ in range(room):
        await tab.run(tab.db.execute(update))
        # Each writes one, and `frames` are those before the last one.
        if wal.frames == room - 1:
            break
    assert wal.frames == room - 1
    world.disk.room = 0
    return tab


@HANDLES
@pytest.mark.parametrize("how", FREEING)
def test_what_frees_space_is_done_where_the_disk_is_full(
    library: Library, shared: bool, how: str
) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await filled(world)
        wal = world.wal
        await tab.run(FREEING[how](tab.db))
        assert world.wal == wal
        assert await tab.count() == (200 if how == "drop" else 100)
        # What was freed is there for others.
        await tab.insert(20)
        assert await tab.run(tab.db.fetch_value("PRAGMA integrity_check")) == "ok"

    world.run(main)


@HANDLES
def test_a_transaction_after_a_failure_begins_with_room(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await filled(world)

        async def delete() -> None:
            async with tab.db.write_transaction() as tx:
                await tx.execute("DELETE FROM t WHERE rowid <= 100")

        with pytest.raises(QuotaExceededError):
            await tab.run(delete())
        assert await tab.count() == 200
        await tab.run(delete())
        assert await tab.count() == 100

    world.run(main)
