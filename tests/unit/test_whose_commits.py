"""Own commits are told once, as own ones; those of others once they are there, told of or not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import session_of

import holdfast
from holdfast import Database, DiffContext, StorageUnavailableError, TableChange
from holdfast.local.changes import MANY
from holdfast.session.announcements import Announcement
from holdfast.session.lookout import look
from holdfast.storage.history import History

Open = Callable[[], Awaitable[Database]]


class Heard:
    """What `changes()` gives, and how often `watch` does."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.changes: list[TableChange] = []
        self.rows: list[Any] = []
        self.again: list[Any] = []
        watch = "SELECT count(*) FROM t"
        self._tasks = [
            asyncio.ensure_future(self._gather(database.changes(), self.changes)),
            asyncio.ensure_future(self._gather(database.watch(watch, throttle=0), self.rows)),
            asyncio.ensure_future(
                self._gather(database.watch(watch, throttle=0, distinct=False), self.again)
            ),
        ]

    async def _gather(self, source: AsyncIterator[Any], to: list[Any]) -> None:
        async for each in source:
            to.append(each)

    @property
    def own(self) -> list[TableChange]:
        return [change for change in self.changes if not change.remote]

    @property
    def remote(self) -> frozenset[str]:
        found = (change.tables for change in self.changes if change.remote)
        return frozenset().union(*found)

    async def settle(self) -> None:
        """All that has been told is here, and several look-outs were made."""
        for _ in range(4):
            await look(session_of(self.database))
            for _ in range(50):
                await asyncio.sleep(0)

    async def clear(self) -> None:
        await self.settle()
        for each in (self.changes, self.rows, self.again):
            each.clear()


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def open_database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "a.db" if request.param == "indexeddb" else str(tmp_path / "a.db")
    async with contextlib.AsyncExitStack() as stack:

        async def opened() -> Database:
            database = await holdfast.open(name, storage=request.param)
            stack.push_async_callback(database.close)
            await database.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)")
            await database.execute("CREATE TABLE IF NOT EXISTS u(id INTEGER PRIMARY KEY, v)")
            return database

        yield opened


async def handle(ctx: DiffContext) -> None:
    """Nothing."""


async def no_change(db: Database) -> None:
    """All that is committed, or done to the file, without a change of the application's tables."""
    tracker = await db.triggers.track_table_diff("t", handle)
    trigger = await db.triggers.create_diff_trigger("u", "records")
    await trigger.dispose()
    await tracker.stop()
    await db.execute("CREATE TEMP TABLE IF NOT EXISTS passing(v)")
    await db.execute("INSERT INTO passing VALUES(1)")
    await db.execute("PRAGMA user_version = 7")
    await db.execute("PRAGMA user_version = 8")
    await db.execute("VACUUM")
    await db.execute("UPDATE t SET v = 1 WHERE id < 0")
    with pytest.raises(ZeroDivisionError):
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES(1)")
            1 / 0  # noqa: B018


async def test_each_own_commit_is_told_once(open_database: Open) -> None:
    db = await open_database()
    heard = Heard(db)
    await heard.clear()
    for n in range(5):
        await db.execute("INSERT INTO t(v) VALUES(?)", (n,))
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO u(v) VALUES(?)", (n,))
        await heard.settle()
    assert heard.changes == [({"t"}, False), ({"u"}, False)] * 5
    assert heard.rows == [[(n + 1,)] for n in range(5)]
    assert heard.again == heard.rows


async def test_what_changes_no_table_is_no_change(open_database: Open) -> None:
    db = await open_database()
    heard = Heard(db)
    await heard.clear()
    await no_change(db)
    await heard.settle()
    assert heard.changes == [({"passing"}, False)]
    assert heard.rows == heard.again == []


async def test_what_changes_no_table_of_another_is_told_to_nobody(open_database: Open) -> None:
    a, b = await open_database(), await open_database()
    if a.storage == "memory":
        pytest.skip("each memory database is its opener's own")
    heard = Heard(a)
    await heard.clear()
    await no_change(b)
    await heard.settle()
    assert heard.changes == []
    assert heard.rows == heard.again == []


async def test_watch_gives_no_rows_twice(open_database: Open) -> None:
    db = await open_database()
    heard = Heard(db)
    await heard.clear()
    await db.execute("INSERT INTO t(id, v) VALUES(1, 1)")
    await heard.clear()
    await db.execute("UPDATE t SET v = 2")
    await heard.settle()
    assert heard.rows == []
    assert heard.again == [[(1,)]]


async def test_commits_of_another_beside_own_ones(open_database: Open) -> None:
    a, b = await open_database(), await open_database()
    if a.storage == "memory":
        pytest.skip("each memory database is its opener's own")
    heard = Heard(a)
    await heard.clear()
    for n in range(5):
        await b.execute("INSERT INTO u(v) VALUES(?)", (n,))
        await a.execute("INSERT INTO t(v) VALUES(?)", (n,))
        await heard.settle()
    assert heard.own == [({"t"}, False)] * 5
    assert [change for change in heard.changes if change.remote] == [({"u"}, True)] * 5


@pytest.mark.parametrize("announced", [0, 1, 2], ids=["none", "the first", "the second"])
async def test_what_a_program_without_holdfast_commits_is_found(
    tmp_path: Path, announced: int
) -> None:
    """Also beside commits that were announced."""
    path = str(tmp_path / "a.db")
    async with holdfast.open(path) as a, holdfast.open(path) as b:
        await a.execute("CREATE TABLE t(v)")
        await a.execute("CREATE TABLE u(v)")
        heard = Heard(a)
        await heard.clear()
        with contextlib.closing(apsw.Connection(path)) as stranger:
            if announced == 1:
                await b.execute("INSERT INTO t VALUES(1)")
            stranger.execute("INSERT INTO u VALUES(1)")
            if announced == 2:
                await b.execute("INSERT INTO t VALUES(1)")
            await heard.settle()
            assert heard.remote >= {"u"}
            assert not heard.own
            # And nothing a second time.
            await heard.clear()
            stranger.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
            await a.execute("INSERT INTO t VALUES(1)")
            await b.execute("INSERT INTO t VALUES(1)")
            await heard.settle()
            assert heard.changes == [({"t"}, False), ({"t"}, True)]
        await heard.clear()


async def test_an_error_does_not_end_the_look_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(holdfast.session.lookout, "LOOKOUT", 0.001)
    async with holdfast.open(str(tmp_path / "a.db")) as db:
        await db.execute("CREATE TABLE t(v)")
        looks = asyncio.Semaphore(0)

        async def look() -> bool:
            looks.release()
            raise apsw.IOError("the disk said no")

        monkeypatch.setattr(db._session.storage, "has_news", look)
        for _ in range(3):
            await looks.acquire()
    assert "the disk said no" in caplog.text


async def test_who_waits_for_changes_is_told_that_the_database_is_gone(
    open_database: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is when the site's data was cleared."""
    db = await open_database()
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()

    async def failing(error: Exception) -> None:
        failed.set_result(error)

    watching, changes, diffs = db.watch("SELECT * FROM t"), db.changes(), db.triggers.diffs("u")
    assert await anext(watching) == []
    waiting = [asyncio.ensure_future(anext(each)) for each in (watching, changes, diffs)]
    await db.triggers.track_table_diff("t", handle, on_error=failing)
    for _ in range(100):
        await asyncio.sleep(0)

    async def gone() -> bool:
        raise StorageUnavailableError("it was cleared")

    monkeypatch.setattr(db._session.storage, "has_news", gone)
    await look(session_of(db))
    await look(session_of(db))
    for each in waiting:
        with pytest.raises(StorageUnavailableError, match="it was cleared"):
            await each
    assert isinstance(await failed, StorageUnavailableError)


async def test_changes_that_nobody_asks_for_are_gathered(tmp_path: Path) -> None:
    async with holdfast.open(str(tmp_path / "a.db"), storage="memory") as db:
        for name in ("t", "u", "w"):
            await db.execute(f"CREATE TABLE {name}(v)")
        changes = db.changes()
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await db.execute("INSERT INTO t VALUES(1)")
        assert await first == ({"t"}, False)
        for _ in range(2 * MANY):
            await db.execute("INSERT INTO t VALUES(1)")
        for table in ("u", "w"):
            db._session.announcements.deliver(Announcement(frozenset({table}), remote=True))
            await db.execute(f"INSERT INTO {table} VALUES(1)")
        found = []
        while (change := await asyncio.wait_for(anext(changes), 60)).remote is False:
            found.append(change)
        assert found == [({"t"}, False)] * (MANY - 1) + [({"t", "u", "w"}, False)]
        assert change == ({"u", "w"}, True)


def test_a_chain_of_steps_in_any_order() -> None:
    history = History(0)
    assert history.missed(0) is False
    history.add((1, 2))
    history.add((0, 1))
    assert history.missed(2) is False
    # The announcement is on its way, and comes.
    history.add((3, 4))
    assert history.missed(4) is None
    history.add((2, 3))
    assert history.missed(4) is False
    # It was lost; said too late, it changes nothing any more.
    history.add((5, 6))
    assert history.missed(6) is None
    assert history.missed(7) is True
    history.add((4, 5))
    assert history.missed(7) is False
    history.add((7, 8))
    assert history.missed(8) is False


def test_steps_that_lead_nowhere_are_not_kept_for_ever() -> None:
    history = History(0)
    for n in range(1, 100_000):
        history.add((n, n + 1))
    assert len(history._steps) <= 1000
