"""The simulated browser itself: what a dead tab does, and what is left of it."""

from __future__ import annotations

import asyncio
import gc
import random
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
from simulated_opfs import Library

from faults.browser import Browser
from faults.disk import Disk
from faults.scheduler import SeededLoop


def test_a_dead_tabs_code_never_runs_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that it would clean up; and what it waits for then is not missed afterwards."""
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    browser = Browser(library, Disk(), random.Random(1))
    ran: list[str] = []

    async def cleaned_up(what: str) -> None:
        try:
            ran.append(f"{what} begins")
            await asyncio.sleep(1)
            ran.append(f"{what} goes on")
        finally:
            ran.append(f"{what} ends")
            for _ in range(3):
                try:
                    await asyncio.sleep(1)
                finally:
                    await asyncio.gather(asyncio.sleep(1))

    async def values() -> AsyncIterator[int]:
        await cleaned_up("generator")
        yield 1

    async def iterates() -> None:
        async with aclosing(values()) as generator:
            async for _ in generator:
                ran.append("got one")

    async def main() -> None:
        dies, lives = browser.tab(), browser.tab()
        dies.run(cleaned_up("task"))
        dies.run(iterates())
        survivor = lives.run(cleaned_up("survivor"))
        await asyncio.sleep(0.5)
        browser.kill(dies)
        await asyncio.gather(survivor)
        gc.collect()
        assert sorted(ran) == [
            "generator begins",
            "survivor begins",
            "survivor ends",
            "survivor goes on",
            "task begins",
        ]

    browser.loop.run(main())
    gc.collect()
    assert not browser.loop.errors
    assert not complaints


@pytest.mark.parametrize("kind", ["tasks", "futures"])
def test_what_order_there_is_in_a_set_does_not_depend_on_earlier_runs(kind: str) -> None:
    """`asyncio.wait` puts what it waits for into one."""
    kept = []

    def order() -> list[int]:
        loop = SeededLoop(random.Random(1))

        async def main() -> list[int]:
            made: list[asyncio.Future[Any]] = [
                loop.create_task(asyncio.sleep(0)) if kind == "tasks" else loop.create_future()
                for _ in range(5)
            ]
            kept.append(made)  # so that the next ones have other addresses
            found = [made.index(each) for each in set(made)]
            for future in made:
                future.cancel()
            return found

        result: list[int] = loop.run(main())
        return result

    assert len({tuple(order()) for _ in range(20)}) == 1
