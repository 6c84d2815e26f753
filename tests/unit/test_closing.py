"""Closing: one piece of work, which gives back everything, whoever waits and whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from across import inside
from patience import PATIENCE
from uses import USES, until_it_fails

import holdfast
from holdfast import Database, DatabaseClosedError, DiffContext, MemoryTriggerHoldManager
from holdfast.storage.file import storage as file_storage

pytestmark = pytest.mark.everywhere


class Holds(MemoryTriggerHoldManager):
    """Some of its releases fail."""

    def __init__(self) -> None:
        self.taken: set[str] = set()
        self.failures: list[Exception] = []

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        release = await super().obtain_hold(hold_id)
        self.taken.add(hold_id)

        async def released() -> None:
            self.taken.discard(hold_id)
            await release()
            if self.failures:
                raise self.failures.pop()

        return released


@pytest.fixture
def holds() -> Holds:
    return Holds()


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def db(
    request: pytest.FixtureRequest, tmp_path: Path, holds: Holds
) -> AsyncIterator[Database]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "a.db" if request.param == "indexeddb" else str(tmp_path / "a.db")
    database = await holdfast.open(
        name, storage=request.param, hold_manager=holds, persist_triggers=True
    )
    await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    yield database
    with contextlib.suppress(OSError, ZeroDivisionError):  # of which the test was told
        await database.close()


async def patiently(awaitable: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(awaitable, PATIENCE)


class Handler:
    """Waits in its first call, and writes then."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.done = 0
        self.errors: list[Exception] = []

    async def __call__(self, ctx: DiffContext) -> None:
        self.entered.set()
        await self.go_on.wait()
        await ctx.transaction.execute("INSERT INTO t(v) VALUES('handled')")
        self.done += 1

    async def failed(self, error: Exception) -> None:
        self.errors.append(error)


async def test_cancelled_it_goes_on_and_every_caller_waits_for_it(
    db: Database, holds: Holds
) -> None:
    handler = Handler()
    await db.triggers.track_table_diff("t", handler, on_error=handler.failed, throttle=0)
    await db.triggers.create_diff_trigger("t", "d")
    await db.execute("INSERT INTO t(v) VALUES(1)")
    await patiently(handler.entered.wait())
    first = asyncio.ensure_future(db.close())
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert db.closed
    second, third = asyncio.ensure_future(db.close()), asyncio.ensure_future(db.close())
    for _ in range(50):
        await asyncio.sleep(0)
    assert not second.done()
    assert not third.done()
    assert holds.taken
    handler.go_on.set()
    await patiently(asyncio.gather(second, third))
    assert (handler.done, handler.errors, holds.taken) == (1, [], set())
    await db.close()


async def test_cancelled_while_nobody_else_waits_it_goes_on(db: Database, holds: Holds) -> None:
    await db.triggers.create_diff_trigger("t", "d")
    closing = asyncio.ensure_future(db.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait({closing})
    await patiently(db.close())
    assert not holds.taken


async def test_one_release_that_fails_leaves_no_other(db: Database, holds: Holds) -> None:
    for n in range(4):
        await db.triggers.create_diff_trigger("t", f"d{n}")
    holds.failures = [OSError("the first"), OSError("the second")]
    with pytest.raises(OSError, match="the second"):
        await db.close()
    assert holds.taken == set()
    # Of the storage as well nothing is left.
    if db.storage != "memory":
        await holdfast.import_database(db.name, await image(), storage=db.storage)
        assert await holdfast.delete_database(db.name, storage=db.storage)


async def image() -> bytes:
    async with holdfast.open("x", storage="memory") as other:
        await other.execute("CREATE TABLE imported(v)")
        return await other.export()


async def test_what_was_open_can_be_replaced_and_deleted_at_once(db: Database) -> None:
    if db.storage == "memory":
        pytest.skip("each memory database is its opener's own")
    data = await image()
    for _ in range(3):
        await db.close()
        await holdfast.import_database(db.name, data, storage=db.storage)
        db = await holdfast.open(db.name, storage=db.storage)
        await db.close()
        assert await holdfast.delete_database(db.name, storage=db.storage)
        db = await holdfast.open(db.name, storage=db.storage)
    await db.close()


@pytest.mark.here
@pytest.mark.parametrize("number", range(10))
async def test_every_step_that_fails_is_told_and_keeps_no_other_from_going(
    db: Database, holds: Holds, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One after the other: whichever fails, the triggers, holds, files and channels are gone."""
    storage = db._session.storage
    await db.triggers.create_diff_trigger("t", "d")
    places = [
        (db._session.announcements, "deliver"),
        (db.triggers, "close"),
        (db.triggers, "_drop_all"),
        (db.triggers, "_drain"),
        (db.triggers._destinations, "close"),
        (db._session, "end_tasks"),
        (db._session.readers, "close"),
        (storage, "leaving"),
        (storage, "disconnect"),
        (storage, "close"),
    ]
    thing, name = places[number]
    method = getattr(thing, name)

    def failing(*arguments: Any) -> Any:
        found = method(*arguments)

        async def awaited() -> None:
            await found
            raise ZeroDivisionError(name)

        if asyncio.iscoroutine(found):
            return awaited()
        raise ZeroDivisionError(name)

    monkeypatch.setattr(thing, name, failing)
    with pytest.raises(ZeroDivisionError, match=name):
        await patiently(db.close())
    monkeypatch.undo()
    assert not holds.taken
    assert not db._session.loops or all(task.done() for task in db._session.loops)
    if db.storage != "memory":
        async with holdfast.open(db.name, storage=db.storage) as again:
            assert await again.triggers.tracked() == []
        assert await holdfast.delete_database(db.name, storage=db.storage)
    assert not file_storage._open


async def test_who_waits_for_its_callbacks_after_a_commit_is_not_cancelled(db: Database) -> None:
    running, go_on = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        running.set()
        await go_on.wait()

    async def work() -> str:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES(1)")
            tx.on_commit(slow)
        return "committed"

    working = asyncio.ensure_future(work())
    await patiently(running.wait())
    closing = asyncio.ensure_future(db.close())
    for _ in range(20):
        await asyncio.sleep(0)
    go_on.set()
    assert await patiently(working) == "committed"
    await patiently(closing)


async def test_what_it_waits_for_may_call_it(db: Database) -> None:
    """It goes on by itself: neither waits for the other."""
    called = asyncio.Event()

    async def handle(ctx: DiffContext) -> None:
        raise ZeroDivisionError

    async def failed(error: Exception) -> None:
        await db.close()
        called.set()

    await db.triggers.track_table_diff("t", handle, on_error=failed, throttle=0)
    await db.execute("INSERT INTO t(v) VALUES(1)")
    await patiently(called.wait())
    await patiently(db.close())


async def test_a_callback_after_a_commit_may_call_it(db: Database) -> None:
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES(1)")
        tx.on_commit(db.close)
    await patiently(db.close())


@pytest.mark.parametrize("turns", range(12))
async def test_whatever_is_in_flight_is_done_or_told_that_it_is_closed(
    db: Database, turns: int
) -> None:
    working = [
        asyncio.ensure_future(until_it_fails(db, use)) for use in USES.values() for _ in range(2)
    ]
    await asyncio.sleep(0)
    for _ in range(turns * turns):
        await asyncio.sleep(0)
    await patiently(db.close())
    for error in await patiently(asyncio.gather(*working)):
        if not isinstance(error, DatabaseClosedError):
            raise error


async def test_a_database_that_is_dropped_and_not_closed_is_warned_of(
    db: Database, place: str
) -> None:
    name = f"{db.name}.dropped" if db.storage != "indexeddb" else "dropped.db"
    dropped = await holdfast.open(name, storage=db.storage)
    await dropped.execute("CREATE TABLE t(v)")
    assert await dropped.fetch_all("SELECT * FROM t") == []
    for _ in range(10):
        await asyncio.sleep(0)  # what has ended has callbacks to run
    reference = weakref.ref(dropped)
    there = None if place == "here" else inside(dropped)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        del dropped
        gc.collect()
    assert reference() is None
    told = [str(each.message) for each in caught if "was dropped and not closed" in str(each)]
    assert len(told) == 1
    assert "dropped" in told[0]
    if there is not None:
        await there.close()
