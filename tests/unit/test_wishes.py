"""A moment without readers: who waits for it, whom it keeps waiting, and for how long."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest
from tabs import World

from holdfast.bounds import Bound
from holdfast.storage.opfs.leases import SLICE, Leases, Level
from holdfast.storage.opfs.wishes import DRAIN, HOLD_BACK

pytestmark = pytest.mark.usefixtures("clock")

# What handing over costs by the clock, in seconds: a turn of the loop takes some of it.
TURNS = 0.01


@pytest.fixture
async def world():
    world = World()
    yield world
    for tab in world.tabs:
        tab.close()


async def took(awaitable) -> float:
    start = time.monotonic()
    await awaitable
    return time.monotonic() - start


async def _tries(tab: Leases, patience: float = HOLD_BACK, drain: float = DRAIN) -> bool:
    """A writer's try to be alone, and then its transaction beside readers."""
    await tab.write(Bound(1))
    try:
        alone = await tab.alone(lambda: None, Bound(patience), drain)
        assert tab.level == Level.WRITE
        return alone
    finally:
        tab.leave_write()


async def test_one_that_gave_up_keeps_nobody_waiting(world: World) -> None:
    """A browser grants nothing behind an exclusive request that was withdrawn."""
    a, b, c = (world.tab() for _ in range(3))
    await a.read(Bound(1))
    assert not await _tries(b, patience=0.02)
    assert await took(c.read(Bound(1))) < TURNS
    c.leave_read()

    # Cancelled in the middle of it, or gone with its tab.
    await b.write(Bound(1))
    trying = asyncio.ensure_future(b.alone(lambda: None, Bound(1)))
    await asyncio.sleep(0.01)
    trying.cancel()
    await asyncio.wait({trying})
    assert await took(c.read(Bound(1))) < TURNS
    b.leave_write()
    assert await took(world.tab().read(Bound(1))) < TURNS


async def test_a_long_reader_delays_no_other_tab_for_long(world: World) -> None:
    a, b, c = (world.tab() for _ in range(3))
    await a.read(Bound(1))
    done = asyncio.Event()

    async def write() -> int:
        for tries in itertools.count(1):
            assert not await _tries(b)
            if done.is_set():
                return tries
            await asyncio.sleep(0.05)
        raise AssertionError

    writing = asyncio.ensure_future(write())
    waited = []
    for _ in range(30):
        waited.append(await took(c.read(Bound(1))))
        c.leave_read()
        c.give_up_kept()
        await asyncio.sleep(0.03)
    assert max(waited) < HOLD_BACK + TURNS
    done.set()
    assert await writing > 3


async def test_when_the_long_reader_has_left_the_moment_comes_at_once(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.read(Bound(1))
    assert not await _tries(b, patience=0.02)
    heard: list[str] = []
    b_heard = b.heard
    b.heard = lambda text: (heard.append(text), b_heard(text))[1]  # type: ignore[method-assign]
    a.leave_read()
    await asyncio.sleep(0)
    assert heard == ["free read"]
    # The next reader there leaves the time that this takes.
    reading = asyncio.ensure_future(a.read(Bound(1)))
    assert await _tries(b, patience=0.02)
    await reading


@pytest.mark.parametrize("length", [0.003, 0.02, 0.1, 0.35, 1.0])
@pytest.mark.parametrize("tabs", [1, 2])
async def test_readers_that_overlap_all_the_time_let_a_moment_come(
    world: World, length: float, tabs: int
) -> None:
    if tabs > 1 and length > HOLD_BACK:
        pytest.skip("the ones of one tab would have to wait for those of another for too long")
    done = asyncio.Event()
    most = 0.0

    async def read(tab: Leases) -> None:
        nonlocal most
        while not done.is_set():
            most = max(most, await took(tab.read(Bound(60))))
            await asyncio.sleep(length)
            tab.leave_read()

    async def overlapping(tab: Leases) -> None:
        readers = [asyncio.ensure_future(read(tab))]
        await asyncio.sleep(length / 2)
        readers.append(asyncio.ensure_future(read(tab)))
        await asyncio.gather(*readers)

    readers = [asyncio.ensure_future(overlapping(world.tab())) for _ in range(tabs)]
    b = world.tab()
    await asyncio.sleep(2 * length)
    tries = 0
    drain = 0.02
    while not await _tries(b, patience=min(drain, HOLD_BACK), drain=drain):
        tries += 1
        assert tries < 20
        # As the WAL grows; and "free read" makes it try again.
        drain = min(drain * 1.25, DRAIN)
        await asyncio.sleep(length)
    assert most <= DRAIN + HOLD_BACK
    done.set()
    await asyncio.gather(*readers)


@pytest.mark.parametrize("exclusive", [False, True])
async def test_what_runs_inside_a_read_does_not_wait_for_its_end(
    world: World, exclusive: bool
) -> None:
    a, b = world.tab(exclusive=exclusive), world.tab(exclusive=exclusive)
    await a.read(Bound(1))
    wishing = asyncio.ensure_future(b.write(Bound(5)) if exclusive else _tries(b))
    await asyncio.sleep(0.01)
    assert not a.read_now(), "it knows of the wish"
    assert await took(a.read(Bound(1), inside=True)) < TURNS
    a.leave_read()
    if exclusive:
        assert await took(a.write(Bound(1), inside=True)) < TURNS
        a.leave_write()
    a.leave_read()
    await wishing


async def test_a_write_that_a_wish_holds_back_is_in_no_readers_way(world: World) -> None:
    a, b = world.tab(exclusive=True), world.tab(exclusive=True)
    await a.read(Bound(1))
    wishing = asyncio.ensure_future(b.read(Bound(5)))
    await asyncio.sleep(0.01)
    writing = asyncio.ensure_future(a.write(Bound(5)))
    await asyncio.sleep(0.01)
    # What the reader writes is not to wait for one that waits for the reader.
    assert await took(a.write(Bound(1), inside=True)) < TURNS
    a.leave_write()
    a.leave_read()
    await wishing
    b.leave_read()
    await writing
    a.leave_write()


async def test_exclusive_handles_go_on_though_readers_overlap_all_the_time(world: World) -> None:
    a, b = world.tab(exclusive=True), world.tab(exclusive=True)
    done = asyncio.Event()

    async def read() -> None:
        while not done.is_set():
            await a.read(Bound(5))
            await asyncio.sleep(0.02)
            a.leave_read()

    readers = [asyncio.ensure_future(read())]
    await asyncio.sleep(0.01)
    readers.append(asyncio.ensure_future(read()))
    for _ in range(5):
        await b.write(Bound(1))
        b.leave_write()
        await asyncio.sleep(0.05)
    done.set()
    await asyncio.gather(*readers)


async def test_a_lost_wish_costs_time_only(world: World) -> None:
    world.lost = True
    a, b, c = (world.tab() for _ in range(3))
    await a.read(Bound(1))
    a.leave_read()
    assert a.level == Level.READ, "it keeps the lease"
    assert await _tries(b, patience=1.0)
    # Heard, and its end not.
    c.heard("want read 30")
    assert await took(c.read(Bound(5))) <= HOLD_BACK + TURNS


async def test_a_slice_that_ends_inside_a_transaction_ends_with_it(world: World) -> None:
    world.lost = True
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    a.leave_write()
    await asyncio.sleep(2 * SLICE)
    assert a.write_now()
    a.leave_write_now()  # it notices that the slice is over, and …
    await a.write(Bound(1))  # … is inside another transaction when the loop turns
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(b.write(Bound(1)))
    await asyncio.sleep(0.01)
    a.leave_write()
    assert a.level == Level.READ
    await waiting
    b.leave_write()


@pytest.mark.parametrize("exclusive", [False, True])
async def test_many_tasks_of_one_tab_do_not_starve_another(world: World, exclusive: bool) -> None:
    world.lost = True
    a, b = world.tab(exclusive=exclusive), world.tab(exclusive=exclusive)
    done = asyncio.Event()

    async def write() -> None:
        while not done.is_set():
            await a.write(Bound(5))
            await asyncio.sleep(0.001)
            a.leave_write()

    tasks = [asyncio.ensure_future(write()) for _ in range(30)]
    await asyncio.sleep(0.01)
    for _ in range(5):
        await b.write(Bound(1))
        b.leave_write()
    done.set()
    await asyncio.gather(*tasks)
