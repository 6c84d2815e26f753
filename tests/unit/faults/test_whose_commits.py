"""Own commits and those of other tabs, in one browser, whatever becomes of their messages."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from simulated_opfs import Library

from faults.world import Tab, World
from holdfast import DiffContext, StorageUnavailableError, TableChange
from holdfast.session.lookout import GRACE, LOOKOUT
from holdfast.storage.opfs.presence import NOW_AND_THEN

# Until every tab has looked out several times, in seconds of the simulated browser.
LONG = 4 * (LOOKOUT + GRACE)


@pytest.fixture(params=[True, False], ids=["shared", "exclusive"])
def shared(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


class Heard:
    """What a tab hears."""

    def __init__(self, tab: Tab) -> None:
        self.tab = tab
        self.changes: list[TableChange] = []
        self.rows: list[Any] = []
        self._tasks = [
            tab.run(self._gather(tab.db.changes(), self.changes)),
            tab.run(self._gather(tab.db.watch("SELECT count(*) FROM t", throttle=0), self.rows)),
        ]

    async def _gather(self, source: AsyncIterator[Any], to: list[Any]) -> None:
        async for each in source:
            to.append(each)

    @property
    def own(self) -> list[TableChange]:
        return [change for change in self.changes if not change.remote]

    @property
    def remote(self) -> list[TableChange]:
        return [change for change in self.changes if change.remote]


async def start(*tabs: Tab) -> list[Heard]:
    for name in ("u", "w"):
        await tabs[0].run(tabs[0].db.execute(f"CREATE TABLE IF NOT EXISTS {name}(v)"))
    heard = [Heard(tab) for tab in tabs]
    await asyncio.sleep(LONG)
    for each in heard:
        each.changes.clear()
        each.rows.clear()
    return heard


async def handle(ctx: DiffContext) -> None:
    """Nothing."""


async def no_change(tab: Tab) -> None:
    """All that is committed, or done to the files, without a change of the application's tables."""
    db = tab.db

    async def work() -> None:
        tracker = await db.triggers.track_table_diff("t", handle)
        await tracker.stop()
        await db.execute("CREATE TEMP TABLE IF NOT EXISTS passing(v)")
        await db.execute("INSERT INTO passing VALUES(1)")
        await db.execute("PRAGMA user_version = 7")
        await db.execute("VACUUM")
        await db.execute("VACUUM")

    await tab.run(work())


@pytest.mark.parametrize("unheard", [False, True], ids=["heard", "unheard"])
def test_each_own_commit_is_told_once(library: Library, shared: bool, unheard: bool) -> None:
    world = World(library, shared=shared, unheard=unheard)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        (heard,) = await start(a)
        # More than one WAL, and with pauses in which leases are given up.
        for n in range(30):
            await a.insert(60)
            await asyncio.sleep(0.2 * (n % 3))
        await asyncio.sleep(LONG)
        assert heard.changes == [({"t"}, False)] * 30
        assert heard.rows == [[(60 * n,)] for n in range(1, 31)]
        await no_change(a)
        await asyncio.sleep(LONG)
        assert heard.changes == [({"t"}, False)] * 30 + [({"passing"}, False)]
        assert len(heard.rows) == 30
        await b.close()
        await a.close()

    world.run(main)


def test_what_changes_no_table_of_another_is_told_to_nobody(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        (heard,) = await start(a)
        for _ in range(3):
            await no_change(b)
            await asyncio.sleep(LONG)
        await b.close()
        await asyncio.sleep(LONG)
        assert heard.changes == []
        assert heard.rows == []
        await a.close()

    world.run(main)


@pytest.mark.parametrize("lossy", [0.0, 0.3, 1.0], ids=["heard", "some heard", "unheard"])
@pytest.mark.parametrize("seed", range(3))
def test_every_table_of_others_is_told(
    library: Library, shared: bool, lossy: float, seed: int
) -> None:
    world = World(library, shared=shared)
    browser = world.browser
    browser.choose.seed(seed)
    choose = browser.choose

    async def main() -> None:
        a, b, c = await world.open(), await world.open(), await world.open()
        both = await start(a, b)
        browser.lossy = lossy
        for _ in range(8):
            for heard in both:
                heard.changes.clear()
            written: dict[Tab, list[str]] = {tab: [] for tab in (a, b, c)}
            for _ in range(choose.randrange(1, 6)):
                tab, table = choose.choice([a, b, c]), choose.choice("tuw")
                many = [(b"x" * 4000,)] * choose.choice((1, 1, 300))
                await tab.run(tab.db.execute_many(f"INSERT INTO {table} VALUES(?)", many))
                written[tab].append(table)
                await asyncio.sleep(choose.choice((0.0, 0.0, 0.3, LONG / 2)))
            await asyncio.sleep(LONG)
            for heard in both:
                assert heard.own == [({table}, False) for table in written[heard.tab]]
                others = [name for tab in written if tab is not heard.tab for name in written[tab]]
                told = frozenset().union(*(change.tables for change in heard.remote))
                assert told >= set(others)
                if not lossy:
                    assert told == set(others)
                    assert len(heard.remote) <= len(others)
        for tab in (a, b, c):
            await tab.close()

    world.run(main)


def test_a_writer_that_dies_before_it_can_tell_is_found_out(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        a, b, c = await world.open(), await world.open(), await world.open()
        (heard,) = await start(a)
        await c.run(c.db.execute("INSERT INTO u VALUES(1)"))
        storage = b.db._session.storage
        storage.announce = lambda *_: world.browser.kill(b.tab)  # type: ignore[method-assign]
        b.run(b.db.execute("INSERT INTO w VALUES(1)"))
        await b.tab.died
        await c.run(c.db.execute("INSERT INTO u VALUES(1)"))
        await asyncio.sleep(LONG)
        assert frozenset().union(*(change.tables for change in heard.remote)) >= {"u", "w"}
        assert not heard.own
        await a.close()
        await c.close()

    world.run(main)


def test_who_only_listens_is_told_that_the_sites_data_was_cleared(
    library: Library, shared: bool
) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        a = await world.open()
        failed: list[Exception] = []

        async def failing(error: Exception) -> None:
            failed.append(error)

        async def diffs() -> None:
            async for _ in a.db.triggers.diffs("t"):
                pass

        heard = Heard(a)
        listening = [*heard._tasks, a.run(diffs())]
        await a.run(a.db.triggers.track_table_diff("t", handle, on_error=failing))
        await asyncio.sleep(LONG)
        world.browser.clear()
        await asyncio.sleep(NOW_AND_THEN + LONG)
        for each in listening:
            with pytest.raises(StorageUnavailableError):
                await each
        assert isinstance(failed[0], StorageUnavailableError)
        await a.close()

    world.run(main)
