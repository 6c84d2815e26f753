"""The last tab that leaves empties a long WAL, which the next opening would have to read."""

from __future__ import annotations

import asyncio

import pytest
from simulated_opfs import Library

from faults.disk import crashes
from faults.world import Tab, World
from holdfast.storage.opfs.wal import CHECKPOINT_AT_CLOSE

# A WAL's header, and one of its frames of a page of 4 KiB, in bytes.
HEADER, FRAME = 32, 24 + 4096
LONG = HEADER + CHECKPOINT_AT_CLOSE * FRAME


def test_a_long_wal_is_emptied_and_a_short_one_left(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await world.open()
        await tab.insert(CHECKPOINT_AT_CLOSE // 2)
        before = world.wal
        assert HEADER < before < LONG
        await tab.close()
        assert world.wal == before

        tab = await world.open()
        await tab.insert(CHECKPOINT_AT_CLOSE)
        assert world.wal > LONG
        await tab.close()
        assert world.wal == 0

    world.run(main)
    assert world.rows() == CHECKPOINT_AT_CLOSE // 2 + CHECKPOINT_AT_CLOSE


def test_who_leaves_while_others_stay_empties_nothing(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        await a.insert(CHECKPOINT_AT_CLOSE)
        await a.knows(1)
        await a.close()
        assert world.wal > LONG
        await b.insert(1)
        await b.knows(0)
        assert await b.count() == CHECKPOINT_AT_CLOSE + 1
        await b.close()
        assert world.wal == 0

    world.run(main)
    assert world.rows() == CHECKPOINT_AT_CLOSE + 1


@pytest.mark.parametrize("rest", [0.0, 1.0], ids=["at work", "idle"])
def test_who_does_not_know_of_others_takes_nothing_from_them(
    library: Library, shared: bool, rest: float
) -> None:
    """Their messages are lost: only the locks tell of them."""
    world = World(library, shared=shared, unheard=True)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        await a.insert(CHECKPOINT_AT_CLOSE)
        # Of this the first one has not heard.
        await b.insert(10)
        await asyncio.sleep(rest)
        await a.close()
        assert await b.count() == CHECKPOINT_AT_CLOSE + 10
        await b.insert(10)
        assert await b.count() == CHECKPOINT_AT_CLOSE + 20
        await b.close()

    world.run(main)
    assert world.rows() == CHECKPOINT_AT_CLOSE + 20


@pytest.mark.parametrize("unheard", [False, True], ids=["known", "unheard of"])
@pytest.mark.parametrize("kind", ["read", "write"])
def test_who_leaves_waits_for_no_transaction_of_others(
    library: Library, shared: bool, unheard: bool, kind: str
) -> None:
    world = World(library, shared=shared, unheard=unheard)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        await a.insert(CHECKPOINT_AT_CLOSE)
        inside, closed = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            block = b.db.read_transaction() if kind == "read" else b.db.write_transaction()
            async with block as tx:
                if kind == "write":
                    await tx.execute("INSERT INTO t VALUES('b')")
                seen = await tx.fetch_value("SELECT count(*) FROM t")
                inside.set()
                await closed.wait()
                assert await tx.fetch_value("SELECT count(*) FROM t") == seen

        working = b.run(work())
        await inside.wait()
        await a.close()
        assert world.wal > LONG
        closed.set()
        await working
        assert await b.count() == CHECKPOINT_AT_CLOSE + (kind == "write")
        if not unheard:
            await b.knows(0)
        await b.close()
        assert world.wal == 0

    world.run(main)
    assert world.rows() == CHECKPOINT_AT_CLOSE + (kind == "write")


@pytest.mark.parametrize("turns", range(16))
def test_who_comes_while_the_last_one_leaves_has_all_of_it(
    library: Library, shared: bool, turns: int
) -> None:
    """In the same tab, which gives back what it has when its last database is closed."""
    world = World(library, shared=shared)

    async def main() -> None:
        first = await world.open()
        await first.insert(CHECKPOINT_AT_CLOSE)
        closing = asyncio.ensure_future(first.close())
        for _ in range(turns):
            await asyncio.sleep(0)
        second = await Tab.open(first.tab)
        await closing
        await second.insert(1)
        other = await world.open()
        await other.insert(1)
        assert await second.count() == CHECKPOINT_AT_CLOSE + 2
        await second.close()
        await other.close()

    world.run(main)
    assert world.rows() == CHECKPOINT_AT_CLOSE + 2


def test_cut_short_it_loses_nothing(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)
    closing = 0

    async def main() -> None:
        nonlocal closing
        tab = await world.open()
        await tab.insert(CHECKPOINT_AT_CLOSE)
        closing = len(world.disk.journal)
        await tab.close()

    world.run(main)
    places = range(closing, len(world.disk.journal) + 1)
    assert len(places) > CHECKPOINT_AT_CLOSE, "it copied the WAL"
    for crash in crashes(world.disk, power_seeds=1, only=places[::7]):
        assert world.rows(crash.files) == CHECKPOINT_AT_CLOSE, crash.how
