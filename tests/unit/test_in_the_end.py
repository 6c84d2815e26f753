"""A database that is busy for longer than the bound: what consumers owe is done when it is free."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from patience import LONGER, PATIENCE

import holdfast
from holdfast import Database
from holdfast.triggers.insisting import LONGEST_PAUSE, pause_after


@pytest.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    async with holdfast.open(tmp_path / "a.db", busy_timeout=0.05) as db:
        await db.execute("CREATE TABLE t(x)")
        yield db


@asynccontextmanager
async def busy(db: Database) -> AsyncIterator[None]:
    """Another task has the writer in the block."""
    began, over = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with db.write_transaction():
            began.set()
            await over.wait()

    writing = asyncio.create_task(write())
    await began.wait()
    try:
        yield
    finally:
        over.set()
        await writing


async def destinations(db: Database) -> int:
    return await db.fetch_value("SELECT count(*) FROM sqlite_master WHERE name LIKE '%diff%'")


async def until(number: int, db: Database) -> None:
    """That many destinations are there; a schema change has no event."""
    async with asyncio.timeout(PATIENCE):
        while await destinations(db) != number:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def test_a_stream_acknowledges_once_it_can(db: Database) -> None:
    diffs = db.triggers.diffs("t", throttle=0)
    first = asyncio.ensure_future(anext(diffs))
    await until(1, db)
    async with asyncio.timeout(PATIENCE):
        await db.execute("INSERT INTO t VALUES (1)")
        assert [record.values for record in await first] == [{"x": 1}]
        async with busy(db):
            second = asyncio.ensure_future(anext(diffs))
            await asyncio.sleep(0.2)  # longer than the bound, again and again
            assert not second.done()
        await db.execute("INSERT INTO t VALUES (2)")
        assert [record.values for record in await second] == [{"x": 2}]
    await diffs.aclose()
    assert await destinations(db) == 0


async def test_a_stream_that_is_left_while_others_write_is_dropped_later(db: Database) -> None:
    diffs = db.triggers.diffs("t", throttle=0)
    first = asyncio.ensure_future(anext(diffs))
    await until(1, db)
    await db.execute("INSERT INTO t VALUES (1)")
    await asyncio.wait_for(first, PATIENCE)
    async with busy(db):
        await diffs.aclose()
        assert await destinations(db) == 1
    await until(0, db)


async def test_a_dispose_that_failed_or_was_cancelled_is_made_good(db: Database) -> None:
    for cancelled in (False, True):
        trigger = await db.triggers.create_diff_trigger("t", "some_diff")
        async with busy(db):
            disposing = asyncio.ensure_future(trigger.dispose())
            await asyncio.sleep(0)
            if cancelled:
                disposing.cancel()
            await asyncio.wait([disposing])
            assert disposing.cancelled() == cancelled
            if not cancelled:
                assert isinstance(disposing.exception(), holdfast.DatabaseBusyError)
            assert not trigger.gone
        await until(0, db)
        # That is told after the commit, which is seen before.
        async with asyncio.timeout(PATIENCE):
            while not trigger.gone:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


async def test_closing_does_not_wait_for_what_is_done_later(db: Database) -> None:
    trigger = await db.triggers.create_diff_trigger("t", "some_diff")
    with pytest.raises(holdfast.DatabaseClosedError, match="the database was closed"):
        async with busy(db):
            with pytest.raises(holdfast.DatabaseBusyError):
                await trigger.dispose()
            await asyncio.wait_for(db.close(), PATIENCE)
    assert trigger.gone


async def test_diffs_end_when_the_database_is_closed_whatever_their_throttle(db: Database) -> None:
    diffs = db.triggers.diffs("t", throttle=LONGER)
    first = asyncio.ensure_future(anext(diffs))
    await until(1, db)
    await db.execute("INSERT INTO t VALUES (1)")
    await asyncio.wait_for(first, PATIENCE)
    second = asyncio.ensure_future(anext(diffs, None))
    await db.execute("INSERT INTO t VALUES (1)")
    await asyncio.sleep(0)
    await db.close()
    assert await asyncio.wait_for(second, PATIENCE) is None


def test_no_number_of_failures_is_too_many() -> None:
    pauses = [pause_after(failures) for failures in (0, 1, 2, 100, 5000)]
    assert pauses == [0.1, 0.2, 0.4, LONGEST_PAUSE, LONGEST_PAUSE]
