"""Schema changes beside managed triggers succeed as if there were none, and break no write."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import session_of
from patience import LONGER, PATIENCE

import holdfast
from holdfast import (
    Column,
    Database,
    DiffOperation,
    DiffRecord,
    InvalidWhenError,
    Schema,
    SourceDroppedError,
    Table,
)

from .conftest import IN_BROWSER, SCHEMA, STORAGES, Open, Recorder, leftovers

pytestmark = pytest.mark.everywhere


class Follower:
    """What `diffs` gives, and the error that it ends with."""

    def __init__(self, database: Database, source: str, **options: Any) -> None:
        self.records: list[DiffRecord] = []
        self.error: Exception | None = None
        self._changed = asyncio.Condition()
        self._diffs = database.triggers.diffs(source, throttle=0, **options)
        self.task = asyncio.get_running_loop().create_task(self._follow())

    async def _follow(self) -> None:
        try:
            async for batch in self._diffs:
                self.records += batch
                await self._notify()
        except Exception as error:
            self.error = error
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, condition: Callable[[], object]) -> None:
        async with self._changed, asyncio.timeout(PATIENCE):
            await self._changed.wait_for(lambda: condition() or self.error)
        if self.error is not None and not condition():
            raise self.error

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})

    async def ended(self) -> Exception:
        await asyncio.wait_for(self.task, PATIENCE)
        assert self.error is not None
        return self.error


@pytest.fixture(params=[*STORAGES, "two"] if IN_BROWSER else [*STORAGES, "two", "indexeddb, two"])
async def tabs(
    request: pytest.FixtureRequest, connect: Open
) -> AsyncIterator[tuple[Database, Database]]:
    """(An old tab, which tracks, and a new one, which migrates); one connection may be both."""
    if request.param == "two":
        yield await connect(), await connect()
        return
    name = request.getfixturevalue("database_name")
    storage, *two = request.param.split(", ")
    if storage == "indexeddb" and not IN_BROWSER:
        request.getfixturevalue("origin")
        name = "db.db"

    def another() -> holdfast.open:
        return holdfast.open(name, schema=SCHEMA, storage=storage, busy_timeout=LONGER)

    async with another() as database:
        if not two:
            yield database, database
            return
        async with another() as second:
            yield database, second


MADE = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)"


async def follow(database: Database, source: str = "t", **options: Any) -> Follower:
    """A follower whose trigger is there."""
    count = len(await every_trigger(database))
    follower = Follower(database, source, **options)
    async with asyncio.timeout(PATIENCE):
        while (  # noqa: ASYNC110
            len(await every_trigger(database)) == count and not follower.task.done()
        ):
            await asyncio.sleep(0)
    return follower


async def every_trigger(database: Database) -> list[Any]:
    rows = await database.fetch_all(
        "SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'holdfast%' UNION ALL "
        "SELECT sql FROM temp.sqlite_master WHERE type = 'trigger' AND name LIKE 'holdfast%'"
    )
    return [row[0] for row in rows]


OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "columns": {"columns": ["a"]},
    "only_changed": {"only_changed": True},
    "when": {"when": {"UPDATE": "NEW.a IS NOT OLD.a", "INSERT": "NEW.a > 0"}},
}


@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
@pytest.mark.parametrize("options", OPTIONS)
async def test_a_column_that_is_not_needed_may_go(
    tabs: tuple[Database, Database], options: str, persist: bool
) -> None:
    old, new = tabs
    await old.execute(MADE)
    await old.execute("INSERT INTO t VALUES (1, 1, 1)")
    follower = await follow(old, persist=persist, **OPTIONS[options])
    await new.execute("ALTER TABLE t DROP COLUMN b")
    # A temporary trigger fires for its own connection's writes.
    await old.execute("UPDATE t SET a = 2")
    await follower.until(lambda: follower.records)
    (record,) = follower.records
    assert record.values == ({"a": 2} if options == "columns" else {"id": 1, "a": 2})
    assert follower.error is None
    await follower.stop()


@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
@pytest.mark.parametrize("only_changed", [True, False])
async def test_an_added_column_is_recorded(
    tabs: tuple[Database, Database], only_changed: bool, persist: bool
) -> None:
    old, new = tabs
    await old.execute(MADE)
    await old.execute("INSERT INTO t VALUES (1, 1, 1)")
    follower = await follow(old, persist=persist, only_changed=only_changed)
    await new.execute("ALTER TABLE t ADD COLUMN c")
    await old.execute("UPDATE t SET c = 'new'")
    await follower.until(lambda: follower.records)
    assert follower.records[0].values == {"id": 1, "a": 1, "b": 1, "c": "new"}
    assert follower.records[0].changed == ("c",)
    await follower.stop()


@pytest.mark.parametrize(
    ("statements", "error", "says"),
    [
        (["ALTER TABLE t DROP COLUMN a"], SourceDroppedError, "no column 'a'"),
        (["ALTER TABLE t RENAME COLUMN a TO z"], SourceDroppedError, "no column 'a'"),
        (["ALTER TABLE t RENAME TO u"], SourceDroppedError, "no table or view 't'"),
        (["DROP TABLE t"], SourceDroppedError, "no table or view 't'"),
        (["DROP TABLE t", "CREATE VIEW t AS SELECT 1 AS a"], SourceDroppedError, "view"),
        (["DROP TABLE looked_at"], InvalidWhenError, "looked_at"),
        (["ALTER TABLE looked_at RENAME TO other"], InvalidWhenError, "looked_at"),
        (["ALTER TABLE looked_at DROP COLUMN x"], InvalidWhenError, "no such column: x"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
@pytest.mark.parametrize(
    ("persist", "at_once"),
    [(True, True), (True, False), (False, True)],
    ids=["persisted, one transaction", "persisted, several", "temporary"],
)
async def test_what_cannot_be_followed_ends_with_a_reason(
    tabs: tuple[Database, Database],
    recorder: Recorder,
    statements: list[str],
    error: type[Exception],
    says: str,
    persist: bool,
    at_once: bool,
) -> None:
    old, new = tabs
    await old.execute(MADE)
    await old.execute("CREATE TABLE looked_at(x, y)")
    await old.execute("INSERT INTO looked_at VALUES (1, 1)")
    when = dict.fromkeys(DiffOperation, "EXISTS (SELECT x FROM looked_at)")
    options: dict[str, Any] = {"columns": ["a"], "when": when, "persist": persist}
    tracker = await old.triggers.track_table_diff(
        "t", recorder, on_error=recorder.on_error, **options
    )
    follower = await follow(old, **options)
    other = await old.triggers.create_diff_trigger("t", "d", persist=persist)
    await old.execute("INSERT INTO t VALUES (1, 1, 1)")
    if at_once:
        async with new.write_transaction() as tx:
            for statement in statements:
                await tx.execute(statement)
    else:
        for statement in statements:
            await new.execute(statement)
    await recorder.until(lambda: recorder.errors)
    assert [type(one) for one in (recorder.errors[0], await follower.ended())] == [error] * 2
    assert says in str(recorder.errors[0]) and "holdfast_" not in str(recorder.errors[0])
    # What was recorded before is delivered before.
    assert recorder.seen == [("INSERT", "1")]
    assert [record.id for record in follower.records] == ["1"]
    # Nobody's write fails, and the others go on.
    tables = {row[0] for row in await new.fetch_all("SELECT name FROM pragma_table_list")}
    for database in {old, new}:
        if "t" in tables and "VIEW" not in str(statements):
            await database.execute("INSERT INTO t(b) VALUES (2)")
    if error is InvalidWhenError:
        assert await old.fetch_value("SELECT count(*) FROM d") >= 2
    await other.dispose()
    await tracker.stop()
    assert await leftovers(old) == []


async def test_a_table_may_be_made_anew_in_one_transaction(
    tabs: tuple[Database, Database],
) -> None:
    """The procedure of SQLite's documentation for what ALTER TABLE cannot do."""
    old, new = tabs
    await old.execute(MADE)
    await old.execute("INSERT INTO t VALUES (1, 1, 1), (2, 2, 2)")
    persist = True if old is not new else None
    follower = await follow(old, persist=persist, only_changed=True)
    async with new.write_transaction() as tx:
        await tx.execute("CREATE TABLE made(id INTEGER PRIMARY KEY, a INTEGER NOT NULL, c)")
        await tx.execute("INSERT INTO made SELECT id, a, b FROM t")
        await tx.execute("DROP TABLE t")
        await tx.execute("ALTER TABLE made RENAME TO t")
        await tx.execute("UPDATE t SET c = 3 WHERE id = 1")
    await follower.until(lambda: follower.records)
    (record,) = follower.records
    assert (record.operation, record.values) == ("UPDATE", {"id": 1, "a": 1, "c": 3})
    async with new.write_transaction() as tx:
        await tx.execute("ALTER TABLE t RENAME TO before")
        await tx.execute("CREATE TABLE t(id INTEGER PRIMARY KEY)")
        await tx.execute("INSERT INTO t SELECT id FROM before")
        await tx.execute("DROP TABLE before")
        await tx.execute("DELETE FROM t WHERE id = 1")
    await follower.until(lambda: len(follower.records) > 3)
    assert [record.operation for record in follower.records[1:]] == ["INSERT", "INSERT", "DELETE"]
    await follower.stop()


@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
async def test_a_statement_that_fails_changes_nothing(
    tabs: tuple[Database, Database], persist: bool
) -> None:
    old, new = tabs
    await old.execute(MADE)
    follower = await follow(old, persist=persist)
    await old.execute("CREATE VIEW v AS SELECT a FROM t")
    fires = persist or session_of(old).main is session_of(new).main
    for statement in ("ALTER TABLE t DROP COLUMN a", "ALTER TABLE t DROP COLUMN nothing"):
        with pytest.raises(apsw.SQLError) as alone:
            await new.execute(statement)
        async with new.write_transaction() as tx:
            await tx.execute("INSERT INTO t(a) VALUES (1)")
            with pytest.raises(apsw.SQLError) as inside_one:
                await tx.execute(statement)
            if fires:
                await tx.execute("INSERT INTO t(a) VALUES (2)")
        assert str(alone.value) == str(inside_one.value) and "holdfast_" not in str(alone.value)
    await old.execute("INSERT INTO t(a) VALUES (3)")
    expected = 5 if fires else 1
    await follower.until(lambda: len(follower.records) >= expected)
    assert len(follower.records) == expected
    await follower.stop()


async def test_a_rollback_brings_the_triggers_back(tabs: tuple[Database, Database]) -> None:
    old, new = tabs
    await old.execute(MADE)
    follower = await follow(old)
    for statement in ("ALTER TABLE t DROP COLUMN b", "DROP TABLE t"):
        with pytest.raises(ZeroDivisionError):
            async with new.write_transaction() as tx:
                await tx.execute(statement)
                raise ZeroDivisionError
    # The same version of the schema stands for another one now.
    async with new.write_transaction() as tx:
        await tx.execute("ALTER TABLE t ADD COLUMN c DEFAULT 7")
    await old.execute("INSERT INTO t(a) VALUES (1)")
    await follower.until(lambda: follower.records)
    assert follower.records[0].values == {"id": 1, "a": 1, "b": None, "c": 7}
    await follower.stop()


@pytest.mark.parametrize("how", ["execute_many", "fetch_all", "handler"])
async def test_wherever_a_migration_runs(db: Database, recorder: Recorder, how: str) -> None:
    await db.execute(MADE)
    follower = await follow(db, columns=["id"])
    statement = "ALTER TABLE t DROP COLUMN b"
    if how == "execute_many":
        await db.execute_many(statement, [()])
    elif how == "fetch_all":
        async with db.write_transaction() as tx:
            await tx.fetch_all(statement)
    else:

        async def migrate(ctx: holdfast.DiffContext) -> None:
            await ctx.transaction.execute(statement)
            await recorder(ctx)

        tracker = await db.triggers.track_table_diff("t", migrate, on_error=recorder.on_error)
        await db.execute("INSERT INTO t(id) VALUES (1)")
        await recorder.until_seen(1)
        await tracker.stop()
        assert recorder.errors == []
    await db.execute("INSERT INTO t(id) VALUES (2)")
    await follower.until(lambda: follower.records and follower.records[-1].id == "2")
    await follower.stop()


@pytest.mark.here
@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
async def test_on_the_raw_connection(db: Database, persist: bool) -> None:
    await db.execute(MADE)
    follower = await follow(db, persist=persist)
    async with db.write_transaction() as tx:
        raw = tx.connection
        raw.execute("ALTER TABLE t DROP COLUMN b")
        raw.execute("INSERT INTO t VALUES (1, 1)")
        with pytest.raises(apsw.SQLError):
            raw.execute("ALTER TABLE t DROP COLUMN nothing")
        raw.execute("SAVEPOINT s; ALTER TABLE t ADD COLUMN z; ROLLBACK TO s; RELEASE s")
        raw.execute("ALTER TABLE t ADD COLUMN c")
        raw.execute("INSERT INTO t VALUES (2, 2, 2)")
        assert raw.exec_trace is not None
    assert session_of(db).main.raw.exec_trace is None
    await db.execute("INSERT INTO t VALUES (3, 3, 3)")
    await follower.until(lambda: len(follower.records) == 3)
    assert [record.values for record in follower.records] == [
        {"id": 1, "a": 1},
        {"id": 2, "a": 2, "c": 2},
        {"id": 3, "a": 3, "c": 3},
    ]
    await follower.stop()


async def test_a_destination_that_goes_breaks_no_write(tabs: tuple[Database, Database]) -> None:
    old, new = tabs
    await old.execute(MADE)
    for destination in ("d", "e"):
        await old.triggers.create_diff_trigger("t", destination, persist=True)
    await new.execute("DROP TABLE d")
    await new.execute("ALTER TABLE e RENAME COLUMN value TO something")
    for database in {old, new}:
        await database.execute("INSERT INTO t(a) VALUES (1)")


@pytest.mark.here
@pytest.mark.parametrize("persist", [True, False], ids=["persisted", "temporary"])
async def test_another_program_migrates(connect: Open, file: Path, persist: bool) -> None:
    """It cannot be helped: what SQLite's own ALTER TABLE refuses. The rest is mended."""
    old, new = await connect(), await connect()
    await old.execute(MADE)
    await old.execute("CREATE TABLE looked_at(x)")
    when = {"UPDATE": "NOT EXISTS (SELECT 1 FROM looked_at)", "INSERT": "TRUE"}
    fragile = await follow(old, persist=persist, when=when)
    follower = await follow(old, persist=persist, only_changed=True)
    other = sqlite3.connect(file)
    other.execute("ALTER TABLE t ADD COLUMN c")
    other.execute("DROP TABLE looked_at")
    other.commit()
    other.close()
    await new.execute("INSERT INTO t(id, c) VALUES (1, 1)")
    await new.execute("UPDATE t SET c = 2")
    await old.execute("UPDATE t SET c = 3")
    await follower.until(
        lambda: follower.records and (follower.records[-1].values or {}).get("c") == 3
    )
    assert isinstance(await fragile.ended(), InvalidWhenError)
    await follower.stop()


@pytest.mark.here
async def test_a_tab_that_only_listens_mends_too(connect: Open, file: Path) -> None:
    """Nobody of holdfast's writes: the one that looks out finds it."""
    old = await connect()
    await old.execute(MADE)
    follower = await follow(old)
    other = sqlite3.connect(file)
    other.execute("ALTER TABLE t RENAME TO u")
    other.commit()
    other.close()
    assert isinstance(await follower.ended(), SourceDroppedError)
    assert await every_trigger(old) == []


async def test_one_look_is_enough_for_all(connect: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one connection found to be sound the others take from it."""
    a, b = await connect(), await connect()
    await a.execute(MADE)
    await a.triggers.create_diff_trigger("t", "d")
    await b.execute("CREATE TABLE other(x)")
    looked: list[int] = []
    mender = type(session_of(a).mender)
    are_sound = mender._are_sound

    def counted(self: Any, kept: Any) -> bool:
        looked.append(len(kept))
        return are_sound(self, kept)

    monkeypatch.setattr(mender, "_are_sound", counted)
    for database in (a, b, a):
        await database.execute("INSERT INTO t(a) VALUES (1)")
    assert not any(looked)
    await a.execute("CREATE TABLE another(x)")
    assert any(looked)


async def test_a_wider_schema_is_recorded(database_name: str) -> None:
    lists = Table("lists", [Column.text("name")])
    wider = Table("lists", [Column.text("name"), Column.integer("n")])
    async with holdfast.open(database_name, schema=Schema([lists]), busy_timeout=LONGER) as old:
        follower = await follow(old, "lists", persist=True, only_changed=True)
        extracted: list[dict[str, Any]] = []
        ready = asyncio.Event()

        async def extract(ctx: holdfast.DiffContext) -> None:
            extracted.extend(map(dict, await ctx.with_extracted_diff("SELECT * FROM DIFF")))
            ready.set()

        await old.triggers.track_table_diff("lists", extract, when={"UPDATE": "TRUE"})
        async with holdfast.open(database_name, schema=Schema([wider]), busy_timeout=LONGER) as new:
            await new.execute("INSERT INTO lists VALUES ('1', 'one', 1)")
            await new.execute("UPDATE lists SET n = 2")
            await follower.until(lambda: len(follower.records) == 2)
            assert follower.records[1].values == {"name": "one", "n": 2}
            await asyncio.wait_for(ready.wait(), PATIENCE)
            assert extracted[0]["n"] == 2
        await follower.stop()


OLDER = Schema([Table("lists", [Column.text("name")]), Table("gone", [Column.text("a")])])
NEWER = Schema(
    [Table("lists", [Column.text("name"), Column.integer("n")]), Table("new", [Column.text("a")])]
)


@pytest.mark.parametrize("storage", [storage for storage in STORAGES if storage != "memory"])
@pytest.mark.parametrize("first", ["older", "newer"])
async def test_versions_of_an_application_beside_each_other(
    request: pytest.FixtureRequest, database_name: str, storage: str, first: str
) -> None:
    """What both know works in both, whichever opens last, and trackers go on."""
    if storage == "indexeddb" and not IN_BROWSER:
        request.getfixturevalue("origin")
        database_name = "beside.db"

    async def another(schema: Schema) -> Database:
        return await holdfast.open(
            database_name, schema=schema, storage=storage, busy_timeout=LONGER
        )

    schemas = {"older": OLDER, "newer": NEWER}
    opened = {first: await another(schemas.pop(first))}
    ((second, schema),) = schemas.items()
    tracked = "gone" if first == "older" else "new"
    follower = await follow(opened[first], tracked)
    opened[second] = await another(schema)
    older, newer = opened["older"], opened["newer"]
    await newer.execute("INSERT INTO lists(id, name, n) VALUES ('1', 'one', 1)")
    await older.execute("UPDATE lists SET name = 'uno'")
    assert tuple(await newer.fetch_one("SELECT id, name, n FROM lists") or ()) == ("1", "uno", 1)
    await older.execute("INSERT INTO lists(id, name) VALUES ('2', 'two')")
    await newer.execute("UPDATE lists SET n = 2 WHERE id = '2'")
    assert await older.fetch_value("SELECT name FROM lists WHERE id = '2'") == "two"
    await older.execute("INSERT INTO gone(id) VALUES ('g')")
    await newer.execute("INSERT INTO new(id) VALUES ('n')")
    await follower.until(lambda: follower.records)
    await follower.stop()
    for database in (older, newer):
        await database.close()
    # Nobody uses the other's any more.
    alone = await another(NEWER)
    with pytest.raises(apsw.SQLError, match="no such table: gone"):
        await alone.fetch_all("SELECT * FROM gone")
    assert await alone.fetch_value("SELECT id FROM new") == "n"
    await alone.close()


@pytest.mark.parametrize("storage", [storage for storage in STORAGES if storage != "memory"])
async def test_a_version_that_stores_the_rows_elsewhere(
    request: pytest.FixtureRequest, database_name: str, storage: str
) -> None:
    """To trackers and queries of both versions the rows that move are the same as before."""
    if storage == "indexeddb" and not IN_BROWSER:
        request.getfixturevalue("origin")
        database_name = "elsewhere.db"

    def another(**kind: bool) -> holdfast.open:
        schema = Schema([Table("lists", [Column.text("name")], **kind)])
        return holdfast.open(database_name, schema=schema, storage=storage, busy_timeout=LONGER)

    async with another() as queued:
        await queued.execute("INSERT INTO lists(id, name) VALUES ('1', 'one')")
        follower = await follow(queued, "lists")
        async with another(local_only=True) as local, asyncio.timeout(PATIENCE):
            await local.execute("UPDATE lists SET name = 'uno'")
            await follower.until(lambda: follower.records)
            watched = aiter(queued.watch("SELECT name FROM lists ORDER BY id"))
            assert [row["name"] for row in await anext(watched)] == ["uno"]
            changes = aiter(queued.changes())
            listening = asyncio.ensure_future(anext(changes))
            await asyncio.sleep(0)
            await local.execute("INSERT INTO lists(id, name) VALUES ('2', 'due')")
            assert [row["name"] for row in await anext(watched)] == ["uno", "due"]
            assert "lists" in (await listening).tables
            await follower.until(lambda: len(follower.records) > 1)
            assert [(record.operation, record.id) for record in follower.records] == [
                ("UPDATE", "1"),
                ("INSERT", "2"),
            ]
            assert await queued.fetch_value("SELECT count(*) FROM ps_crud") == 1
            await watched.aclose()
            await changes.aclose()
        await follower.stop()


@pytest.mark.here
async def test_a_write_that_was_never_tried_meets_no_old_trigger(
    connect: Open, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement is compiled to see what it is, which a trigger of an older schema would break."""
    old, new = await connect(), await connect()
    await old.execute(MADE)
    # Nobody hears of anything.
    monkeypatch.setattr(type(session_of(new).storage), "announce", lambda *_: None)
    await old.triggers.create_diff_trigger("t", "d", columns=["b"], persist=False)
    await new.execute("ALTER TABLE t DROP COLUMN b")
    # Its connection knows the new schema from here on.
    await old.fetch_all("SELECT * FROM t")
    await old.execute("INSERT INTO t(id, a) VALUES (1, 1)")
    await new.execute("ALTER TABLE t ADD COLUMN b")
    await old.triggers.create_diff_trigger("t", "e", columns=["b"], persist=True)
    other = sqlite3.connect(file)
    other.execute("DROP TABLE e")
    other.commit()
    other.close()
    await new.fetch_all("SELECT * FROM t")
    assert (await new.execute_many("INSERT INTO t(a, b) VALUES (?, ?)", [(2, 2)])).changes == 1
    with pytest.raises(apsw.SQLError, match="no such column: nowhere"):
        await old.execute("UPDATE t SET nowhere = 1")


@pytest.mark.here
async def test_a_table_that_goes_on_the_raw_connection(db: Database) -> None:
    await db.execute(MADE)
    await db.execute("CREATE TABLE looked_at(x)")
    when = {"INSERT": "NOT EXISTS (SELECT 1 FROM looked_at)"}
    fragile = await follow(db, when=when)
    follower = await follow(db)
    async with db.write_transaction() as tx:
        tx.connection.execute("DROP TABLE looked_at")
        await tx.execute("INSERT INTO t(a) VALUES (1)")
        tx.connection.execute("INSERT INTO t(a) VALUES (2)")
    await follower.until(lambda: len(follower.records) == 2)
    assert isinstance(await fragile.ended(), InvalidWhenError)
    await follower.stop()
