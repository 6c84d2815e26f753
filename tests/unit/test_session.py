"""What is set on a connection, and what it did, is answered alike whether it is busy or not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import Context
from pathlib import Path
from typing import Any

import pytest
from patience import LONGER, PATIENCE

import holdfast
from holdfast import Database
from holdfast.sqlite.settings import COPIED_PRAGMAS


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "a.db" if request.param == "indexeddb" else str(tmp_path / "a.db")
    async with holdfast.open(name, storage=request.param, busy_timeout=LONGER) as database:
        await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        yield database


def start(coroutine: Any) -> Any:
    """A task that is outside of the write transaction that it is started in."""
    return asyncio.get_running_loop().create_task(coroutine, context=Context())


async def beside(db: Database, sql: str) -> Any:
    """The answer that is asked for while a write transaction is open."""
    async with db.write_transaction():
        asking = start(db.fetch_value(sql))
        for _ in range(20):
            await asyncio.sleep(0)
    return await asyncio.wait_for(asking, PATIENCE)


@pytest.mark.parametrize(
    ("pragma", "value", "sql"),
    [
        ("case_sensitive_like", 1, "SELECT 'a' LIKE 'A'"),
        ("foreign_keys", 1, "PRAGMA foreign_keys"),
        ("foreign_keys", "ON", "SELECT foreign_keys FROM pragma_foreign_keys"),
        ("cache_size", -123, "PRAGMA cache_size"),
        ("reverse_unordered_selects", 1, "PRAGMA reverse_unordered_selects"),
        ("synchronous", "normal", "PRAGMA synchronous"),
    ],
)
async def test_settings_are_those_of_every_connection(
    db: Database, pragma: str, value: Any, sql: str
) -> None:
    before = await db.fetch_value(sql)
    assert await beside(db, sql) == before
    for _ in range(2):
        await db.execute(f"PRAGMA {pragma} = {value}")
        after = await db.fetch_value(sql)
        assert after != before and await beside(db, sql) == after
        back = before if pragma != "case_sensitive_like" else 0
        await db.execute(f"PRAGMA {pragma} = {back}")
        assert await db.fetch_value(sql) == before == await beside(db, sql)


async def test_every_setting_is_alike_from_the_start(db: Database) -> None:
    for name in sorted(COPIED_PRAGMAS | {"recursive_triggers", "temp_store", "data_version"}):
        ask = f"PRAGMA {name}"
        assert await db.fetch_value(ask) == await beside(db, ask), name


async def test_what_is_ignored_in_a_transaction_is_ignored_everywhere(db: Database) -> None:
    async with db.write_transaction() as tx:
        tx.connection.execute("PRAGMA foreign_keys = 1")
        tx.connection.execute("PRAGMA case_sensitive_like = 1")
    assert await db.fetch_value("PRAGMA foreign_keys") == 0
    assert await beside(db, "PRAGMA foreign_keys") == 0
    assert await beside(db, "SELECT 'a' LIKE 'A'") == 0


async def test_functions_and_collations_are_those_of_every_connection(db: Database) -> None:
    class Longest:
        def __init__(self) -> None:
            self.found = ""

        def step(self, value: str) -> None:
            self.found = max(self.found, value, key=len)

        def final(self) -> str:
            return self.found

    await db.execute("CREATE TABLE words(v)")
    await db.execute("INSERT INTO words VALUES ('ab'), ('ba')")
    asked = {
        "twice": "SELECT twice(21)",
        "longest": "SELECT longest(v) FROM (SELECT 'a' AS v UNION ALL SELECT 'bc')",
        "backwards": "SELECT max(v COLLATE backwards) FROM (SELECT v FROM words)",
    }
    # A reader that is there already learns of them as well.
    await beside(db, "SELECT 1")
    async with db.write_transaction() as tx:
        raw = tx.connection
        raw.create_scalar_function("twice", lambda x: 2 * x, 1)
        raw.create_aggregate_function("longest", Longest, numargs=1)
        raw.create_collation("backwards", lambda a, b: (a[::-1] > b[::-1]) - (a[::-1] < b[::-1]))
        tasks = {name: start(db.fetch_value(sql)) for name, sql in asked.items()}
        for _ in range(20):
            await asyncio.sleep(0)
    answers = {name: await asyncio.wait_for(task, PATIENCE) for name, task in tasks.items()}
    assert answers == {"twice": 42, "longest": "bc", "backwards": "ab"}
    for name, sql in asked.items():
        assert await db.fetch_value(sql) == await beside(db, sql) == answers[name]
    async with db.write_transaction() as tx:
        tx.connection.create_scalar_function("twice", lambda x: -x, 1)
    assert await beside(db, asked["twice"]) == -21
    # From a read transaction, too.
    async with db.read_transaction() as tx:
        tx.connection.create_scalar_function("thrice", lambda x: 3 * x)
        assert await tx.fetch_value("SELECT thrice(2)") == 6
    assert await db.fetch_value("SELECT thrice(2)") == 6 == await beside(db, "SELECT thrice(2)")
    await db.execute("INSERT INTO t(v) VALUES (thrice(3))")


async def test_what_the_connection_did_is_asked_where_it_was_done(db: Database) -> None:
    await db.execute_many("INSERT INTO t(v) VALUES (?)", [(1,), (2,), (3,)])
    await db.execute("UPDATE t SET v = 0")
    for sql in ("SELECT last_insert_rowid()", "SELECT changes()", "SELECT Total_Changes()"):
        quiet = await db.fetch_value(sql)
        assert quiet and await beside(db, sql) == quiet
    await db.execute("CREATE VIEW did AS SELECT last_insert_rowid() AS l, changes() AS c")
    await db.execute("INSERT INTO t(v) VALUES (4)")
    for sql in (
        "SELECT l FROM did",
        "SELECT c FROM did",
        "WITH q AS (SELECT total_changes() AS n) SELECT n FROM q",
        "SELECT n FROM (SELECT last_insert_rowid() AS n)",
    ):
        quiet = await db.fetch_value(sql)
        assert quiet and await beside(db, sql) == quiet, sql
    await db.execute("DELETE FROM t WHERE id = 4")
    for sql in ("SELECT query_only FROM pragma_query_only", "PRAGMA query_only"):
        assert await beside(db, sql) == 0
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES (4)")
        asking = start(db.fetch_value("SELECT last_insert_rowid()"))
    assert await asking == 4
    async with db.read_transaction() as tx:
        with pytest.raises(ValueError, match="call it on the database"):
            await tx.fetch_value("SELECT last_insert_rowid()")
        assert await tx.fetch_value("SELECT count(*) FROM t") == 4


@pytest.mark.parametrize("name", ["sqlite_temp_master", "temp.sqlite_master", "SQLite_Temp_Schema"])
async def test_the_temporary_schema_is_counted_inside(db: Database, name: str) -> None:
    await db.execute("CREATE TEMP TABLE own(a)")
    sql = f"SELECT count(*) FROM {name}"
    quiet = await db.fetch_value(sql)
    assert quiet and await beside(db, sql) == quiet


# What is set up; what changes the schema, once there is a reader; what that allows.
ALLOWED = {
    "values of a new column": (
        "CREATE TABLE u(a, b)",
        "ALTER TABLE u ADD COLUMN c",
        "INSERT INTO u VALUES(1, 2, 3)",
    ),
    "upsert by a new index": (
        "CREATE TABLE u(a)",
        "CREATE UNIQUE INDEX i ON u(a)",
        "INSERT INTO u(a) VALUES(1) ON CONFLICT(a) DO NOTHING",
    ),
    "drop a new column": (
        "CREATE TABLE u(a)",
        "ALTER TABLE u ADD COLUMN c",
        "ALTER TABLE u DROP COLUMN c",
    ),
    "rename a new column": (
        "CREATE TABLE u(a)",
        "ALTER TABLE u ADD COLUMN c",
        "ALTER TABLE u RENAME COLUMN c TO d",
    ),
    "a table anew": ("CREATE TABLE u(a)", "DROP TABLE u", "CREATE TABLE u(b)"),
    "an index anew": ("CREATE INDEX i ON t(v)", "DROP INDEX i", "CREATE INDEX i ON t(v)"),
    "a trigger anew": (
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 1; END",
        "DROP TRIGGER r",
        "CREATE TRIGGER r AFTER INSERT ON t BEGIN SELECT 2; END",
    ),
    "a freed name": (
        "CREATE TABLE u(a)",
        "ALTER TABLE u RENAME TO w",
        "ALTER TABLE t RENAME TO u",
    ),
    "a table for a view": (
        "CREATE VIEW u AS SELECT 1 AS a",
        "DROP VIEW u; CREATE TABLE u(a)",
        "INSERT INTO u VALUES(1)",
    ),
    "union with a new column": (
        "CREATE TABLE u(a)",
        "ALTER TABLE u ADD COLUMN c",
        "SELECT * FROM u UNION ALL SELECT 1, 2",
    ),
}


@pytest.mark.parametrize("busy", [True, False], ids=["busy", "quiet"])
@pytest.mark.parametrize("what", ALLOWED)
async def test_a_statement_is_judged_by_the_schema_of_today(
    db: Database, what: str, busy: bool
) -> None:
    before, change, sql = ALLOWED[what]
    await db.execute(before)
    async with db.read_transaction() as tx:
        await tx.fetch_all("SELECT * FROM t")
        await tx.fetch_all("SELECT * FROM sqlite_master")
    for each in change.split("; "):
        await db.execute(each)
    run = db.fetch_all if sql.startswith("SELECT") else db.execute
    if not busy:
        await run(sql)
        return
    async with db.write_transaction():
        running = start(run(sql))
        for _ in range(20):
            await asyncio.sleep(0)
    await asyncio.wait_for(running, PATIENCE)


async def test_a_statement_may_need_what_the_open_transaction_makes(db: Database) -> None:
    await beside(db, "SELECT 1")
    async with db.write_transaction() as tx:
        await tx.execute("CREATE TABLE u(a)")
        running = start(db.execute("INSERT INTO u VALUES(1)"))
        for _ in range(20):
            await asyncio.sleep(0)
    await asyncio.wait_for(running, PATIENCE)
    assert await db.fetch_value("SELECT a FROM u") == 1


@pytest.mark.parametrize("what", ALLOWED)
async def test_a_statement_is_judged_by_what_another_connection_did(
    tmp_path: Path, what: str
) -> None:
    before, change, sql = ALLOWED[what]
    async with (
        holdfast.open(str(tmp_path / "a.db"), busy_timeout=LONGER) as a,
        holdfast.open(str(tmp_path / "a.db"), busy_timeout=LONGER) as b,
    ):
        await a.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
        await a.execute(before)
        await b.fetch_all("SELECT * FROM t")
        for each in change.split("; "):
            await a.execute(each)
        await (b.fetch_all if sql.startswith("SELECT") else b.execute)(sql)
