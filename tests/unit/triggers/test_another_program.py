"""Another program changes the schema: the next commit finds it, whatever failed in between."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import json
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from unittest import mock

import apsw
import pytest
from across import session_of
from patience import PATIENCE

from holdfast import Database, InvalidWhenError, SourceDroppedError
from holdfast.session import lookout
from holdfast.triggers.registry import READ, READ_TEMPORARY, read_records

from .conftest import Open, Recorder

pytestmark = pytest.mark.here

MADE = [
    "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)",
    "CREATE TABLE looked_at(x)",
    "CREATE TABLE other(x UNIQUE)",
    "INSERT INTO other VALUES (0)",
    "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
    "CREATE TABLE child(p REFERENCES parent(id) DEFERRABLE INITIALLY DEFERRED)",
]

# How a consumer ends, by its name; the others go on.
DROPPED, INVALID = SourceDroppedError, InvalidWhenError
ALL_DROPPED: dict[str, type[Exception]] = dict.fromkeys(
    ("tracker", "diffs", "columns", "when", "only_changed"), DROPPED
)
ANEW = "INSERT INTO t(b, c) VALUES ('new', 'new')"
# By another program; what is written to t then; who ends by it.
CHANGES: dict[str, tuple[list[str], str, dict[str, type[Exception]]]] = {
    "drop": (["DROP TABLE t"], "", ALL_DROPPED),
    "rename": (["ALTER TABLE t RENAME TO renamed"], "", ALL_DROPPED),
    "add": (["ALTER TABLE t ADD COLUMN c"], ANEW, {}),
    "what a condition reads": (
        ["ALTER TABLE t ADD COLUMN c", "DROP TABLE looked_at"],
        ANEW,
        {"when": INVALID},
    ),
    "made anew": (["DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY, b, c)"], ANEW, {}),
    "a column": (
        ["DROP TABLE t", "CREATE TABLE t(id INTEGER PRIMARY KEY, a, c)"],
        "INSERT INTO t(c) VALUES ('new')",
        {"columns": DROPPED},
    ),
    "a destination": (
        ["ALTER TABLE t ADD COLUMN c", "DROP TABLE IF EXISTS columns"],
        ANEW,
        {"columns": DROPPED},
    ),
}


class Undone(Exception):
    """What a test lets a transaction fail with."""


async def nothing(_db: Database) -> None:
    """No call in between."""


def failing(sql: str) -> Callable[[Database], Awaitable[None]]:
    async def call(db: Database) -> None:
        with contextlib.suppress(apsw.Error):
            await db.execute(sql)

    return call


async def query(db: Database) -> None:
    with contextlib.suppress(apsw.SQLError):
        await db.fetch_all("SELECT * FROM t")


async def raising(db: Database) -> None:
    with pytest.raises(Undone):
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO other VALUES ('undone')")
            raise Undone


async def cancelled(db: Database) -> None:
    entered = asyncio.Event()

    async def wait() -> None:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO other VALUES ('undone')")
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.get_running_loop().create_task(wait())
    await entered.wait()
    task.cancel()
    await asyncio.wait({task})
    assert task.cancelled()


async def ended_by_sqlite(db: Database) -> None:
    with pytest.raises(apsw.ConstraintError):
        async with db.write_transaction() as tx:
            await tx.execute("INSERT OR ROLLBACK INTO other VALUES (0)")


async def begun_anew(db: Database) -> None:
    # Where the lock to write is one that SQLite does not know of, it is this transaction's own.
    with contextlib.suppress(apsw.BusyError):
        async with db.write_transaction() as tx:
            raw = tx.connection
            raw.execute("ROLLBACK")
            raw.execute("BEGIN IMMEDIATE")


async def schema_undone(db: Database) -> None:
    with pytest.raises(Undone):
        async with db.write_transaction() as tx:
            await tx.execute("CREATE TABLE undone(x)")
            raise Undone


async def savepoint_undone(db: Database) -> None:
    with pytest.raises(Undone):
        async with db.write_transaction() as tx, tx.savepoint():
            await tx.execute("CREATE TABLE undone(x)")
            raise Undone


async def commit_fails(db: Database) -> None:
    with pytest.raises(apsw.ConstraintError):
        await db.execute("INSERT INTO child VALUES (1)")


CALLS: dict[str, Callable[[Database], Awaitable[None]]] = {
    "nothing": nothing,
    "a write that cannot be prepared": failing("INSERT INTO t(nowhere) VALUES (1)"),
    "a read that cannot be prepared": failing("SELECT nowhere FROM t"),
    "a query": query,
    "a constraint": failing("INSERT INTO other VALUES (0)"),
    "an exception": raising,
    "a cancellation": cancelled,
    "a rollback by SQLite": ended_by_sqlite,
    "a raw rollback": begun_anew,
    "a schema change undone": schema_undone,
    "a savepoint undone": savepoint_undone,
    "a commit that fails": commit_fails,
}


class Consumers:
    """One of each kind, and what they were told."""

    def __init__(self, db: Database, persist: bool) -> None:
        self.db = db
        self.persist = persist
        self.recorders = {"tracker": Recorder(), "diffs": Recorder()}
        self.diffs: asyncio.Task[None]

    async def start(self) -> None:
        triggers, persist = self.db.triggers, self.persist
        tracker = self.recorders["tracker"]
        await triggers.track_table_diff(
            "t", tracker, on_error=tracker.on_error, throttle=0, persist=persist
        )
        when = {"INSERT": "NOT EXISTS (SELECT 1 FROM looked_at)"}
        await triggers.create_diff_trigger("t", "columns", columns=["b"], persist=persist)
        await triggers.create_diff_trigger("t", "when", when=when, persist=persist)
        await triggers.create_diff_trigger("t", "only_changed", only_changed=True, persist=persist)
        self.diffs = asyncio.get_running_loop().create_task(self._follow())
        # It listens from its first record on.
        while not self.recorders["diffs"].rows:
            await self.db.execute("INSERT INTO t(a) VALUES (1)")
            await asyncio.sleep(0)
        await tracker.until_seen(1)

    async def _follow(self) -> None:
        recorder = self.recorders["diffs"]
        try:
            async for batch in self.db.triggers.diffs("t", throttle=0, persist=self.persist):
                recorder.rows += [{"value": record.values} for record in batch]
                async with recorder._changed:
                    recorder._changed.notify_all()
        except Exception as error:
            await recorder.on_error(error)

    async def told(self, expected: dict[str, type[Exception]]) -> None:
        for name in self.recorders.keys() & expected:
            recorder = self.recorders[name]
            await recorder.until(lambda recorder=recorder: recorder.errors)
            assert [type(error) for error in recorder.errors] == [expected[name]], name

    async def check_records(self, expected: dict[str, type[Exception]]) -> None:
        rows = await self.db.fetch_all(READ if self.persist else READ_TEMPORARY)
        for record in read_records(rows):
            # Those of consumers that ended go as these are told.
            if record.destination in ("columns", "when", "only_changed"):
                error = record.error()
                found = None if error is None else type(error)
                assert found is expected.get(record.destination), record

    async def recorded(self, expected: dict[str, type[Exception]]) -> None:
        """Each that goes on has recorded the column c, or what it asks for."""
        for name, recorder in self.recorders.items():
            await recorder.until(lambda recorder=recorder: has_c(recorder) or recorder.errors)
            assert not recorder.errors, name
        for name in {"columns", "when", "only_changed"} - expected.keys():
            column = "b" if name == "columns" else "c"
            rows = await self.db.fetch_all(f"SELECT value FROM '{name}'")
            assert any(json.loads(value)[column] == "new" for (value,) in rows[-1:]), name

    async def stop(self) -> None:
        self.diffs.cancel()
        await asyncio.wait({self.diffs})


def has_c(recorder: Recorder) -> bool:
    return any('"new"' in str(row["value"]).replace("'", '"') for row in recorder.rows)


@pytest.fixture
def unsought() -> Iterator[None]:
    """Nobody looks out for commits that were not announced: writes must find them."""

    async def look(session: object) -> bool:
        return False

    with mock.patch.object(lookout, "look", look):
        yield


def change(file: Path, statements: list[str]) -> None:
    other = sqlite3.connect(file)
    for sql in statements:
        other.execute(sql)
    other.commit()
    other.close()


@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
@pytest.mark.parametrize("writer", ["its own", "another"])
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("changed", CHANGES)
async def test_the_next_commit_finds_it(
    connect: Open, file: Path, unsought: None, changed: str, call: str, writer: str, persist: bool
) -> None:
    statements, insert, expected = CHANGES[changed]
    if changed == "a destination" and not persist:
        # It is in a schema that no other program has.
        expected = {}
    tab, other = await connect(), await connect()
    for sql in MADE:
        await tab.execute(sql)
    for each in (tab, other):
        await each.execute("PRAGMA foreign_keys = ON")
        # Known to both, so that nothing has to be prepared anew.
        await each.execute("INSERT INTO other VALUES (NULL)")
    consumers = Consumers(tab, persist)
    await consumers.start()
    change(file, statements)
    for each in (tab, other):
        await CALLS[call](each)
    await (tab if writer == "its own" else other).execute("INSERT INTO other VALUES (NULL)")
    await consumers.told(expected)
    if insert:
        for each in (other, tab):
            await each.execute(insert)
        await consumers.recorded(expected)
    await consumers.check_records(expected)
    await consumers.stop()


async def test_a_statement_is_what_the_new_schema_makes_of_it(
    connect: Open, file: Path, unsought: None
) -> None:
    """SQLite's update hook tells nothing of a table WITHOUT ROWID, which therefore is asked for."""
    db = await connect()
    await db.execute("CREATE TABLE t(a PRIMARY KEY)")
    await db.execute("CREATE TABLE other(x)")
    await db.execute("INSERT INTO t VALUES (?)", ("before",))
    changes = db.changes(["t"])
    waiting = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    change(file, ["DROP TABLE t", "CREATE TABLE t(a PRIMARY KEY) WITHOUT ROWID"])
    await db.execute("INSERT INTO t VALUES (?)", ("after",))
    told = await asyncio.wait_for(waiting, PATIENCE)
    assert told == ({"t"}, False)
    await changes.aclose()


async def test_what_is_watched_is_read_anew_beside_a_writer(connect: Open) -> None:
    """A view that reads another table now: the readers are told of it as well."""
    db = await connect()
    await db.execute("CREATE TABLE one(x)")
    await db.execute("CREATE TABLE two(x)")
    await db.execute("CREATE VIEW v AS SELECT x FROM one")
    async with db.write_transaction():
        # Its turn is taken, so a reader answers.
        task = asyncio.get_running_loop().create_task(reads(db), context=contextvars.Context())
        assert "one" in await task
    async with db.write_transaction() as tx:
        await tx.execute("DROP VIEW v")
        await tx.execute("CREATE VIEW v AS SELECT x FROM two")
    async with db.write_transaction():
        task = asyncio.get_running_loop().create_task(reads(db), context=contextvars.Context())
        assert "two" in await task


async def reads(db: Database) -> frozenset[str]:
    return (await session_of(db).statement("SELECT * FROM v")).reads
