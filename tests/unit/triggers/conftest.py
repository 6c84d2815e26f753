"""Databases for the tests of triggers, and a handler that remembers what it was given.

The tests run on CPython, and in a worker of each browser, on OPFS (tests/e2e/rows.spec.mjs); those
that take the fixture `file`, or `tmp_path`, have to do with ordinary files and run on CPython only.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from patience import LONGER, PATIENCE

import holdfast
from holdfast import Column, Database, DiffContext, Schema, Table

COLUMNS = [Column.text("name"), Column.integer("n"), Column.real("x")]
SCHEMA = Schema(
    [
        Table("lists", COLUMNS),
        Table("drafts", COLUMNS, local_only=True, view_name="my drafts"),
        Table("log", [Column.text("line")], insert_only=True),
    ]
)

Open = Callable[[], Awaitable[Database]]


class Recorder:
    """A handler: each call's records as (operation, id), and whether the context was reset."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, str]]] = []
        self.rows: list[dict[str, Any]] = []
        self.resets: list[bool] = []
        self.errors: list[Exception] = []
        # Raised by the next calls, in order.
        self.failures: list[BaseException] = []
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self._changed = asyncio.Condition()

    async def __call__(self, ctx: DiffContext) -> None:
        records = await ctx.with_diff("SELECT * FROM DIFF")
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.calls.append([(record["operation"], record["id"]) for record in records])
        self.rows += [dict(record) for record in records]
        self.resets.append(ctx.reset)
        async with self._changed:
            self._changed.notify_all()

    async def on_error(self, error: Exception) -> None:
        self.errors.append(error)
        async with self._changed:
            self._changed.notify_all()

    @property
    def seen(self) -> list[tuple[str, str]]:
        return [record for call in self.calls for record in call]

    async def until(self, condition: Callable[[], object]) -> None:
        async with self._changed, asyncio.timeout(PATIENCE):
            await self._changed.wait_for(condition)

    async def until_seen(self, count: int) -> list[tuple[str, str]]:
        await self.until(lambda: len(self.seen) >= count)
        return self.seen


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


IN_BROWSER = sys.platform == "emscripten"
STORAGES = ["file", "memory", "indexeddb"]
if IN_BROWSER:
    from holdfast.browser.page import is_shared_worker

    # That of the worker which this is.
    STORAGES = ["indexeddb" if is_shared_worker() else "opfs"]

_numbers = itertools.count(1)


@pytest.fixture
def database_name(request: pytest.FixtureRequest) -> str:
    """The name of a database that is not there yet."""
    if IN_BROWSER:
        return f"rows/{next(_numbers)}.db"
    folder: Path = request.getfixturevalue("tmp_path")
    return str(folder / "a.db")


@pytest.fixture
def file(database_name: str) -> Path:
    """That database as a file, for other programs."""
    return Path(database_name)


@pytest.fixture
async def connect(database_name: str) -> AsyncIterator[Open]:
    """Opens one more connection to the same database."""
    opened = []

    async def one_more() -> Database:
        opened.append(
            await holdfast.open(
                database_name, schema=SCHEMA, persist_triggers=True, busy_timeout=LONGER
            )
        )
        return opened[-1]

    yield one_more
    for database in opened:
        await database.close()


@pytest.fixture(params=STORAGES)
async def db(request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    if request.param == "indexeddb" and not IN_BROWSER:
        request.getfixturevalue("origin")
        name = "db.db"
    else:
        name = request.getfixturevalue("database_name")
    async with holdfast.open(
        name, schema=SCHEMA, storage=request.param, busy_timeout=LONGER
    ) as database:
        yield database


@pytest.fixture
async def a(connect: Open) -> Database:
    return await connect()


@pytest.fixture
async def b(a: Database, connect: Open) -> Database:
    return await connect()


async def leftovers(database: Database) -> list[str]:
    """What there is of triggers: in the schema, and in the registry."""
    rows = await database.fetch_all(
        "SELECT name FROM sqlite_master WHERE name LIKE '%diff%' OR name LIKE 'holdfast%' "
        "UNION ALL SELECT name FROM temp.sqlite_master "
        "WHERE name <> 'sqlite_sequence' AND name NOT LIKE '%ps_triggers%' "
        "UNION ALL SELECT key FROM ps_kv WHERE key LIKE 'holdfast:trigger:%'"
    )
    return [row[0] for row in rows]


async def eventually(check: Callable[[], Awaitable[object]]) -> None:
    """Until `check` gives something true; for what no event tells."""
    async with asyncio.timeout(PATIENCE):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
