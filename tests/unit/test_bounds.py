"""Waiting within a bound: a lock of this interpreter, and calls of several steps."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from holdfast import DatabaseBusyError
from holdfast.bounds import LONGEST, Bound, BoundedLock

pytestmark = pytest.mark.usefixtures("clock")


async def test_those_who_wait_together_wait_no_longer_than_one() -> None:
    lock = BoundedLock("somebody kept it")
    await lock.acquire(Bound(1))
    start = time.monotonic()

    async def wait() -> float:
        with pytest.raises(DatabaseBusyError, match="somebody kept it for longer than 2 s"):
            await lock.acquire(Bound(2))
        return time.monotonic() - start

    waited = await asyncio.gather(*(wait() for _ in range(5)))
    assert all(2 <= each < 2.1 for each in waited)
    lock.release()
    assert not lock.locked()


async def test_it_is_the_next_ones_from_the_release_on() -> None:
    lock = BoundedLock("somebody kept it")
    await lock.acquire(Bound(1))
    waiting = asyncio.ensure_future(lock.acquire(Bound(1)))
    await asyncio.sleep(0)
    lock.release()
    # It has not run yet.
    assert not waiting.done()
    assert lock.locked()
    assert not lock.acquire_now()
    with pytest.raises(DatabaseBusyError):
        await lock.acquire(Bound(0.1))
    await waiting
    lock.release()
    assert lock.acquire_now()


async def test_one_that_is_cancelled_when_it_has_got_it_passes_it_on() -> None:
    lock = BoundedLock("somebody kept it")
    await lock.acquire(Bound(1))
    first, second = (asyncio.ensure_future(lock.acquire(Bound(1))) for _ in range(2))
    await asyncio.sleep(0)
    lock.release()
    first.cancel()
    await second
    assert first.cancelled()
    lock.release()
    assert not lock.locked()


async def test_those_who_wait_have_it_in_the_order_in_which_they_came() -> None:
    lock = BoundedLock("somebody kept it")
    had: list[int] = []

    async def have(number: int) -> None:
        await lock.acquire(Bound(10))
        had.append(number)
        await asyncio.sleep(0.01)
        lock.release()

    await asyncio.gather(*map(have, range(20)))
    assert had == list(range(20))


@pytest.mark.parametrize("seed", range(30))
async def test_one_has_it_at_a_time_whoever_is_cancelled_or_late(seed: int) -> None:
    choose = random.Random(seed)
    lock = BoundedLock("somebody kept it")
    inside = 0
    had = 0

    async def have() -> None:
        nonlocal inside, had
        await lock.acquire(Bound(choose.choice((0, 0.01, 0.02, 5))))
        inside += 1
        assert inside == 1
        had += 1
        try:
            await asyncio.sleep(choose.choice((0, 0, 0.005, 0.01)))
        finally:
            inside -= 1
            lock.release()

    tasks = [asyncio.ensure_future(have()) for _ in range(40)]
    for task in choose.sample(tasks, 15):
        for _ in range(choose.randrange(4)):
            await asyncio.sleep(choose.choice((0, 0, 0.005)))
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        assert result is None or isinstance(result, DatabaseBusyError | asyncio.CancelledError)
    assert had
    assert not lock.locked()


def test_a_bound_is_no_longer_than_a_browsers_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    # Added to these, it is rounded up.
    for now in (56186.498767381, 49802.311560766, 58924.616175675):
        monkeypatch.setattr("time.monotonic", lambda now=now: now)
        assert Bound(float("inf")).left <= LONGEST < 2**31 / 1000


async def test_a_step_has_what_the_steps_before_it_left() -> None:
    bound = Bound(1)
    await asyncio.sleep(0.7)
    assert bound.left == pytest.approx(0.3, abs=0.01)
    assert bound.at_most(5).left == pytest.approx(0.3, abs=0.01)
    assert bound.at_most(0.1).left == pytest.approx(0.1, abs=0.01)
    await asyncio.sleep(0.4)
    assert bound.over
    assert bound.left == 0 == bound.at_most(5).left
