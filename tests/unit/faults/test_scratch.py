"""What a dead tab's export leaves behind."""

from __future__ import annotations

import asyncio
import random

import pytest
from simulated_javascript import JsException
from simulated_opfs import Library

import holdfast
from faults.browser import Browser, SimulatedTab
from faults.disk import Disk
from faults.schedule import simulated_package
from holdfast.storage.opfs.store import SCRATCH_FOLDER


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "exclusive"])
def test_the_next_to_open_removes_it(library: Library, shared: bool) -> None:
    """After it has opened, which does not wait for that."""
    browser = Browser(library, Disk(), random.Random(1), shared=shared)

    def left() -> list[str]:
        try:
            return browser.files.names([SCRATCH_FOLDER])
        except JsException as error:
            if error.name != "NotFoundError":
                raise
            return []

    async def opened(tab: SimulatedTab) -> holdfast.Database:
        return await holdfast.open(f"{tab.name}/scratched.db", storage="opfs")

    async def exports(tab: SimulatedTab, exported: asyncio.Event) -> None:
        db = await opened(tab)
        await db.execute("CREATE TABLE t(x)")
        async for _ in db.export_chunks():
            exported.set()
            await asyncio.sleep(1000)

    async def main() -> None:
        dies, opens = browser.tab(), browser.tab()
        exported = asyncio.Event()
        dies.run(exports(dies, exported))
        await exported.wait()
        browser.kill(dies)
        # Until the browser has noticed, its owner lives.
        await asyncio.sleep(browser.longest_death + 1)
        assert left()
        db = await opens.run(opened(opens))
        # Longer than its handles stay open.
        await asyncio.sleep(60)
        assert not left()
        await opens.run(db.close())

    with simulated_package(browser, checkpoint=10):
        browser.loop.run(main())
