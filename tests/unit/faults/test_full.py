"""A full disk: what frees space goes on where the WAL has room, and nothing else changes anything.

The WAL cannot grow then, so a DELETE finds no room behind what is in it; once that was checkpointed
it is written over it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import sqlite3
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from simulated_opfs import Library

import holdfast
from faults.world import Tab, World
from holdfast import Database, QuotaExceededError

FRAME = 24 + 4096
HANDLES = pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])


# -- OPFS ----------------------------------------------------------------------------------------

FREEING: dict[str, Callable[[Database], Awaitable[Any]]] = {
    "delete": lambda db: db.execute("DELETE FROM t WHERE rowid <= 100"),
    "delete many": lambda db: db.execute_many(
        "DELETE FROM t WHERE rowid = ?", [(n,) for n in range(1, 101)]
    ),
    "drop": lambda db: db.execute("DROP TABLE other"),
}


async def filled(world: World) -> Tab:
    """A tab on a database whose WAL has a little in it, and room for no more."""
    tab = await world.open()
    await tab.insert(200)
    await tab.run(tab.db.execute("CREATE TABLE other AS SELECT * FROM t"))
    # All of that into the database; then the WAL is written anew from its beginning to its end.
    tab.db._session.storage.make_room()
    update = "UPDATE t SET v = randomblob(4000) WHERE rowid = 1"
    await tab.run(tab.db.execute(update))
    wal = tab.db._session.storage.node.wal  # type: ignore[attr-defined]
    room = (world.wal - 32) // FRAME
    for _ in range(room):
        await tab.run(tab.db.execute(update))
        # Each writes one, and `frames` are those before the last one.
        if wal.frames == room - 1:
            break
    assert wal.frames == room - 1
    world.disk.room = 0
    return tab


@HANDLES
@pytest.mark.parametrize("how", FREEING)
def test_what_frees_space_is_done_where_the_disk_is_full(
    library: Library, shared: bool, how: str
) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await filled(world)
        wal = world.wal
        await tab.run(FREEING[how](tab.db))
        assert world.wal == wal
        assert await tab.count() == (200 if how == "drop" else 100)
        # What was freed is there for others.
        await tab.insert(20)
        assert await tab.run(tab.db.fetch_value("PRAGMA integrity_check")) == "ok"
        await tab.close()

    world.run(main)


@HANDLES
def test_a_transaction_after_a_failure_begins_with_room(library: Library, shared: bool) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await filled(world)

        async def delete() -> None:
            async with tab.db.write_transaction() as tx:
                await tx.execute("DELETE FROM t WHERE rowid <= 100")

        with pytest.raises(QuotaExceededError):
            await tab.run(delete())
        assert await tab.count() == 200
        await tab.run(delete())
        assert await tab.count() == 100
        await tab.close()

    world.run(main)


# -- files ---------------------------------------------------------------------------------------


class SmallDisk:
    """`room`: bytes by which files may grow; None for any number."""

    def __init__(self) -> None:
        self.room: int | None = None
        self._system = ctypes.CDLL(None, use_errno=True)

    def write(self, file: int, data: int, n: int, at: int) -> int:
        """pwrite(2)."""
        grown = max(0, at + n - os.fstat(file).st_size)
        if self.room is not None:
            if grown > self.room:
                ctypes.set_errno(28)  # ENOSPC
                return -1
            self.room -= grown
        written: int = self._system.pwrite64(
            file, ctypes.c_void_p(data), ctypes.c_size_t(n), ctypes.c_int64(at)
        )
        return written


@pytest.fixture
def small_disk() -> Iterator[SmallDisk]:
    """SQLite's own way to files, but for what a write asks the system."""
    if sys.platform != "linux":
        pytest.skip("another way to write")
    disk = SmallDisk()
    call = ctypes.CFUNCTYPE(
        ctypes.c_ssize_t,
        ctypes.c_int,
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int64,
        use_errno=True,
    )(disk.write)
    unix = apsw.VFS("full", "unix")
    names = ("pwrite", "pwrite64")
    before = {name: unix.xGetSystemCall(name) for name in names}
    address = ctypes.cast(call, ctypes.c_void_p).value
    for name in names:
        if before[name]:
            unix.xSetSystemCall(name, address)
    try:
        yield disk
    finally:
        for name in names:
            if before[name]:
                unix.xSetSystemCall(name, before[name])
        unix.unregister()


async def fill_wal(db: Database, path: str) -> None:
    """So that the WAL has room for no more frames, and the database has all that went before."""
    await db.execute_many("INSERT INTO t(v) VALUES(?)", [(b"x" * 4000,)] * 200)
    await db.execute("CREATE TABLE other AS SELECT * FROM t")
    db._session.main.raw.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)
    for n in range((os.path.getsize(f"{path}-wal") - 32) // FRAME):
        await db.execute("UPDATE t SET v = ? WHERE rowid = 1", (bytes([n % 256]) * 4000,))


@pytest.mark.parametrize("how", FREEING)
async def test_what_frees_space_is_done_in_a_file_too(
    tmp_path: Path, small_disk: SmallDisk, how: str
) -> None:
    path = str(tmp_path / "a.db")
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(v)")
        await fill_wal(db, path)
        wal = os.path.getsize(f"{path}-wal")
        small_disk.room = 0
        await FREEING[how](db)
        assert os.path.getsize(f"{path}-wal") == wal
        await db.execute_many("INSERT INTO t(v) VALUES(?)", [(b"x" * 4000,)] * 20)
        small_disk.room = None
        assert await db.fetch_value("SELECT count(*) FROM t") == (220 if how == "drop" else 120)
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"


# -- whatever the quota --------------------------------------------------------------------------

ALL = "SELECT rowid, v FROM t"
TABLES = "SELECT name FROM sqlite_master WHERE name IN ('t', 'other') ORDER BY name"


class Sequence:
    """Writes of a seed, to a database and to a model; each does all of itself or nothing."""

    def __init__(self, db: Database, seed: int, limit: Callable[[int | None], None]) -> None:
        self.db = db
        self.choose = random.Random(seed)
        self.limit = limit
        self.model = sqlite3.connect(":memory:", isolation_level=None)
        self.model.execute("CREATE TABLE t(v)")
        self.refused = self.done = 0

    def statement(self) -> str:
        pages, some = self.choose.choice((1, 5, 40)), self.choose.randrange(2, 6)
        filler = f"zeroblob({self.choose.randrange(3000, 9000)})"
        numbers = f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {pages})"
        return self.choose.choice(
            (
                f"INSERT INTO t {numbers} SELECT {filler} FROM n",
                f"INSERT INTO t {numbers} SELECT {filler} FROM n",
                f"DELETE FROM t WHERE rowid % {some} = 0",
                f"UPDATE t SET v = {filler} WHERE rowid % {some} = 1",
                "DROP TABLE IF EXISTS other",
                "CREATE TABLE IF NOT EXISTS other AS SELECT * FROM t",
            )
        )

    async def write(self, statements: list[str]) -> None:
        if len(statements) == 1:
            await self.db.execute(statements[0])
            return
        async with self.db.write_transaction() as tx:
            for statement in statements:
                await tx.execute(statement)

    async def run(self) -> None:
        for _ in range(60):
            self.limit(self.choose.choice((None, 0, 0, 5000, 50_000, 300_000)))
            statements = [self.statement() for _ in range(self.choose.choice((1, 1, 1, 3)))]
            try:
                await self.write(statements)
            except QuotaExceededError:
                self.refused += 1
            else:
                self.done += 1
                for statement in statements:
                    self.model.execute(statement)
            await self.check()
        self.limit(None)
        await self.db.execute("DELETE FROM t")
        self.model.execute("DELETE FROM t")
        await self.check()
        self.model.close()

    async def check(self) -> None:
        for sql in (ALL, TABLES):
            found = [tuple(row) for row in await self.db.fetch_all(sql)]
            assert found == self.model.execute(sql).fetchall()
        assert await self.db.fetch_value("PRAGMA integrity_check") == "ok"


@HANDLES
@pytest.mark.parametrize("seed", range(4))
def test_each_write_is_done_or_changes_nothing(library: Library, shared: bool, seed: int) -> None:
    world = World(library, shared=shared)

    async def main() -> None:
        tab = await world.open()
        await tab.insert(0)

        def limit(room: int | None) -> None:
            world.disk.room = room

        sequence = Sequence(tab.db, seed, limit)
        await tab.run(sequence.run())
        assert sequence.refused
        assert sequence.done
        # And what lies in the files is the same.
        await tab.close()
        assert world.rows() == 0

    world.run(main)


@pytest.mark.parametrize("seed", range(4))
async def test_each_write_to_a_file_is_done_or_changes_nothing(
    tmp_path: Path, small_disk: SmallDisk, seed: int
) -> None:
    path = str(tmp_path / "a.db")
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(v)")

        def limit(room: int | None) -> None:
            small_disk.room = room

        sequence = Sequence(db, seed, limit)
        await sequence.run()
        assert sequence.refused
        assert sequence.done
    with contextlib.closing(sqlite3.connect(path)) as plain:
        assert plain.execute("SELECT count(*) FROM t").fetchall() == [(0,)]
