"""Another SQLite in the process, or anything that closes the file there, costs nothing.

The kernel then drops all POSIX locks that this process has on the file; see storage/file/guard.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from patience import PATIENCE

import holdfast
from holdfast import DatabaseBusyError, StorageUnavailableError
from holdfast.storage.file import guard as file_guard
from holdfast.storage.file.storage import FileStorage

linux = pytest.mark.skipif(sys.platform != "linux", reason="no locks of open files")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def connect_and_close() -> None:
    with contextlib.closing(sqlite3.connect("a.db")) as other:
        other.execute("SELECT count(*) FROM t").fetchall()


def read_and_close() -> None:
    for suffix in ("", "-wal", "-shm"):
        Path("a.db" + suffix).read_bytes()


CLOSINGS = pytest.mark.parametrize("close", [connect_and_close, read_and_close])


def elsewhere(code: str) -> subprocess.CompletedProcess[str]:
    """What another process makes of some Python."""
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Another process that runs some Python."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def another(statement: str, timeout: float = 0) -> str:
    """What another process's sqlite3 says to a statement; "" if it did it."""
    done = elsewhere(
        "import sqlite3\n"
        f"c = sqlite3.connect('a.db', timeout={timeout}, isolation_level=None)\n"
        f"c.execute({statement!r}).fetchall()"
    )
    return done.stderr


def another_holdfast(statement: str) -> str:
    """What another process's holdfast says to a statement; "" if it did it."""
    done = elsewhere(
        "import asyncio, holdfast\n"
        "async def main():\n"
        "    async with holdfast.open('a.db', busy_timeout=0) as db:\n"
        f"        await db.execute({statement!r})\n"
        "asyncio.run(main())"
    )
    return done.stderr


async def values(db: holdfast.Database | None = None) -> list[int]:
    if db is None:
        async with holdfast.open("a.db") as db:
            return await values(db)
    return [row[0] for row in await db.fetch_all("SELECT x FROM t ORDER BY x")]


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[holdfast.Database]:
    async with holdfast.open("a.db") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t(x)")
        await db.execute("INSERT INTO t VALUES(0)")
        yield db


# -- the WAL --------------------------------------------------------------------------------------


@linux
@CLOSINGS
async def test_the_wal_stays(close: Callable[[], None]) -> None:
    async with opened() as db:
        wal = os.stat("a.db-wal").st_ino
        for n in range(1, 4):
            close()
            await db.execute("INSERT INTO t VALUES(?)", (n,))
        assert os.stat("a.db-wal").st_ino == wal
        # Others see what was committed, as they do after a crash.
        assert (
            "3"
            in elsewhere(
                "import sqlite3\n"
                "print(sqlite3.connect('a.db').execute('SELECT max(x) FROM t').fetchone())"
            ).stdout
        )
    assert os.listdir() == ["a.db"]
    assert await values() == [0, 1, 2, 3]


@linux
async def test_one_of_two_connections_closes() -> None:
    async with opened() as db:
        async with holdfast.open("a.db") as second:
            await second.execute("INSERT INTO t VALUES(1)")
        connect_and_close()
        assert os.path.exists("a.db-wal")
        await db.execute("INSERT INTO t VALUES(2)")
        refused = elsewhere(
            "import asyncio, holdfast; asyncio.run(holdfast.delete_database('a.db'))"
        )
        assert "DatabaseBusyError" in refused.stderr
    assert await values() == [0, 1, 2]


@pytest.fixture
def unguarded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a system without locks of open files."""
    monkeypatch.setattr(file_guard, "AVAILABLE", False)


async def test_without_such_locks_nothing_is_acknowledged_that_is_lost(unguarded: None) -> None:
    async with holdfast.open("a.db") as db:
        await db.execute("CREATE TABLE t(x)")
        await db.execute("INSERT INTO t VALUES(1)")
        connect_and_close()
        assert not os.path.exists("a.db-wal")
        for call in (
            db.execute("INSERT INTO t VALUES(2)"),
            db.execute("VACUUM"),
            db.fetch_all("SELECT x FROM t"),
            db.execute_many("INSERT INTO t VALUES(?)", [(2,)]),
        ):
            with pytest.raises(StorageUnavailableError, match=r"WAL.*removed.*open it again"):
                await call
        with pytest.raises(StorageUnavailableError, match="WAL"):
            async with db.write_transaction():
                raise AssertionError("it began")
        assert another("UPDATE t SET x = 7") == ""
    assert await values() == [7]


async def test_a_wal_that_goes_inside_of_a_transaction_fails_it(unguarded: None) -> None:
    async with opened() as db:
        with pytest.raises(StorageUnavailableError, match="WAL"):
            async with db.write_transaction() as tx:
                # So much that its commit would be followed by a checkpoint.
                await tx.execute("INSERT INTO t VALUES(zeroblob(5000000))")
                connect_and_close()
                assert another("UPDATE t SET x = 7") == ""
    assert await values() == [7]


async def test_what_is_closed_without_its_wal_overwrites_nothing() -> None:
    async with opened():
        pass
    async with holdfast.open("a.db") as db:
        await db.execute("UPDATE t SET x = 5")
        # As by a program that cleans up.
        os.unlink("a.db-wal")
        os.unlink("a.db-shm")
        assert another("UPDATE t SET x = 7") == ""
        assert another("PRAGMA wal_checkpoint(TRUNCATE)") == ""
    assert await values() == [7]


async def test_a_wal_that_goes_while_it_is_committed_is_not_acknowledged(
    unguarded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard = []
    async with opened() as db:
        monkeypatch.setattr(db._session.storage, "announce", lambda *told: heard.append(told))

        def go() -> bool:
            Path("a.db-wal").rename("gone")
            return False

        db._session.main.raw.set_commit_hook(go)
        with pytest.raises(StorageUnavailableError, match="WAL"):
            await db.execute("INSERT INTO t VALUES(1)")
        db._session.main.raw.set_commit_hook(None)
        assert heard == []


async def test_a_wal_of_somebody_else_is_noticed() -> None:
    async with opened() as db:
        os.rename("a.db-wal", "away")
        Path("a.db-wal").touch()
        with pytest.raises(StorageUnavailableError, match="replaced"):
            await db.execute("INSERT INTO t VALUES(1)")
        # Who opens it beside would write another WAL than those who have it open.
        with pytest.raises(StorageUnavailableError, match="replaced"):
            await holdfast.open("a.db")


def unlink(path: str) -> None:
    os.unlink(path)


def replace(path: str) -> None:
    Path("new").write_bytes(Path(path).read_bytes())
    os.replace("new", path)


def rename(path: str) -> None:
    os.rename(path, "away")


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
@pytest.mark.parametrize("take", [unlink, replace, rename])
@pytest.mark.parametrize(
    "when", ["at once", "when the folder was at rest", "inside of it", "at its commit"]
)
async def test_nothing_is_acknowledged_in_a_file_that_is_not_the_databases(
    suffix: str, take: Callable[[str], None], when: str
) -> None:
    """What opens the database next has another file, another WAL, or another wal-index."""
    async with opened() as db:

        def go() -> bool:
            take("a.db" + suffix)
            return False

        if when == "when the folder was at rest":
            storage = db._session.storage
            assert isinstance(storage, FileStorage)
            while storage._guard._settled is None:
                await asyncio.sleep(0.01)
                assert await values(db) == [0]
        if when.startswith(("at once", "when")):
            go()
        with pytest.raises(StorageUnavailableError, match=r"removed or replaced.*open it again"):
            async with db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(1)")
                if when == "inside of it":
                    go()
                elif when == "at its commit":
                    tx.connection.set_commit_hook(go)
        db._session.main.raw.set_commit_hook(None)
        for call in (db.execute("INSERT INTO t VALUES(2)"), db.fetch_all("SELECT x FROM t")):
            with pytest.raises(StorageUnavailableError, match="removed or replaced"):
                await call


# -- writers --------------------------------------------------------------------------------------


@linux
@CLOSINGS
async def test_writers_keep_others_out(close: Callable[[], None]) -> None:
    async with opened() as db:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1)")
            close()
            said = await asyncio.to_thread(another_holdfast, "INSERT INTO t VALUES(100)")
            assert "DatabaseBusyError" in said
            await tx.execute("INSERT INTO t VALUES(2)")
        assert another_holdfast("INSERT INTO t VALUES(3)") == ""
        await db.execute("INSERT INTO t VALUES(4)")
    assert await values() == [0, 1, 2, 3, 4]


@linux
@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("where", ["this process", "another process"])
async def test_no_other_sqlite_begins_to_write_inside_of_a_transaction(
    where: str, dropped: bool
) -> None:
    async with opened() as db:
        with contextlib.closing(sqlite3.connect("a.db", 0, isolation_level=None)) as other:

            def attempt() -> str:
                if where == "another process":
                    return another("BEGIN IMMEDIATE")
                try:
                    other.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    return str(error)
                return ""

            async with db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(1)")
                if dropped:
                    read_and_close()
                assert "locked" in attempt()
                said = []

                def look() -> bool:
                    said.append(attempt())
                    return False

                tx.connection.set_commit_hook(look)
            db._session.main.raw.set_commit_hook(None)
            assert "locked" in said[0]
            # And given back.
            assert attempt() == ""
    assert await values() == [0, 1]


@linux
async def test_who_writes_already_is_waited_for() -> None:
    async with opened() as db:
        with contextlib.closing(sqlite3.connect("a.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            other.execute("INSERT INTO t VALUES(1)")
            async with holdfast.open("a.db", busy_timeout=0) as hasty:
                for call in (hasty.execute("INSERT INTO t VALUES(9)"), hasty.execute("VACUUM")):
                    with pytest.raises(DatabaseBusyError):
                        await call
            waits = asyncio.ensure_future(db.execute("INSERT INTO t VALUES(2)"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert not waits.done()
            other.execute("COMMIT")
            await waits
            await db.execute("VACUUM")
            other.execute("INSERT INTO t VALUES(3)")
        assert await values(db) == [0, 1, 2, 3]
    assert await values() == [0, 1, 2, 3]


async def test_a_transaction_that_somebody_wrote_into_is_not_committed(unguarded: None) -> None:
    async with opened() as db:
        with pytest.raises(DatabaseBusyError, match=r"another SQLite wrote.*rolled back"):
            async with db.write_transaction() as tx:
                await tx.execute("UPDATE t SET x = x + 1")
                # Neither closed, which would take the WAL away, nor kept out.
                other = sqlite3.connect("a.db", isolation_level=None)
                other.execute("UPDATE t SET x = x + 10")
        assert await values(db) == [10]
        await db.execute("UPDATE t SET x = x + 100")
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"
        assert await values(db) == [110]
        other.close()


# -- names ----------------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("make", [os.link, os.rename])
async def test_another_process_cannot_open_it_by_another_name(
    make: Callable[[str, str], None],
) -> None:
    """It would have a WAL of its own there."""
    code = (
        "import asyncio, holdfast\n"
        "async def main():\n"
        "    async with holdfast.open('b.db', busy_timeout=0) as db:\n"
        "        await db.execute('INSERT INTO t VALUES(2)')\n"
        "asyncio.run(main())"
    )
    async with opened() as db:
        await db.execute("INSERT INTO t VALUES(1)")
        make("a.db", "b.db")
        said = elsewhere(code).stderr
        assert "StorageUnavailableError" in said and "by another name" in said
        assert not os.path.exists("b.db-wal")
        if make is os.link:
            # By this name it is open to every process.
            assert another_holdfast("INSERT INTO t VALUES(3)") == ""
    if make is os.link:
        assert elsewhere(code).stderr == ""
        assert await values() == [0, 1, 2, 3]


# -- readers --------------------------------------------------------------------------------------


@linux
async def test_a_snapshot_stays() -> None:
    async with opened() as db:
        await db.execute("CREATE TABLE big(x)")
        await db.execute_many("INSERT INTO big VALUES(zeroblob(3000))", [()] * 50)
        async with db.read_transaction() as tx:
            assert await tx.fetch_value("SELECT count(*) FROM t") == 1
            read_and_close()
            # Another process begins the WAL anew, if nothing keeps it from that.
            for n in range(3):
                another(f"UPDATE big SET x = zeroblob({n})", timeout=5)
                another("PRAGMA wal_checkpoint(RESTART)")
            found = await tx.fetch_value("SELECT count(*) FROM big WHERE length(x) = 3000")
            assert found == 50
            assert await tx.fetch_value("PRAGMA integrity_check") == "ok"
        # From here on nothing is in its way.
        assert another("PRAGMA wal_checkpoint(TRUNCATE)") == ""
        assert os.path.getsize("a.db-wal") == 0


@linux
async def test_nobody_takes_the_wal_index_for_a_dead_one() -> None:
    """Who finds no lock on it makes it 3 bytes long, and whoever has it mapped gets a SIGBUS."""
    async with opened() as db:
        storage = db._session.storage
        assert isinstance(storage, FileStorage)
        shm = storage._guard._shm
        assert shm is not None
        before = os.pread(shm, 48, 0)
        read_and_close()
        assert another("SELECT 1 FROM t") == ""
        assert os.pread(shm, 48, 0) == before
        assert await values(db) == [0]


# -- what opens files here ------------------------------------------------------------------------


@linux
async def test_a_list_of_databases_takes_no_lock_away() -> None:
    with contextlib.closing(sqlite3.connect("other.db", isolation_level=None)) as other:
        other.execute("CREATE TABLE t(x)")
        other.execute("BEGIN IMMEDIATE")
        async with opened() as db, db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1)")
            assert await holdfast.databases() == ["a.db", "other.db"]
            assert "locked" in another("BEGIN IMMEDIATE")
            os.symlink("other.db", "alias.db")
            assert await holdfast.databases() == ["a.db", "alias.db", "other.db"]
            os.unlink("alias.db")
            os.rename("other.db", "moved.db")
            assert (
                "locked"
                in elsewhere(
                    "import sqlite3; sqlite3.connect('moved.db', 0).execute('BEGIN IMMEDIATE')"
                ).stderr
            )


@linux
async def test_who_tries_to_open_takes_no_lock_from_an_import() -> None:
    async with opened() as db:
        await db.execute_many("INSERT INTO t VALUES(?)", [(n,) for n in range(1, 100_000)])
        data = await db.export()
    said: list[str] = []

    async def look(done: int, total: int | None) -> None:
        if not said and total and done > total * 3 // 4:
            with pytest.raises(DatabaseBusyError):
                await holdfast.open("a.db", busy_timeout=0)
            said.append(another_holdfast("DELETE FROM t"))

    await holdfast.import_database("a.db", data, on_progress=look)
    assert "DatabaseBusyError" in said[0]
    assert len(await values()) == 100_000


FORKS = """
import asyncio, os, signal, sys, holdfast
async def main():
    db = await holdfast.open("a.db")
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(1)")
        child = os.fork()
        if not child:
            signal.pause()
        print(child, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@linux
async def test_a_forked_child_keeps_no_lock_of_its_parent() -> None:
    async with opened():
        pass
    parent = start(FORKS)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    try:
        assert parent.wait(PATIENCE) == -signal.SIGKILL
        assert another_holdfast("INSERT INTO t VALUES(2)") == ""
        assert await holdfast.delete_database("a.db")
    finally:
        os.kill(child, signal.SIGKILL)
        parent.communicate()


# -- all of it at once ----------------------------------------------------------------------------

# Each line that it prints is a commit that was acknowledged.
COUNTS = """
import asyncio, contextlib, random, sqlite3, sys, holdfast
async def main():
    chance = random.Random(int(sys.argv[1]))
    db = await holdfast.open("a.db", busy_timeout=600)
    while True:
        match chance.randrange(6):
            case 0:
                with contextlib.closing(sqlite3.connect("a.db")) as other:
                    other.execute("SELECT * FROM t").fetchall()
            case 1:
                for suffix in ("", "-wal", "-shm"):
                    with open("a.db" + suffix, "rb") as file:
                        file.read()
            case 2:
                await holdfast.databases()
            case 3:
                async with db.write_transaction() as tx:
                    n = await tx.fetch_value("SELECT x FROM t")
                    with contextlib.closing(sqlite3.connect("a.db")) as other:
                        other.execute("SELECT * FROM t").fetchall()
                    await asyncio.sleep(0)
                    await tx.execute("UPDATE t SET x = ?", (n + 1,))
                print(flush=True)
            case _:
                await db.execute("UPDATE t SET x = x + 1")
                print(flush=True)
asyncio.run(main())
"""


@linux
@pytest.mark.parametrize("processes", [1, 2])
async def test_no_acknowledged_commit_is_lost(processes: int, thorough: bool) -> None:
    for seed in range(60 if thorough else 3):
        async with holdfast.open("a.db") as db:
            await db.execute("CREATE TABLE t(x)")
            await db.execute("INSERT INTO t VALUES(0)")
        running = [start(COUNTS, str(100 * seed + n)) for n in range(processes)]
        acknowledged = 0
        for process in running:
            assert process.stdout is not None
            for _ in range(20):
                assert process.stdout.readline() == b"\n"
                acknowledged += 1
        for process in running:
            process.kill()
        for process in running:
            assert process.stdout is not None
            acknowledged += len(process.stdout.read())
            process.communicate(timeout=PATIENCE)
            assert process.returncode == -signal.SIGKILL
        async with holdfast.open("a.db") as db:
            found = await db.fetch_value("SELECT x FROM t")
            assert await db.fetch_value("PRAGMA integrity_check") == "ok"
        # Each may have committed once more than it could tell.
        assert acknowledged <= found <= acknowledged + processes
        await holdfast.delete_database("a.db")
