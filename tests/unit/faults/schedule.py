"""One schedule: several tabs with the whole package, in an order that a seed decides."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager
from unittest import mock

from simulated_opfs import Library

import holdfast
from faults.browser import Browser, SimulatedTab, simulated
from faults.client import Client
from faults.disk import Disk, crashes
from faults.history import ACCOUNTS, LOG, SETUP, STATE, Effect, History, Seen, State, entry, replay
from faults.scheduler import current
from holdfast import Database, DatabaseClosedError
from holdfast.storage.opfs import wal
from holdfast.storage.opfs.storage import OpfsStorage

TABS = 3


class Undone(Exception):
    """Raised inside a transaction, to roll it back."""


class Schedule:
    """Runs and checks itself."""

    # How often a database is closed while somebody is at work with it.
    closed_at_work = 0.3

    def __init__(self, library: Library, seed: int, *, shared: bool) -> None:
        self.library = library
        self.choose = choose = random.Random(f"{seed}/{shared}")
        self.disk = Disk()
        self.browser = Browser(
            library, self.disk, choose, shared=shared, lossy=choose.choice((0.0, 0.0, 0.3, 1.0))
        )
        self.history = History()
        self.ops = itertools.count(1)
        self.failures: list[str] = []
        self.checkpoint = choose.choice((4, 15, 60))
        # Whether tabs die and stop, or live in peace: then every wait must be short as well.
        self.deaths = choose.choice((0, 1, 3))
        self.stops = choose.choice((0, 0, 2))

    def run(self) -> None:
        with self._package(), self._no_errors_logged():
            self.browser.loop.run(self._main())
            self.failures += [str(error) for error in self.browser.loop.errors]
        assert not self.failures, self.failures[0]
        self._check()

    def _package(self) -> AbstractContextManager[None]:
        return simulated_package(self.browser, self.checkpoint)

    async def _main(self) -> None:
        lives = [asyncio.ensure_future(self._slot()) for _ in range(TABS)]
        chaos = asyncio.ensure_future(self._chaos())
        await asyncio.gather(*lives)
        chaos.cancel()
        for tab in self.browser.tabs:
            tab.stopped = False
        # Whatever is held now is held by nobody.
        await asyncio.sleep(1)
        held = [name for name, by in self.browser.locks.held.items() if by]
        waiting = [name for name, by in self.browser.locks.waiting.items() if by]
        assert not held and not waiting, (held, waiting)
        assert not self.browser.files.handles, self.browser.files.handles

    async def _slot(self) -> None:
        """One tab after the other in its place."""
        for _ in range(self.choose.choice((1, 2))):
            while True:
                await asyncio.sleep(self.choose.random() * 0.01)
                tab = self.browser.tab()
                life = tab.run(self._life(tab))
                await asyncio.wait((life, tab.died), return_when=asyncio.FIRST_COMPLETED)
                if not tab.died.done():
                    life.result()
                    break

    async def _chaos(self) -> None:
        for what in self.choose.sample(
            ["die"] * self.deaths + ["stop"] * self.stops, self.deaths + self.stops
        ):
            await asyncio.sleep(self.choose.random() * self.choose.choice((0.02, 0.1, 0.3)))
            if not self.browser.tabs:
                continue
            tab = self.choose.choice(self.browser.tabs)
            if what == "stop":
                tab.stopped = True
                await asyncio.sleep(self.choose.random())
                tab.stopped = False
            elif self.choose.random() < 0.5:
                self.browser.kill(tab)
            else:
                # At one of its next changes of a file, in the middle of a statement.
                tab.process.die_at = self.choose.randrange(12)

    # -- what a tab does ---------------------------------------------------------------------------

    async def _life(self, tab: SimulatedTab) -> None:
        try:
            for _ in range(self.choose.choice((1, 1, 2))):
                first = await self._open(tab)
                # A second connection of the same tab, which shares its leases.
                second = await self._open(tab) if self.choose.random() < 0.3 else first
                databases = list(dict.fromkeys((first, second)))
                used = (*databases, first)
                works = asyncio.gather(
                    *(self._work(tab, database) for database in used), return_exceptions=True
                )
                if self.choose.random() < self.closed_at_work:
                    # In the middle of it, whoever is at work is told; another connection goes on.
                    await asyncio.sleep(self.choose.random() * 0.05)
                    await self.choose.choice(databases).close()
                for database, error in zip(used, await works, strict=True):
                    if error is not None and not (
                        isinstance(error, DatabaseClosedError) and database.closed
                    ):
                        raise error
                for database in databases:
                    self._before_close(tab, database)
                    await database.close()
        except Exception as error:
            if not tab.process.dead:
                self.failures.append(f"{tab.name}: {error!r}")
                raise

    def _before_close(self, tab: SimulatedTab, database: Database) -> None:
        """What can be said of a database that nobody uses any more."""

    async def _open(self, tab: SimulatedTab) -> Database:
        database = await holdfast.open(f"{tab.name}/x.db", storage="opfs")
        # So small that a transaction reaches the file before it is committed.
        database._session.main.raw.execute("PRAGMA cache_size = 4")
        async with database.write_transaction() as transaction:
            for statement in SETUP:
                await transaction.execute(statement)
        return database

    async def _work(self, tab: SimulatedTab, database: Database) -> None:
        actions: list[tuple[Callable[..., Awaitable[None]], int]] = [
            (self._write, 6),
            (self._read, 3),
            (self._look, 2),
            (self._cancelled, 1),
            (self._pause, 1),
            (self._hide, 1),
        ]
        for _ in range(self.choose.randrange(3, 12)):
            (action,) = self.choose.choices(
                [action for action, _ in actions], [weight for _, weight in actions]
            )
            await action(tab, database)

    async def _write(self, tab: SimulatedTab, database: Database) -> None:
        op = f"{tab.name}.{next(self.ops)}"
        source, target = self.choose.sample(range(1, ACCOUNTS + 1), 2)
        size = self.choose.choice((0, 10, 500, 3000, 30000))
        effect = Effect(source, target, self.choose.randrange(9), size)
        undone = self.choose.random() < 0.15
        newest = self.history.newest
        before: State | None = None
        try:
            async with database.write_transaction() as transaction:
                before = await self._state(transaction)
                self._saw(tab, newest, before)
                await self._turn()
                for statement in effect.statements():
                    await transaction.execute(statement)
                    await self._turn()
                await transaction.execute(
                    "INSERT INTO log VALUES(?, ?, ?)", (before[0] + 1, op, entry(before, effect))
                )
                if undone:
                    raise Undone
        except Undone:
            if not tab.process.dead:
                self.history.rolled_back.add(op)
            return
        if not tab.process.dead:
            self.history.acknowledged[op] = before[0] + 1
            self.disk.mark(op)

    async def _read(self, tab: SimulatedTab, database: Database) -> None:
        newest = self.history.newest
        async with database.read_transaction() as transaction:
            states = [await self._state(transaction)]
            for _ in range(self.choose.randrange(3)):
                await self._turn()
                states.append(await self._state(transaction))
        self._saw(tab, newest, *states)

    async def _look(self, tab: SimulatedTab, database: Database) -> None:
        newest = self.history.newest
        self._saw(tab, newest, await self._state(database))

    async def _cancelled(self, tab: SimulatedTab, database: Database) -> None:
        action = self.choose.choice((self._write, self._read, self._look))
        task = asyncio.ensure_future(action(tab, database))
        await self._turn()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def _pause(self, tab: SimulatedTab, database: Database) -> None:
        await asyncio.sleep(self.choose.choice((0.001, 0.05, 0.2)))

    async def _hide(self, tab: SimulatedTab, database: Database) -> None:
        database._session.storage.rest()

    async def _turn(self) -> None:
        for _ in range(self.choose.choice((0, 0, 1, 3))):
            await asyncio.sleep(0)

    async def _state(self, where: object) -> State:
        row = await where.fetch_one(STATE)  # type: ignore[attr-defined]
        return tuple(row)  # type: ignore[return-value]

    def _saw(self, tab: SimulatedTab, newest: int, *states: State) -> None:
        if not tab.process.dead:
            self.history.seen.append(Seen(tab.name, newest, states))

    # -- afterwards --------------------------------------------------------------------------------

    def _check(self) -> None:
        log, found = self._found(self.disk)
        self.history.check(log, found)
        # And had power been cut at some moment of it:
        places = {self.choose.randrange(len(self.disk.journal) + 1) for _ in range(3)}
        seed = self.choose.random()
        for crash in crashes(self.disk, power_seeds=1, seed=seed, only=places):
            log, found = self._found(Disk(crash.files))
            if found == ():
                assert not crash.marks, crash.how
                continue
            states = replay(log)
            assert found == states[-1], crash.how
            lost = set(crash.marks) - {op for _, op, _ in log}
            assert not lost, (crash.how, lost)

    def _found(self, disk: Disk) -> tuple[list[tuple[int, str, str]], State]:
        client = Client(self.library, disk)
        try:
            assert client.read("PRAGMA integrity_check") == [("ok",)]
            if not client.read("SELECT 1 FROM sqlite_master WHERE name = 'log'"):
                return [], ()
            return client.read(LOG), client.read(STATE)[0]
        finally:
            client.die()

    @contextlib.contextmanager
    def _no_errors_logged(self) -> Iterator[None]:
        failures = self.failures

        class Handler(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                tab = current.get()
                if not (isinstance(tab, SimulatedTab) and tab.process.dead):
                    failures.append(f"logged: {record.getMessage()} {record.exc_info}")

        logger, handler = logging.getLogger("holdfast"), Handler(logging.ERROR)
        logger.addHandler(handler)
        propagate, logger.propagate = logger.propagate, False
        try:
            yield
        finally:
            logger.removeHandler(handler)
            logger.propagate = propagate


@contextlib.contextmanager
def simulated_package(browser: Browser, checkpoint: int = 1000) -> Iterator[None]:
    """`holdfast.open` opens in that browser; the WAL is copied from so many frames on."""
    with (
        simulated(browser),
        mock.patch.object(wal, "CHECKPOINT", checkpoint),
        mock.patch("holdfast.local.opening.choose", _choose_opfs),
    ):
        yield


async def _choose_opfs(storage: str, name: str, synchronous: str) -> OpfsStorage:
    chosen = OpfsStorage(name, synchronous)
    # Each tab has a name of its own for the database that they share.
    chosen.hold_prefix = "x.db#"
    return chosen
