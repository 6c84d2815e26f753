"""Handlers that only read: nothing is missed, nothing is told twice, and nothing is written."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from patience import LONGER

import holdfast.triggers.cutting
from holdfast import Database, DiffContext

from .conftest import Recorder, eventually, leftovers

pytestmark = pytest.mark.everywhere


async def insert(db: Database, id: str) -> None:
    await db.execute("INSERT INTO lists(id) VALUES (?)", (id,))


async def test_each_record_once_and_in_order(db: Database, recorder: Recorder) -> None:
    tracker = await db.triggers.track_table_diff("lists", recorder, read_only=True, throttle=0)
    for number in range(20):
        await insert(db, str(number))
    await recorder.until_seen(20)
    assert recorder.seen == [("INSERT", str(number)) for number in range(20)]
    await tracker.stop()
    assert await leftovers(db) == []


async def test_it_reads_and_cannot_write(db: Database) -> None:
    seen: list[Any] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        try:
            await ctx.transaction.execute("DELETE FROM lists")
        except ValueError as error:
            seen.append(str(error))
        seen.append(await ctx.transaction.fetch_value("SELECT count(*) FROM lists"))
        rows = await ctx.with_extracted_diff("SELECT id FROM DIFF")
        seen.extend(row["id"] for row in rows)
        done.set()

    async with await db.triggers.track_table_diff("lists", handler, read_only=True):
        await insert(db, "a")
        await asyncio.wait_for(done.wait(), LONGER)
    assert "read transaction" in seen[0]
    assert seen[1:] == [1, "a"]


async def test_after_an_error_it_is_called_again(db: Database, recorder: Recorder) -> None:
    recorder.failures = [ZeroDivisionError()]
    async with await db.triggers.track_table_diff(
        "lists", recorder, read_only=True, on_error=recorder.on_error
    ):
        await insert(db, "a")
        await recorder.until_seen(1)
        await insert(db, "b")
        await recorder.until_seen(2)
    assert recorder.seen == [("INSERT", "a"), ("INSERT", "b")]
    assert [type(error) for error in recorder.errors] == [ZeroDivisionError]


async def test_what_was_handled_is_removed_a_while_later(
    db: Database, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdfast.triggers.cutting, "AFTER", 0.05)
    async with await db.triggers.track_table_diff("lists", recorder, read_only=True) as tracker:
        await insert(db, "a")
        await recorder.until_seen(1)

        async def empty() -> bool:
            return not await db.fetch_value(f"SELECT count(*) FROM {tracker.destination}")

        await eventually(empty)
        await insert(db, "b")
        await recorder.until_seen(2)
    assert recorder.seen == [("INSERT", "a"), ("INSERT", "b")]


async def test_a_backlog_counts_what_was_not_handled(db: Database, recorder: Recorder) -> None:
    """What was handled is no backlog, and what was discarded is told."""
    async with await db.triggers.track_table_diff(
        "lists", recorder, read_only=True, max_backlog=3, throttle=0, on_error=recorder.on_error
    ):
        for number in range(12):
            await insert(db, str(number))
            await recorder.until_seen(number + 1)
        assert recorder.errors == []
        async with db.write_transaction() as tx:
            for number in range(12, 24):
                await tx.execute("INSERT INTO lists(id) VALUES (?)", (str(number),))
        await recorder.until(lambda: recorder.resets and recorder.resets[-1])
    assert [type(error) for error in recorder.errors] == [holdfast.BacklogExceededError]


async def test_closing_waits_for_a_handler(db: Database, recorder: Recorder) -> None:
    recorder.gate = asyncio.Event()
    await db.triggers.track_table_diff("lists", recorder, read_only=True)
    await insert(db, "a")
    await recorder.entered.wait()
    closing = asyncio.ensure_future(db.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    recorder.gate.set()
    await closing
    assert recorder.seen == [("INSERT", "a")] and recorder.errors == []


@pytest.mark.parametrize("value", [1, "yes", None])
async def test_it_is_true_or_false(db: Database, recorder: Recorder, value: Any) -> None:
    with pytest.raises(TypeError, match="read_only"):
        await db.triggers.track_table_diff("lists", recorder, read_only=value)
    assert await leftovers(db) == []
