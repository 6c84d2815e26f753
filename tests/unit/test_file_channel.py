"""What the processes of a machine tell each other about a file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from patience import PATIENCE

import holdfast
from holdfast.storage.file.channel import FileChannel
from holdfast.storage.file.storage import FileStorage
from holdfast.storage.file.wal_index import count_commits

WRITER = """
import asyncio, os, sys
if len(sys.argv) > 2:
    os.getpid = lambda: int(sys.argv[2])
import holdfast

async def main():
    async with holdfast.open(sys.argv[1]) as db:
        print("open", flush=True)
        for line in sys.stdin:
            await db.execute(line)
            print("done", flush=True)

asyncio.run(main())
"""


class Writer:
    """Another process, which runs statements on the file."""

    def __init__(self, path: str, *process: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WRITER, path, *process],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        self.hear("open")

    def hear(self, what: str) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{what}\n"

    def run(self, sql: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{sql}\n")
        self.process.stdin.flush()
        self.hear("done")

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    # Only what is told arrives: nobody looks out.
    monkeypatch.setattr(holdfast.session.lookout, "LOOKOUT", 3600)
    # Short, for the path of a socket is.
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield str(tmp_path / "shared.db")


def ends(path: str) -> list[str]:
    status = os.stat(path)
    base = Path(os.environ["TMPDIR"], f"holdfast-{os.getuid()}")
    return os.listdir(base / f"{status.st_dev:x}-{status.st_ino:x}")


async def test_a_commit_of_another_process_is_told_with_its_tables(path: str) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE one(x)")
        await db.execute("CREATE TABLE two(x)")
        changes = db.changes()
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        writer = Writer(path)
        try:
            writer.run("INSERT INTO two VALUES(1)")
            change = await asyncio.wait_for(first, PATIENCE)
            assert (change.tables, change.remote) == ({"two"}, True)
            # Statements that are prepared here learn of a changed schema, too.
            writer.run("ALTER TABLE one ADD COLUMN y")
            change = await asyncio.wait_for(anext(changes), PATIENCE)
            assert await db.fetch_all("SELECT * FROM one") == []
            await db.execute("INSERT INTO one VALUES(1, 2)")
        finally:
            writer.end()


async def test_processes_of_two_containers_may_have_the_same_number(path: str) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        first = asyncio.ensure_future(anext(db.changes()))
        await asyncio.sleep(0)
        writer = Writer(path, str(os.getpid()))
        try:
            writer.run("INSERT INTO t VALUES(1)")
            assert (await asyncio.wait_for(first, PATIENCE)).remote
        finally:
            writer.end()


async def test_the_end_of_a_dead_process_is_removed(path: str) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        writer = Writer(path)
        assert len(ends(path)) == 2
        writer.process.send_signal(signal.SIGKILL)
        writer.process.communicate()
        assert len(ends(path)) == 2
        await db.execute("INSERT INTO t VALUES(1)")
        assert len(ends(path)) == 1
    with pytest.raises(FileNotFoundError):
        ends(path)


async def test_what_cannot_be_told_costs_nothing_but_time(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert FileChannel.open((1, 2), print) is None
    monkeypatch.setattr(holdfast.session.lookout, "LOOKOUT", 0.01)
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(x)")
        first = asyncio.ensure_future(anext(db.changes()))
        await asyncio.sleep(0)
        writer = Writer(path)
        try:
            writer.run("INSERT INTO t VALUES(1)")
            assert (await asyncio.wait_for(first, PATIENCE)).remote
        finally:
            writer.end()


async def test_a_reader_that_does_not_read_stops_nobody(path: str) -> None:
    """Its socket is full: what does not fit is lost, as the look-out expects."""
    heard: list[str] = []
    a = FileChannel.open((3, 4), heard.append)
    b = FileChannel.open((3, 4), heard.append)
    assert a is not None
    assert b is not None
    a.post("x" * 70_000)  # longer than a message may be
    for n in range(5_000):
        a.post(f"{n} " + "x" * 1000)
    await asyncio.sleep(0.05)
    assert heard
    assert heard[0].startswith("0 ")
    assert all(len(text) < 2000 for text in heard)
    a.close()
    b.post("nobody is there")
    b.close()


async def test_a_folder_of_somebody_else_is_not_used(path: str) -> None:
    base = Path(os.environ["TMPDIR"], f"holdfast-{os.getuid()}")
    base.mkdir()
    base.chmod(0o777)
    assert FileChannel.open((5, 6), print) is None


# -- who is there ---------------------------------------------------------------------------------

FOLDER_TIMES = {
    "long ago": 1_000_000_000_123_456_789,
    "in whole seconds": 1_000_000_000_000_000_000,
    "just now": None,
}


@pytest.mark.parametrize("time_of_change", FOLDER_TIMES)
async def test_a_new_end_is_seen_whatever_the_folder_tells(
    path: str, time_of_change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time of the last change is that of a clock which ticks."""
    heard: list[str] = []
    first = FileChannel.open((1, 2), heard.append)
    assert first is not None
    ends_there: list[FileChannel] = []
    folder, at = first._folder, FOLDER_TIMES[time_of_change]
    if at is not None:
        os.utime(folder, ns=(at, at))
    else:
        monkeypatch.setattr(time, "time_ns", lambda: folder.stat().st_mtime_ns + 1)
    try:
        for n in range(1, 4):
            before = folder.stat().st_mtime_ns
            assert len(first.others()) == n - 1
            other = FileChannel.open((1, 2), heard.append)
            assert other is not None
            ends_there.append(other)
            if time_of_change != "long ago":
                # It came within the same tick.
                os.utime(folder, ns=(before, before))
            assert other._name in first.others()
    finally:
        for each in (first, *ends_there):
            each.close()


async def test_a_commit_lists_no_folder_that_has_not_changed(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holdfast.open(path) as db, holdfast.open(path):
        await db.execute("CREATE TABLE t(x)")
        storage = db._session.storage
        assert isinstance(storage, FileStorage)
        assert storage._channel is not None
        os.utime(storage._channel._folder, ns=(1_000_000_000_123_456_789,) * 2)
        await db.execute("INSERT INTO t VALUES(0)")
        listed: list[object] = []
        listdir = os.listdir
        monkeypatch.setattr(
            os, "listdir", lambda folder=".": listed.append(folder) or listdir(folder)
        )
        for n in range(5):
            await db.execute("INSERT INTO t VALUES(?)", (n,))
        assert listed == []


@pytest.mark.skipif(sys.platform != "linux", reason="no wal-index of its own")
async def test_commits_are_counted_alike_in_both_ways(path: str) -> None:
    async with holdfast.open(path) as db:
        writer = Writer(path)
        try:
            writer.run("CREATE TABLE t(x)")
            storage = db._session.storage
            assert isinstance(storage, FileStorage)
            guard, raw = storage._guard, db._session.main.raw
            assert guard._index is not None
            counts = set()
            for n in range(4):
                await db.execute("INSERT INTO t VALUES(?)", (n,))
                writer.run("INSERT INTO t VALUES(100)")
                # SQLite's own copy of the counter is brought up to date by a read.
                await db.fetch_value("SELECT count(*) FROM t")
                counts.add(guard._count(raw))
                assert guard._count(raw) == count_commits(raw)
            assert len(counts) == 4
        finally:
            writer.end()
