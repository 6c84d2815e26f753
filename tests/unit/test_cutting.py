"""A consumer that only reads costs the writer nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from patience import LONGER, PATIENCE

import holdfast
import holdfast.triggers.cutting


async def test_a_consumer_that_only_reads_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdfast.triggers.cutting, "AFTER", LONGER)
    path = tmp_path / "a.db"
    async with holdfast.open(path) as writer, holdfast.open(path) as reader:
        await writer.execute("CREATE TABLE t(x)")
        batches = reader.triggers.diffs("t", throttle=0)
        first = asyncio.ensure_future(anext(batches))
        async with asyncio.timeout(PATIENCE):
            while not await writer.triggers.tracked():  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        before = await writer.fetch_value("PRAGMA data_version")
        for number in range(20):
            await writer.execute("INSERT INTO t VALUES (?)", (number,))
            assert [record.values for record in await first] == [{"x": number}]
            first = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
        assert await writer.fetch_value("PRAGMA data_version") == before
        first.cancel()
        await asyncio.wait([first])


async def test_a_handler_that_only_reads_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdfast.triggers.cutting, "AFTER", LONGER)
    path = tmp_path / "a.db"
    called = asyncio.Event()

    async def handler(ctx: holdfast.DiffContext) -> None:
        called.set()

    async with holdfast.open(path) as writer, holdfast.open(path) as reader:
        await writer.execute("CREATE TABLE t(x)")
        await reader.triggers.track_table_diff("t", handler, read_only=True, throttle=0)
        await writer.fetch_value("SELECT count(*) FROM t")
        before = await writer.fetch_value("PRAGMA data_version")
        for number in range(20):
            await writer.execute("INSERT INTO t VALUES (?)", (number,))
            await asyncio.wait_for(called.wait(), PATIENCE)
            called.clear()
        assert await writer.fetch_value("PRAGMA data_version") == before
