"""Several tabs with the whole package, interleaved by a seed; what they saw is checked.

A failure names its seed; `--seed` runs that one again, and `--schedules` more of them.
"""

from __future__ import annotations

import random

import pytest
from simulated_opfs import Library

import holdfast
from faults.browser import Browser
from faults.disk import Disk
from faults.schedule import Schedule, simulated_package

QUICK = 12


def run(library: Library, seed: int, shared: bool) -> Schedule:
    schedule = Schedule(library, seed, shared=shared)
    try:
        schedule.run()
    except Exception as error:
        mode = "shared" if shared else "exclusive"
        raise AssertionError(f"replay it with: -k {mode} --seed={seed}\n{error}") from error
    return schedule


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_any_order(library: Library, request: pytest.FixtureRequest, shared: bool) -> None:
    """No lost update, no dirty, stale or non-repeatable read; nobody waits for ever."""
    seed = request.config.getoption("--seed")
    count = request.config.getoption("--schedules")
    for each in range(QUICK if count is None else count) if seed is None else [seed]:
        run(library, each, shared)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_a_seed_is_the_same_schedule_each_time(library: Library, shared: bool) -> None:
    first, second = (run(library, 7, shared) for _ in range(2))
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

    async def in_tab(name: str) -> holdfast.Database:
        return await holdfast.open(f"{name}/x.db", storage="opfs")

    async def main() -> None:
        tabs = [browser.tab(), browser.tab()]

        async def do(tab: int, coroutine):  # type: ignore[no-untyped-def]
            return await browser.loop.create_task(coroutine, context=tabs[tab].context.copy())

        one, other = await do(0, in_tab("tab1")), await do(1, in_tab("tab2"))
        await do(0, one.execute("CREATE TABLE t(v)"))
        for n in range(60):
            await do(1, other.execute(f"INSERT INTO t VALUES(zeroblob({n * 100}))"))
            if n == 30:
                assert await do(0, one.fetch_value("SELECT count(*) FROM t")) == 31
        another = await do(0, in_tab("tab1"))
        assert await do(0, another.fetch_value("SELECT count(*) FROM t")) == 60
        for tab, database in ((0, one), (0, another), (1, other)):
            await do(tab, database.close())

    with simulated_package(browser, checkpoint=10):
        browser.loop.run(main())
