"""A tab that makes, uses and disposes of triggers for as long as it lives.

It keeps the log and the effects of tests/unit/faults/consumers.py, which says what has to be true
whenever somebody looks, however many such tabs were killed.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any

import consumers
from consumers import BOUND, SETUP, destination_of, kind_of

import holdfast
from holdfast import Database, DiffContext, SourceDroppedError, Transaction
from holdfast.triggers import manager

_making: ContextVar[str] = ContextVar("consumer")


def _own_destination() -> str:
    return destination_of(_making.get())


manager._own_destination = _own_destination  # type: ignore[assignment]


async def open_database(name: str) -> Database:
    database = await holdfast.open(name, busy_timeout=60)
    async with database.write_transaction() as tx:
        for statement in SETUP:
            await tx.execute(statement)
    return database


async def examine(database: Database) -> list[str]:
    """Check everything; gives the destinations that there are."""
    async with database.read_transaction() as tx:

        async def fetch(sql: str) -> Sequence[Sequence[Any]]:
            return [tuple(row) for row in await tx.fetch_all(sql)]

        found = await consumers.snapshot(fetch)
    consumers.examine(found)
    return sorted(found.tables)


async def undelivered(database: Database, name: str) -> int:
    """How many changes a consumer should have handled, and did not yet."""
    log = await database.fetch_all("SELECT * FROM log ORDER BY seq")
    due = consumers.expected([consumers.Entry(*row) for row in log], name)
    done = await database.fetch_value("SELECT count(*) FROM effects WHERE consumer = ?", (name,))
    return len(due) - int(done)


class Mortal:
    """who: a number of its own; report(count) is called after each thing that it did."""

    def __init__(self, database: Database, who: int, report: Callable[[int], None]) -> None:
        self._database = database
        self._report = report
        self._choose = random.Random(who)
        self._numbers = itertools.count(who * 1000)
        self._ends: list[Any] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        for count in itertools.count():
            what = self._choose.random()
            if what < 0.5:
                await self._write()
            elif what < 0.8:
                await self.create(self._choose.choice(("tracked", "bounded", "diffs", "plain")))
            elif self._ends:
                end = self._ends.pop(self._choose.randrange(len(self._ends)))
                await end()
            self._report(count)

    async def _write(self) -> None:
        async with self._database.write_transaction() as tx:
            for _ in range(self._choose.choice((1, 2, 10))):
                await self._change(tx)

    async def _change(self, tx: Transaction) -> None:
        key, tag = self._choose.randrange(5), str(next(self._numbers))
        old = await tx.fetch_value("SELECT v FROM items WHERE k = ?", (key,))
        tags = [tag] if old is None else [f"-{old}", tag]
        await tx.execute("INSERT OR REPLACE INTO items(k, v) VALUES (?, ?)", (key, tag))
        for each in tags:
            await self._enter(tx, "change", each)

    async def _enter(self, tx: Transaction, what: str, tag: str) -> None:
        await tx.execute(
            "INSERT INTO log(what, source, tag, tx, writer) VALUES (?, 'items', ?, ?, ?)",
            (what, tag, tx.id, self._database._session.origin),
        )

    async def create(self, kind: str) -> str:
        """A consumer of that kind; gives its name."""
        name = f"{kind}{next(self._numbers)}"
        triggers = self._database.triggers

        async def before(tx: Transaction) -> None:
            await self._enter(tx, "born", name)

        async def handler(ctx: DiffContext) -> None:
            rows = await ctx.with_diff(f"SELECT {consumers.TAG} AS tag FROM DIFF")
            await self._note(ctx.transaction, name, int(ctx.reset), [row["tag"] for row in rows])

        _making.set(name)
        if kind == "plain":
            trigger = await triggers.create_diff_trigger(
                "items", destination_of(name), before_create=before
            )
            self._ends.append(trigger.dispose)
        elif kind == "diffs":
            task = asyncio.ensure_future(self._follow(name, before))
            self._tasks.add(task)

            async def end() -> None:
                task.cancel()
                await asyncio.wait({task})

            self._ends.append(end)
        else:
            tracker = await triggers.track_table_diff(
                "items",
                handler,
                before_create=before,
                throttle=0.005,
                max_backlog=BOUND if kind_of(name) == "bounded" else None,
                on_error=self._on_error,
            )
            self._ends.append(tracker.stop)
        return name

    async def _on_error(self, error: Exception) -> None:
        if isinstance(error, SourceDroppedError):
            # Of one that lives: somebody swept it.
            self._report(-1)

    async def _follow(self, name: str, before: Any) -> None:
        async with aclosing(
            self._database.triggers.diffs("items", before_create=before, throttle=0)
        ) as batches:
            async for batch in batches:
                tags = [
                    ("-" if one.operation == "DELETE" else "")
                    + str((one.values or one.previous or {})["v"])
                    for one in batch
                ]
                async with self._database.write_transaction() as tx:
                    await self._note(tx, name, 0, tags)

    async def _note(self, tx: Transaction, name: str, reset: int, tags: list[str]) -> None:
        call = next(self._numbers)
        await tx.execute_many(
            "INSERT INTO effects(consumer, call, reset, tag) VALUES (?, ?, ?, ?)",
            [(name, call, reset, tag) for tag in tags or [None]],
        )
