"""Several tabs with the whole package, interleaved by a seed; what they saw is checked.

A failure names its seed; `--seed` runs that one again, and `--schedules` more of them.
"""

from __future__ import annotations

import asyncio
import random

import pytest
from simulated_opfs import Library

import holdfast
from faults.browser import CLOSED, Browser, SimulatedTab
from faults.client import Client
from faults.disk import Disk
from faults.schedule import Schedule, simulated_package
from faults.trigger_schedule import TriggerSchedule
from holdfast.bounds import Bound
from holdfast.storage.opfs.leases import Level

QUICK = 12
QUICK_TRIGGERS = 6


def run(library: Library, seed: int, shared: bool, kind: type[Schedule] = Schedule) -> Schedule:
    schedule = kind(library, seed, shared=shared)
    try:
        schedule.run()
    except Exception as error:
        test = "triggers" if kind is TriggerSchedule else "any_order"
        mode = "shared" if shared else "exclusive"
        raise AssertionError(
            f"replay it with: -k '{test} and {mode}' --seed={seed}\n{error}"
        ) from error
    return schedule


def seeds(request: pytest.FixtureRequest, quick: int) -> list[int]:
    seed = request.config.getoption("--seed")
    count = request.config.getoption("--schedules")
    return list(range(quick if count is None else count)) if seed is None else [seed]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_any_order(library: Library, request: pytest.FixtureRequest, shared: bool) -> None:
    """No lost update, no dirty, stale or non-repeatable read; nobody waits for ever."""
    for seed in seeds(request, QUICK):
        run(library, seed, shared)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_triggers_in_any_order(
    library: Library, request: pytest.FixtureRequest, shared: bool
) -> None:
    """Tabs create, consume, dispose, sweep, change the schema and die; see consumers.py."""
    for seed in seeds(request, QUICK_TRIGGERS):
        run(library, seed, shared, TriggerSchedule)


@pytest.mark.parametrize("kind", [Schedule, TriggerSchedule])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_a_seed_is_the_same_schedule_each_time(
    library: Library, shared: bool, kind: type[Schedule]
) -> None:
    first, second = (run(library, 7, shared, kind) for _ in range(2))
    assert first.history == second.history
    assert [change[:3] for change in first.disk.journal] == [
        change[:3] for change in second.disk.journal
    ]


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_another_connection_of_a_tab_begins_with_what_is_there(
    library: Library, shared: bool
) -> None:
    """It shares the tab's wal-index, which nobody brought up to date since the WAL restarted."""
    browser = Browser(library, Disk(), random.Random(1), shared=shared)

    async def main() -> None:
        a, b = browser.tab(), browser.tab()
        one, other = await a.run(opened(a)), await b.run(opened(b))
        await a.run(one.execute("CREATE TABLE t(v)"))
        for n in range(60):
            await b.run(other.execute(f"INSERT INTO t VALUES(zeroblob({n * 100}))"))
            if n == 30:
                assert await a.run(one.fetch_value("SELECT count(*) FROM t")) == 31
        another = await a.run(opened(a))
        assert await a.run(another.fetch_value("SELECT count(*) FROM t")) == 60
        for tab, database in ((a, one), (a, another), (b, other)):
            await tab.run(database.close())

    with simulated_package(browser, checkpoint=10):
        browser.loop.run(main())


async def opened(tab: SimulatedTab) -> holdfast.Database:
    return await holdfast.open(f"{tab.name}/x.db", storage="opfs")


@pytest.mark.parametrize("turns", range(1, 16, 2))
def test_whoever_is_cancelled_while_handles_open_leaves_none_open(
    library: Library, turns: int
) -> None:
    """JavaScript opens them all the same, and they would keep every other tab out."""
    browser = Browser(library, Disk(), random.Random(turns), shared=False)

    async def main() -> None:
        a, b = browser.tab(), browser.tab()
        one, other = await a.run(opened(a)), await b.run(opened(b))
        await a.run(one.execute("CREATE TABLE t(v)"))
        await b.run(other.execute("INSERT INTO t VALUES(1)"))
        reading = a.run(one.fetch_value("SELECT count(*) FROM t"))
        for _ in range(turns):
            await asyncio.sleep(0)
        reading.cancel()
        async with asyncio.timeout(1):
            assert await b.run(other.fetch_value("SELECT count(*) FROM t")) == 1
        await asyncio.gather(reading, return_exceptions=True)
        for tab, database in ((a, one), (b, other)):
            await tab.run(database.close())

    with simulated_package(browser):
        browser.loop.run(main())


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
@pytest.mark.parametrize("what", ["fetch", "execute", "pragma", "read", "write", "export"])
def test_a_tab_that_closes_in_the_middle_of_anything_keeps_nothing(
    library: Library, what: str, shared: bool
) -> None:
    """Not a lock nor a handle that was granted just then: it would keep every other tab out."""

    async def do(database: holdfast.Database) -> None:
        if what == "fetch":
            await database.fetch_value("SELECT count(*) FROM t")
        elif what == "execute":
            await database.execute("INSERT INTO t VALUES(2)")
        elif what == "pragma":
            await database.execute("PRAGMA foreign_keys = ON")
        elif what == "export":
            await database.export()
        elif what == "read":
            async with database.read_transaction() as tx:
                await asyncio.sleep(0.001)
                await tx.fetch_all("SELECT * FROM t")
        else:
            async with database.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(2)")
                await asyncio.sleep(0.001)
                await tx.execute("INSERT INTO t VALUES(2)")

    async def main(browser: Browser, turns: int) -> object:
        a, b = browser.tab(), browser.tab()
        one, other = await a.run(opened(a)), await b.run(opened(b))
        await a.run(one.execute("CREATE TABLE t(v)"))
        # Leases are shared by all connections of a tab, so what one keeps the others do not give.
        beside = await a.run(opened(a)) if turns % 4 else other
        await b.run(other.execute("INSERT INTO t VALUES(1)"))
        others = [(b if beside is other else a).run(do(beside))]
        await asyncio.sleep(0)
        task = a.run(do(one))
        others.append(b.run(other.execute("INSERT INTO t VALUES(3)")))
        for _ in range(turns):
            await asyncio.sleep(0)
        await a.run(one.close())
        ended = (await asyncio.gather(task, return_exceptions=True))[0]
        async with asyncio.timeout(5):
            await asyncio.gather(*others)
            await b.run(other.execute("INSERT INTO t VALUES(3)"))
        again = await a.run(opened(a))
        assert await a.run(again.fetch_value("SELECT count(*) FROM t WHERE v = 3")) == 2
        if beside is not other:
            await a.run(beside.close())
        await a.run(again.close())
        await b.run(other.close())
        await asyncio.sleep(1)
        assert not any(browser.locks.held.values()), browser.locks.held
        assert not browser.files.handles, browser.files.handles
        return ended

    ended = []
    for turns in range(0, 48, 2):
        browser = Browser(library, Disk(), random.Random(turns), shared=shared)
        with simulated_package(browser):
            ended.append(browser.loop.run(main(browser, turns)))
            assert not browser.loop.errors
    assert {type(each) for each in ended} <= {type(None), holdfast.DatabaseClosedError}, ended


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_closing_copies_nothing_from_a_wal_that_it_does_not_know(
    library: Library, shared: bool
) -> None:
    """SQLite would checkpoint, by a wal-index of a WAL that others have restarted since."""
    browser = Browser(library, Disk(), random.Random(1), shared=shared)

    async def main() -> None:
        a, b = browser.tab(), browser.tab()
        one, other = await a.run(opened(a)), await b.run(opened(b))
        await b.run(other.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)"))
        for n in range(40):
            await b.run(other.execute(f"INSERT INTO t(v) VALUES(zeroblob({n * 300}))"))
            if n == 7:
                assert await a.run(one.fetch_value("SELECT count(*) FROM t")) == 8
        node = one._session.storage.node  # type: ignore[attr-defined]
        # All that a checkpoint may need, and no look at the files yet.
        await a.run(node.leases.write(Bound(1)))
        node._set_level(Level.EXCLUSIVE)
        before = {name: bytes(data) for name, data in browser.disk.content.items()}
        await a.run(one.close())
        assert before == browser.disk.content
        assert await b.run(other.fetch_value("PRAGMA integrity_check")) == "ok"
        assert await b.run(other.fetch_value("SELECT count(*) FROM t")) == 40
        await b.run(other.close())

    with simulated_package(browser, checkpoint=10):
        browser.loop.run(main())


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_an_opening_that_is_cancelled_leaves_nothing_open(library: Library, shared: bool) -> None:
    """JavaScript finds and opens the files all the same."""
    cancelled = 0
    for turns in range(0, 60, 2):
        browser = Browser(library, Disk(), random.Random(turns), shared=shared)

        async def main(browser: Browser, turns: int) -> bool:
            tab = browser.tab()
            opening = tab.run(opened(tab))
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
            if not opening.cancelled():
                await tab.run(opening.result().close())
            await asyncio.sleep(1)
            assert not any(browser.locks.held.values()), browser.locks.held
            left = [browser.names[n][1] for n in tab.files if library.host[n] is not CLOSED]
            assert not left, left
            return opening.cancelled()

        with simulated_package(browser):
            cancelled += browser.loop.run(main(browser, turns))
            assert not browser.loop.errors
    assert cancelled > 5


def test_a_database_whose_name_goes_on_like_anothers_is_no_tab_of_it(library: Library) -> None:
    """Its locks begin as the other's locks for its tabs do."""
    browser = Browser(library, Disk(), random.Random(1))

    async def main() -> int | None:
        a, b = browser.tab(), browser.tab()
        longer = await a.run(holdfast.open(f"{a.name}/x.db:tab", storage="opfs")._open())
        async with asyncio.timeout(5):
            writing = longer.write_transaction()
            await a.run(writing.__aenter__())
            one = await b.run(opened(b))
            tabs = (await b.run(one.status())).tabs
            await b.run(one.close())
            await a.run(writing.__aexit__(None, None, None))
            await a.run(longer.close())
        return tabs

    with simulated_package(browser):
        assert browser.loop.run(main()) == 1


def test_two_connections_of_a_tab_that_close_together_damage_nothing(library: Library) -> None:
    """The one gets the lease when it is closed already, and the other closes under it.

    SQLite checkpoints then, as the last connection of a tab that has all locks.
    """
    for turns in range(0, 40, 2):
        disk = Disk()
        browser = Browser(library, disk, random.Random(turns), shared=False)

        async def main(browser: Browser, turns: int) -> None:
            a, b = browser.tab(), browser.tab()
            one, other = await a.run(opened(a)), await b.run(opened(b))
            second = await a.run(opened(a))
            await a.run(one.execute("CREATE TABLE t(v)"))
            for _ in range(8):
                await a.run(second.execute("INSERT INTO t VALUES(zeroblob(3000))"))
            for _ in range(20):
                await b.run(other.execute("INSERT INTO t VALUES(randomblob(2500))"))
            reading = a.run(one.fetch_value("SELECT count(*) FROM t"))
            for _ in range(turns):
                await asyncio.sleep(0)
            closing = a.run(one.close())
            await asyncio.gather(reading, return_exceptions=True)
            await a.run(second.close())
            await closing
            await b.run(other.close())

        with simulated_package(browser, checkpoint=10):
            browser.loop.run(main(browser, turns))
        client = Client(library, disk)
        assert client.read("PRAGMA integrity_check") == [("ok",)]
        assert client.read("SELECT count(*) FROM t") == [(28,)]
        client.die()
