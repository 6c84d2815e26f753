"""Leases: several tabs in one process, over locks that behave as Web Locks do."""

from __future__ import annotations

import asyncio
import random

import pytest
from tabs import Request, World

from holdfast import DatabaseBusyError
from holdfast.bounds import Bound
from holdfast.storage.opfs.leases import IDLE, SLICE, Leases, Level


def nothing() -> None:
    """What is done alone."""


pytestmark = pytest.mark.usefixtures("clock")


@pytest.fixture
async def world():
    world = World()
    yield world
    for tab in world.tabs:
        tab.close()


async def test_a_kept_lease_costs_no_lock_request(world: World) -> None:
    tab = world.tab()
    await tab.write(Bound(1))
    tab.leave_write()
    asked = world.locks.asked
    for _ in range(10):
        await tab.write(Bound(1))
        tab.leave_write()
        assert tab.read_now()
        tab.leave_read()
    assert world.locks.asked == asked


async def test_a_write_that_waits_for_nothing_needs_a_kept_lease(world: World) -> None:
    a, b = world.tab(), world.tab()
    assert not a.write_now()
    await a.read(Bound(1))
    assert not a.write_now(), "it may only read"
    a.leave_read()
    await a.write(Bound(1))
    assert not a.write_now(), "another connection of this tab writes"
    a.leave_write()
    for _ in range(3):
        assert a.write_now()
        a.leave_write_now()
    async with asyncio.timeout(IDLE / 2):
        await b.write(Bound(1))
    assert not a.write_now()
    b.leave_write()


async def test_a_write_that_waits_for_nothing_does_not_prolong_what_others_want(
    world: World,
) -> None:
    a, b = world.tab(exclusive=True), world.tab(exclusive=True)
    await a.read(Bound(1))
    assert a.write_now()
    a.leave_write_now()
    turn = asyncio.ensure_future(b.write(Bound(1)))
    await asyncio.sleep(0.01)
    assert not a.write_now()
    a.leave_read()
    await turn
    b.leave_write()


@pytest.mark.parametrize("exclusive", [False, True])
async def test_writes_that_wait_for_nothing_hand_over_and_go_idle(
    world: World, exclusive: bool
) -> None:
    a, b = world.tab(exclusive=exclusive), world.tab(exclusive=exclusive)
    await a.write(Bound(1))
    a.leave_write()
    turn = asyncio.ensure_future(b.write(Bound(1)))
    written = 0
    async with asyncio.timeout(IDLE / 2):
        while a.write_now():
            a.leave_write_now()
            written += 1
            await asyncio.sleep(0)
        await turn
    assert written
    b.leave_write()


async def test_writes_that_wait_for_nothing_go_idle(world: World) -> None:
    tab = world.tab()
    await tab.write(Bound(1))
    tab.leave_write()
    await asyncio.sleep(IDLE * 0.6)
    assert tab.write_now()
    tab.leave_write_now()
    await asyncio.sleep(IDLE * 0.6)
    assert tab.level == Level.WRITE, "it was used meanwhile"
    await asyncio.sleep(IDLE * 1.5)
    assert tab.level == Level.NONE


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("at_once", [False, True])
async def test_a_lease_used_without_pause_goes_round_though_no_wish_is_heard(
    world: World, exclusive: bool, at_once: bool
) -> None:
    world.lost = True
    tabs = [world.tab(exclusive=exclusive) for _ in range(4)]
    written = dict.fromkeys(tabs, 0)
    done = asyncio.Event()

    async def use(tab: Leases) -> None:
        while not done.is_set():
            if at_once and tab.write_now():
                tab.leave_write_now()
            else:
                await tab.write(Bound(5))
                tab.leave_write()
            written[tab] += 1
            if min(written.values()) >= 20:
                done.set()
            # Never as long as IDLE, which would hand over as well.
            await asyncio.sleep(0.001)

    async with asyncio.timeout(20 * SLICE * len(tabs)):
        await asyncio.gather(*map(use, tabs))


async def test_a_tab_alone_keeps_what_it_uses(world: World) -> None:
    tab = world.tab()
    await tab.write(Bound(1))
    tab.leave_write()
    asked = world.locks.asked
    for _ in range(30):
        await asyncio.sleep(SLICE / 10)
        await tab.write(Bound(1))
        tab.leave_write()
    assert world.locks.asked == asked


async def test_exclusive_handles_change_hands_when_the_loop_turns(world: World) -> None:
    """Not after each transaction: opening them anew costs more than one."""
    a, b = world.tab(exclusive=True), world.tab(exclusive=True)
    await a.read(Bound(1))
    turn = asyncio.ensure_future(b.write(Bound(1)))
    await asyncio.sleep(0.01)
    a.leave_read()
    asked = world.locks.asked
    for _ in range(10):
        await a.write(Bound(1))
        a.leave_write()
    assert world.locks.asked == asked
    await turn
    b.leave_write()


async def _write_in_turn(a: Leases, b: Leases, times: int) -> None:
    for _ in range(times):
        for tab, other in ((a, b), (b, a)):
            await tab.write(Bound(1))
            tab.leave_write()
            other.written()
            await asyncio.sleep(0)


async def test_tabs_that_write_in_turn_do_not_ask_aloud(world: World) -> None:
    a, b = world.tab(), world.tab()
    await _write_in_turn(a, b, 3)
    said = world.said
    await _write_in_turn(a, b, 10)
    assert world.said == said


async def test_whoever_asked_in_vain_without_a_word_asks_aloud(world: World) -> None:
    a, b = world.tab(), world.tab()
    await _write_in_turn(a, b, 3)
    # Nobody wrote meanwhile: this one keeps the lease now.
    await b.write(Bound(1))
    b.leave_write()
    await b.write(Bound(1))
    b.leave_write()
    await asyncio.sleep(0)
    assert b.level == Level.WRITE
    said = world.said
    await a.write(Bound(1))
    assert world.said == said + 1
    a.leave_write()


async def test_a_keeper_hands_over_at_once(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    a.leave_write()
    assert a.level == Level.WRITE
    async with asyncio.timeout(IDLE / 2):
        await b.write(Bound(1))
    assert (a.level, b.level) == (Level.READ, Level.WRITE)


async def test_tabs_that_write_in_turn_stop_asking_each_other(world: World) -> None:
    a, b = world.tab(), world.tab()
    for _ in range(3):
        for tab in (a, b):
            await tab.write(Bound(1))
            tab.leave_write()
    await asyncio.sleep(0)
    assert (a.level, b.level) == (Level.READ, Level.READ)
    # What is written without letting the loop turn is written under one lease.
    await a.write(Bound(1))
    asked = world.locks.asked
    for _ in range(5):
        a.leave_write()
        await a.write(Bound(1))
    assert world.locks.asked == asked
    a.leave_write()
    await asyncio.sleep(0)
    assert a.level == Level.READ
    # When the other has enough of it, the lease is kept again.
    await a.write(Bound(1))
    a.leave_write()
    await asyncio.sleep(0)
    assert a.level == Level.WRITE


async def test_an_idle_lease_is_given_up_without_being_asked(world: World) -> None:
    world.lost = True
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    a.leave_write()
    await b.write(Bound(IDLE * 20))
    assert a.level == Level.NONE


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_tab_that_goes_to_sleep_keeps_nothing(world: World, exclusive: bool) -> None:
    world.lost = True
    a, b = world.tab(exclusive=exclusive), world.tab(exclusive=exclusive)
    async with asyncio.timeout(IDLE / 2):  # not because it was idle for long enough
        await a.write(Bound(1))
        a.leave_write()
        a.rest()
        assert a.level == Level.NONE
        await b.write(Bound(1))
        b.leave_write()
        b.rest()

        # Inside transactions it keeps what they need, and no longer than that.
        await a.write(Bound(1))
        await a.read(Bound(1))
        a.rest()
        assert a.level >= Level.WRITE
        a.leave_read()
        assert a.level >= Level.WRITE
        a.leave_write()
        await b.write(Bound(1))
        assert await b.alone(nothing, Bound(1))
    assert a.level == Level.NONE
    b.leave_write()
    # Awake again, it keeps leases as before.
    await a.write(Bound(1))
    a.leave_write()
    await asyncio.sleep(0)
    assert a.level >= Level.WRITE


async def test_what_is_wanted_is_given_when_the_transaction_ends(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    writing = asyncio.ensure_future(b.write(Bound(1)))
    await asyncio.sleep(0.01)
    assert not writing.done()
    a.leave_write()
    # At once, and not when it has been idle for long enough.
    async with asyncio.timeout(IDLE / 2):
        await writing

    await a.read(Bound(1))
    everybody_out = asyncio.ensure_future(b.alone(nothing, Bound(1)))
    await asyncio.sleep(0.01)
    assert not everybody_out.done()
    a.leave_read()
    async with asyncio.timeout(IDLE / 2):
        assert await everybody_out


async def test_inside_a_transaction_nothing_is_handed_over(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    with pytest.raises(DatabaseBusyError, match=r"^other tabs kept 'notes\.db' busy for longer"):
        await b.write(Bound(IDLE * 2))
    # Who queues behind another task of the same tab is told whom that one waits for.
    asked = asyncio.ensure_future(b.write(Bound(IDLE * 4)))
    await asyncio.sleep(0)
    with pytest.raises(
        DatabaseBusyError,
        match=r"^other tasks of this tab, or another tab that these wait for, kept 'notes\.db' ",
    ):
        await b.write(Bound(IDLE))
    with pytest.raises(DatabaseBusyError, match=r"^other tabs kept 'notes\.db' busy"):
        await asked
    assert a.level == Level.WRITE
    # What was withdrawn is not granted to nobody later.
    a.leave_write()
    async with asyncio.timeout(1):
        await a.write(Bound(1))


async def test_readers_go_on_beside_a_writer(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    await b.read(Bound(1))
    assert (a.level, b.level) == (Level.WRITE, Level.READ)


async def test_alone_it_waits_for_those_who_read_and_lets_them_go_on(world: World) -> None:
    a, b = world.tab(), world.tab()
    await b.read(Bound(1))
    await a.write(Bound(1))
    levels: list[tuple[Level, Level]] = []
    assert not await a.alone(lambda: levels.append((a.level, b.level)), Bound(0.05))
    assert a.level == Level.WRITE
    assert not levels
    b.leave_read()
    assert await a.alone(lambda: levels.append((a.level, b.level)), Bound(1))
    assert levels == [(Level.EXCLUSIVE, Level.NONE)]
    # The write is not over.
    assert a.level == Level.WRITE
    await b.read(Bound(1))
    assert b.level == Level.READ
    a.leave_write()


async def test_an_error_alone_leaves_the_write_as_it_was(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    with pytest.raises(ZeroDivisionError):
        await a.alone(lambda: print(1 / 0), Bound(1))
    a.leave_write()
    async with asyncio.timeout(IDLE / 2):
        await b.write(Bound(1))
        assert await b.alone(nothing, Bound(1))
    b.leave_write()


async def test_readers_of_the_same_tab_are_not_disturbed(world: World) -> None:
    levels: list[Level] = []
    tab = world.tab(levels.append)
    await tab.read(Bound(1))
    await tab.write(Bound(1))
    assert not await tab.alone(nothing, Bound(0.02))
    assert levels == [Level.READ, Level.WRITE]
    tab.leave_read()
    alone = asyncio.ensure_future(tab.alone(nothing, Bound(0.02)))
    await asyncio.sleep(0)
    # One that comes meanwhile enters when it may stay.
    await tab.read(Bound(1))
    assert await alone
    assert Level.EXCLUSIVE in levels
    assert tab.level == Level.WRITE
    tab.leave_write()
    tab.leave_read()


async def test_a_read_inside_of_which_a_write_waits_blocks_no_checkpoint_for_ever(
    world: World,
) -> None:
    """b reads and waits for the write lease; a has it and wants everybody out."""
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    await b.read(Bound(1))
    writing = asyncio.ensure_future(b.write(Bound(2)))
    await asyncio.sleep(0)
    assert not await a.alone(nothing, Bound(0.1))
    a.leave_write()
    await writing
    b.leave_write()
    b.leave_read()


async def test_the_lock_is_released_after_the_level_is_lowered(world: World) -> None:
    holders: list[tuple[Level, list[Request]]] = []

    def note(level: Level) -> None:
        holders.append((level, list(world.locks.held["db:write"])))

    a, b = world.tab(note), world.tab()
    await a.write(Bound(1))
    mine = list(world.locks.held["db:write"])
    a.leave_write()
    await b.write(Bound(1))
    assert holders == [(Level.WRITE, mine), (Level.READ, mine)]


async def test_a_cancelled_wait_leaves_nothing_behind(world: World) -> None:
    a, b = world.tab(), world.tab()
    await a.write(Bound(1))
    waiting = asyncio.ensure_future(b.write(Bound(5)))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    a.leave_write()
    async with asyncio.timeout(1):
        await b.write(Bound(1))
    b.leave_write()


@pytest.mark.parametrize("seed", range(20))
async def test_one_writer_and_no_reader_beside_an_exclusive_lease(world: World, seed: int) -> None:
    """Many tabs, each doing this and that: never two writers, nobody starves, nothing hangs."""
    choose = random.Random(seed)
    tabs = [world.tab() for _ in range(4)]
    inside = {"write": 0, "read": 0}
    done = [0] * len(tabs)
    times = 0

    def by_itself() -> None:
        nonlocal times
        assert inside == {"write": 0, "read": 0}
        assert [tab.level for tab in tabs].count(Level.EXCLUSIVE) == 1
        times += 1

    async def pause() -> None:
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(0)

    async def work(index: int, tab: Leases) -> None:
        for _ in range(30):
            if choose.random() < 0.5:
                await tab.write(Bound(5))
                try:
                    if choose.random() < 0.3:
                        await tab.alone(by_itself, Bound(0.05))
                    inside["write"] += 1
                    assert inside["write"] == 1
                    assert tab.level == Level.WRITE
                    await pause()
                    inside["write"] -= 1
                finally:
                    tab.leave_write()
            else:
                await tab.read(Bound(5))
                inside["read"] += 1
                assert tab.level >= Level.READ
                await pause()
                assert tab.level >= Level.READ
                inside["read"] -= 1
                tab.leave_read()
            done[index] += 1
            await pause()

    async with asyncio.timeout(20):
        await asyncio.gather(*(work(index, tab) for index, tab in enumerate(tabs)))
    assert done == [30] * len(tabs)
    assert times


@pytest.mark.parametrize("seed", range(5))
async def test_exclusive_handles_are_open_in_one_tab_at_a_time(world: World, seed: int) -> None:
    """Everything goes on as with shared ones, in turn; nobody waits for itself."""
    choose = random.Random(seed)
    tabs = [world.tab(exclusive=True) for _ in range(4)]
    inside: list[Leases] = []
    done = 0

    async def stay(tab: Leases) -> None:
        inside.append(tab)
        for _ in range(choose.randrange(4)):
            assert tab.level == Level.EXCLUSIVE
            assert set(inside) == {tab}
            await asyncio.sleep(0)
        inside.remove(tab)

    async def work(tab: Leases) -> None:
        nonlocal done
        for _ in range(20):
            await tab.read(Bound(5))
            if choose.random() < 0.3:
                # A write beside one's own read: the lease is here already.
                await tab.write(Bound(5), inside=True)
                assert await tab.alone(nothing, Bound(0))
                await stay(tab)
                tab.leave_write()
            await stay(tab)
            tab.leave_read()
            if choose.random() < 0.5:
                await tab.write(Bound(5))
                await stay(tab)
                tab.leave_write()
            done += 1

    async with asyncio.timeout(20):
        # Two tasks in each tab, as two connections would be.
        await asyncio.gather(*(work(tab) for tab in tabs * 2))
    assert done == 160


async def test_an_exclusive_keeper_hands_over_at_once(world: World) -> None:
    a, b = world.tab(exclusive=True), world.tab(exclusive=True)
    await a.write(Bound(1))
    a.leave_write()
    assert a.level == Level.EXCLUSIVE
    async with asyncio.timeout(IDLE / 2):
        await b.read(Bound(1))
    assert (a.level, b.level) == (Level.NONE, Level.EXCLUSIVE)


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_wish_to_write_that_is_heard_while_waiting_is_not_forgotten(
    world: World, exclusive: bool
) -> None:
    a, b, c = (world.tab(exclusive=exclusive) for _ in range(3))
    await a.write(Bound(1))
    waiting = [asyncio.ensure_future(tab.write(Bound(1))) for tab in (b, c)]
    await asyncio.sleep(0.01)
    a.leave_write()
    async with asyncio.timeout(IDLE / 2):
        await waiting[0]
        b.leave_write()
        await waiting[1]
    c.leave_write()


async def test_who_wrote_more_than_once_in_its_turn_asks_aloud(world: World) -> None:
    a, b = world.tab(), world.tab()
    for _ in range(3):
        await a.write(Bound(1))
        a.leave_write()
    await b.write(Bound(1))
    b.leave_write()
    a.written()
    said = world.said
    writing = asyncio.ensure_future(a.write(Bound(1)))
    await asyncio.sleep(0)
    assert world.said == said + 1, "at once"
    await writing
    a.leave_write()


async def test_a_wish_that_is_heard_while_waiting_is_not_forgotten(world: World) -> None:
    a, b, c = (world.tab(exclusive=True) for _ in range(3))
    await a.read(Bound(1))
    waiting = [asyncio.ensure_future(tab.read(Bound(1))) for tab in (b, c)]
    await asyncio.sleep(0.01)
    a.leave_read()
    async with asyncio.timeout(IDLE / 2):
        await waiting[0]
        # c said what it wants before b had it.
        b.leave_read()
        await waiting[1]
    c.leave_read()
