"""storage="indexeddb": several databases on one connection, over a simulated IndexedDB."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from typing import Any

import apsw
import pytest
from across import pair
from patience import PATIENCE
from simulated_indexeddb import Origin, worker
from simulated_javascript import JsException

import holdfast
from holdfast import (
    Column,
    Database,
    DatabaseBusyError,
    DatabaseClosedError,
    DiffContext,
    NestedTransactionError,
    NotADatabaseError,
    QuotaExceededError,
    Schema,
    StorageUnavailableError,
    Table,
    TableChange,
)
from holdfast.remote.client import connect
from holdfast.remote.server import Server
from holdfast.storage.indexeddb import hub

pytestmark = pytest.mark.usefixtures("clock")


def opened(**options: Any) -> Any:
    return holdfast.open("a.db", storage="indexeddb", **options)


@pytest.fixture
async def a(origin: Origin) -> AsyncIterator[Database]:
    async with opened(busy_timeout=1) as database:
        await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        yield database


@pytest.fixture
async def b(a: Database) -> AsyncIterator[Database]:
    async with opened(busy_timeout=0.05) as database:
        yield database


def durable(origin: Origin, sql: str = "SELECT v FROM t ORDER BY id") -> list[Any]:
    return [row[0] for row in origin.rows("a.db", sql)]


@contextlib.contextmanager
def held_up(origin: Origin) -> Any:
    """No transaction of IndexedDB completes within the block."""
    origin.gate.clear()
    origin.waiting.clear()
    try:
        yield
    finally:
        origin.gate.set()


# -- commits --------------------------------------------------------------------------------------


async def test_a_commit_is_told_when_it_is_durable(
    origin: Origin, a: Database, b: Database
) -> None:
    changes = b.changes()
    heard = asyncio.ensure_future(anext(changes))
    with held_up(origin):
        writing = asyncio.ensure_future(a.execute("INSERT INTO t(v) VALUES('x')"))
        await origin.waiting.wait()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not writing.done() and not heard.done()
        assert durable(origin) == []
        # Others see what is committed, and nobody waits for that.
        assert await b.fetch_value("SELECT count(*) FROM t") == 0
        async with a.read_transaction() as before:
            origin.gate.set()
            assert await writing == (1, 1)
            assert durable(origin) == ["x"]
            assert await before.fetch_value("SELECT count(*) FROM t") == 0
    assert await b.fetch_value("SELECT count(*) FROM t") == 1
    assert await heard == TableChange(frozenset({"t"}), remote=True)
    await changes.aclose()


async def test_synchronous_says_how_durable(origin: Origin, a: Database) -> None:
    async with opened(synchronous="normal") as b:
        origin.written.clear()
        await a.execute("INSERT INTO t(v) VALUES(1)")
        await b.execute("INSERT INTO t(v) VALUES(1)")
        assert [strict for _, _, strict in origin.written] == [True, False]


async def test_a_commit_writes_the_blocks_that_it_changed(origin: Origin, a: Database) -> None:
    await a.execute_many("INSERT INTO t(v) VALUES(?)", [("x" * 1000,)] * 1000)
    origin.written.clear()
    await a.execute("UPDATE t SET v = 'y' WHERE id = 500")
    ((_, numbers, _),) = origin.written
    assert len(numbers) == 2, "the header, and the row's page"
    origin.written.clear()
    await a.execute("UPDATE t SET v = 'y' WHERE id = -1")
    await a.execute("CREATE TEMP TABLE mine(v)")
    assert not origin.written, "nothing was changed"


Write = Callable[[Database], Any]


async def in_a_transaction(db: Database) -> None:
    async with db.write_transaction() as tx:
        await tx.execute("DROP TABLE t")
        await tx.execute("CREATE TABLE u(v)")


WRITES: dict[str, Write] = {
    "one statement": lambda db: db.execute("INSERT INTO t(v) VALUES('y')"),
    "many": lambda db: db.execute_many("INSERT INTO t(v) VALUES(?)", [("y" * 5000,)] * 100),
    "a transaction": in_a_transaction,
    "vacuum": lambda db: db.execute("VACUUM"),
}


@pytest.mark.parametrize("what", WRITES)
@pytest.mark.parametrize("why", ["full", "refused"])
async def test_what_cannot_be_made_durable_is_undone(
    origin: Origin, a: Database, b: Database, what: str, why: str
) -> None:
    await a.execute_many("INSERT INTO t(v) VALUES(?)", [("x" * 3000,)] * 50)
    await a.execute("DELETE FROM t WHERE id > 1")
    trigger = await b.triggers.create_diff_trigger("t", "diff")
    before = origin.image("a.db")
    changes = b.changes()
    heard = asyncio.ensure_future(anext(changes))
    if why == "full":
        origin.full = True
    else:
        origin.fail = JsException("UnknownError", "gone")
    with pytest.raises(QuotaExceededError if why == "full" else StorageUnavailableError):
        await WRITES[what](a)
    assert origin.image("a.db") == before
    for db in (a, b):
        assert await db.fetch_value("SELECT count(*) FROM t") == 1
        assert await db.fetch_value("SELECT count(*) FROM diff") == 0
        assert (
            await db.fetch_value("SELECT name FROM sqlite_master WHERE name IN ('t', 'u')") == "t"
        )
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"
    assert not heard.done(), "what did not happen is not told"
    assert not hub.Hub.known["a.db"].blocks.changed, "nor is anything left to be written later"

    origin.full, origin.fail = False, None
    await a.execute("INSERT INTO t(v) VALUES('z')")
    assert await heard == TableChange(frozenset({"t"}), remote=True)
    assert durable(origin, "SELECT count(*) FROM t") == [2]
    assert durable(origin, "PRAGMA integrity_check") == ["ok"]
    assert await b.fetch_value("SELECT count(*) FROM diff") == 1
    await trigger.dispose()
    await changes.aclose()


async def test_vacuum_is_durable(origin: Origin, a: Database) -> None:
    await a.execute_many("INSERT INTO t(v) VALUES(?)", [("x" * 3000,)] * 50)
    await a.execute("DELETE FROM t WHERE id > 1")
    large = len(origin.image("a.db"))
    await a.execute("VACUUM")
    assert len(origin.image("a.db")) < large / 4
    assert durable(origin, "SELECT count(*) FROM t") == [1]
    await a.execute("INSERT INTO t(v) VALUES('z')")
    assert durable(origin, "SELECT count(*) FROM t") == [2]


async def test_cancelled_in_its_commit_a_transaction_is_committed(
    origin: Origin, a: Database, b: Database
) -> None:
    with held_up(origin):
        writing = asyncio.ensure_future(a.execute("INSERT INTO t(v) VALUES('x')"))
        await origin.waiting.wait()
        writing.cancel()
        await asyncio.sleep(0)
        writing.cancel()
        await asyncio.sleep(0)
        assert not writing.done()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert durable(origin) == ["x"]
    assert await b.fetch_value("SELECT v FROM t") == "x"
    await b.execute("INSERT INTO t(v) VALUES('y')")
    assert durable(origin) == ["x", "y"]


async def test_a_client_that_cancels_too_late_is_told_so(origin: Origin, a: Database) -> None:
    ours, theirs = pair()

    async def given(name: str, options: dict[str, Any]) -> Database:
        return a

    Server(theirs, opened=given)
    client = await connect(ours)
    number = (await client.peer.call(0, "open", "a.db", {}))["number"]
    for method, params in (("execute", (1,)), ("execute_many", [(2,), (3,)])):
        with held_up(origin):
            answer = client.peer.request(number, method, "INSERT INTO t(v) VALUES(?)", params)
            waiting = asyncio.ensure_future(answer)
            await origin.waiting.wait()
            waiting.cancel()
            for _ in range(3):
                await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        # What another kind of client goes by; it is committed.
        assert answer.error is None
        assert answer.value == (len(params), len(durable(origin)))
    client.close("the test is over")


async def test_nobody_adds_to_a_transaction_that_is_being_committed(
    origin: Origin, a: Database
) -> None:
    with held_up(origin):
        kept = []

        async def write() -> None:
            async with a.write_transaction() as tx:
                kept.append(tx)
                await tx.execute("INSERT INTO t(v) VALUES('x')")

        writing = asyncio.ensure_future(write())
        await origin.waiting.wait()
        with pytest.raises(DatabaseClosedError, match="has ended"):
            await kept[0].execute("INSERT INTO t(v) VALUES('late')")
    await writing
    assert durable(origin) == ["x"] == [row[0] for row in await a.fetch_all("SELECT v FROM t")]


async def test_close_waits_for_a_commit(origin: Origin, a: Database) -> None:
    with held_up(origin):
        writing = asyncio.ensure_future(a.execute("INSERT INTO t(v) VALUES('x')"))
        await origin.waiting.wait()
        closing = asyncio.ensure_future(a.close())
        for _ in range(10):
            await asyncio.sleep(0)
        assert not closing.done() and not writing.done()
    await closing
    assert await writing == (1, 1)
    assert durable(origin) == ["x"]
    assert not hub.Hub.known and not origin.locks.held["holdfast:indexeddb:a.db"]


@pytest.mark.parametrize("seed", range(8))
async def test_a_worker_killed_at_any_moment_loses_nothing_acknowledged(seed: int) -> None:
    """Each commit is there whole or not at all, in order; at most one more than was told."""
    chance = random.Random(seed)
    origin = Origin()
    told = 0
    for _ in range(12):
        with worker(origin):
            databases = [await opened() for _ in range(2)]
            if not told:
                await databases[0].execute(
                    "CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, v)"
                )
            found = await databases[0].fetch_value("SELECT count(*) FROM t")
            assert found in (told, told + 2), "two rows for each transaction"
            assert await databases[1].fetch_value("PRAGMA integrity_check") == "ok"
            told = found
            tracked = await databases[1].triggers.track_table_diff("t", _ignore)

            async def write(db: Database) -> None:
                nonlocal told
                while True:
                    async with db.write_transaction() as tx:
                        await tx.execute("INSERT INTO t(v) VALUES(randomblob(9000)), (1)")
                    told += 2

            tasks = [asyncio.ensure_future(write(db)) for db in databases]
            for _ in range(chance.randrange(120)):
                await asyncio.sleep(0)
            assert tracked.source == "t" and not any(task.done() for task in tasks)
            # Nothing of it runs any more: not even what would be cleaned up.
            _bury()
        found = origin.rows("a.db", "SELECT count(*) FROM t")[0][0]
        assert found in (told, told + 2)


async def _ignore(ctx: DiffContext) -> None:
    await ctx.with_diff("SELECT * FROM DIFF")


def _bury() -> None:
    """All tasks; what they make of it is nobody's concern."""
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        task.cancel()


# -- several tabs ---------------------------------------------------------------------------------


async def test_a_trigger_of_one_tab_records_the_writes_of_another(a: Database, b: Database) -> None:
    assert not a.persists_triggers
    batches = b.triggers.diffs("t")
    first = asyncio.ensure_future(anext(batches))
    mine = a.triggers.diffs("t")
    own = asyncio.ensure_future(anext(mine))
    async with asyncio.timeout(PATIENCE):
        while not (a.triggers._live and b.triggers._live):  # noqa: ASYNC110
            await asyncio.sleep(0)
    await a.execute("INSERT INTO t(v) VALUES('x')")
    (record,) = await first
    assert (record.id, record.values, record.remote) == ("1", {"id": 1, "v": "x"}, True)
    assert record.transaction_id
    (record,) = await own
    assert record.remote is False
    await batches.aclose()
    await mine.aclose()


async def test_tables_of_triggers_are_nobodys_changes(a: Database, b: Database) -> None:
    heard: list[TableChange] = []

    async def listen() -> None:
        async for change in b.changes():
            heard.append(change)

    task = asyncio.ensure_future(listen())
    await asyncio.sleep(0)
    await a.triggers.create_diff_trigger("t", "diff")
    await a.execute("INSERT INTO t(v) VALUES('x')")
    await a.execute("DELETE FROM diff")
    await a.execute("UPDATE t SET v = 1")
    async with asyncio.timeout(PATIENCE):
        while len(heard) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert heard == [TableChange(frozenset({"t"}), remote=True)] * 2
    await b.close()
    await task


async def test_watch_hears_another_tab(a: Database, b: Database) -> None:
    rows = b.watch("SELECT v FROM t", throttle=0)
    assert await anext(rows) == []
    await a.execute("INSERT INTO t(v) VALUES('x')")
    assert await anext(rows) == [("x",)]
    await rows.aclose()


async def test_who_only_listens_is_told_that_the_sites_data_was_cleared(
    origin: Origin, a: Database
) -> None:
    watching = a.watch("SELECT * FROM t")
    assert await anext(watching) == []
    more = asyncio.ensure_future(anext(watching))
    origin.clear()
    with pytest.raises(StorageUnavailableError, match=r"site's data was cleared"):
        await more
    with pytest.raises(StorageUnavailableError, match=r"site's data was cleared"):
        await a.execute("INSERT INTO t VALUES(1, 1)")
    assert await a.fetch_all("SELECT * FROM t") == []


async def test_each_has_its_own_transactions(a: Database, b: Database) -> None:
    async with a.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES('x')")
        with pytest.raises(NestedTransactionError):
            await a.execute("INSERT INTO t(v) VALUES('y')")
        # Another tab is another connection, as far as anybody can tell.
        assert await b.fetch_value("SELECT count(*) FROM t") == 0
        with pytest.raises(
            DatabaseBusyError,
            match=r"^other tabs, or other tasks of this one, kept 'a\.db' busy for longer",
        ):
            await b.execute("INSERT INTO t(v) VALUES('y')")
    await b.execute("INSERT INTO t(v) VALUES('z')")
    assert await a.fetch_all("SELECT v FROM t") == [("x",), ("z",)]


async def test_writers_take_turns(a: Database, b: Database) -> None:
    order: list[str] = []

    async def write(db: Database, name: str) -> None:
        for _ in range(5):
            await db.execute("INSERT INTO t(v) VALUES(1)")
            order.append(name)

    await asyncio.gather(write(a, "a"), write(b, "b"))
    # Whoever begins: it depends on which of them lets others go first.
    assert len(order) == 10 and all(one != other for one, other in pairwise(order))


async def test_closing_one_takes_nothing_from_the_other(
    origin: Origin, a: Database, b: Database
) -> None:
    await a.triggers.create_diff_trigger("t", "diff_of_a")
    await b.triggers.create_diff_trigger("t", "diff_of_b")
    await b.execute("CREATE TEMP TABLE of_b(v)")
    await b.execute("CREATE TEMP VIEW view_of_b AS SELECT 1")
    await a.execute("CREATE TEMP TABLE of_a(v)")
    begun = asyncio.Event()

    async def begin() -> None:
        async with b.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES('never')")
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(begin())
    await begun.wait()
    await b.close()
    task.cancel()
    await asyncio.wait({task})
    rows = await a.fetch_all(
        "SELECT name FROM temp.sqlite_master WHERE type <> 'trigger' AND tbl_name <> 'ps_triggers'"
    )
    assert {row[0] for row in rows} == {"diff_of_a", "sqlite_sequence", "of_a"}
    assert await a.fetch_value("SELECT count(*) FROM temp.sqlite_master WHERE type='trigger'") == 3
    await a.execute("INSERT INTO t(v) VALUES('x')")
    assert await a.fetch_value("SELECT count(*) FROM diff_of_a") == 1
    assert durable(origin) == ["x"]
    assert (await a.status()).tabs == 1


async def test_triggers_outlive_the_tab_that_made_the_first(a: Database, b: Database) -> None:
    await a.triggers.create_diff_trigger("t", "of_a")
    await b.triggers.create_diff_trigger("t", "of_b")
    await a.close()
    await b.execute("ALTER TABLE t ADD COLUMN more")
    await b.execute("INSERT INTO t(v, more) VALUES ('x', 'y')")
    value = await b.fetch_value("SELECT value FROM of_b")
    assert json.loads(value)["more"] == "y"


async def test_a_tab_closes_while_another_has_the_turn(a: Database, b: Database) -> None:
    await b.execute("CREATE TEMP TABLE of_b(v)")
    await b.triggers.create_diff_trigger("t", "diff_of_b")
    async with a.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES('x')")
        waiting = asyncio.ensure_future(b.execute("INSERT INTO t(v) VALUES('never')"))
        # It gives up on its triggers, and does not wait for the end of this, which may never come.
        await b.close()
        with pytest.raises((DatabaseBusyError, DatabaseClosedError)):
            await waiting
        assert await tx.fetch_value("SELECT count(*) FROM diff_of_b") == 1
    assert await a.fetch_all("SELECT name FROM temp.sqlite_master WHERE name LIKE '%of_b'") == []
    await a.execute("INSERT INTO t(v) VALUES('y')")
    assert await a.fetch_all("SELECT v FROM t") == [("x",), ("y",)]


async def test_who_waits_for_a_turn_may_be_closed_meanwhile(a: Database, b: Database) -> None:
    async with opened(busy_timeout=5) as patient:
        async with a.write_transaction():
            waiting = asyncio.ensure_future(patient.execute("INSERT INTO t(v) VALUES('never')"))
            await asyncio.sleep(0)
            await patient.close()
        with pytest.raises(DatabaseClosedError):
            await waiting
    await b.execute("INSERT INTO t(v) VALUES('y')")
    assert await a.fetch_all("SELECT v FROM t") == [("y",)]


async def test_a_table_of_one_tab_may_become_a_destination_of_another(
    a: Database, b: Database
) -> None:
    """What each has learned of table names is forgotten when another changes the schema."""
    await a.execute("CREATE TABLE name(v)")
    async with a.write_transaction() as tx:
        await tx.execute("INSERT INTO name VALUES(1)")
        await tx.execute("INSERT INTO t(v) VALUES('w')")
    async with b.write_transaction() as tx:
        await tx.execute("DROP TABLE name")
        await b.triggers.create_diff_trigger("t", "name", transaction=tx)
    await a.execute("INSERT INTO t(v) VALUES('x')")
    assert await b.fetch_value("SELECT transaction_id IS NOT NULL FROM name") == 1


async def test_a_schema_of_each(origin: Origin) -> None:
    schema = Schema([Table("lists", [Column.text("name")])])
    async with opened(schema=schema) as a, opened(schema=schema) as b:
        await a.execute("INSERT INTO lists(id, name) VALUES('1', 'x')")
        assert await b.fetch_all("SELECT name FROM lists") == [("x",)]
    async with opened() as a:
        assert await a.fetch_all("SELECT name FROM lists") == [("x",)]


async def test_persisted_triggers_of_a_dead_worker_are_swept(origin: Origin) -> None:
    with worker(origin):
        a = await opened()
        await a.execute("CREATE TABLE t(v)")
        await a.triggers.create_diff_trigger("t", "diff", persist=True)
        _bury()
    assert durable(origin, "SELECT name FROM sqlite_master WHERE name = 'diff'") == ["diff"]
    # Another process knows nothing of its holds.
    for hold in await holdfast.MemoryTriggerHoldManager().held():
        holdfast.holds.memory._held.discard(hold)
    async with opened() as b:
        assert await b.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 'diff'") == 0


# -- one worker -----------------------------------------------------------------------------------


async def test_one_worker_has_it(origin: Origin, a: Database) -> None:
    (ours,) = hub.Hub.known.values()
    hub.Hub.known.clear()  # as another worker, which knows nothing of this one
    with pytest.raises(DatabaseBusyError, match=r"'a\.db' is open in another worker.*0\.05 s"):
        await opened(busy_timeout=0.05)
    assert not hub.Hub.known
    hub.Hub.known["a.db"] = ours
    for refused in (
        holdfast.import_database("a.db", await a.export(), storage="indexeddb"),
        holdfast.delete_database("a.db", storage="indexeddb"),
    ):
        with pytest.raises(DatabaseBusyError, match="is open"):
            await refused
    await a.execute("INSERT INTO t(v) VALUES(1)")


async def test_what_is_no_database_is_left_alone(origin: Origin) -> None:
    origin.databases["a.db"] = (5000, {0: b"rubbish!" * 512, 1: bytes(4096)})
    with pytest.raises(NotADatabaseError, match=r"'a\.db' is no SQLite database"):
        await opened()
    await asyncio.sleep(0)
    assert origin.image("a.db")[:8] == b"rubbish!"
    assert not hub.Hub.known and not origin.locks.held["holdfast:indexeddb:a.db"]


@pytest.mark.parametrize("name", ["", "a//b", "/a", "..", "a-wal"])
async def test_names(origin: Origin, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        await holdfast.open(name, storage="indexeddb")


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page_size", "encoding"),
    [(512, "UTF-8"), (4096, "UTF-8"), (65536, "UTF-8"), (4096, "UTF-16le")],
)
@pytest.mark.parametrize("mode", ["delete", "wal"])
async def test_a_database_in_and_out(
    origin: Origin, tmp_path: Any, mode: str, page_size: int, encoding: str
) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "x.db")) as plain:
        plain.execute(f"PRAGMA page_size = {page_size}")
        plain.execute(f"PRAGMA encoding = '{encoding}'")
        plain.execute(f"PRAGMA journal_mode = {mode}")
        plain.execute("CREATE TABLE t(v)")
        plain.executemany("INSERT INTO t VALUES(?)", [(f"{i}" * 100,) for i in range(500)])
        plain.commit()
    data = (tmp_path / "x.db").read_bytes()
    async with opened() as old:
        await old.execute("CREATE TABLE old AS SELECT zeroblob(200000)")
    await holdfast.import_database("a.db", data, storage="indexeddb")
    assert await holdfast.databases("indexeddb") == ["a.db"]
    async with opened() as db:
        assert await db.fetch_value("SELECT count(*) FROM t") == 500
        assert await db.fetch_value("PRAGMA page_size") == page_size
        await db.execute("INSERT INTO t VALUES('new')")
        exported = await db.export()
    with contextlib.closing(sqlite3.connect(":memory:")) as plain:
        plain.deserialize(exported)
        assert plain.execute("SELECT count(*) FROM t").fetchone() == (501,)
        assert plain.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert await holdfast.delete_database("a.db", storage="indexeddb")
    assert not await holdfast.delete_database("a.db", storage="indexeddb")
    assert await holdfast.databases("indexeddb") == []


async def test_an_import_is_there_whole_or_not_at_all(origin: Origin, a: Database) -> None:
    await a.execute("INSERT INTO t(v) VALUES('old')")
    async with holdfast.open("b.db", storage="indexeddb") as other:
        await other.execute("CREATE TABLE new AS SELECT zeroblob(9000)")
        data = await other.export()
    await a.close()
    before = origin.image("a.db")
    origin.full = True
    with pytest.raises(QuotaExceededError):
        await holdfast.import_database("a.db", data, storage="indexeddb")
    origin.full = False
    with pytest.raises(NotADatabaseError):
        await holdfast.import_database("a.db", data[:-5000], storage="indexeddb")
    with pytest.raises(NotADatabaseError, match="whole"):
        await holdfast.import_database("a.db", data[:-1000], storage="indexeddb")
    assert origin.image("a.db") == before
    with held_up(origin):
        importing = asyncio.ensure_future(
            holdfast.import_database("a.db", data, storage="indexeddb")
        )
        await origin.waiting.wait()
        importing.cancel()
        # Its transaction may yet complete, so nobody else may begin one.
        with pytest.raises(DatabaseBusyError):
            await holdfast.delete_database("a.db", storage="indexeddb")
        assert origin.image("a.db") == before and not importing.done()
    with pytest.raises(asyncio.CancelledError):
        await importing
    await holdfast.import_database("a.db", data, storage="indexeddb")
    assert durable(origin, "SELECT name FROM sqlite_master WHERE name IN ('new', 't')") == ["new"]


async def test_raw_sql_takes_part(origin: Origin, a: Database) -> None:
    async with a.write_transaction() as tx:
        tx.connection.execute("INSERT INTO t(v) VALUES('raw')")
        with pytest.raises(apsw.SQLError):
            tx.connection.execute("rubbish")
    assert durable(origin) == ["raw"]
