"""Calls of the system that fail at the worst moment, and an application that never rests."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
from patience import LONGER, PATIENCE

import holdfast
import holdfast.session.lookout
from holdfast.holds import FileTriggerHoldManager
from holdfast.storage.file import channel as file_channel
from holdfast.storage.file import storage as file_storage


def no_descriptor(*args: Any, **kwargs: Any) -> NoReturn:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


async def test_a_commit_that_cannot_be_announced_is_a_commit(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holdfast.open(path) as db, holdfast.open(path):
        await db.execute("CREATE TABLE t(x)")
        monkeypatch.setattr(file_channel.os, "listdir", no_descriptor)
        monkeypatch.setattr(file_channel.os, "stat", no_descriptor)
        called: list[int] = []
        # The look at the files is the guard's, which has another way to notice.
        monkeypatch.setattr(file_storage.FileGuard, "check_files", lambda self, anew=False: None)
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            tx.on_commit(lambda: called.append(1))
        assert called == [1]
        monkeypatch.undo()
        assert await db.fetch_all("SELECT x FROM t") == [(1,)]


async def test_a_process_that_cannot_ask_for_others_is_not_taken_to_be_alone(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only one process may do would be done under the others' hands."""
    async with holdfast.open(path) as db:
        storage = db._session.storage  # type: ignore[attr-defined]
        assert await storage.is_alone()
        with monkeypatch.context() as patch:
            patch.setattr(file_channel.os, "stat", no_descriptor)
            with pytest.raises(OSError, match="Too many open files"):
                await storage.is_alone()


@pytest.mark.parametrize("what", ["socket", "count_commits"])
async def test_an_open_that_fails_at_its_last_step_leaves_nothing(
    path: str, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
    descriptors = len(os.listdir("/proc/self/fd"))
    if what == "socket":
        monkeypatch.setattr(socket, "socket", no_descriptor)
        # It does without: what is not announced is looked for.
        async with holdfast.open(path) as db:
            await db.execute("INSERT INTO t VALUES (1)")
    else:
        monkeypatch.setattr(file_storage, "count_commits", no_descriptor)
        with pytest.raises(OSError, match="Too many open files"):
            await holdfast.open(path)
    monkeypatch.undo()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert await holdfast.delete_database(path)


async def test_the_guard_of_holds_is_given_up_after_an_error(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    holds = FileTriggerHoldManager(path)
    release = await holds.obtain_hold("one")
    monkeypatch.setattr(Path, "glob", no_descriptor)
    with pytest.raises(OSError, match="Too many") as kept:
        await holds.obtain_hold("two")
    monkeypatch.undo()
    # Another process would wait for it, as long as this error is kept.
    assert "one" in await FileTriggerHoldManager(path).held()
    await release()
    del kept


async def test_watch_ends_when_the_database_is_closed_whatever_its_throttle(path: str) -> None:
    db = await holdfast.open(path)
    await db.execute("CREATE TABLE t(x)")
    rows = db.watch("SELECT count(*) FROM t", throttle=LONGER)
    assert await anext(rows) == [(0,)]
    waiting = asyncio.ensure_future(anext(rows, None))
    await db.execute("INSERT INTO t VALUES (1)")
    await asyncio.sleep(0)
    await db.close()
    assert await asyncio.wait_for(waiting, PATIENCE) is None


async def test_a_throttle_of_watch_is_checked_like_every_other(path: str) -> None:
    async with holdfast.open(path) as db:
        for throttle, error in (("x", TypeError), (float("inf"), ValueError), (-1, ValueError)):
            with pytest.raises(error, match="throttle"):
                await anext(db.watch("SELECT 1", throttle=throttle))  # type: ignore[arg-type]


async def test_an_application_that_writes_without_pause_hears_of_others(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program without holdfast commits is announced by no one."""
    monkeypatch.setattr(holdfast.session.lookout, "LOOKOUT", 0.3)
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        await db.execute("CREATE TABLE mine(x)")
        rows = db.watch("SELECT count(*) FROM t", throttle=0)
        assert await anext(rows) == [(0,)]
        heard = asyncio.ensure_future(anext(rows))

        async def write_on() -> None:
            while True:
                async with db.write_transaction() as tx:
                    await tx.execute("INSERT INTO mine VALUES (1)")
                    await asyncio.sleep(0.03)

        insert = "import sqlite3, sys; sqlite3.connect(sys.argv[1], isolation_level=None)"
        insert += ".execute('INSERT INTO t VALUES (1)')"
        # No look-out comes in between: the event loop stands still.
        subprocess.run([sys.executable, "-c", insert, path], check=True)  # noqa: ASYNC221
        writing = [asyncio.create_task(write_on()) for _ in range(2)]
        assert await asyncio.wait_for(heard, PATIENCE) == [(1,)]
        for task in writing:
            task.cancel()
        await asyncio.gather(*writing, return_exceptions=True)
