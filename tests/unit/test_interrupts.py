"""A statement that runs when its caller gives up: it ends, and what it wrote is undone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from across import MemoryPort, pair
from patience import LONGER

from holdfast import Database, DatabaseClosedError
from holdfast.remote.client import Client
from holdfast.remote.server import Server
from holdfast.sqlite import interrupts

NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n"
# It ends by being interrupted, or never.
ENDLESS = f"{NUMBERS}) SELECT count(*) FROM n"
ENDLESS_ROWS = f"{NUMBERS}) SELECT i FROM n"
ENDLESS_WRITE = f"INSERT INTO t(v) {NUMBERS}) SELECT i FROM n"


class SharedFlags:
    """Flags of two ends in one thread: what happens while a statement runs happens at a look."""

    def __init__(self) -> None:
        self.raised: set[str] = set()
        self.idle: list[str] = []
        self.made = 0
        self.looks = 0
        self.at_look: Callable[[], object] = lambda: None

    def take(self) -> str | None:
        if self.idle:
            return self.idle.pop()
        self.made += 1
        return str(self.made)

    def give_back(self, flag: str) -> None:
        assert flag not in self.raised and flag not in self.idle
        self.idle.append(flag)

    def raise_(self, flag: str) -> None:
        self.raised.add(flag)

    def arrived(self, flag: str) -> None:
        assert flag not in self.raised

    def is_raised(self, flag: str) -> bool:
        self.looks += 1
        self.at_look()
        return flag in self.raised


@pytest.fixture
def flags() -> SharedFlags:
    return SharedFlags()


@pytest.fixture
async def db(flags: SharedFlags, tmp_path: Path) -> AsyncIterator[Database]:
    here, there = pair()
    server = Server(there, flags=flags)
    client = Client(here, flags)
    await client.greet()
    database = await client.open(str(tmp_path / "a.db"), busy_timeout=LONGER)
    await database.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
    yield database
    await database.close()
    client.close("it is over")
    await server.close("it is over")


async def cancelled(flags: SharedFlags, call: Coroutine[Any, Any, Any]) -> None:
    """The call, whose task is cancelled when the other end looks for its flag."""
    task = asyncio.ensure_future(call)
    flags.at_look = task.cancel
    with pytest.raises(asyncio.CancelledError):
        await task
    flags.at_look = lambda: None
    assert flags.raised


async def count(db: Database) -> int:
    found: int = await db.fetch_value("SELECT count(*) FROM t")
    return found


@pytest.mark.parametrize(
    "call",
    [
        lambda db: db.fetch_all(ENDLESS_ROWS),
        lambda db: db.fetch_value(ENDLESS),
        lambda db: db.execute(ENDLESS_WRITE),
        lambda db: db.execute_many(f"{ENDLESS_WRITE} WHERE i < ?", [(10,), (2**60,)]),
        lambda db: anext(db.watch(ENDLESS)),
    ],
    ids=["rows", "value", "write", "many", "watch"],
)
async def test_a_statement_that_would_never_end_is_interrupted(
    db: Database, flags: SharedFlags, call: Callable[[Database], Coroutine[Any, Any, Any]]
) -> None:
    await cancelled(flags, call(db))
    assert await count(db) == 0
    assert (await db.execute("INSERT INTO t(v) VALUES(1)")).changes == 1
    assert await count(db) == 1


async def test_what_ran_to_its_end_is_undone_if_it_is_not_committed_yet(
    db: Database, flags: SharedFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Long enough to be looked at, and over before its first look.
    monkeypatch.setattr(interrupts, "INTERVAL", float("inf"))
    numbers = f"{NUMBERS} WHERE i < 20000"
    await cancelled(flags, db.execute(f"INSERT INTO t(v) {numbers}) SELECT i FROM n"))
    assert flags.looks == 1
    assert await count(db) == 0


async def test_rows_that_take_long_to_be_sent_are_not_sent(
    db: Database, flags: SharedFlags, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(_port: MemoryPort, _rows: object, check: Callable[[], None]) -> None:
        while True:
            check()

    monkeypatch.setattr(MemoryPort, "rows", convert)
    await cancelled(flags, db.fetch_all("SELECT 1"))
    await cancelled(flags, anext(db.watch("SELECT 1")))


async def test_short_statements_cost_no_look(db: Database, flags: SharedFlags) -> None:
    for _ in range(3):
        await db.execute("INSERT INTO t(v) VALUES(1)")
        await db.fetch_all("SELECT * FROM t")
    assert flags.looks == 0
    assert flags.made == 1, "one after the other, they need one flag"


async def test_an_interrupted_read_leaves_its_transaction_open(
    db: Database, flags: SharedFlags
) -> None:
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES('kept')")
        await cancelled(flags, tx.fetch_value(ENDLESS))
    assert await count(db) == 1


async def test_an_interrupted_write_ends_its_transaction(db: Database, flags: SharedFlags) -> None:
    with pytest.raises(DatabaseClosedError, match="a write that was cancelled while it ran"):
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES('lost')")
            await cancelled(flags, tx.execute(ENDLESS_WRITE))
            await tx.execute("INSERT INTO t(v) VALUES('not alone, either')")
    assert await count(db) == 0


def test_what_a_call_has_started_is_not_interrupted_after_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flags = SharedFlags()
    call = interrupts.Call(lambda: flags.is_raised("1"))
    context = copy_context()
    context.run(call.enter)
    flags.raise_("1")
    monkeypatch.setattr(interrupts, "INTERVAL", 0)
    context.run(interrupts._progress)
    with pytest.raises(asyncio.CancelledError):
        context.run(interrupts._progress)
    call.end()
    context.run(interrupts._progress)


def test_a_commit_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite would report one as failed that is done."""
    flags = SharedFlags()
    call = interrupts.Call(lambda: flags.is_raised("1"))
    context = copy_context()
    context.run(call.enter)
    for _ in range(2):
        context.run(interrupts._progress)
    context.run(interrupts.before_commit)
    flags.raise_("1")
    monkeypatch.setattr(interrupts, "INTERVAL", 0)
    context.run(interrupts._progress)
    context.run(interrupts.before_commit)
