"""What one tab has closed is free for every other, at once; who used it is told."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest
from simulated_opfs import Library
from uses import USES, until_it_fails

from faults.browser import Host, SimulatedTab, promise
from faults.world import Tab, World
from holdfast import DatabaseBusyError, DatabaseClosedError
from holdfast.bounds import Bound
from holdfast.holds import NavigatorTriggerHoldManager
from holdfast.storage.opfs.store import OpfsStore


def closed_and_taken(library: Library, shared: bool, seed: int) -> None:
    world = World(library, shared=shared)
    world.browser.choose.seed(seed)

    async def main() -> None:
        a, other = await world.open(), world.browser.tab()
        # What it says to the browser takes its time.
        a.tab.sent.slow = True
        store = OpfsStore(f"{other.name}/x.db")
        for _ in range(3):
            second = await Tab.open(a.tab)
            await asyncio.gather(a.close(), second.close())
            await other.run(store.check_free(Bound(0)))
            await other.run(replace(store))
            assert await other.run(store.delete(Bound(0)))
            a = await Tab.open(a.tab)
        await a.close()
        assert world.browser.forgotten == set(world.browser.names), "numbers are used again"

    world.run(main)


async def replace(store: OpfsStore) -> None:
    async with store.replacing(Bound(0)) as raw:
        raw.execute("CREATE TABLE IF NOT EXISTS replaced(v)")


@pytest.mark.parametrize("seed", range(10))
def test_what_is_closed_is_free_at_once(library: Library, shared: bool, seed: int) -> None:
    closed_and_taken(library, shared, seed)


def test_that_it_is_waited_for_is_what_does_it(library: Library) -> None:
    """Else the browser hears of the release later than of who asks next."""

    @promise
    async def at_once(_: Host) -> None:
        """Nobody waits."""

    with (
        mock.patch.object(Host, "releasesArrived", at_once),
        pytest.raises(DatabaseBusyError, match="is open"),
    ):
        for seed in range(100):
            closed_and_taken(library, True, seed)


@pytest.mark.parametrize("seed", range(10))
def test_a_hold_is_free_for_others_when_its_release_returns(library: Library, seed: int) -> None:
    world = World(library, shared=True)
    world.browser.choose.seed(seed)

    async def main() -> None:
        one, other = world.browser.tab(), world.browser.tab()
        for _ in range(5):
            await take_and_give(one)
            await take_and_give(other)

    async def take_and_give(tab: SimulatedTab) -> None:
        release = await tab.run(NavigatorTriggerHoldManager().obtain_hold("x#1"))
        await tab.run(release())

    world.run(main)


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_in_flight_is_done_or_told_that_it_is_closed(
    library: Library, shared: bool, seed: int
) -> None:
    world = World(library, shared=shared)
    world.browser.choose.seed(seed)

    async def main() -> None:
        a, b = await world.open(), await world.open()
        working = [tab.run(until_it_fails(tab.db, use)) for tab in (a, b) for use in USES.values()]
        await asyncio.sleep(0.02 * seed)
        await a.close()
        await asyncio.sleep(0.01 * seed)
        await b.close()
        for error in await asyncio.gather(*working):
            if not isinstance(error, DatabaseClosedError):
                raise error
        assert not any(world.browser.locks.held.values())

    world.run(main)
