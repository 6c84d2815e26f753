"""A WAL beside a database that it was not written for is found out; one that was, never."""

from __future__ import annotations

import random
import struct

import apsw
import pytest
from faults.browser import Browser, SimulatedTab
from faults.client import Client
from faults.disk import Disk
from faults.schedule import simulated_package
from simulated_opfs import CATCH_UP, EXCLUSIVE, Library, Tab

import holdfast


@pytest.fixture
def files() -> Disk:
    return Disk()


STATEMENTS = (
    "INSERT INTO t(v) VALUES(zeroblob(100))",
    "INSERT INTO t(v) VALUES(zeroblob(20000))",
    "UPDATE t SET v = zeroblob(length(v) + 1)",
    "DELETE FROM t WHERE id % 3 = 0",
    "CREATE TABLE IF NOT EXISTS more(x); INSERT INTO more VALUES(1)",
    "DROP TABLE IF EXISTS more",
    "PRAGMA user_version = 7",
)


def is_foreign(library: Library, files: Disk) -> int:
    """Asked as the package does: by a tab that has no connection yet."""
    tab = Tab(library, files)
    tab.level(EXCLUSIVE)
    return tab.status("foreign")


def live(library: Library, files: Disk, chance: random.Random, steps: int) -> Client:
    """A database with some history, of several tabs, with checkpoints whole and cut short."""
    tabs = [Client(library, files)]
    tabs[0].write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    tabs.append(Client(library, files))
    for _ in range(steps):
        client = chance.choice(tabs)
        match chance.randrange(10):
            case 0:
                client.checkpoint()
            case 1:
                # Begun under the exclusive lease, so that the WAL may restart.
                client.write(chance.choice(STATEMENTS), level=EXCLUSIVE)
            case 2:
                client.tab.level(EXCLUSIVE)
                client.connection.file_control("main", CATCH_UP, 0)
                client.connection.execute("VACUUM")
                client.tab.level(0)
            case 3:
                with pytest.raises(Exception, match="no such table"):
                    client.write(chance.choice(STATEMENTS), "INSERT INTO missing VALUES(1)")
            case _:
                client.write(chance.choice(STATEMENTS))
    return tabs[0]


@pytest.mark.parametrize("seed", range(40))
def test_a_wal_is_not_foreign_to_its_own_database(
    library: Library,
    files: Disk,
    seed: int,
) -> None:
    chance = random.Random(seed)
    client = live(library, files, chance, chance.randrange(25))
    assert is_foreign(library, files) == 0

    # A checkpoint that was cut short at any write leaves the file behind or ahead of page 1.
    before = {name: bytes(content) for name, content in files.content.items()}
    files.log.clear()
    client.checkpoint()
    writes = [call for call in files.log if call[:2] == ("write", "x.db")]
    after = bytes(files.content["x.db"])
    for done in range(len(writes) + 1):
        database = bytearray(before["x.db"])
        for _, _, at, n in writes[:done]:
            assert isinstance(at, int) and isinstance(n, int)
            database.extend(bytes(max(0, at + n - len(database))))
            database[at : at + n] = after[at : at + n]
        files.content["x.db"] = database
        assert is_foreign(library, files) == 0, done


@pytest.mark.parametrize("seed", range(20))
def test_a_wal_of_another_database_is_found(library: Library, seed: int) -> None:
    chance = random.Random(1000 + seed)
    mine, other = Disk(), Disk()
    client = live(library, mine, chance, 12)
    client.write("CREATE TABLE grown(x)", "CREATE TABLE up(x)")
    client.checkpoint()
    live(library, other, chance, 4)
    mine.content["x.db-wal"] = other.content["x.db-wal"]
    assert is_foreign(library, mine) == 1


@pytest.mark.parametrize("same", [True, False])
def test_of_twins_the_schema_tells(library: Library, same: bool) -> None:
    mine, other = Disk(), Disk()
    for files, column in ((mine, "a"), (other, "a" if same else "b")):
        client = Client(library, files)
        client.write(f"CREATE TABLE t({column})")
        client.checkpoint()
        client.write("INSERT INTO t VALUES(zeroblob(9000))", level=EXCLUSIVE)
    mine.content["x.db-wal"] = other.content["x.db-wal"]
    assert is_foreign(library, mine) == int(not same)


@pytest.mark.parametrize("what", ["size", "encoding"])
def test_a_wal_of_another_kind_is_found(library: Library, what: str) -> None:
    setting = {"size": "page_size = 8192", "encoding": "encoding = 'UTF-16le'"}[what]
    mine, other = Disk(), Disk()
    client = Client(library, mine)
    client.write("CREATE TABLE t(x)")
    client.checkpoint()
    tab = Tab(library, other)
    tab.level(EXCLUSIVE)
    connection = tab.connect()
    connection.execute(f"PRAGMA {setting}; PRAGMA journal_mode = WAL; CREATE TABLE t(x)").fetchall()
    mine.content["x.db-wal"] = other.content["x.db-wal"]
    # The change counters agree: it is the kind of page 1 that tells them apart.
    assert is_foreign(library, mine) == 1


@pytest.mark.parametrize("cut", [0, 31, 32, 33, 500])
def test_what_is_left_of_a_wal_is_not_foreign(
    library: Library,
    files: Disk,
    cut: int,
) -> None:
    live(library, files, random.Random(3), 5)
    del files.content["x.db-wal"][cut:]
    assert is_foreign(library, files) == 0


def begun_anew(library: Library, files: Disk, rows: int) -> None:
    """A WAL whose only transaction changes a page that is not the first, and no size."""
    client = Client(library, files)
    client.write("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    client.write(*(f"INSERT INTO t VALUES({n}, zeroblob(3000))" for n in range(rows)))
    client.checkpoint()
    client.write("UPDATE t SET v = zeroblob(2999) WHERE id = 1", level=EXCLUSIVE)
    page, pages = struct.unpack_from(">II", files.content["x.db-wal"], 32)
    assert page != 1
    assert pages, "a commit frame"


def test_a_wal_without_page_1_belongs_to_a_database_of_its_size(
    library: Library,
    files: Disk,
) -> None:
    begun_anew(library, files, 9)
    assert is_foreign(library, files) == 0
    longer = Disk()
    begun_anew(library, longer, 10)
    files.content["x.db-wal"] = longer.content["x.db-wal"]
    assert is_foreign(library, files) == 1


def test_a_torn_transaction_says_nothing(library: Library, files: Disk) -> None:
    begun_anew(library, files, 9)
    frame = files.content["x.db-wal"]
    # Another number of pages than the database has, under a checksum that does not hold.
    frame[32 + 7] += 1
    assert is_foreign(library, files) == 0


def rolled_back(database: bytes) -> bytearray:
    """The same database, as one with a rollback journal: what an export is."""
    return bytearray(database[:18] + b"\1\1" + database[20:])


@pytest.mark.parametrize("seed", range(10))
def test_a_database_without_a_wal_has_none(library: Library, files: Disk, seed: int) -> None:
    """Of the very same database, too: the WAL would be replayed over what is newer or older."""
    client = live(library, files, random.Random(seed), 5)
    client.checkpoint()
    files.content["x.db"] = rolled_back(files.content["x.db"])
    client.write("INSERT INTO t(v) VALUES(1)")
    assert is_foreign(library, files) == 1
    # What was not committed is not replayed.
    del files.content["x.db-wal"][500:]
    assert is_foreign(library, files) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_one_with_a_rollback_journal_is_not_opened_over_an_old_wal(
    library: Library, shared: bool
) -> None:
    browser = Browser(library, Disk(), random.Random(1), shared=shared)
    source = apsw.Connection(":memory:")
    source.execute("CREATE TABLE mine(x); INSERT INTO mine VALUES(1)")

    async def opened(tab: SimulatedTab) -> holdfast.Database:
        return await holdfast.open(f"{tab.name}/laid.db", storage="opfs")

    async def main() -> None:
        first = browser.tab()
        db = await first.run(opened(first))
        await first.run(db.execute("CREATE TABLE t(x)"))
        await first.run(db.execute("INSERT INTO t VALUES(1)"))
        await first.run(db.close())
        second = browser.tab()
        assert browser.disk.content["laid.db-wal"]
        browser.disk.content["laid.db"] = bytearray(source.serialize("main"))
        before = {name: bytes(content) for name, content in browser.disk.content.items()}
        with pytest.raises(holdfast.NotADatabaseError, match=r"WAL.*another database"):
            await second.run(opened(second))
        assert browser.disk.content == before
        # As soon as it is away, the database is taken.
        browser.disk.content["laid.db-wal"].clear()
        db = await second.run(opened(second))
        assert await second.run(db.fetch_value("SELECT x FROM mine")) == 1
        await second.run(db.close())

    with simulated_package(browser, checkpoint=10):
        browser.loop.run(main())
