"""One schedule of triggers: tabs that create, consume, dispose, sweep, change the schema and die.

What is checked is in consumers.py; here is what the tabs do.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import apsw
import pytest
from simulated_opfs import Library

import holdfast
from faults.browser import SimulatedTab
from faults.client import Client
from faults.consumers import (
    BOUND,
    MADE,
    SCHEMA,
    SETUP,
    SOURCES,
    WITHOUT_LISTS,
    Effect,
    Entry,
    Snapshot,
    check,
    destination_of,
    examine,
    expected,
    kind_of,
    snapshot,
    was_dropped,
    wrote,
)
from faults.disk import Disk, crashes
from faults.schedule import Schedule, Undone, simulated_package
from holdfast import (
    BacklogExceededError,
    Database,
    DatabaseClosedError,
    DiffContext,
    NestedTransactionError,
    SourceDroppedError,
    Transaction,
)
from holdfast.session import transactions
from holdfast.triggers import manager

KINDS = ("tracked", "tracked", "bounded", "temporary", "diffs", "plain")

# The consumer that is being made: its destination is called after it.
_making: ContextVar[str] = ContextVar("consumer")


class Missing(Exception):
    """The source is not there now."""


@dataclass(eq=False)
class Consumer:
    name: str
    source: str
    tab: SimulatedTab
    database: Database
    errors: list[Exception] = field(default_factory=list)
    end: Callable[[], Awaitable[None]] | None = None
    ended: bool = False
    """It was told to end, or that its source is gone."""

    @property
    def kind(self) -> str:
        return kind_of(self.name)

    @property
    def lives(self) -> bool:
        """Its tab does, and it was not disposed of."""
        return not (self.tab.process.dead or self.database.closed or self.ended) and (
            destination_of(self.name) in _own(self.database)
        )


class TriggerSchedule(Schedule):
    """Runs and checks itself."""

    closed_at_work = 0.0  # what a consumer saw of its end would be no more than a guess

    def __init__(self, library: Library, seed: int, *, shared: bool) -> None:
        super().__init__(library, seed, shared=shared)
        self.names = itertools.count(1)
        self.calls = itertools.count(1)
        self.consumers: list[Consumer] = []
        self.acknowledged: list[str] = []
        self.ids = random.Random(f"{seed}/ids")

    @contextlib.contextmanager
    def _package(self) -> Iterator[None]:
        with (
            simulated_package(self.browser, self.checkpoint),
            trackable(self.ids),
            mock.patch.object(manager, "_own_destination", _destination_in_the_making),
        ):
            yield

    async def _main(self) -> None:
        await super()._main()
        # Whoever opens next finds nothing of anybody.
        tab = self.browser.tab()
        database = await tab.run(self._open(tab))
        found = await tab.run(self._snapshot(database))
        examine(found)
        assert not found.records, found.records
        assert await tab.run(database.triggers.tracked()) == []
        await tab.run(database.close())

    # -- what a tab does ---------------------------------------------------------------------------

    async def _open(self, tab: SimulatedTab) -> Database:
        schema = self.choose.choice((SCHEMA, None))
        database = await holdfast.open(f"{tab.name}/x.db", storage="opfs", schema=schema)
        database._session.main.raw.execute("PRAGMA cache_size = 4")
        async with database.write_transaction() as transaction:
            for statement in SETUP:
                await transaction.execute(statement)
        return database

    async def _work(self, tab: SimulatedTab, database: Database) -> None:
        mine: list[Consumer] = []
        actions: list[tuple[Callable[..., Awaitable[None]], int]] = [
            (self._write, 8),
            (self._create, 5),
            (self._end, 2),
            (self._inspect, 1),
            (self._sweep, 1),
            (self._change_schema, 1),
            (self._cancelled, 1),
            (self._pause, 1),
            (self._hide, 1),
        ]
        for _ in range(self.choose.randrange(3, 14)):
            (action,) = self.choose.choices(
                [action for action, _ in actions], [weight for _, weight in actions]
            )
            if action in (self._create, self._end, self._cancelled):
                await action(tab, database, mine)
            else:
                await action(tab, database)
        if self.choose.random() < 0.6:
            for consumer in mine:
                await self._settle(tab, consumer)
        if self.choose.random() < 0.3:
            while mine:
                await self._end(tab, database, mine)

    async def _write(self, tab: SimulatedTab, database: Database, *_: Any) -> None:
        undone = self.choose.random() < 0.15
        written: list[str] = []
        try:
            async with database.write_transaction() as tx:
                for _ in range(self.choose.choice((1, 1, 2, 5))):
                    written += await self._change(tx, database, self.choose.choice([*SOURCES]))
                    await self._turn()
                if undone:
                    raise Undone
        except Undone:
            return
        if not tab.process.dead:
            self.acknowledged += written
            self.disk.mark(tuple(written))

    async def _change(self, tx: Transaction, database: Database, source: str) -> list[str]:
        """A change of some row of it, and of the log."""
        if not await _is_there(tx, source):
            return []
        choose, column = self.choose, SOURCES[source]
        key, tag = str(choose.randrange(4)), str(next(self.ops))
        old = await tx.fetch_value(f"SELECT v FROM {source} WHERE {column} = ?", (key,))
        what = choose.choice(("insert", "update", "update", "delete"))
        tags = [tag]
        if old is None or what == "insert":
            await tx.execute(
                f"INSERT OR REPLACE INTO {source}({column}, v) VALUES (?, ?)", (key, tag)
            )
            if old is not None:
                tags = [f"-{old}", tag]
        elif what == "delete":
            await tx.execute(f"DELETE FROM {source} WHERE {column} = ?", (key,))
            tags = [f"-{old}"]
        else:
            await tx.execute(f"UPDATE {source} SET v = ? WHERE {column} = ?", (tag, key))
            if source == "items":
                # The trigger fires for this as well.
                await tx.execute(
                    "UPDATE items SET pad = zeroblob(?), v = v || 'p' WHERE k = ?",
                    (choose.choice((0, 5000)), key),
                )
                tags = [tag, tag + "p"]
        for each in tags:
            await _enter(tx, database, "change", source, each)
        return [f"{source} {each}" for each in tags]

    async def _create(
        self,
        tab: SimulatedTab,
        database: Database,
        mine: list[Consumer],
        kind: str = "",
        source: str = "",
    ) -> None:
        kind = kind or self.choose.choice(KINDS)
        source = source or self.choose.choice([*SOURCES])
        name = f"{kind}{next(self.names)}"
        consumer = Consumer(name, source, tab, database)
        triggers = database.triggers
        made = asyncio.Event()
        fails = self.choose.random() < 0.1

        async def before(tx: Transaction) -> None:
            await self._turn()
            if not await _is_there(tx, source):
                raise Missing
            await _enter(tx, database, "born", source, name)
            tx.on_commit(made.set)
            if fails:
                raise Undone

        async def on_error(error: Exception) -> None:
            consumer.errors.append(error)
            if isinstance(error, SourceDroppedError):
                consumer.ended = True

        async def handler(ctx: DiffContext) -> None:
            await self._handle(database, consumer, ctx)

        _making.set(name)
        throttle = self.choose.choice((0, 0.03))
        try:
            if kind == "diffs":
                stream = triggers.diffs(source, before_create=before, throttle=throttle)
                task = asyncio.ensure_future(self._follow(tab, consumer, stream))
                committed = asyncio.ensure_future(made.wait())
                try:
                    await asyncio.wait({task, committed}, return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    await _cancel(task)
                    raise
                finally:
                    committed.cancel()
                if not made.is_set():
                    return
                consumer.end = lambda: _cancel(task)
            elif kind == "plain":
                if self.choose.random() < 0.5:
                    trigger = await triggers.create_diff_trigger(
                        source, destination_of(name), before_create=before
                    )
                else:
                    async with database.write_transaction() as tx:
                        with contextlib.suppress(Missing, Undone):
                            trigger = await triggers.create_diff_trigger(
                                source, destination_of(name), before_create=before, transaction=tx
                            )
                            consumer.end = trigger.dispose
                            # Whoever is cancelled after the commit has it all the same.
                            tx.on_commit(lambda: self._made(consumer, mine))
                        await self._turn()
                        await self._change(tx, database, source)
                    return
                consumer.end = trigger.dispose
            else:
                tracker = await triggers.track_table_diff(
                    source,
                    handler,
                    persist=kind != "temporary",
                    before_create=before,
                    throttle=throttle,
                    on_error=on_error,
                    max_backlog=BOUND if kind == "bounded" else None,
                )
                consumer.end = tracker.stop
        except (Missing, Undone):
            return
        self._made(consumer, mine)

    def _made(self, consumer: Consumer, mine: list[Consumer]) -> None:
        mine.append(consumer)
        if not consumer.tab.process.dead:
            self.consumers.append(consumer)

    async def _handle(self, database: Database, consumer: Consumer, ctx: DiffContext) -> None:
        rows = await ctx.with_extracted_diff("SELECT __operation AS o, v FROM DIFF")
        await self._turn()
        what = self.choose.random()
        if what < 0.1:
            raise Undone
        if what < 0.15:
            # A mistake, which is told at once.
            await database.execute("DELETE FROM items")
        call = next(self.calls)
        tags = [("-" if row["o"] == "DELETE" else "") + row["v"] for row in rows]
        for tag in tags or [None]:
            await _effect(ctx.transaction, Effect(consumer.name, call, int(ctx.reset), tag))
        if what > 0.95:
            # To its own source.
            await self._change(ctx.transaction, database, consumer.source)
        if what > 0.85:
            await asyncio.sleep(self.choose.choice((0.001, 0.05)))

    async def _follow(self, tab: SimulatedTab, consumer: Consumer, stream: Any) -> None:
        database, last = consumer.database, 0
        try:
            async with contextlib.aclosing(stream):
                async for batch in stream:
                    numbers = [record.operation_id for record in batch]
                    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), numbers
                    assert numbers[0] == last + 1, (consumer.name, last, numbers)
                    last = numbers[-1]
                    await self._turn()
                    call = next(self.calls)
                    tags = [
                        ("-" if one.operation == "DELETE" else "")
                        + str((one.values or one.previous)["v"])
                        for one in batch
                    ]
                    async with database.write_transaction() as tx:
                        for tag in tags:
                            await _effect(tx, Effect(consumer.name, call, 0, tag))
                    if self.choose.random() < 0.2:
                        found = await self._snapshot(database)
                        for tag, one in zip(tags, batch, strict=True):
                            transaction, writer = wrote(found.log, consumer.source, tag)
                            assert one.transaction_id == transaction, (consumer.name, one)
                            assert one.remote == (writer != database._session.origin), (
                                consumer.name,
                                one,
                            )
        except SourceDroppedError as error:
            consumer.errors.append(error)
        except DatabaseClosedError:
            assert database.closed or tab.process.dead
        except (Missing, Undone):
            return
        except Exception as error:
            if not tab.process.dead:
                self.failures.append(f"{consumer.name}: {error!r}")
        consumer.ended = True

    async def _end(self, tab: SimulatedTab, database: Database, mine: list[Consumer]) -> None:
        if not mine:
            return
        consumer = mine.pop(self.choose.randrange(len(mine)))
        consumer.ended = True
        assert consumer.end is not None
        await consumer.end()
        for _ in range(1000):
            # A loop that was cancelled while it disposed leaves it to a task.
            if destination_of(consumer.name) not in _own(database):
                break
            assert consumer.kind == "diffs", consumer.name
            await asyncio.sleep(0.01)
        else:
            raise AssertionError(f"{consumer.name} was never disposed of")
        self._check_errors(consumer, await self._snapshot(database))

    async def _settle(self, tab: SimulatedTab, consumer: Consumer) -> None:
        """Wait until it has all that happened so far."""
        database = consumer.database
        if consumer.kind == "plain":
            return
        target: Snapshot | None = None
        for _ in range(300):
            found = await self._snapshot(database)
            target = target or found
            # Up to where it was when this began, others may go on writing.
            log = [entry for entry in found.log if entry.seq <= target.log[-1].seq]
            # What tracks a source that was dropped ends, so that has to be told.
            over = was_dropped(log, consumer.name)
            if consumer.ended or (_has_all(consumer, found, log) and not over):
                break
            if over and consumer.kind == "temporary":
                return
            # So long that kept leases are given up: in some schedules no wish of others is heard.
            await asyncio.sleep(0.3)
        else:
            raise AssertionError(f"{consumer.name} was never given all, nor told of its end")
        check(consumer.name, found, None)
        if consumer.ended and consumer.source != "items" and consumer.kind != "temporary":
            # Its last words were delivered first.
            assert _has_all(consumer, found, found.log), f"{consumer.name} missed its last words"
        self._check_errors(consumer, found)

    def _check_errors(self, consumer: Consumer, found: Snapshot) -> None:
        for error in consumer.errors:
            if isinstance(error, SourceDroppedError):
                assert was_dropped(found.log, consumer.name), f"{consumer.name}: {error}"
            elif isinstance(error, BacklogExceededError):
                assert consumer.kind == "bounded", f"{consumer.name}: {error}"
            else:
                assert isinstance(error, Undone | NestedTransactionError), (consumer.name, error)

    async def _inspect(self, tab: SimulatedTab, database: Database) -> None:
        tracked = {one.destination: one.held for one in await database.triggers.tracked()}
        for destination in _own(database):
            assert tracked.get(destination, True), f"{destination} is not held"
        before = [one for one in self.consumers if one.lives]
        found = await self._snapshot(database)
        examine(found)
        there = {record.destination for record in found.records}
        for one in before:
            if one.lives and one.kind != "temporary":
                assert destination_of(one.name) in there, f"{one.name} lives, and has no record"

    async def _sweep(self, tab: SimulatedTab, database: Database) -> None:
        before = {destination_of(one.name): one for one in self.consumers if one.lives}
        for reclaimed in await database.triggers.sweep():
            one = before.get(reclaimed.destination)
            assert one is None or not one.lives, f"{one.name} lives, and was reclaimed"

    def _before_close(self, tab: SimulatedTab, database: Database) -> None:
        known = [one for one in self.consumers if one.database is database]
        own = _own(database)
        if tab.process.dead:
            return
        assert own <= {destination_of(one.name) for one in known}, (own, known)
        for one in known:
            # A loop whose source is gone may be about to say so.
            sure = not one.ended and (one.kind != "diffs" or one.source == "items")
            assert destination_of(one.name) in own or not sure, f"{one.name} was disposed of"

    async def _change_schema(self, tab: SimulatedTab, database: Database) -> None:
        async with database.write_transaction() as tx:
            if self.choose.random() < 0.5:
                if not await _is_there(tx, "spare"):
                    await tx.execute(MADE)
                elif self.choose.random() < 0.5:
                    await self._alter(tx)
                else:
                    await tx.execute("DROP TABLE spare")
                    if self.choose.random() < 0.3:
                        # By the end of the transaction it is there.
                        await tx.execute(MADE)
                    else:
                        await _enter(tx, database, "drop", "spare", "")
            elif await _is_there(tx, "lists"):
                await WITHOUT_LISTS.apply(tx)
                await _enter(tx, database, "drop", "lists", "")
            else:
                await SCHEMA.apply(tx)

    async def _alter(self, tx: Transaction) -> None:
        """Give a table one column more, or take it away, and make sure of both."""
        columns = "SELECT count(*) FROM pragma_table_info('spare') WHERE name = 'more'"
        if await tx.fetch_value(columns):
            await tx.execute("ALTER TABLE spare DROP COLUMN more")
        else:
            await tx.execute("ALTER TABLE spare ADD COLUMN more DEFAULT 'more'")
            with pytest.raises(apsw.SQLError, match="no such column"):
                await tx.execute("ALTER TABLE spare DROP COLUMN none")

    async def _cancelled(self, tab: SimulatedTab, database: Database, mine: list[Consumer]) -> None:
        action = self.choose.choice((self._write, self._create, self._create, self._end))
        task = asyncio.ensure_future(action(tab, database, mine))
        for _ in range(self.choose.choice((0, 1, 3, 10))):
            await asyncio.sleep(0)
        await _cancel(task)

    # -- afterwards --------------------------------------------------------------------------------

    async def _snapshot(self, database: Database) -> Snapshot:
        async with database.read_transaction() as tx:

            async def fetch(sql: str) -> Sequence[Sequence[Any]]:
                return [tuple(row) for row in await tx.fetch_all(sql)]

            return await snapshot(fetch)

    def _check(self) -> None:
        found = self._look(self.disk)
        assert found is not None
        there = {f"{entry.source} {entry.tag}" for entry in found.log}
        assert there.issuperset(self.acknowledged)
        places = {self.choose.randrange(len(self.disk.journal) + 1) for _ in range(4)}
        for crash in crashes(self.disk, power_seeds=1, seed=self.choose.random(), only=places):
            found = self._look(Disk(crash.files))
            there = {f"{e.source} {e.tag}" for e in found.log} if found else set()
            lost = {tag for tags in crash.marks for tag in tags} - there  # type: ignore[attr-defined]
            assert not lost, (crash.how, lost)

    def _look(self, disk: Disk) -> Snapshot | None:
        client = Client(self.library, disk)
        try:
            if not client.read("SELECT 1 FROM sqlite_master WHERE name = 'effects'"):
                return None

            async def fetch(sql: str) -> Sequence[Sequence[Any]]:
                return client.read(sql)

            found = _finish(snapshot(fetch))
            examine(found)
            return found
        finally:
            client.die()


@contextlib.contextmanager
def trackable(ids: random.Random) -> Iterator[None]:
    """In a simulated package: the tabs' holds are of one database, and ids come from the seed.

    So does the order of whatever is sorted by an id.
    """
    with (
        mock.patch("os.urandom", ids.randbytes),
        mock.patch.object(transactions, "_numbers", itertools.count(1)),
    ):
        yield


def _destination_in_the_making() -> str:
    return destination_of(_making.get())


def _own(database: Database) -> set[str]:
    return {trigger.destination for trigger in database.triggers._live.values()}


def _has_all(consumer: Consumer, found: Snapshot, log: list[Entry]) -> bool:
    """All that the log says."""
    if consumer.kind == "bounded":
        # It may have been told that it will not get some.
        return not found.kept.get(destination_of(consumer.name))
    handled = {one.tag for one in found.effects if one.consumer == consumer.name}
    return handled.issuperset(expected(log, consumer.name))


async def _is_there(tx: Transaction, source: str) -> bool:
    return bool(await tx.fetch_value("SELECT 1 FROM sqlite_master WHERE name = ?", (source,)))


async def _enter(tx: Transaction, database: Database, what: str, source: str, tag: str) -> None:
    await tx.execute(
        "INSERT INTO log(what, source, tag, tx, writer) VALUES (?, ?, ?, ?, ?)",
        (what, source, tag, tx.id, database._session.origin),
    )


async def _effect(tx: Transaction, effect: Effect) -> None:
    await tx.execute(
        "INSERT INTO effects(consumer, call, reset, tag) VALUES (?, ?, ?, ?)", tuple(effect)
    )


async def _cancel(task: asyncio.Future[Any]) -> None:
    task.cancel()
    # To be cancelled meanwhile does not cancel it once more.
    await asyncio.wait({task})
    if not task.cancelled():
        task.result()


def _finish(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of one that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
