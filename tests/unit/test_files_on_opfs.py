"""How a database is replaced, on the VFS over simulated OPFS files: cut short at every call.

What is on trial is storage/store.py with the VFS in C; locks, streams and scratch files are not.
"""

from __future__ import annotations

import copy as copying

import apsw
import pytest
from faults.disk import Disk
from simulated_opfs import EXCLUSIVE, NONE, READ, Library, Tab

from holdfast.storage.store import copy, holds_database, prepare, release


class Recorded(Disk):
    """Keeps what the files were at each call that changes them, and half way through a write."""

    def __init__(self) -> None:
        super().__init__()
        self.states: list[dict[str, bytearray]] = []

    def write(self, name: str, at: int, data: bytes) -> int:
        self.keep()
        super().write(name, at, data[: len(data) // 2])
        self.keep()
        return super().write(name, at, data)

    def keep(self) -> None:
        if not self.states or self.states[-1] != self.content:
            self.states.append(copying.deepcopy(self.content))


def fill(connection: apsw.Connection, mark: str, rows: int) -> None:
    with connection:
        connection.execute("CREATE TABLE t(mark, pad)")
        for _ in range(rows):
            connection.execute("INSERT INTO t VALUES(?, randomblob(3000))", (mark,))


def found_in(library: Library, content: dict[str, bytearray]) -> list[tuple[object, ...]]:
    """What the next tab finds; it opens the files as OpfsStorage does."""
    files = Disk()
    files.content = copying.deepcopy(content)
    listed = holds_database(bytes(files.content["x.db"]), bytes(files.content["x.db-journal"]))
    tab = Tab(library, files)
    header = bytes(files.content["x.db"][18:20])
    sound = header == b"\2\2" and not files.content["x.db-journal"]
    tab.level(READ if sound else EXCLUSIVE)
    connection = tab.connect()
    try:
        assert connection.execute("PRAGMA journal_mode = WAL").get == "wal"
        assert connection.execute("PRAGMA integrity_check").get == "ok"
        if not connection.execute("SELECT 1 FROM sqlite_master").get:
            assert not listed
            return []
        assert listed
        return connection.execute("SELECT mark, count(*) FROM t GROUP BY 1").fetchall()
    finally:
        tab.forget()


@pytest.mark.parametrize(
    ("page_size", "encoding"), [(4096, "UTF-8"), (1024, "UTF-8"), (4096, "UTF-16le")]
)
@pytest.mark.parametrize("old", [True, False])
async def test_cut_short_anywhere_it_is_the_old_or_the_new(
    library: Library, old: bool, page_size: int, encoding: str
) -> None:
    files = Recorded()
    tab = Tab(library, files)
    if old:
        connection = tab.create()
        tab.level(EXCLUSIVE)
        fill(connection, "old", 25)
        connection.close(True)
        tab.level(NONE)
        # Its last commits are in the WAL.
        assert files.content["x.db-wal"]
    before: list[tuple[object, ...]] = [("old", 25)] if old else []
    source = apsw.Connection(":memory:")
    source.execute(f"PRAGMA page_size = {page_size}; PRAGMA encoding = '{encoding}'")
    fill(source, "new", 40)

    files.states.clear()
    files.keep()
    tab.level(EXCLUSIVE)
    destination = apsw.Connection(tab.node, vfs="holdfast")
    prepare(destination)
    # So small that pages reach the file before the transaction ends.
    destination.execute("PRAGMA cache_size = 10")
    async for _ in copy(source, destination):
        files.keep()
    acknowledged = len(files.states)
    release(destination)
    destination.close(True)
    files.keep()
    assert acknowledged > 30
    chosen = range(0, len(files.states), max(1, len(files.states) // 60))
    found = [found_in(library, files.states[n]) for n in [*chosen, len(files.states) - 1]]
    after: list[tuple[object, ...]] = [("new", 40)]
    assert found[0] == before
    assert found[-1] == after
    assert found == sorted(found, key=lambda state: state == after)
    assert all(state in (before, after) for state in found)


async def test_without_space_it_stays_the_old_one(library: Library) -> None:
    files = Disk()
    tab = Tab(library, files)
    connection = tab.create()
    tab.level(EXCLUSIVE)
    fill(connection, "old", 25)
    connection.close(True)
    source = apsw.Connection(":memory:")
    fill(source, "new", 400)
    destination = apsw.Connection(tab.node, vfs="holdfast")
    prepare(destination)
    destination.execute("PRAGMA cache_size = 10")
    files.room = 300_000
    with pytest.raises(apsw.FullError):
        async for _ in copy(source, destination):
            """On to the next step."""
    destination.close(True)
    tab.level(NONE)
    assert found_in(library, files.content) == [("old", 25)]


@pytest.mark.parametrize("steps", range(7))
async def test_a_deletion_cut_short_leaves_nothing_to_a_new_database(
    library: Library, steps: int
) -> None:
    """The files are emptied in this order: the main one, its WAL, its journal."""
    files = Recorded()
    tab = Tab(library, files)
    connection = tab.create()
    tab.level(EXCLUSIVE)
    fill(connection, "old", 25)
    connection.close(True)
    if steps > 3:
        # With a hot journal: a transaction of a rollback journal was cut short.
        destination = apsw.Connection(tab.node, vfs="holdfast")
        prepare(destination)
        destination.execute("PRAGMA cache_size = 10")
        source = apsw.Connection(":memory:")
        fill(source, "new", 400)
        destination_backup = destination.backup("main", source, "main")
        destination_backup.step(300)
        files.content = copying.deepcopy(files.content)
    content = copying.deepcopy(files.content)
    for name in tab.names[: steps % 4]:
        content[name].clear()
    expected = [("old", 25)] if steps % 4 == 0 else []
    assert found_in(library, content) == expected


def test_what_is_left_behind_by_a_wal_is_flushed_away(library: Library) -> None:
    """A WAL that came back after a power cut would be replayed over the new database."""
    files = Disk()
    tab = Tab(library, files)
    connection = tab.create()
    tab.level(EXCLUSIVE)
    fill(connection, "old", 25)
    connection.close(True)
    files.log.clear()
    destination = apsw.Connection(tab.node, vfs="holdfast")
    prepare(destination)
    calls = [call[:3] for call in files.log if call[0] != "read"]
    gone = calls.index(("truncate", "x.db-wal", 0))
    # The database has all of it before, and nothing is written to it in between.
    assert calls[gone - 1] == ("flush", "x.db")
    assert calls[gone + 1] == ("flush", "x.db-wal")
    destination.close(True)
