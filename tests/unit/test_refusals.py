"""A refusal of the browser at every call of the host interface: told, and nothing else comes of it.

Told: whoever called gets an error of this package, of the right kind, or notices nothing because it
was not needed. Nothing else: what was acknowledged is there and nothing more is, the next try
succeeds, and in the end no lock, handle or channel is left.
"""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable
from typing import Any
from unittest import mock

import pytest
from faults.browser import CLOSED, Browser
from faults.disk import FULL, Disk
from faults.schedule import simulated_package
from faults.scheduler import current
from simulated_indexeddb import Origin, worker
from simulated_javascript import JsException, Refusals, refusing
from simulated_opfs import Library

import holdfast
from holdfast import (
    Database,
    DatabaseBusyError,
    DiffContext,
    HoldfastError,
    QuotaExceededError,
    StorageUnavailableError,
)

# What a refusal of that name is to whoever called.
KINDS: dict[str, tuple[type[Exception], ...]] = {
    "SecurityError": (StorageUnavailableError,),
    "QuotaExceededError": (QuotaExceededError,),
    "UnknownError": (StorageUnavailableError,),
    "InvalidStateError": (StorageUnavailableError,),
    "RangeError": (MemoryError,),
    "NotFoundError": (StorageUnavailableError,),
    "AbortError": (StorageUnavailableError,),
    "NoModificationAllowedError": (DatabaseBusyError,),
    "NotAllowedError": (StorageUnavailableError,),
    "TypeMismatchError": (StorageUnavailableError,),
    # About the name where files are asked for by name.
    "TypeError": (StorageUnavailableError, ValueError),
}


class Workload:
    """All that an application does, step by step; a step that fails is done once more."""

    def __init__(self, storage: str, folder: str, refusals: Refusals) -> None:
        self.storage = storage
        self.refusals = refusals
        self.name, self.other = f"{folder}a.db", f"{folder}b.db"
        self.folder = folder
        self.told: list[int] = []
        self.tried = 0
        self.data = b""
        self.failed: list[tuple[str, Exception]] = []
        self.db: Database
        self.tracker: Any

    async def run(self) -> None:
        for step in self.STEPS:
            try:
                await step(self)
            except Exception as error:
                self.failed.append((step.__name__, error))
                self.refusals.end()
                await step(self)

    async def open(self) -> None:
        self.db = await holdfast.open(self.name, storage=self.storage, busy_timeout=5)

    async def create(self) -> None:
        await self.db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, pad)")

    async def write(self) -> None:
        self.tried += 1
        id = self.tried
        await self.db.execute("INSERT INTO t VALUES(?, zeroblob(5000))", (id,))
        self.told.append(id)

    async def write_many(self) -> None:
        ids = [self.tried + 1, self.tried + 2]
        self.tried += 2
        async with self.db.write_transaction() as tx:
            for id in ids:
                await tx.execute("INSERT INTO t VALUES(?, zeroblob(5000))", (id,))
        self.told += ids

    async def read(self) -> None:
        rows = await self.db.fetch_all("SELECT id FROM t ORDER BY id")
        assert [row[0] for row in rows] == self.told
        assert await self.db.fetch_value("PRAGMA integrity_check") == "ok"

    async def track(self) -> None:
        self.tracker = await self.db.triggers.track_table_diff("t", self.ignore)

    @staticmethod
    async def ignore(ctx: DiffContext) -> None:
        await ctx.with_diff("SELECT * FROM DIFF")

    async def stop(self) -> None:
        await self.tracker.stop()

    async def vacuum(self) -> None:
        await self.db.execute("VACUUM")

    async def idle(self) -> None:
        # It looks for its files, and for what others did.
        await asyncio.sleep(3)

    async def hide(self) -> None:
        self.db.rest()

    async def status(self) -> None:
        assert (await self.db.status()).storage == self.storage

    async def sweep(self) -> None:
        assert await self.db.triggers.sweep() == []

    async def export(self) -> None:
        self.data = await self.db.export()

    async def import_it(self) -> None:
        await holdfast.import_database(self.other, self.data, storage=self.storage)

    async def list_them(self) -> None:
        names = await holdfast.databases(self.storage)
        assert names == ["a.db", "b.db"], names

    async def read_the_other(self) -> None:
        async with holdfast.open(self.other, storage=self.storage) as other:
            assert await other.fetch_value("SELECT count(*) FROM t") == len(self.told)

    async def delete(self) -> None:
        again = self.failed and self.failed[-1][0] == "delete"
        assert await holdfast.delete_database(self.other, storage=self.storage) or again
        assert await holdfast.databases(self.storage) == ["a.db"]

    async def close(self) -> None:
        await self.db.close()

    STEPS: tuple[Callable[[Workload], Awaitable[None]], ...] = (
        *(open, create, write, track, write, write_many, read, sweep, status, vacuum),
        *(idle, write, hide, idle, stop),
        *(export, import_it, list_them, read_the_other, delete, write, close),
        *(open, read, close),
    )


def check(refusals: Refusals, work: Workload) -> None:
    """Whoever called was told, in this package's words."""
    kinds = KINDS[refusals.error.name]
    for step, error in work.failed:
        assert isinstance(error, kinds), f"{step}: {error!r}"
        if not isinstance(error, MemoryError | ValueError):
            assert isinstance(error, HoldfastError)
        if not isinstance(refusals, FullDisk):
            assert refusals.error.name in str(error) or error.__cause__ is not None, repr(error)
        if step == "export" and isinstance(error, MemoryError):
            assert "export_chunks" in str(error)
    assert len(work.failed) <= 1


class FullDisk(Refusals):
    """There is no space for the write of that number, nor for any after it, until `end`."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__(number, JsException("QuotaExceededError"), lasts=True)

    def fault(self, what: str, name: str, n: int) -> int | None:
        return FULL if what == "write" and self.strikes(name) else None


def on_opfs(library: Library, refusals: Refusals, *, shared: bool) -> Workload:
    disk = Disk()
    asked = refusals
    if isinstance(refusals, FullDisk):
        disk.fault, asked = refusals.fault, Refusals()
    browser = Browser(library, disk, random.Random(1), shared=shared)
    tab = browser.tab()
    work = Workload("opfs", f"{tab.name}/", refusals)
    refusals.concerns = lambda: current.get() is tab
    witness = browser.tab()

    async def see() -> None:
        async with holdfast.open(f"{witness.name}/a.db", storage="opfs", busy_timeout=5) as db:
            await tab.run(work.run())
            assert [row[0] for row in await db.fetch_all("SELECT id FROM t")] == work.told
            await db.execute("INSERT INTO t VALUES(1000, 1)")

    async def main() -> None:
        await witness.run(see())
        # What is given back when the loop turns, and what others would find.
        await asyncio.sleep(1)
        assert not any(browser.locks.held.values()), browser.locks.held
        assert not any(browser.locks.waiting.values())
        assert not any(browser.channels.values())
        assert not browser.handles, browser.handles
        assert all(library.host[number] is CLOSED for number in tab.files | witness.files)

    with (
        simulated_package(browser),
        refusing(asked),
        mock.patch("holdfast.local.files.choose_kind", return_value="opfs"),
        mock.patch("holdfast.storage.choose_kind", return_value="opfs"),
    ):
        browser.loop.run(main())
    # Of an error that nobody asked for it is told when it is collected.
    gc.collect()
    assert not browser.loop.errors, browser.loop.errors
    return work


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_at_every_call_on_opfs(library: Library, thorough: bool, shared: bool) -> None:
    async def run(refusals: Refusals) -> Workload:
        return on_opfs(library, refusals, shared=shared)

    asyncio.run(everywhere(run, thorough))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_no_space_at_every_write(library: Library, thorough: bool, shared: bool) -> None:
    counted = FullDisk()
    assert not on_opfs(library, counted, shared=shared).failed
    for number in range(0, len(counted.calls), 1 if thorough else 7):
        full = FullDisk(number)
        try:
            check(full, on_opfs(library, full, shared=shared))
        except Exception as error:
            raise AssertionError(f"at {number}, {counted.calls[number]}: {error!r}") from error


@pytest.mark.usefixtures("clock")
async def test_at_every_call_on_indexeddb(thorough: bool) -> None:
    await everywhere(on_indexeddb, thorough)


async def everywhere(run: Callable[[Refusals], Awaitable[Workload]], thorough: bool) -> None:
    counted = Refusals()
    assert not (await run(counted)).failed
    wrong = []
    for number, call in enumerate(counted.calls):
        for kind in KINDS if thorough else [[*KINDS][number % len(KINDS)]]:
            for lasts in (False, True) if thorough else (bool(number % 2),):
                refusals = Refusals(number, JsException(kind, "simulated"), lasts=lasts)
                try:
                    check(refusals, await run(refusals))
                    assert refusals.struck == call
                except Exception as error:
                    wrong.append(f"{kind} at {number}, {call}, {lasts=}: {error!r}")
    assert not wrong, "\n".join(wrong)


async def on_indexeddb(refusals: Refusals) -> Workload:
    origin = Origin()
    work = Workload("indexeddb", "", refusals)
    with worker(origin) as host, refusing(refusals):
        await work.run()
        await asyncio.sleep(1)
        assert not any(origin.locks.held.values()) and not any(origin.locks.waiting.values())
        assert not any(database.is_open for database in host.opened)
    return work
