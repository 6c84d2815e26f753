"""The database on CPython, in both of its storages: statements, transactions, what changed."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import inside, session_of
from patience import LONGER, PATIENCE

import holdfast
from holdfast import (
    Database,
    DatabaseBusyError,
    DatabaseClosedError,
    DiffContext,
    NestedTransactionError,
    NotADatabaseError,
    StorageUnavailableError,
    TableChange,
)
from holdfast.storage.file.storage import FileStorage
from holdfast.storage.opfs.storage import OpfsStorage

pytestmark = pytest.mark.everywhere


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "a.db" if request.param == "indexeddb" else str(tmp_path / "a.db")
    database = await holdfast.open(name, storage=request.param, busy_timeout=LONGER)
    await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    yield database
    await database.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.db")


async def next_of(iterator: AsyncIterator[object], timeout: float = PATIENCE) -> object:
    async with asyncio.timeout(timeout):
        return await anext(iterator)


async def settle() -> None:
    """Until what was asked for has begun, here or on the other side of a port."""
    for _ in range(20):
        await asyncio.sleep(0)


# -- statements -----------------------------------------------------------------------------------


async def test_statements_and_what_they_return(db: Database) -> None:
    assert await db.execute("INSERT INTO t(v) VALUES(?)", ("a",)) == (1, 1)
    assert await db.execute("INSERT INTO t(v) VALUES(:v)", {"v": b"\0b"}) == (1, 2)
    result = await db.execute_many("INSERT INTO t(v) VALUES(?)", [(2**62,), (1.5,), (None,)])
    assert (result.changes, result.last_insert_rowid) == (3, 5)
    assert (await db.execute("UPDATE t SET v = 0 WHERE id > 3")).changes == 2
    assert (await db.execute("UPDATE t SET v = 0 WHERE id > 30")).changes == 0
    assert (await db.execute("SELECT * FROM t")).changes == 0
    assert await db.fetch_value("SELECT v FROM t WHERE id = 2") == b"\0b"
    assert await db.fetch_value("SELECT v FROM t WHERE id = 3") == 2**62
    assert await db.fetch_one("SELECT * FROM t WHERE id = 99") is None
    assert await db.fetch_value("SELECT * FROM t WHERE id = 99") is None
    assert await db.fetch_all("SELECT * FROM t WHERE id = 99") == []


async def test_changes_counts_rows_of_the_statement_and_not_of_its_triggers(db: Database) -> None:
    await db.execute("CREATE TABLE log(n)")
    await db.execute(
        "CREATE TRIGGER tt AFTER INSERT ON t BEGIN INSERT INTO log VALUES(1), (2); END"
    )
    assert (await db.execute_many("INSERT INTO t(v) VALUES(?)", [(1,), (2,)])).changes == 2
    assert (await db.execute_many("INSERT INTO t(v) VALUES(?)", [])).changes == 0
    assert (await db.execute("INSERT INTO t(v) VALUES(1), (2), (3)")).changes == 3
    assert await db.fetch_value("SELECT count(*) FROM log") == 10


async def test_a_row_behaves_as_sqlite3s(db: Database) -> None:
    await db.execute("INSERT INTO t(v) VALUES('x')")
    row = await db.fetch_one("SELECT id, v AS Name FROM t")
    assert row is not None
    assert (row[0], row["name"], row["NAME"], row[-1], row[0:1]) == (1, "x", "x", "x", (1,))
    assert (row.keys(), len(row), list(row), dict(row)) == (
        ["id", "Name"],
        2,
        [1, "x"],
        {"id": 1, "Name": "x"},
    )
    assert row == (1, "x")
    assert row != (1, "y")
    assert hash(row) == hash((1, "x"))
    assert row == await db.fetch_one("SELECT id, v AS Name FROM t")
    with pytest.raises(IndexError, match="no column 'nix'"):
        row["nix"]


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("INSERT INTO t VALUES(7, 7); DELETE FROM t", "several statements"),
        ("SELECT 1; SELECT 2", "several statements"),
        ("CREATE TABLE new(v); INSERT INTO new VALUES(1)", "several statements"),
        ("SELECT 1; PRAGMA foreign_keys = ON", "several statements"),
        ("; /* ; */ DELETE FROM t; SELEKT", "several statements"),
        ("-- nothing", "no statement"),
        ("", "no statement"),
        ("BEGIN", "write_transaction"),
        ("COMMIT", "write_transaction"),
        ("SAVEPOINT x", "write_transaction"),
        ("ATTACH ':memory:' AS other", "holdfast.open"),
        ("PRAGMA journal_mode = DELETE", "relies on it"),
        ("PRAGMA busy_timeout = 3000", r"busy_timeout=.*holdfast\.open"),
        ("PRAGMA main.busy_timeout(3000)", r"busy_timeout=.*holdfast\.open"),
        ("PRAGMA recursive_triggers = 0", "relies on it"),
        ("EXPLAIN PRAGMA main.recursive_triggers = 0", "relies on it"),
        ("PRAGMA locking_mode = EXCLUSIVE", "relies on it"),
        ("PRAGMA query_only = ON", "relies on it"),
        ("PRAGMA wal_checkpoint", "relies on it"),
        ("PRAGMA synchronous = OFF", "a power cut"),
    ],
)
async def test_what_is_refused_is_not_run(db: Database, sql: str, says: str) -> None:
    await db.execute("INSERT INTO t VALUES(1, 1)")
    before = await settings(db)
    for method in (db.execute, db.fetch_all):
        with pytest.raises(ValueError, match=says):
            await method(sql)
    async with db.write_transaction() as tx:
        with pytest.raises(ValueError, match=says):
            await tx.execute(sql)
    assert await db.fetch_all("SELECT id FROM t") == [(1,)]
    assert await settings(db) == before


async def settings(db: Database) -> list[object]:
    """What pragmas set; most take effect when they are prepared, before they are run."""
    names = (
        "busy_timeout",
        "cache_size",
        "foreign_keys",
        "journal_mode",
        "locking_mode",
        "query_only",
        "recursive_triggers",
        "synchronous",
        "user_version",
    )
    return [await db.fetch_value(f"PRAGMA {name}") for name in names]


@pytest.mark.here
async def test_what_the_raw_connection_must_not_set(db: Database) -> None:
    """In this locking mode SQLite asks for no lock before it begins the WAL anew."""
    async with db.write_transaction() as tx:
        for sql in ("PRAGMA locking_mode = EXCLUSIVE", "PRAGMA journal_mode = DELETE"):
            with pytest.raises(apsw.AuthError):
                tx.connection.execute(sql)
        await tx.execute("INSERT INTO t VALUES(1, 1)")
    assert await db.fetch_value("PRAGMA locking_mode") == "normal"
    assert await db.fetch_value("SELECT count(*) FROM t") == 1


async def test_one_statement_with_a_comment_behind_it_is_one(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES(1, ';'); -- done; really\n ;")
    assert await db.fetch_value("SELECT v FROM t") == ";"


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO t VALUES(5, 5) RETURNING id",
        "WITH new AS (SELECT 5) INSERT INTO t SELECT *, 5 FROM new RETURNING id",
        "DELETE FROM t",
        "DROP TABLE t",
        "VACUUM",
        "-- all of it\n ; /* now */ VACUUM",
        "PRAGMA user_version = 3",
        "PRAGMA cache_size = 7",
        "PRAGMA foreign_keys = ON",
        "EXPLAIN PRAGMA foreign_keys = ON",
        "PRAGMA optimize",
        "SELECT * FROM pragma_optimize",
    ],
)
async def test_fetching_never_writes(db: Database, sql: str) -> None:
    await db.execute("INSERT INTO t VALUES(1, 1)")
    before = await settings(db)
    async with db.read_transaction() as tx:
        with pytest.raises(ValueError, match="writes, and this is a read transaction"):
            await tx.fetch_all(sql)
    for fetch in (db.fetch_all, db.fetch_one, db.fetch_value):
        with pytest.raises(ValueError, match=r"writes, .* execute\(\), or .* RETURNING"):
            await fetch(sql)
    assert await db.fetch_all("SELECT id FROM t") == [(1,)]
    assert await settings(db) == before


async def test_bad_parameters(db: Database) -> None:
    for method in (db.execute, db.fetch_all, db.fetch_one, db.fetch_value):
        with pytest.raises(TypeError, match="sequence or a mapping"):
            await method("SELECT ?", "a")
        with pytest.raises(TypeError, match="sequence or a mapping"):
            await method("SELECT ?", 1)
        with pytest.raises(TypeError, match="sequence or a mapping"):
            await method("SELECT ?, ?", {1, 2})
    for many in (["ab"], ("a", "b"), iter(["a"]), "ab", {"a": 1}, [(1,), {2}]):
        with pytest.raises(TypeError, match="sequence or a mapping"):
            await db.execute_many("INSERT INTO t(v) VALUES(?)", many)  # type: ignore[arg-type]
    assert await db.fetch_all("SELECT * FROM t") == []
    with pytest.raises(TypeError, match="must be a str"):
        await db.execute(b"SELECT 1")  # type: ignore[arg-type]
    with pytest.raises(apsw.BindingsError):
        await db.execute("SELECT ?", (1, 2))


async def test_sql_errors_are_apsws_and_leave_the_database_usable(db: Database) -> None:
    with pytest.raises(apsw.SQLError, match="no such table"):
        await db.execute("INSERT INTO nix VALUES(1)")
    with pytest.raises(apsw.SQLError, match="syntax error"):
        await db.fetch_all("SELEKT")
    await db.execute("CREATE UNIQUE INDEX u ON t(v)")
    with pytest.raises(apsw.ConstraintError):
        await db.execute_many("INSERT INTO t(v) VALUES(?)", [(1,), (2,), (1,)])
    assert await db.fetch_all("SELECT * FROM t") == []


async def test_pragmas_and_vacuum(db: Database) -> None:
    await db.execute("PRAGMA user_version = 7")
    assert await db.fetch_value("PRAGMA user_version") == 7
    await db.execute("PRAGMA foreign_keys = ON")
    await db.execute("CREATE TABLE child(t REFERENCES t(id))")
    with pytest.raises(apsw.ConstraintError):
        await db.execute("INSERT INTO child VALUES(99)")
    await db.execute("INSERT INTO t VALUES(1, zeroblob(100000))")
    await db.execute("DELETE FROM t")
    before = await db.fetch_value("PRAGMA page_count")
    await db.execute("-- make it small\nVACUUM")
    assert await db.fetch_value("PRAGMA page_count") < before
    assert await db.execute("PRAGMA optimize(0x10002)")
    async with db.write_transaction() as tx:
        await tx.execute("PRAGMA defer_foreign_keys = ON")
        await tx.execute("PRAGMA user_version = 8")
        # SQLite would take this one without a word, and do nothing.
        with pytest.raises(ValueError, match="cannot run inside a transaction"):
            await tx.execute("PRAGMA foreign_keys = OFF")
    assert await db.fetch_value("PRAGMA foreign_keys") == 1
    assert await db.fetch_value("PRAGMA integrity_check(3)") == "ok"
    assert [row["name"] for row in await db.fetch_all("PRAGMA table_info(t)")] == ["id", "v"]


# -- transactions ---------------------------------------------------------------------------------


async def test_a_write_transaction_is_whole_or_not_at_all(db: Database) -> None:
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        assert await tx.fetch_all("INSERT INTO t VALUES(2, 2) RETURNING v") == [(2,)]
        assert await tx.fetch_value("SELECT count(*) FROM t") == 2
    with pytest.raises(ZeroDivisionError):
        async with db.write_transaction() as tx:
            await tx.execute("DELETE FROM t")
            1 / 0  # noqa: B018
    assert await db.fetch_value("SELECT count(*) FROM t") == 2
    with pytest.raises(DatabaseClosedError, match="has ended"):
        await tx.execute("DELETE FROM t")


async def test_nobody_sees_a_transaction_half_done(db: Database) -> None:
    inside, seen = asyncio.Event(), asyncio.Event()

    async def reader() -> list[int]:
        await inside.wait()
        task = asyncio.ensure_future(db.fetch_value("SELECT count(*) FROM t"))
        await asyncio.sleep(0)
        seen.set()
        return [await task]

    task = asyncio.ensure_future(reader())
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        inside.set()
        await seen.wait()
        for _ in range(5):
            await asyncio.sleep(0)
        if task.done():
            assert task.result() == [0]
    assert await task in ([0], [1])


async def test_transactions_take_turns(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES(1, 0)")

    async def increment() -> None:
        async with db.write_transaction() as tx:
            value = await tx.fetch_value("SELECT v FROM t")
            await asyncio.sleep(0)
            await tx.execute("UPDATE t SET v = ?", (value + 1,))

    await asyncio.gather(*(increment() for _ in range(50)))
    assert await db.fetch_value("SELECT v FROM t") == 50


async def test_a_read_transaction_is_one_snapshot_beside_writers(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES(1, 1)")
    async with db.read_transaction() as tx:
        assert await tx.fetch_value("SELECT count(*) FROM t") == 1
        await db.execute("INSERT INTO t VALUES(2, 2)")
        async with db.read_transaction() as later:
            assert await later.fetch_value("SELECT count(*) FROM t") == 2
        assert await tx.fetch_value("SELECT count(*) FROM t") == 1
        with pytest.raises(ValueError, match="read transaction"):
            await tx.execute("DELETE FROM t")
    assert await db.fetch_value("SELECT count(*) FROM t") == 2


async def test_a_snapshot_is_of_its_beginning(db: Database) -> None:
    async with db.read_transaction() as tx:
        await db.execute("INSERT INTO t VALUES(1, 1)")
        assert await tx.fetch_value("SELECT count(*) FROM t") == 0


async def test_what_would_wait_for_itself_says_so(db: Database) -> None:
    async def each() -> None:
        for call in (
            lambda: db.execute("DELETE FROM t"),
            lambda: db.execute_many("INSERT INTO t(v) VALUES(?)", [(1,)]),
            lambda: db.fetch_all("SELECT 1"),
            lambda: db.fetch_one("SELECT 1"),
            lambda: db.fetch_value("SELECT 1"),
            lambda: db.write_transaction().__aenter__(),
            lambda: db.read_transaction().__aenter__(),
        ):
            with pytest.raises(NestedTransactionError, match="methods of that transaction"):
                await asyncio.wait_for(call(), PATIENCE)

    async with db.write_transaction() as tx:
        await each()
        # A task started in the block is inside of it too …
        await asyncio.create_task(each())
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        ended = asyncio.Event()

        async def later() -> int:
            await ended.wait()
            return await db.fetch_value("SELECT count(*) FROM t")

        task = asyncio.create_task(later())
    # … until the block is left.
    ended.set()
    assert await task == 1


async def test_a_cancelled_transaction_is_rolled_back_and_blocks_nobody(db: Database) -> None:
    inside = asyncio.Event()

    async def work() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1, 1)")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    waiting = asyncio.create_task(db.execute("INSERT INTO t VALUES(3, 3)"))
    await asyncio.sleep(0)
    waiting.cancel()
    task.cancel()
    for each in (task, waiting):
        with pytest.raises(asyncio.CancelledError):
            await each
    await asyncio.wait_for(db.execute("INSERT INTO t VALUES(2, 2)"), PATIENCE)
    assert await db.fetch_all("SELECT id FROM t") == [(2,)]


@pytest.mark.here
async def test_a_raw_connection_that_is_closed_keeps_nobody_out(path: str) -> None:
    async with holdfast.open(path) as db, holdfast.open(path) as other:
        await db.execute("CREATE TABLE t(v)")
        with pytest.raises(apsw.ConnectionClosedError):
            async with db.write_transaction() as tx:
                tx.connection.close(True)
        with pytest.raises(apsw.ConnectionClosedError):
            async with asyncio.timeout(PATIENCE):
                await db.execute("INSERT INTO t VALUES(1)")
        await other.execute("INSERT INTO t VALUES(2)")
        assert await other.fetch_all("SELECT v FROM t") == [(2,)]


async def test_a_write_transaction_is_entered_once(db: Database) -> None:
    transaction = db.write_transaction()
    async with transaction as tx:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
    with pytest.raises(RuntimeError, match="entered once"):
        async with transaction:
            pass
    await asyncio.wait_for(db.execute("INSERT INTO t VALUES(2, 2)"), PATIENCE)
    assert await db.fetch_value("SELECT count(*) FROM t") == 2


async def test_what_sqlite_rolls_back_takes_nothing_after_it(db: Database) -> None:
    """What comes next would be committed by itself, half of a transaction."""

    async def failing(tx: holdfast.Transaction) -> None:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        with pytest.raises(apsw.ConstraintError):
            await tx.execute("INSERT OR ROLLBACK INTO t VALUES(1, 1)")

    with pytest.raises(DatabaseClosedError, match="rolled back all of it"):
        async with db.write_transaction() as tx:
            await failing(tx)
            await tx.execute("INSERT INTO t VALUES(2, 2)")
    with pytest.raises(DatabaseClosedError, match="rolled back all of it"):
        async with db.write_transaction() as tx:
            await failing(tx)
    with pytest.raises(DatabaseClosedError, match="rolled back all of it"):
        async with db.write_transaction() as tx, tx.savepoint():
            await failing(tx)
    with pytest.raises(DatabaseClosedError, match="raw connection"):
        async with inside(db).read_transaction() as tx:
            tx.connection.execute("ROLLBACK")
            await tx.fetch_all("SELECT * FROM t")
    assert await db.fetch_all("SELECT * FROM t") == []
    await db.execute("INSERT INTO t VALUES(3, 3)")
    assert await db.fetch_all("SELECT id FROM t") == [(3,)]


async def test_a_savepoint_is_undone_alone(db: Database) -> None:
    log: list[str] = []
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        tx.on_commit(lambda: log.append("outer committed"))
        with pytest.raises(ZeroDivisionError):
            async with tx.savepoint():
                tx.on_commit(lambda: log.append("inner committed"))
                tx.on_rollback(lambda: log.append("inner rolled back"))
                await tx.execute("INSERT INTO t VALUES(2, 2)")
                1 / 0  # noqa: B018
        assert log == ["inner rolled back"]
        async with tx.savepoint():
            await tx.execute("INSERT INTO t VALUES(3, 3)")
    assert log == ["inner rolled back", "outer committed"]
    assert await db.fetch_all("SELECT id FROM t") == [(1,), (3,)]


@pytest.mark.here
async def test_the_raw_connection_takes_part(db: Database) -> None:
    changes = db.changes()
    first = asyncio.ensure_future(next_of(changes))
    await settle()
    async with db.write_transaction() as tx:
        tx.connection.execute("INSERT INTO t VALUES(1, 1)")
    assert await first == TableChange(frozenset({"t"}), False)
    await changes.aclose()  # type: ignore[attr-defined]


@pytest.mark.here
async def test_a_cursor_that_is_left_in_the_middle_ends_with_its_transaction(db: Database) -> None:
    """It would keep its snapshot, which nothing protects any more, and all that come after it."""
    await db.execute_many("INSERT INTO t(v) VALUES(?)", [(n,) for n in range(100)])
    async with db.read_transaction() as tx:
        read = tx.connection.execute("SELECT v FROM t")
        assert next(read) == (0,)
    async with db.write_transaction() as tx:
        await tx.execute("DELETE FROM t WHERE id = 2")
        written = tx.connection.cursor().execute("SELECT v FROM t")
        assert next(written) == (0,)
        returned = tx.connection.execute("INSERT INTO t(v) VALUES(1), (2) RETURNING v")
        assert next(returned) == (1,)
    for cursor in (read, written, returned):
        with pytest.raises(apsw.CursorClosedError):
            next(cursor)
    with pytest.raises(ZeroDivisionError):
        async with db.write_transaction() as tx:
            left = tx.connection.execute("SELECT v FROM t")
            assert next(left) == (0,)
            1 / 0  # noqa: B018
    assert db._session.main.raw.txn_state("main") == apsw.SQLITE_TXN_NONE
    async with db.read_transaction() as tx:
        assert await tx.fetch_value("SELECT count(*) FROM t") == 101


# -- changes --------------------------------------------------------------------------------------


async def test_changes_leaves_out_the_tables_of_virtual_tables(db: Database) -> None:
    await db.execute("CREATE VIRTUAL TABLE texts USING fts5(x)")
    await db.execute("CREATE TABLE texts_of_mine(x)")
    changes, mine = db.changes(), db.changes(["Texts_Of_Mine"])
    first, only = (asyncio.ensure_future(next_of(each)) for each in (changes, mine))
    await settle()
    await db.execute("INSERT INTO texts VALUES('a')")
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO texts VALUES('b')")
        await tx.execute("INSERT INTO texts_of_mine VALUES('b')")
    assert await first == TableChange(frozenset({"texts"}), False)
    assert await next_of(changes) == TableChange(frozenset({"texts", "texts_of_mine"}), False)
    # Names are SQL's: their case is no matter.
    assert await only == TableChange(frozenset({"texts_of_mine"}), False)
    for each in (changes, mine):
        await each.aclose()  # type: ignore[attr-defined]


async def test_changes_names_what_each_transaction_wrote(db: Database) -> None:
    await db.execute("CREATE TABLE u(id INTEGER PRIMARY KEY)")
    await db.execute("CREATE TABLE w(id TEXT PRIMARY KEY) WITHOUT ROWID")
    await db.execute("INSERT INTO u VALUES(1)")
    changes = db.changes()
    only_w = db.changes(["w"])
    first_w = asyncio.ensure_future(next_of(only_w))
    first = asyncio.ensure_future(next_of(changes))
    await settle()
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(1, 1)")
        await tx.execute("UPDATE u SET id = 5")
    assert await first == ({"t", "u"}, False)
    # What SQLite's update hook says nothing of: a truncated table, one without rowids.
    await db.execute("DELETE FROM u")
    assert await next_of(changes) == ({"u"}, False)
    await db.execute("INSERT INTO w VALUES('x')")
    assert await next_of(changes) == ({"w"}, False)
    assert await first_w == ({"w"}, False)
    # Nothing written, nothing said.
    await db.execute("UPDATE t SET v = 1 WHERE id = 99")
    with pytest.raises(ZeroDivisionError):
        async with db.write_transaction() as tx:
            await tx.execute("DELETE FROM t")
            1 / 0  # noqa: B018
    await db.execute("DROP TABLE u")
    assert await next_of(changes) == ({"u"}, False)


async def test_watch_gives_the_rows_now_and_after_each_change(db: Database) -> None:
    await db.execute("CREATE TABLE other(id)")
    watching = db.watch("SELECT v FROM t ORDER BY id", throttle=0.01)
    assert await next_of(watching) == []
    await db.execute("INSERT INTO t VALUES(1, 'a')")
    assert await next_of(watching) == [("a",)]
    await db.execute("INSERT INTO other VALUES(1)")
    await db.execute("INSERT INTO t VALUES(2, 'b')")
    assert await next_of(watching) == [("a",), ("b",)]
    # A burst is given at its end, and its last change is not lost in the window.
    for n in range(3, 30):
        await db.execute("INSERT INTO t VALUES(?, 'x')", (n,))
    rows: object = []
    while rows != [("a",), ("b",)] + [("x",)] * 27:
        rows = await next_of(watching)


async def test_watch_gives_rows_that_are_as_they_were_only_if_it_is_told_to(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES(1, 'a')")
    sql = "SELECT id FROM t"
    once, again = db.watch(sql, throttle=0), db.watch(sql, throttle=0, distinct=False)
    assert await next_of(once) == await next_of(again) == [(1,)]
    more, same = (asyncio.ensure_future(next_of(each)) for each in (once, again))
    await settle()
    await db.execute("UPDATE t SET v = 'b'")
    assert await same == [(1,)]
    assert not more.done()
    await db.execute("INSERT INTO t VALUES(2, 'a')")
    assert await more == [(1,), (2,)]


async def test_iterators_end_when_the_database_is_closed(db: Database) -> None:
    changes, watching = db.changes(), db.watch("SELECT 1")
    assert await next_of(watching) == [(1,)]
    tasks = [asyncio.ensure_future(next_of(each)) for each in (changes, watching)]
    await settle()
    await db.close()
    for task in tasks:
        with pytest.raises(StopAsyncIteration):
            await asyncio.wait_for(task, PATIENCE)


async def test_iterators_whose_consumer_is_busy_end_when_the_database_is_closed(
    db: Database,
) -> None:
    changes, watching = db.changes(), db.watch("SELECT count(*) FROM t", throttle=0)
    assert await next_of(watching) == [(0,)]
    first = asyncio.ensure_future(next_of(changes))
    await settle()
    for value in range(3):
        await db.execute("INSERT INTO t(v) VALUES(?)", (value,))
    await first
    # What waits for them now is more than one commit.
    await settle()
    await db.close()
    for each in (changes, watching):
        with pytest.raises(StopAsyncIteration):
            await next_of(each)


@pytest.mark.parametrize("kind", ["changes", "watch"])
async def test_a_loop_over_an_iterator_may_close_its_database(db: Database, kind: str) -> None:
    iterator: AsyncIterator[object] = (
        db.changes() if kind == "changes" else db.watch("SELECT count(*) FROM t", throttle=0)
    )
    given = 0

    async def consume() -> None:
        nonlocal given
        async for _ in iterator:
            given += 1
            await db.execute("INSERT INTO t(v) VALUES(1)")
            await db.close()

    consuming = asyncio.ensure_future(consume())
    await settle()
    if kind == "changes":
        await db.execute("INSERT INTO t(v) VALUES(1)")
    await asyncio.wait_for(consuming, PATIENCE)
    assert given == 1


# -- life -----------------------------------------------------------------------------------------


async def test_closing_waits_for_no_user_of_a_transaction(db: Database) -> None:
    """Whoever is inside one may be waiting for something that never comes."""
    inside = asyncio.Event()

    async def write() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1, 1)")
            inside.set()
            await asyncio.Event().wait()

    async def read() -> None:
        async with db.read_transaction():
            await asyncio.Event().wait()

    async def queue() -> None:
        await inside.wait()
        await db.execute("DELETE FROM t")

    tasks = [asyncio.create_task(each()) for each in (read, write, queue)]
    await inside.wait()
    await asyncio.sleep(0.01)
    await asyncio.wait_for(db.close(), PATIENCE)
    with pytest.raises(DatabaseClosedError):
        await tasks[2]
    for task in tasks[:2]:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_close_inside_a_transaction_says_that_it_would_wait_for_it(db: Database) -> None:
    async with db.write_transaction() as tx:
        with pytest.raises(NestedTransactionError, match="close"):
            await asyncio.wait_for(db.close(), PATIENCE)
        await tx.execute("INSERT INTO t VALUES(1, 1)")
    assert await db.fetch_value("SELECT count(*) FROM t") == 1


async def test_rows_that_cannot_be_read_leave_no_statement_open(db: Database) -> None:
    async with db.write_transaction() as tx:
        with pytest.raises(UnicodeDecodeError):
            await tx.fetch_all("INSERT INTO t VALUES(1, 2), (2, 'b') RETURNING CAST(x'ff' AS TEXT)")
    assert await db.fetch_value("SELECT count(*) FROM t") == 2
    await db.execute("INSERT INTO t VALUES(3, CAST(x'ff' AS TEXT))")
    for fetch in (db.fetch_all, db.fetch_one):
        assert await fetch("SELECT v FROM t ORDER BY id DESC")
    await db.execute("DROP TABLE t")


async def test_closing_rolls_back_what_is_open(db: Database) -> None:
    async def work() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t VALUES(1, 1)")
            inside.set()
            await closed.wait()

    async def read() -> None:
        async with db.read_transaction() as tx:
            await closed.wait()
            await tx.fetch_all("SELECT 1")

    inside, closed = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(read()), asyncio.create_task(work())]
    await inside.wait()
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0)
    closed.set()
    await asyncio.wait_for(closing, PATIENCE)
    for task in tasks:
        with pytest.raises(DatabaseClosedError, match="closed"):
            await task
    await db.close()
    assert db.closed
    for call in (lambda: db.execute("SELECT 1"), lambda: db.fetch_one("SELECT 1"), db.status):
        with pytest.raises(DatabaseClosedError, match="open it again"):
            await call()


async def test_other_tables_are_read_beside_a_writer_all_the_same(db: Database) -> None:
    """That there is a temporary table keeps nobody from reading a snapshot of the others."""
    if not session_of(db).storage.has_readers:
        pytest.skip("in memory there is one connection")
    await db.execute("CREATE TEMP TABLE mine(v)")
    count = "SELECT count(*) FROM t"
    of_mine = "SELECT count(*) FROM Mine"
    for sql in (count, of_mine):
        assert await db.fetch_value(sql) == 0
    begun, done = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES(1)")
            begun.set()
            await done.wait()

    writing = asyncio.ensure_future(write())
    await begun.wait()
    async with asyncio.timeout(PATIENCE):
        assert await db.fetch_value(count) == 0
    for sql in (of_mine, "SELECT count(*) FROM pragma_table_list"):
        reading = asyncio.ensure_future(db.fetch_value(sql))
        await asyncio.sleep(0.01)
        assert not reading.done()
        reading.cancel()
    done.set()
    await writing


@pytest.mark.parametrize("sql", ["CREATE TABLE temp.mine(v)", "CREATE TEMP TABLE mine(v)"])
async def test_temporary_tables_are_read_where_they_are(db: Database, sql: str) -> None:
    """Also while another task writes: other connections do not have them."""
    async with inside(db).write_transaction() as tx:
        tx.connection.execute(sql)
    begun, done = asyncio.Event(), asyncio.Event()

    async def write() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO mine VALUES(1)")
            begun.set()
            await done.wait()

    writing = asyncio.ensure_future(write())
    await begun.wait()
    reading = asyncio.ensure_future(db.fetch_value("SELECT v FROM mine"))
    await asyncio.sleep(0)
    done.set()
    assert await reading == 1
    await writing


async def test_properties_and_status(db: Database) -> None:
    assert db.name.endswith("a.db")
    assert db.persists_triggers is (db.storage == "file")
    status = await db.status()
    assert status.storage == db.storage
    assert status.handle_mode is None
    assert (status.usage or 0) > 0
    assert "open" in repr(db)


async def test_a_memory_database_is_its_openers_own() -> None:
    async with holdfast.open("m", storage="memory") as a, holdfast.open("m", storage="memory") as b:
        await a.execute("CREATE TABLE t(x)")
        with pytest.raises(apsw.SQLError):
            await b.execute("INSERT INTO t VALUES(1)")


@pytest.mark.here
async def test_two_connections_of_one_file(path: str, tmp_path: Path) -> None:
    alias = tmp_path / "alias.db"
    async with holdfast.open(path) as a:
        await a.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        alias.symlink_to(path)
        async with holdfast.open(str(alias)) as b:
            changes = b.changes()
            task = asyncio.ensure_future(next_of(changes))
            await asyncio.sleep(0)
            await a.execute("INSERT INTO t VALUES(1)")
            assert await task == ({"t"}, True)
            assert await b.fetch_value("SELECT count(*) FROM t") == 1
            async with a.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(2)")
                assert await b.fetch_value("SELECT count(*) FROM t") == 1
                b._session.storage.busy_timeout = 0.05
                with pytest.raises(DatabaseBusyError, match="busy"):
                    await b.execute("INSERT INTO t VALUES(3)")


@pytest.mark.here
async def test_a_busy_database_says_who_may_keep_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with holdfast.open(path) as a, holdfast.open(path) as b:
        await a.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        async with a.write_transaction():
            asks = asyncio.Event()
            begin_write = b._session.storage.begin_write

            async def begin(*args: Any, **options: Any) -> None:
                asks.set()
                await begin_write(*args, **options)

            monkeypatch.setattr(b._session.storage, "begin_write", begin)
            first = asyncio.ensure_future(b.execute("INSERT INTO t VALUES(1)"))
            await asks.wait()
            b._session.storage.busy_timeout = 0.05
            with pytest.raises(
                DatabaseBusyError,
                match=r"^other tasks of this process, or another process that these wait for, "
                rf"kept '{re.escape(path)}' busy for longer than 0\.05 s; try again",
            ):
                await b.execute("INSERT INTO t VALUES(2)")
        await first
        assert await a.fetch_value("SELECT id FROM t") == 1


async def test_opening_without_a_schema_leaves_the_views_of_others(path: str) -> None:
    schema = holdfast.Schema([holdfast.Table("lists", [holdfast.Column.text("name")])])
    async with holdfast.open(path, schema=schema) as a:
        await a.execute("INSERT INTO lists(id, name) VALUES('1', 'x')")
        async with holdfast.open(path) as b:
            assert await b.fetch_all("SELECT * FROM lists") == [("1", "x")]
            await b.execute("UPDATE lists SET name = 'y'")
        assert await a.fetch_value("SELECT name FROM lists") == "y"


async def test_a_change_that_nobody_announced_is_found(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdfast.session.lookout, "LOOKOUT", 0.01)
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        changes, watching = db.changes(), db.watch("SELECT count(*) FROM t")
        assert await next_of(watching) == [(0,)]
        for number in (1, 2):
            task = asyncio.ensure_future(next_of(changes))
            await settle()
            # Not sqlite3's: to a second SQLite in one process, the locks of the first mean nothing.
            with contextlib.closing(apsw.Connection(path)) as stranger:
                stranger.execute("INSERT INTO t DEFAULT VALUES")
            assert await next_of(watching) == [(number,)]
            change = await task
            assert isinstance(change, TableChange)
            assert change.remote
            assert "t" in change.tables


async def test_the_file_is_an_ordinary_sqlite_database(path: str) -> None:
    async with holdfast.open(path) as db:
        await db.execute("CREATE TABLE t(v)")
        await db.execute("INSERT INTO t VALUES('kept')")
    with sqlite3.connect(path) as plain:
        assert plain.execute("SELECT v FROM t").fetchall() == [("kept",)]
        assert plain.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_open_refuses_what_it_cannot_open(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a str"):
        holdfast.open(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"holdfast\.Schema"):
        holdfast.open("x", schema=[])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="synchronous"):
        holdfast.open("x", synchronous="off")
    with pytest.raises(ValueError, match="storage must be one of"):
        await holdfast.open("x", storage="cloud")
    for name in ("", "a\0b"):
        with pytest.raises(ValueError, match="name"):
            await holdfast.open(name)
    with pytest.raises(ValueError, match="keeps beside"):
        await holdfast.open(str(tmp_path / "x.db-wal"))
    for storage in ("opfs", "indexeddb"):
        with pytest.raises(StorageUnavailableError):
            await holdfast.open("x", storage=storage)
    with pytest.raises(StorageUnavailableError, match="folder"):
        await holdfast.open(str(tmp_path / "missing" / "x.db"))
    garbage = tmp_path / "garbage.db"
    garbage.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(NotADatabaseError, match="left as it is"):
        await holdfast.open(str(garbage))
    assert garbage.read_bytes().startswith(b"this is not")
    assert [each.name for each in tmp_path.iterdir()] == ["garbage.db"]


async def test_a_process_that_dies_while_a_database_opens(
    path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its orphans are swept, when there are tables to look for them in."""
    begin_write_now = FileStorage.begin_write_now
    begin_write = FileStorage.begin_write

    async def wait(self: FileStorage, *args: object, **options: object) -> None:
        self.on_peer_gone()
        await asyncio.sleep(0.01)
        await begin_write(self, *args, **options)

    monkeypatch.setattr(FileStorage, "begin_write_now", lambda self, connection: False)
    monkeypatch.setattr(FileStorage, "begin_write", wait)
    database = await holdfast.open(path)
    monkeypatch.setattr(FileStorage, "begin_write_now", begin_write_now)
    await database.close()
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("storage", None, TypeError),
        ("storage", "disk", ValueError),
        ("synchronous", 2, TypeError),
        ("synchronous", "off", ValueError),
        ("busy_timeout", "10", TypeError),
        ("busy_timeout", float("nan"), ValueError),
        ("schema", {}, TypeError),
        ("persist_triggers", "no", TypeError),
        ("hold_manager", object(), TypeError),
    ],
)
async def test_a_bad_option_opens_nothing(
    tmp_path: Path, path: str, option: str, value: object, error: type[Exception]
) -> None:
    with pytest.raises(error, match=option):
        await holdfast.open(path, **{option: value})  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["", "/x", "x/", "a//b", ".", "..", "a/./b", "a/../b", "x-wal"])
def test_a_name_that_no_database_in_a_browser_can_have(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        OpfsStorage(name, "full")


@pytest.mark.parametrize("name", [":memory:", "a/\ud800"])
def test_a_name_that_sqlite_would_take_for_something_else(name: str) -> None:
    with pytest.raises(ValueError, match=r"memory|surrogate"):
        OpfsStorage(name, "full")
    assert OpfsStorage("a/:memory:", "full").name == "a/:memory:"


async def test_of_two_hard_links_only_one_is_open(tmp_path: Path, path: str) -> None:
    """SQLite finds a WAL by its database's name, so each would have one of its own."""
    async with holdfast.open(path) as database:
        await database.execute("CREATE TABLE t(v)")
        link = tmp_path / "link.db"
        link.hardlink_to(path)
        with pytest.raises(StorageUnavailableError, match="hard link"):
            await holdfast.open(str(link))
        alias, symlink = tmp_path / "." / ".." / tmp_path.name / "a.db", tmp_path / "symlink.db"
        symlink.symlink_to(path)
        for each in (alias, symlink):
            async with holdfast.open(str(each)) as other:
                await other.execute("INSERT INTO t VALUES(1)")
        assert await database.fetch_value("SELECT count(*) FROM t") == 2
    async with holdfast.open(str(link)) as other:
        assert await other.fetch_value("SELECT count(*) FROM t") == 2


# -- texts that are none ---------------------------------------------------------------------------

NO_UTF8 = "CAST(x'41ff42' AS TEXT)"


async def test_a_text_that_is_not_utf8_makes_no_row_unreadable(db: Database) -> None:
    await db.execute("CREATE TABLE texts(id INTEGER PRIMARY KEY, a, b)")
    insert = f"INSERT INTO texts(a, b) VALUES({NO_UTF8}, 1.5), ('ü', x'ff'), (2, NULL)"
    assert (await db.execute(insert)).changes == 3
    rows = await db.fetch_all("SELECT a, b AS a, a || 'x' FROM texts ORDER BY id DESC; ")
    assert rows == [(2, None, "2x"), ("ü", b"\xff", "üx"), ("A\udcffB", 1.5, "A\udcffBx")]
    assert rows[0].keys() == ["a", "a", "a || 'x'"]
    assert await db.fetch_value("SELECT a FROM texts WHERE id = :id", {"id": 1}) == "A\udcffB"
    one = await db.fetch_one("WITH t AS (SELECT * FROM texts) SELECT * FROM t -- of all")
    assert one == (1, "A\udcffB", 1.5)
    async with db.read_transaction() as tx:
        assert await tx.fetch_all("SELECT a FROM texts LIMIT 1") == [("A\udcffB",)]


async def test_a_text_that_is_not_utf8_can_be_tracked(db: Database) -> None:
    await db.execute("CREATE TABLE texts(id INTEGER PRIMARY KEY, a)")
    seen: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

    async def on_change(ctx: DiffContext) -> None:
        seen.set_result([tuple(row) for row in await ctx.with_extracted_diff("SELECT a FROM DIFF")])

    async with await db.triggers.track_table_diff("texts", on_change, throttle=0):
        await db.execute(f"INSERT INTO texts(a) VALUES({NO_UTF8}), ('b')")
        assert await asyncio.wait_for(seen, PATIENCE) == [("A\udcffB",), ("b",)]


@pytest.mark.parametrize("name", ["on_commit", "on_rollback"])
async def test_what_runs_after_a_transaction_is_checked_at_once(db: Database, name: str) -> None:
    async with db.write_transaction() as tx:
        with pytest.raises(TypeError, match="must be an async callable, not 'x'"):
            getattr(tx, name)("x")
    async with db.read_transaction() as tx:
        with pytest.raises(ValueError, match="a read transaction commits nothing"):
            getattr(tx, name)(print)


async def test_changes_tell_of_rows_that_a_schema_change_brings(db: Database) -> None:
    await db.execute("CREATE TABLE old(x)")
    changes = db.changes(["new", "copy"])
    for sql, table in (
        ("CREATE TABLE copy AS SELECT 1 AS x", "copy"),
        ('ALTER TABLE old RENAME TO "new";', "new"),
        ("ALTER TABLE copy RENAME TO old", "copy"),
        ("/* back */ alter table old rename to [copy]", "copy"),
    ):
        heard = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await db.execute("CREATE TABLE IF NOT EXISTS empty(x)")  # has no rows, so it is none
        await db.execute(sql)
        assert (await asyncio.wait_for(heard, PATIENCE)).tables == {table}, sql
    await changes.aclose()  # type: ignore[attr-defined]
