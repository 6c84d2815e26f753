"""What an application does with a database, for tests that close it meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from holdfast import Database, DestinationInUseError

USES: dict[str, Callable[[Database], Awaitable[Any]]] = {}


def use(function: Callable[[Database], Awaitable[Any]]) -> Callable[[Database], Awaitable[Any]]:
    USES[function.__name__] = function
    return function


@use
async def fetch(db: Database) -> None:
    await db.fetch_all("SELECT * FROM t")


@use
async def insert(db: Database) -> None:
    await db.execute("INSERT INTO t(v) VALUES(1)")


@use
async def read(db: Database) -> None:
    async with db.read_transaction() as tx:
        await tx.fetch_all("SELECT * FROM t")
        await asyncio.sleep(0)
        await tx.fetch_all("SELECT * FROM t")


@use
async def write(db: Database) -> None:
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(v) VALUES(1)")
        await asyncio.sleep(0)
        await tx.execute("INSERT INTO t(v) VALUES(1)")


@use
async def status(db: Database) -> None:
    await db.status()


@use
async def pragma(db: Database) -> None:
    await db.execute("PRAGMA cache_size = 100")


@use
async def export(db: Database) -> None:
    async for _ in db.export_chunks():
        pass


@use
async def sweep(db: Database) -> None:
    await db.triggers.sweep()


@use
async def track(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("t", "d"):
        pass


async def until_it_fails(db: Database, use: Callable[[Database], Awaitable[Any]]) -> BaseException:
    """Again and again; the error that it ended with."""
    while True:
        try:
            await use(db)
        except DestinationInUseError:
            await asyncio.sleep(0)
        except Exception as error:
            return error
        await asyncio.sleep(0)
