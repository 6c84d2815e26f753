"""The VFS in C, compiled natively: leases, catch-up, what reaches the files and when."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import apsw
import pytest
from faults.client import Client
from faults.disk import Disk, fail_next
from simulated_opfs import CATCH_UP, EXCLUSIVE, NONE, READ, WRITE, Library, Tab


@pytest.fixture
def files() -> Disk:
    return Disk()


@pytest.fixture
def clients(library: Library, files: Disk) -> Iterator[tuple[Client, Client]]:
    a = Client(library, files)
    a.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    return a, Client(library, files)


def test_each_sees_what_the_other_committed(clients: tuple[Client, Client]) -> None:
    a, b = clients
    for n in range(50):
        writer, reader = (a, b) if n % 2 else (b, a)
        writer.write(f"INSERT INTO t VALUES({n}, {n})")
        assert reader.read("SELECT count(*), max(v) FROM t") == [(n + 1, n)]
    # By entering the new frames, not by reading the whole WAL again.
    assert a.tab.status("recovered") + b.tab.status("recovered") == 0
    assert a.tab.status("caught_up") == b.tab.status("caught_up") == 25


def test_catching_up_reads_only_what_is_new(clients: tuple[Client, Client], files: Disk) -> None:
    a, b = clients
    for n in range(40):
        a.write(f"INSERT INTO t VALUES({n}, zeroblob(3000))")
    b.read("SELECT count(*) FROM t")
    a.write("UPDATE t SET v = 1 WHERE id = 7")
    files.log.clear()
    b.tab.level(READ)
    b.connection.file_control("main", CATCH_UP, 0)
    assert sum(call[3] for call in files.log if call[0] == "read") < 3 * 4120
    files.log.clear()
    b.connection.file_control("main", CATCH_UP, 0)
    assert [call[3] for call in files.log if call[0] == "read"] == [24] or files.log == []


def test_a_durable_commit_is_one_append_and_one_flush(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, _ = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    files.log.clear()
    a.write("UPDATE t SET v = 2")
    assert [call[:2] for call in files.log if call[0] != "read"] == [
        ("write", "x.db-wal"),
        ("flush", "x.db-wal"),
    ]


def test_the_wal_grows_in_steps_and_ends_with_zeros_that_are_no_frames(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 0)")
    wal, sizes = files.content["x.db-wal"], set()
    for n in range(1, 40):
        (a, b)[n % 2].write(f"UPDATE t SET v = {n}")
        sizes.add(len(wal))
        end = 32 + (a, b)[n % 2].tab.status("frames") * 4120
        assert any(wal[end - 4120 : end]) and not any(wal[end:])
    assert len(sizes) == 3 and max(sizes) < end + 65536
    for client in (a, b, Client(a.tab.library, files)):
        assert client.read("SELECT v FROM t") == [(39,)]


def test_without_space_for_its_zeros_a_commit_is_one_all_the_same(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 0)")
    n = 0
    while 32 + (a.tab.status("frames") + 1) * 4120 <= len(files.content["x.db-wal"]):
        a.write(f"UPDATE t SET v = {(n := n + 1)}")
    files.room = 10_000
    a.write("UPDATE t SET v = 'the last'")
    assert b.read("SELECT v FROM t") == [("the last",)]


def test_a_relaxed_commit_reaches_the_file_at_once(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.connection.execute("PRAGMA synchronous = NORMAL")
    a.write("INSERT INTO t VALUES(1, 1)")
    files.log.clear()
    a.write("UPDATE t SET v = 2")
    assert [call[0] for call in files.log if call[0] != "read"] == ["write"]
    assert b.read("SELECT v FROM t") == [(2,)]


def test_without_a_lease_nothing_is_read_or_written(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, _ = clients
    before = {name: bytes(content) for name, content in files.content.items()}
    with pytest.raises(apsw.BusyError):
        a.connection.file_control("main", CATCH_UP, 0)
    # SQLite asks for its locks a hundred times before it gives up.
    with pytest.raises((apsw.BusyError, apsw.ProtocolError)):
        a.connection.execute("SELECT * FROM t").fetchall()
    assert {name: bytes(content) for name, content in files.content.items()} == before


def _scanned(a: Client, b: Client) -> tuple[int, int]:
    """Rows that the first has checkpointed; the second reads some. How many, and how many it read.

    Each row is on a page of its own.
    """
    rows, some = 60, 10
    a.write(*(f"INSERT INTO t VALUES({n}, zeroblob(3000))" for n in range(rows)))
    a.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    b.connection.execute("PRAGMA cache_size = 5").fetchall()
    assert b.read(f"SELECT sum(length(v)) FROM t WHERE id < {some}") == [(some * 3000,)]
    return rows, some


def test_a_scan_reads_ahead(clients: tuple[Client, Client], files: Disk) -> None:
    a, b = clients
    rows, _ = _scanned(a, b)
    files.log.clear()
    assert b.read("SELECT sum(length(v)) FROM t") == [(rows * 3000,)]
    reads = [call for call in files.log if call[:2] == ("read", "x.db")]
    assert len(reads) < rows / 4


def test_what_was_read_ahead_ends_with_the_lease(clients: tuple[Client, Client]) -> None:
    a, b = clients
    _scanned(a, b)
    a.write("UPDATE t SET v = CAST(replace(hex(v), '00', 'x') AS BLOB)")
    a.checkpoint(apsw.SQLITE_CHECKPOINT_TRUNCATE)
    assert b.read("SELECT DISTINCT v FROM t") == [(b"x" * 3000,)]


def test_what_was_read_ahead_ends_with_a_checkpoint_of_ones_own(
    clients: tuple[Client, Client],
) -> None:
    a, b = clients
    _, some = _scanned(a, b)
    with b.lease(EXCLUSIVE):
        b.catch_up()
        b.connection.execute(f"SELECT sum(length(v)) FROM t WHERE id < {some}").fetchall()
        b.connection.execute(f"UPDATE t SET v = 'new' WHERE id = {some + 2}").fetchall()
        b.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
        b.connection.execute("PRAGMA shrink_memory").fetchall()
        found = b.connection.execute(f"SELECT v FROM t WHERE id = {some + 2}").fetchall()
    assert found == [("new",)]


def test_a_reader_cannot_write_and_a_writer_cannot_checkpoint(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, _ = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    before = {name: bytes(content) for name, content in files.content.items()}
    with pytest.raises(apsw.BusyError):
        a.write("UPDATE t SET v = 2", level=READ)
    a.tab.level(WRITE)
    a.catch_up()
    files.log.clear()
    for mode in (apsw.SQLITE_CHECKPOINT_PASSIVE, apsw.SQLITE_CHECKPOINT_TRUNCATE):
        # It may say that it is busy, or that it copied nothing, as long as no file is touched.
        with contextlib.suppress(apsw.BusyError):
            a.connection.wal_checkpoint("main", mode)
    assert {call[0] for call in files.log} <= {"read"}
    a.tab.level(NONE)
    assert {name: bytes(content) for name, content in files.content.items()} == before
    assert a.read("SELECT v FROM t") == [(1,)]


def test_closing_keeps_the_wal(clients: tuple[Client, Client], files: Disk) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    wal = bytes(files.content["x.db-wal"])
    for level in (NONE, WRITE, EXCLUSIVE):
        a.tab.level(level)
        a.connection.close()
        assert bytes(files.content["x.db-wal"]) == wal
        a.tab.level(READ)
        a.connection = a.tab.connect()
    assert b.read("SELECT v FROM t") == [(1,)]


def test_a_checkpointed_wal_is_begun_anew_and_others_notice(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(20000))")
    assert b.read("SELECT count(*) FROM t") == [(1,)]
    frames, copied = a.checkpoint()
    assert frames == copied > 5
    # Without the exclusive lease the log goes on where it was …
    a.write("UPDATE t SET v = 1")
    assert a.tab.status("frames") > frames
    a.checkpoint()
    # … with it, it begins anew.
    a.write("UPDATE t SET v = 2", level=EXCLUSIVE)
    assert a.tab.status("frames") < 5
    assert b.read("SELECT v FROM t") == [(2,)]
    assert b.tab.status("recovered") == 1


def test_a_wal_that_is_begun_anew_in_place_keeps_its_room_and_the_page_cache(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(20000))")
    assert b.read("SELECT count(*) FROM t") == [(1,)]
    size = len(files.content["x.db-wal"])
    a.restart()
    assert len(files.content["x.db-wal"]) == size
    assert a.tab.status("frames") == 0
    # It goes on with no more than the write lease, and with the pages that it knows.
    files.log.clear()
    a.write("UPDATE t SET v = 2")
    assert not [call for call in files.log if call[:2] == ("read", "x.db")]
    assert 0 < a.tab.status("frames") < 5
    assert len(files.content["x.db-wal"]) == size
    assert b.read("SELECT v FROM t") == [(2,)]
    assert b.tab.status("recovered") == 1


@pytest.mark.parametrize("cut", range(0, 32, 5))
def test_a_tab_that_dies_beginning_a_wal_anew_in_place_loses_nothing(
    clients: tuple[Client, Client], files: Disk, cut: int
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(20000))")
    a.write("UPDATE t SET v = 1")
    assert b.read("SELECT v FROM t") == [(1,)]

    def fault(what: str, name: str, n: int) -> int | None:
        if (what, name, n) != ("write", "x.db-wal", 32):
            return None
        a.tab.process.dead = True
        return cut

    files.fault = fault
    with pytest.raises(apsw.Error):
        a.restart()
    files.fault = lambda *_: None
    a.die()
    assert b.read("SELECT v FROM t") == [(1,)]
    b.write("INSERT INTO t VALUES(2, 2)")
    assert Client(library=b.tab.library, disk=files).read("SELECT id FROM t") == [(1,), (2,)]


def test_a_restart_that_is_rolled_back_does_not_fool_its_own_tab(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """After it, this tab must not write a new WAL header under the eyes of readers."""
    a, b = clients
    a.write(f"INSERT INTO t VALUES(1, x'{b'x'.hex() * 20000}')")
    a.checkpoint()
    a.tab.level(EXCLUSIVE)
    a.connection.file_control("main", CATCH_UP, 0)
    a.connection.execute("PRAGMA cache_size = 1; BEGIN IMMEDIATE")
    # It restarts the log in the index, and then the new header does not reach the file.
    files.room = -1
    with pytest.raises(apsw.FullError):
        a.connection.execute("UPDATE t SET v = zeroblob(100000)")
    files.room = None
    assert a.tab.status("frames") == 0
    if a.connection.in_transaction:
        a.connection.execute("ROLLBACK")
    a.tab.level(WRITE)
    b.tab.level(READ)
    b.connection.file_control("main", CATCH_UP, 0)
    b.connection.execute("BEGIN; SELECT count(*) FROM t").fetchall()
    a.connection.file_control("main", CATCH_UP, 0)
    a.connection.execute("BEGIN IMMEDIATE; UPDATE t SET v = zeroblob(90000); COMMIT")
    assert b.connection.execute("SELECT v FROM t").get == b"x" * 20000
    b.connection.execute("COMMIT")
    b.tab.level(NONE)
    assert b.read("SELECT length(v) FROM t") == [(90000,)]


def test_a_restart_that_is_rolled_back_does_not_hide_what_others_write(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """Its header reached the file: another tab goes on from it, and this one must see that."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    a.checkpoint()
    a.connection.execute("PRAGMA cache_size = 1")
    before = bytes(files.content["x.db-wal"][:32])
    a.write("UPDATE t SET v = zeroblob(100000)", level=EXCLUSIVE, commit=False)
    assert bytes(files.content["x.db-wal"][:32]) != before
    b.write("INSERT INTO t VALUES(2, 2)")
    assert a.read("SELECT id FROM t") == [(1,), (2,)]
    a.write("INSERT INTO t VALUES(3, 3)")
    for client in (a, b):
        assert client.read("SELECT id, v FROM t") == [(1, 1), (2, 2), (3, 3)]


def test_frames_without_a_commit_are_never_published(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(50000))")
    b.read("SELECT count(*) FROM t")
    whole = a.tab.status("frames")
    a.write("UPDATE t SET v = zeroblob(50001)")
    # The writer died before its last frame, the commit frame, was there.
    last = a.tab.status("frames") - 1
    assert last > whole
    del files.content["x.db-wal"][32 + last * 4120 :]
    assert b.read("SELECT length(v) FROM t") == [(50000,)]
    b.write("INSERT INTO t VALUES(2, 2)")
    assert b.read("SELECT count(*), max(length(v)) FROM t") == [(2, 50000)]
    assert b.read("PRAGMA integrity_check") == [("ok",)]


def test_what_was_gathered_and_rolled_back_never_reaches_the_file(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """It would go where another tab has committed since."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    # What it reads is in the database file: reading from the WAL sends what was gathered.
    a.checkpoint()
    wal = bytes(files.content["x.db-wal"])
    a.connection.execute("PRAGMA cache_size = 1")
    a.write("INSERT INTO t VALUES(2, zeroblob(50000))", commit=False)
    assert files.content["x.db-wal"] == wal
    b.write("INSERT INTO t VALUES(3, 3)")
    a.write("INSERT INTO t VALUES(4, 4)")
    for client in (a, b, Client(a.tab.library, files)):
        assert client.read("SELECT id FROM t") == [(1,), (3,), (4,)]


def test_a_torn_frame_is_never_published(clients: tuple[Client, Client], files: Disk) -> None:
    """The header of the commit frame reached the disk, its page did not in full."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    b.read("SELECT * FROM t")
    a.write("UPDATE t SET v = 2")
    files.content["x.db-wal"][32 + a.tab.status("frames") * 4120 - 100] ^= 1
    assert b.read("SELECT v FROM t") == [(1,)]
    b.write("UPDATE t SET v = 3")
    assert b.read("SELECT v FROM t") == [(3,)]
    assert b.tab.status("recovered") == 0


def test_a_wal_that_begins_under_a_kept_lease_is_seen(library: Library, files: Disk) -> None:
    a, b = Client(library, files), Client(library, files)
    assert len(files.content["x.db-wal"]) == 0
    b.tab.level(READ)
    for n in range(3):
        b.connection.file_control("main", CATCH_UP, 0)
        assert b.connection.execute("SELECT count(*) FROM sqlite_master").get == n
        a.write(f"CREATE TABLE t{n}(v)")


def test_a_reader_beside_the_writer_of_its_own_tab_leaves_the_index_alone(
    library: Library, files: Disk
) -> None:
    """The writer's frames are in the index before they are in the file."""
    a = Client(library, files)
    a.tab.level(WRITE)
    beside = a.tab.connect()
    writer = a.connection
    assert len(files.content["x.db-wal"]) == 0
    writer.execute("PRAGMA cache_size = 1; CREATE TABLE s(id INTEGER PRIMARY KEY, v)")
    writer.execute("INSERT INTO s VALUES(0, randomblob(400000))")
    a.checkpoint()
    a.tab.level(EXCLUSIVE)
    a.catch_up()
    writer.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
    a.tab.level(NONE)
    a.tab.level(WRITE)
    writer.file_control("main", CATCH_UP, 0)
    writer.execute("BEGIN IMMEDIATE; UPDATE s SET v = zeroblob(399000)")
    assert len(files.content["x.db-wal"]) > 200_000
    beside.file_control("main", CATCH_UP, 0)
    assert beside.execute("SELECT length(v) FROM s").get == 400_000
    assert writer.execute("SELECT v FROM s").get == bytes(399_000)
    writer.execute("COMMIT")
    assert writer.execute("PRAGMA integrity_check").get == "ok"
    assert beside.execute("SELECT v FROM s").get == bytes(399_000)


def test_a_reader_beside_a_writer_after_a_restart_leaves_the_index_alone(
    library: Library, files: Disk
) -> None:
    """The index was recovered in the writer's transaction, and has more than the file."""
    a, b = Client(library, files), Client(library, files)
    a.write("CREATE TABLE s(id INTEGER PRIMARY KEY, v)", "INSERT INTO s VALUES(0, zeroblob(9000))")
    b.write("INSERT INTO s VALUES(1, randomblob(60000))")
    writer = b.connection
    b.tab.level(READ)
    beside = b.tab.connect()
    writer.execute("PRAGMA cache_size = 1")
    b.tab.level(NONE)
    a.checkpoint()
    a.write("UPDATE s SET v = 1 WHERE id = 0", level=EXCLUSIVE)
    b.tab.level(WRITE)
    writer.file_control("main", CATCH_UP, 0)
    assert b.tab.status("frames") == 0
    writer.execute("BEGIN IMMEDIATE")
    # Frames that are written once, and after them some that are written again: those have a wrong
    # checksum until the commit mends it, and whoever enters the first ones loses them.
    writer.execute("INSERT INTO s VALUES(2, zeroblob(40000))")
    for n in range(10):
        writer.execute(f"UPDATE s SET v = {n} WHERE id = 0")
        writer.execute(f"UPDATE s SET v = zeroblob({59000 - 1000 * n}) WHERE id = 1")
    beside.file_control("main", CATCH_UP, 0)
    assert beside.execute("SELECT length(v) FROM s WHERE id = 1").get == 60_000
    assert writer.execute("SELECT v FROM s WHERE id = 1").get == bytes(50_000)
    writer.execute("COMMIT")
    assert writer.execute("PRAGMA integrity_check").get == "ok"
    assert beside.execute("SELECT v FROM s WHERE id = 1").get == bytes(50_000)


def test_frames_that_are_rolled_back_again_and_again_leave_the_index_as_it_was(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """Each time they reach the file, and another tab looks at them."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(20000))")
    a.connection.execute("PRAGMA cache_size = 1")
    for _ in range(60):
        a.tab.level(WRITE)
        a.catch_up()
        a.connection.execute("BEGIN IMMEDIATE; UPDATE t SET v = zeroblob(160000)")
        assert len(files.content["x.db-wal"]) > 100_000
        assert b.read("SELECT length(v) FROM t") == [(20_000,)]
        a.connection.execute("ROLLBACK")
        a.tab.level(NONE)
    a.write("UPDATE t SET v = 2")
    assert b.read("SELECT v FROM t") == [(2,)]


def test_a_wal_that_vanished_drops_every_cached_page(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """Emptied, filled and emptied again while a tab slept: nothing in the file tells it."""
    a, b = clients
    second = b.tab
    second.level(READ)
    beside = second.connect()
    second.level(NONE)

    def empty() -> None:
        a.checkpoint()
        a.tab.level(EXCLUSIVE)
        a.catch_up()
        a.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
        a.tab.level(NONE)
        assert len(files.content["x.db-wal"]) == 0

    seen = []
    for n in range(3):
        a.write(f"INSERT OR REPLACE INTO t VALUES(1, {n})")
        empty()
        # Now one connection of the tab, now the other: each has a page cache of its own.
        second.level(READ)
        second_connection = beside if n % 2 else b.connection
        second_connection.file_control("main", CATCH_UP, 0)
        seen.append(second_connection.execute("SELECT v FROM t").fetchall())
        second.level(NONE)
    assert seen == [[(0,)], [(1,)], [(2,)]]
    a.write("UPDATE t SET v = 9")
    empty()
    assert b.read("SELECT v FROM t") == [(9,)]


@pytest.mark.parametrize("cut", range(1, 32))
def test_a_tab_that_dies_of_a_restart_takes_no_later_commit_with_it(
    clients: tuple[Client, Client], files: Disk, cut: int
) -> None:
    """Half a header may have the old salts; and SQLite takes a WAL below it for an empty one."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, zeroblob(20000))")
    assert b.read("SELECT count(*) FROM t") == [(1,)]
    a.checkpoint()

    def fault(what: str, name: str, n: int) -> int | None:
        if (what, name, n) != ("write", "x.db-wal", 32):
            return None
        a.tab.process.dead = True
        return cut

    files.fault = fault
    with pytest.raises(apsw.Error):
        a.write("UPDATE t SET v = 2", level=EXCLUSIVE)
    files.fault = lambda *_: None
    a.die()
    assert b.read("SELECT id, length(v) FROM t") == [(1, 20000)]
    b.write("INSERT INTO t VALUES(2, 2)")
    assert Client(library=b.tab.library, disk=files).read("SELECT id FROM t") == [(1,), (2,)]


def test_closing_does_not_checkpoint_by_a_wal_index_of_long_ago(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """With the exclusive lease SQLite does, as the last connection; whoever did not catch up…"""
    a, b = clients
    a.write(*(f"INSERT INTO t VALUES({n}, zeroblob(3000))" for n in range(40)))
    assert b.read("SELECT count(*) FROM t") == [(40,)]
    a.checkpoint()
    a.write("CREATE TABLE u(x)", "INSERT INTO u VALUES(randomblob(200000))", level=EXCLUSIVE)
    before = bytes(files.content["x.db"])
    b.tab.level(EXCLUSIVE)
    for statement in ("SELECT * FROM t", "INSERT INTO t VALUES(100, 1)"):
        with pytest.raises((apsw.BusyError, apsw.ProtocolError)):
            b.connection.execute(statement).fetchall()
    b.connection.close()
    assert files.content["x.db"] == before
    b.die()
    assert a.read("PRAGMA integrity_check") == [("ok",)]
    assert a.read("SELECT count(*) FROM t") == [(40,)]


def test_a_snapshot_that_was_left_open_reads_no_later_file(
    clients: tuple[Client, Client], files: Disk
) -> None:
    """Its lease is gone, so others have moved what it would read."""
    a, b = clients
    a.write(*(f"INSERT INTO t VALUES({n}, zeroblob(3000))" for n in range(60)))
    a.connection.execute("PRAGMA cache_size = 2")
    a.tab.level(READ)
    a.catch_up()
    left = a.connection.execute("SELECT v FROM t")
    assert left.fetchone() == (bytes(3000),)
    a.tab.level(NONE)
    b.checkpoint()
    b.write("UPDATE t SET v = 1", level=EXCLUSIVE)
    b.write("INSERT INTO t VALUES(1000, randomblob(300000))")
    with pytest.raises(apsw.MisuseError):
        a.read("SELECT count(*) FROM t")
    left.close(True)
    assert a.read("SELECT count(*) FROM t") == [(61,)]


def test_a_full_disk_rolls_back_and_keeps_everything(
    clients: tuple[Client, Client], files: Disk
) -> None:
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 1)")
    files.room = 3 * 4120
    with pytest.raises(apsw.FullError):
        a.write("INSERT INTO t VALUES(2, zeroblob(200000))")
    files.room = None
    assert b.read("SELECT id FROM t") == [(1,)]
    a.write("INSERT INTO t VALUES(2, zeroblob(200000))")
    assert b.read("SELECT count(*) FROM t") == [(2,)]
    assert b.read("PRAGMA integrity_check") == [("ok",)]


def test_what_a_transaction_wrote_is_told_by_table(clients: tuple[Client, Client]) -> None:
    a, _ = clients

    def changes() -> dict[str, str]:
        text = a.connection.execute("SELECT holdfast_changes()").get
        parts = iter((text or "").split("\0"))
        return dict(zip(parts, parts, strict=False))

    changes()
    a.write(
        "CREATE TABLE log(id INTEGER PRIMARY KEY, what)",
        "CREATE TRIGGER tt AFTER INSERT ON t BEGIN INSERT INTO log(what) VALUES(NEW.id); END",
        "INSERT INTO t VALUES(30, 0), (20, 0), (40, 0)",
    )
    assert changes() == {"t": "20", "log": "1"}
    assert changes() == {}
    a.write("DELETE FROM t WHERE id = 20", "UPDATE log SET what = 0")
    assert changes() == {"t": "", "log": ""}


@pytest.mark.parametrize("seed", range(12))
def test_many_tabs_in_any_order(library: Library, files: Disk, seed: int) -> None:
    """Transfers, snapshot reads, checkpoints and restarts by four tabs: the sum never changes."""
    choose = random.Random(seed)
    first = Client(library, files)
    first.write(
        "CREATE TABLE account(id INTEGER PRIMARY KEY, v, pad)",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100) "
        "INSERT INTO account SELECT i, 100, zeroblob(300) FROM n",
    )
    tabs = [first, *(Client(library, files) for _ in range(3))]
    for tab in tabs:
        tab.connection.execute("PRAGMA cache_size = 5")
    for _ in range(150):
        tab = choose.choice(tabs)
        action = choose.random()
        if action < 0.6:
            amount, one, other = choose.randrange(9), *choose.sample(range(1, 101), 2)
            tab.write(
                f"UPDATE account SET v = v - {amount} WHERE id = {one}",
                f"UPDATE account SET v = v + {amount}, pad = randomblob(300) WHERE id = {other}",
                level=choose.choice((WRITE, WRITE, EXCLUSIVE)),
            )
        elif action < 0.9:
            assert tab.read("SELECT sum(v), count(*) FROM account") == [(10_000, 100)]
        else:
            tab.checkpoint()
    for tab in tabs:
        assert tab.read("PRAGMA integrity_check") == [("ok",)]
        assert tab.read("SELECT sum(v) FROM account") == [(10_000,)]


@pytest.mark.parametrize("reads_between", [False, True])
def test_a_commit_whose_flush_failed_is_the_same_for_everybody(
    clients: tuple[Client, Client], files: Disk, reads_between: bool
) -> None:
    """Its frames are in the file: whoever looks sees them, so its own tab must not write there."""
    a, b = clients
    a.write("INSERT INTO t VALUES(1, 'first')")
    assert b.read("SELECT count(*) FROM t") == [(1,)]
    # The write lease is kept, so that nothing but the failure makes the tab look at the file.
    a.tab.level(WRITE)
    a.connection.file_control("main", CATCH_UP, 0)
    files.fault = fail_next("flush")
    with pytest.raises(apsw.IOError):
        a.connection.execute("INSERT INTO t VALUES(2, 'unsure')")
    if reads_between:
        assert b.read("SELECT v FROM t WHERE id = 2") == [("unsure",)]
    a.connection.file_control("main", CATCH_UP, 0)
    for n in range(3, 40):
        a.connection.execute(f"INSERT INTO t VALUES({n}, zeroblob(500))")
    a.tab.level(NONE)
    for client in (a, b):
        assert client.read("SELECT count(*), max(id) FROM t") == [(39, 39)]
        assert client.read("PRAGMA integrity_check") == [("ok",)]


# -- one tab that has the database to itself: as SQLite has its own files --------------------------


@pytest.fixture
def alone(library: Library, files: Disk) -> Tab:
    tab = Tab(library, files)
    connection = tab.create()
    tab.level(EXCLUSIVE)
    connection.execute("CREATE TABLE t(v); INSERT INTO t VALUES(1)")
    return tab


def test_a_connection_tells_the_name_of_its_vfs(alone: Tab) -> None:
    assert alone.connect().vfsname("main") == "holdfast"


def test_whoever_leaves_wal_mode_takes_the_wal_along(alone: Tab, files: Disk) -> None:
    """Or it would be replayed over what is written without it."""
    (first,) = alone.connections
    first.close()
    leaving = alone.connect()
    leaving.execute("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES(2)").fetchall()
    assert leaving.execute("PRAGMA journal_mode = DELETE").get == "delete"
    assert files.content["x.db-wal"] == b""
    leaving.execute("UPDATE t SET v = v + 10; CREATE TABLE u(v)")
    leaving.close()
    later = alone.connect()
    assert later.execute("PRAGMA journal_mode").get == "delete"
    assert later.execute("SELECT v FROM t").get == [11, 12]
    assert later.execute("PRAGMA integrity_check").get == "ok"


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_closing_in_exclusive_locking_mode_gives_its_locks_back(alone: Tab, mode: str) -> None:
    (first,) = alone.connections
    first.execute(f"PRAGMA journal_mode = {mode}")
    first.execute("PRAGMA locking_mode = EXCLUSIVE; INSERT INTO t VALUES(2)").fetchall()
    other = apsw.Connection(alone.node, vfs="holdfast")
    alone.connections.append(other)
    with pytest.raises(apsw.BusyError):
        other.execute("INSERT INTO t VALUES(3)")
    first.close()
    other.execute("INSERT INTO t VALUES(3)")
    assert other.execute("SELECT v FROM t").get == [1, 2, 3]


def test_with_a_rollback_journal_readers_and_a_writer_meet_as_sqlite_says(alone: Tab) -> None:
    (writer,) = alone.connections
    assert writer.execute("PRAGMA journal_mode = DELETE").get == "delete"
    reader, late = alone.connect(), alone.connect()
    writer.execute("BEGIN; INSERT INTO t VALUES(2)")
    # RESERVED: others read beside it, and do not write.
    reading = reader.execute("SELECT v FROM t")
    assert late.execute("SELECT v FROM t").get == 1
    with pytest.raises(apsw.BusyError):
        late.execute("INSERT INTO t VALUES(3)")
    # PENDING: it waits for the reader, and nobody else comes in.
    with pytest.raises(apsw.BusyError):
        writer.execute("COMMIT")
    with pytest.raises(apsw.BusyError):
        late.execute("SELECT v FROM t").fetchall()
    reading.close()
    writer.execute("COMMIT")
    assert late.execute("SELECT v FROM t").get == [1, 2]


class Distrustful(apsw.VFS):
    """On top of ours, without its word that overwriting a sector is safe."""

    class File(apsw.VFSFile):
        def xDeviceCharacteristics(self) -> int:
            return 0

    def __init__(self) -> None:
        super().__init__("distrustful", "holdfast")

    def xOpen(self, name: apsw.URIFilename | str | None, flags: list[int]) -> apsw.VFSFile:
        return self.File("holdfast", name, flags)


def test_frames_that_sqlite_cuts_in_two_are_written_whole(
    alone: Tab, library: Library, files: Disk
) -> None:
    """Without that word it fills a commit's last sector, and flushes in the middle of a frame."""
    (first,) = alone.connections
    first.close()
    vfs = Distrustful()
    try:
        writer = apsw.Connection(alone.node, vfs="distrustful")
        writer.wal_autocheckpoint(0)
        writer.execute("PRAGMA synchronous = FULL")
        for n in range(2, 30):
            writer.execute("INSERT INTO t VALUES(?)", (n,))
        found = Tab(library, files)
        found.level(READ)
        assert found.connect().execute("SELECT count(*), max(v) FROM t").get == (29, 29)
        found.forget()
        writer.close()
    finally:
        vfs.unregister()
    assert alone.connect().execute("SELECT count(*) FROM t").get == 29


@pytest.mark.parametrize("synchronous", ["FULL", "NORMAL"])
@pytest.mark.parametrize("page_size", [512, 4096, 65536])
def test_a_commit_reaches_the_file_however_many_frames_it_has(
    library: Library, files: Disk, page_size: int, synchronous: str
) -> None:
    """Wherever the room for what is gathered ends: between a frame's header and its page, too."""
    a = Client(library, files, page_size=page_size, synchronous=synchronous)
    a.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)", "INSERT INTO t VALUES(1, x'')")
    b = Client(library, files)
    room = 128 * 1024 // (page_size + 24)
    for pages in range(max(1, room - 4), room + 3):
        a.write(f"UPDATE t SET v = randomblob({pages * (page_size - 4)})")
        assert b.read("SELECT length(v) FROM t") == [(pages * (page_size - 4),)]
