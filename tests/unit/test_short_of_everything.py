"""Calls of the system that fail at the worst moment, and an application that never rests."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
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
        with pytest.raises(holdfast.StorageUnavailableError, match=r"files open.*ulimit"):
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


# -- descriptors -----------------------------------------------------------------------------------


@pytest.fixture
def no_more_files() -> Iterator[None]:
    """This process can open none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_descriptors_it_says_so(path: str, request: pytest.FixtureRequest) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        request.getfixturevalue("no_more_files")
        for call in (
            holdfast.open(path)._open(),
            holdfast.open(path + "2")._open(),
            holdfast.import_database(path + "3", b"SQLite format 3\0" + bytes(1008)),
            db.export(),
        ):
            with pytest.raises(holdfast.StorageUnavailableError, match=r"files open.*ulimit"):
                await call
        # What is open goes on.
        await db.execute("INSERT INTO t VALUES (1)")


# -- space -----------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("this user may not mount a file system")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> None:
    with open(folder / "rest", "wb", buffering=0) as file:
        size = 4096
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


@pytest.mark.parametrize("opened", [False, True])
async def test_on_a_full_disk_a_database_is_deleted_and_none_is_lost(
    disk: Path, opened: bool
) -> None:
    path = disk / "a.db"
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        await db.execute("INSERT INTO t VALUES (1)")
    fill(disk)
    if opened:
        for name in ("a.db", "b.db"):
            with pytest.raises(holdfast.QuotaExceededError, match=r"no more space .*on its disk"):
                await holdfast.open(disk / name)
        with pytest.raises(holdfast.QuotaExceededError, match="a whole copy"):
            await holdfast.import_database(path, path.read_bytes())
        (disk / "rest").unlink()
        async with holdfast.open(path) as db:
            assert await db.fetch_all("SELECT x FROM t") == [(1,)]
        fill(disk)
    assert await holdfast.delete_database(path)
    await holdfast.delete_database(disk / "b.db")
    assert os.listdir(disk) == ["rest"]


async def test_a_write_that_fills_the_disk_is_rolled_back(disk: Path) -> None:
    """The WAL, and its index, need room as well."""
    async with holdfast.open(disk / "a.db") as db:
        await db.execute("CREATE TABLE t(x)")
        rows = 0
        for _ in range(400):
            try:
                await db.execute("INSERT INTO t VALUES (randomblob(700))")
            except holdfast.QuotaExceededError:
                break
            rows += 1
        else:
            raise AssertionError("it never filled up")
        assert await db.fetch_value("SELECT count(*) FROM t") == rows
    with closing(sqlite3.connect(disk / "a.db")) as plain:
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (rows,)


# -- what the dead leave ---------------------------------------------------------------------------

KILLED_BEFORE_ITS_RECORD = """
import asyncio, os, signal, sys, holdfast
async def die(tx):
    os.kill(os.getpid(), signal.SIGKILL)
async def main():
    db = await holdfast.open(sys.argv[1])
    await db.execute("CREATE TABLE t(x)")
    await db.triggers.create_diff_trigger("t", "d", before_create=die)
asyncio.run(main())
"""


async def test_a_hold_without_a_record_goes_when_its_owner_is_dead(path: str) -> None:
    dead = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED_BEFORE_ITS_RECORD, path], capture_output=True
    )
    assert dead.returncode == -signal.SIGKILL, dead.stderr
    assert len(list(Path(path + "-holds").glob("*.hold"))) == 1
    async with holdfast.open(path):
        assert not os.path.exists(path + "-holds")


async def test_a_guard_that_is_kept_keeps_no_database_from_being_opened(path: str) -> None:
    """As by a process that is stopped just there."""
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        release = await FileTriggerHoldManager(path).obtain_hold("other")
        with FileTriggerHoldManager(path)._guarded():
            async with holdfast.open(path, busy_timeout=0.05) as other:
                assert await other.fetch_all("SELECT * FROM t") == []
                with pytest.raises(holdfast.DatabaseBusyError, match="look for a process"):
                    await other.triggers.create_diff_trigger("t", "d")
        await release()


# -- errors of the caller's ------------------------------------------------------------------------


async def test_what_the_caller_gives_fails_as_itself(path: str) -> None:
    """It is no error of the database's file, whatever the system calls it."""
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        await db.execute("INSERT INTO t VALUES (randomblob(4000000))")
        data = await db.export()
    # Progress tells of the reading first, and of the copying then.
    data_is_read = len(data) // 2

    async def chunks(error: Exception) -> AsyncIterator[bytes]:
        yield data[:1000]
        raise error

    def progress(error: Exception) -> Any:
        def report(done: int, total: int | None) -> None:
            if done > data_is_read:
                raise error

        return report

    for error in (FileNotFoundError("mine"), PermissionError("mine"), OSError("mine")):
        calls = [
            holdfast.import_database(path, chunks(error)),
            holdfast.import_database(path, data, on_progress=progress(error)),
        ]
        for call in calls:
            with pytest.raises(type(error), match="mine"):
                await call
        async with holdfast.open(path) as db:
            with pytest.raises(type(error), match="mine"):
                await db.export(on_progress=progress(error))
            assert await db.fetch_value("SELECT count(*) FROM t") == 1
