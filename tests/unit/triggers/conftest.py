"""Databases for the tests of triggers, and a handler that remembers what it was given."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

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
        async with self._changed, asyncio.timeout(5):
            await self._changed.wait_for(condition)

    async def until_seen(self, count: int) -> list[tuple[str, str]]:
        await self.until(lambda: len(self.seen) >= count)
        return self.seen


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def open_file(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens one more connection to the same file."""
    opened = []

    async def one_more() -> Database:
        opened.append(await holdfast.open(str(tmp_path / "a.db"), schema=SCHEMA))
        return opened[-1]

    yield one_more
    for database in opened:
        await database.close()


@pytest.fixture(params=["file", "memory", "indexeddb"])
async def db(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "indexeddb":
        request.getfixturevalue("origin")
    name = "db.db" if request.param == "indexeddb" else str(tmp_path / "db.db")
    async with holdfast.open(name, schema=SCHEMA, storage=request.param) as database:
        yield database


@pytest.fixture
async def a(open_file: Open) -> Database:
    return await open_file()


@pytest.fixture
async def b(a: Database, open_file: Open) -> Database:
    return await open_file()


async def leftovers(database: Database) -> list[str]:
    """What there is of triggers: in the schema, and in the registry."""
    rows = await database.fetch_all(
        "SELECT name FROM sqlite_master WHERE name LIKE '%diff%' OR name LIKE 'holdfast%' "
        "UNION ALL SELECT name FROM temp.sqlite_master WHERE name <> 'sqlite_sequence' "
        "UNION ALL SELECT key FROM ps_kv WHERE key LIKE 'holdfast:trigger:%'"
    )
    return [row[0] for row in rows]


async def eventually(check: Callable[[], Awaitable[object]]) -> None:
    """Until `check` gives something true; for what no event tells."""
    async with asyncio.timeout(5):
        while not await check():  # noqa: ASYNC110
            await asyncio.sleep(0.005)
