"""Migrations beside a survivor that tracks their source, and what must hold after each of them.

Whether a migration ran to its end or its tab died on the way:

    old or new        the schema is what it was, or what the whole migration makes of it
    no write fails    of the survivor, or of a program that is not holdfast
    exactly once      each consumer gets each record once, in order, or ends with a reason; those
                      that end are those that the whole migration ends
    nothing stays     after a sweep each managed trigger belongs to a living consumer
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import apsw
from patience import PATIENCE

import holdfast
from holdfast import (
    Column,
    Database,
    DiffContext,
    DiffRecord,
    InvalidWhenError,
    Schema,
    SourceDroppedError,
    Table,
    Transaction,
)
from holdfast.triggers.registry import READ, read_all, read_records

OLD = Schema([Table("lists", [Column.text("a"), Column.text("b")])])
NEW = Schema([Table("lists", [Column.text("a"), Column.integer("c")])])
TABLES = (
    "CREATE TABLE t(id TEXT PRIMARY KEY, a, b)",
    "CREATE TABLE looked_at(id TEXT PRIMARY KEY, x)",
    "INSERT INTO looked_at(id) VALUES ('1')",
)

# In one transaction each.
STATEMENTS = {
    "add": ["ALTER TABLE t ADD COLUMN c DEFAULT 'c'"],
    "drop": ["ALTER TABLE t DROP COLUMN b"],
    "drop what is recorded": ["ALTER TABLE t DROP COLUMN a"],
    "rename a column": ["ALTER TABLE t RENAME COLUMN a TO z"],
    "rename": ["ALTER TABLE t RENAME TO u"],
    "drop what a condition reads": ["DROP TABLE looked_at"],
    "make anew": [
        "CREATE TABLE made(id TEXT PRIMARY KEY, a TEXT, c)",
        "INSERT INTO made SELECT id, a, b FROM t",
        "DROP TABLE t",
        "ALTER TABLE made RENAME TO t",
    ],
    "drop and make": ["DROP TABLE t", "CREATE TABLE t(id TEXT PRIMARY KEY, a, c)"],
}
SCHEMA = "a newer schema"
# Its triggers go with the table, and come back when that is noticed.
ANEW = "another program makes anew"
# What SQLite lets a program do that knows of no managed triggers.
FOREIGN = {
    "another program adds": ["ALTER TABLE t ADD COLUMN c DEFAULT 'c'"],
    "another program drops what a condition reads": ["DROP TABLE looked_at"],
    ANEW: STATEMENTS["drop and make"],
}
MIGRATIONS = (*STATEMENTS, SCHEMA, *FOREIGN)

WHEN = {
    "INSERT": "NEW.a <> 'none' AND EXISTS (SELECT 1 FROM looked_at)",
    "UPDATE": "NEW.a IS NOT OLD.a",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "all": {},
    "columns": {"columns": ["a"]},
    "only_changed": {"only_changed": True},
    "when": {"when": WHEN},
    "temporary": {"persist": False},
}

# What the tab that may die writes in its transaction, before all else.
MIGRATED = ("INSERT", "migrated")

Open = Callable[[Schema], Awaitable[Database]]
Write = Callable[[str], None]


def source_of(migration: str) -> str:
    return "lists" if migration == SCHEMA else "t"


@dataclass
class Outcome:
    """What a migration left."""

    new: bool
    schema: list[tuple[Any, ...]]
    ended: dict[str, type[Exception]] = field(default_factory=dict)


class Consumer:
    """Remembers what it was given, and what it ended with."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[tuple[str, str]] = []
        self.errors: list[Exception] = []
        self.stop: Callable[[], Awaitable[None]]

    async def handle(self, ctx: DiffContext) -> None:
        rows = await ctx.with_diff("SELECT operation, id FROM DIFF")
        self.seen += [(row["operation"], row["id"]) for row in rows]

    async def fail(self, error: Exception) -> None:
        self.errors.append(error)

    async def follow(self, diffs: Any) -> None:
        batch: list[DiffRecord]
        try:
            async for batch in diffs:
                self.seen += [(str(record.operation), str(record.id)) for record in batch]
        except (SourceDroppedError, InvalidWhenError) as error:
            self.errors.append(error)


class Survivor:
    """A connection that tracks the source of a migration in every way."""

    def __init__(self, database: Database, migration: str) -> None:
        self.database, self.migration = database, migration
        self.source = source_of(migration)
        self.consumers: list[Consumer] = []
        self._numbers = itertools.count(1)
        self._written: list[tuple[str, str]] = []

    @classmethod
    async def beside(cls, database: Database, migration: str) -> Survivor:
        made = cls(database, migration)
        async with database.write_transaction() as tx:
            for statement in TABLES:
                await tx.execute(statement)
        for name, options in OPTIONS.items():
            await made._track(name, options)
        await made._follow()
        made.before = await made.schema()
        await made.write()
        await made.settle()
        return made

    async def _track(self, name: str, options: dict[str, Any]) -> None:
        consumer = Consumer(name)
        tracker = await self.database.triggers.track_table_diff(
            self.source, consumer.handle, on_error=consumer.fail, throttle=0, **options
        )
        consumer.stop = tracker.stop
        self.consumers.append(consumer)

    async def _follow(self) -> None:
        consumer, made = Consumer("diffs"), asyncio.Event()

        async def before(tx: Any) -> None:
            tx.on_commit(made.set)

        diffs = self.database.triggers.diffs(self.source, before_create=before, throttle=0)
        task = asyncio.ensure_future(consumer.follow(diffs))
        await made.wait()

        async def stop() -> None:
            task.cancel()
            await asyncio.wait({task})

        consumer.stop = stop
        self.consumers.append(consumer)

    async def schema(self) -> list[tuple[Any, ...]]:
        """As the application knows it."""
        rows = await self.database.fetch_all(
            "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'holdfast%' "
            "AND name NOT LIKE 'ps%diff%' AND name NOT LIKE 'sqlite%' "
            "AND name <> 'left_behind' ORDER BY 1, 2"
        )
        return [tuple(row) for row in rows]

    async def write(self) -> None:
        """To every table; what consumers of the source get of it is expected."""
        for table in ("t", "u", "looked_at", "lists"):
            rows = await self.database.fetch_all("SELECT name FROM pragma_table_info(?)", (table,))
            columns = {row[0] for row in rows}
            if not columns:
                continue
            key = f"{table}{next(self._numbers)}"
            names = [name for name in ("id", "a", "b") if name in columns]
            values = ", ".join("?" * len(names))
            await self.database.execute(
                f"INSERT INTO {table}({', '.join(names)}) VALUES ({values})",
                (key, "one", "one")[: len(names)],
            )
            done = [("INSERT", key)]
            if "a" in columns:
                await self.database.execute(f"UPDATE {table} SET a = 'two' WHERE id = ?", (key,))
                done.append(("UPDATE", key))
            if table == self.source:
                self._written += done

    async def settle(self) -> None:
        """Until every consumer has all that is due to it, or has ended."""
        for consumer in self.consumers:
            due = set(self._due(consumer))
            async with asyncio.timeout(PATIENCE):
                while not (consumer.errors or due <= set(consumer.seen)):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    async def _until_told(self) -> None:
        """Until as many consumers go on as there are records of triggers that do."""
        for temporary in (False, True):
            mine = [one for one in self.consumers if (one.name == "temporary") is temporary]
            if temporary:
                records = read_all(self.database._session.main, temporary=True)
            else:
                records = read_records(await self.database.fetch_all(READ))
            going_on = sum(
                record.ended is None and record.destination != "left_behind" for record in records
            )
            async with asyncio.timeout(PATIENCE):
                while sum(not one.errors for one in mine) > going_on:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def _due(self, consumer: Consumer) -> list[tuple[str, str]]:
        # A temporary trigger fires for writes of its own connection.
        return [one for one in self._written if consumer.name != "temporary" or one != MIGRATED]

    async def outcome(self, write_elsewhere: Write | None = None) -> Outcome:
        """What the migration left, after it was found to be sound."""
        database, migration = self.database, self.migration
        schema = await self.schema()
        new = schema != self.before
        if new and migration in STATEMENTS:
            self._written.append(MIGRATED)
        so_far = len(self._written)
        if migration != ANEW:
            await self._check_triggers(database)
        if write_elsewhere is not None and migration not in FOREIGN:
            for _, table, _ in schema:
                if table in ("t", "u", "looked_at", "lists"):
                    write_elsewhere(f"INSERT INTO {table}(id) VALUES ('elsewhere')")
        await self.write()
        found = await database.fetch_all("PRAGMA integrity_check")
        assert [tuple(row) for row in found] == [("ok",)]
        await self.settle()
        await self._until_told()
        outcome = Outcome(new, schema)
        for consumer in self.consumers:
            due = self._due(consumer)
            if consumer.errors:
                (error,) = consumer.errors
                assert isinstance(error, SourceDroppedError | InvalidWhenError), error
                outcome.ended[consumer.name] = type(error)
                # What was recorded before comes before.
                due = [one for one in due if one in self._written[:so_far]]
            seen = [one for one in consumer.seen if one[1] != "elsewhere"]
            assert seen == due, (consumer.name, seen, due, consumer.errors)
        return outcome

    async def check_swept(self, another: Database) -> None:
        """`another` was opened, which sweeps: there is what the living have, and no more."""
        living = [one for one in self.consumers if not one.errors and one.name != "temporary"]
        tracked = await another.triggers.tracked()
        assert all(one.held for one in tracked), tracked
        assert await self._check_triggers(another) == len(living)

    async def _check_triggers(self, database: Database) -> int:
        """Those that live have their triggers, and there are no others; how many live."""
        async with database.read_transaction() as tx:
            records = [one for one in read_records(await tx.fetch_all(READ)) if one.ended is None]
            assert set(await _managed(tx)) == {name for one in records for name in one.triggers}
        return len(records)

    async def leave(self) -> None:
        for consumer in self.consumers:
            await consumer.stop()
        assert await _managed(self.database) == []
        assert read_records(await self.database.fetch_all(READ)) == []
        await self.database.close()


async def _managed(database: Database | Transaction) -> list[str]:
    rows = await database.fetch_all(
        "SELECT name FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'holdfast%'"
    )
    return [row[0] for row in rows]


async def migrate(open_one: Open, migration: str, ready: Callable[[], None]) -> None:
    """All that the tab does that may die, from `ready` on."""
    if migration == SCHEMA or migration in FOREIGN:
        ready()
    database = await open_one(NEW if migration == SCHEMA else Schema.undeclared())
    if migration in FOREIGN:
        # Its open has found the change; a write that follows finds nothing more to do.
        await database.execute("INSERT INTO looked_for VALUES (1)")
    if migration in STATEMENTS:
        # Of a tab that leaves triggers behind.
        await database.triggers.create_diff_trigger("t", "left_behind", persist=True)
        ready()
        async with database.write_transaction() as tx:
            await tx.execute("INSERT INTO t(id, a) VALUES ('migrated', 'one')")
            for statement in STATEMENTS[migration]:
                await tx.execute(statement)
    await database.close()


async def migrate_unnoticed(database: Database, statements: list[str]) -> None:
    """As a program does that knows of no managed triggers."""
    async with database.write_transaction() as tx:
        tx.run_sql("CREATE TABLE looked_for(x)")
        for statement in statements:
            tx.run_sql(statement)


def opener(**options: Any) -> Open:
    async def open_one(schema: Schema) -> Database:
        return await holdfast.open(**options, schema=schema)

    return open_one


def nurse() -> None:
    """For each line, fork a process that migrates, and say whether it died and its statements.

    Forked before anything is open, it has nothing of this one's but what is loaded.
    """
    for line in sys.stdin:
        file, migration, die_at = json.loads(line)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            failed = True
            try:
                os.close(reading)
                _migrate_and_die(file, migration, die_at, writing)
                failed = False
            except Exception:
                traceback.print_exc()
            finally:
                os._exit(int(failed))
        os.close(writing)
        with open(reading, "rb") as counted:
            steps = len(counted.read())
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if ended not in (0, -signal.SIGKILL):
            raise RuntimeError(f"a process that migrates ended with {ended}")
        print(json.dumps([ended != 0, steps]), flush=True)


def _migrate_and_die(file: str, migration: str, die_at: int, counted: int) -> None:
    steps = itertools.count()
    begun: list[bool] = []

    def step(_: object) -> None:
        if begun:
            if next(steps) >= die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            os.write(counted, b".")

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, step, id="deaths")

    apsw.connection_hooks.append(watch)
    asyncio.run(migrate(opener(name=file, storage="file"), migration, lambda: begun.append(True)))
