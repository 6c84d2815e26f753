"""Trackers: what a handler gets, when it is called, and what happens when it fails."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import apsw
import pytest
from across import inside, session_of
from patience import LONGER, PATIENCE

import holdfast
import holdfast.triggers.tracker
from holdfast import (
    BacklogExceededError,
    Database,
    DatabaseClosedError,
    DiffContext,
    NestedTransactionError,
    Schema,
    SourceDroppedError,
    Table,
)
from holdfast.triggers import inbox

from .conftest import SCHEMA, Open, Recorder, eventually, leftovers

pytestmark = pytest.mark.everywhere

INSERT = "INSERT INTO lists(id) VALUES (?)"


# A browser rounds its clock, Firefox by as much as a millisecond at each end.
ROUNDING = 0.003


def plans(monkeypatch: pytest.MonkeyPatch, over: asyncio.Event | None = None) -> list[float]:
    """What each wait of a tracker is to last at least, in seconds; `over` ends them, if given."""
    planned: list[float] = []
    wait = inbox.Inbox.wait

    async def planning(self: inbox.Inbox, not_before: float) -> bool:
        planned.append(not_before - time.monotonic())
        if over is not None and planned[-1] > 0:
            await over.wait()
            not_before = 0.0
        return await wait(self, not_before)

    monkeypatch.setattr(inbox.Inbox, "wait", planning)
    return planned


async def insert(db: Database, *ids: str) -> None:
    for one in ids:
        await db.execute(INSERT, (one,))


# -- contexts --------------------------------------------------------------------------------------


async def test_p4_with_diff(db: Database) -> None:
    queries = [
        ("SELECT operation_id, id, operation FROM DIFF", ()),
        ("  with x AS (SELECT id FROM diff WHERE id > ?) SELECT * FROM x", ("a",)),
        (
            "/* a */ -- b\nWITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
            "WHERE i < (SELECT count(*) FROM DIFF)) SELECT max(i) FROM n",
            (),
        ),
        ("SELECT l.n FROM lists AS l JOIN DIFF USING (id) WHERE l.id = :id", {"id": "b"}),
        ("SELECT * FROM DIFF WHERE id = 'none'", ()),
    ]
    found: list[Any] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        for sql, params in queries:
            found.append([tuple(row) for row in await ctx.with_diff(sql, params)])
        rows = await ctx.with_diff("SELECT * FROM DIFF")
        found.append(rows[0].keys())
        table = await ctx.transaction.fetch_all(f"SELECT id FROM {ctx.destination}")
        found.append([row["id"] for row in table])
        done.set()

    async with db.write_transaction() as tx:
        await db.triggers.track_table_diff("lists", handler, transaction=tx)
        for one, n in (("a", 1), ("b", 2)):
            await tx.execute("INSERT INTO lists(id, n) VALUES (?, ?)", (one, n))
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert found == [
        [(1, "a", "INSERT"), (2, "b", "INSERT")],
        [("b",)],
        [(2,)],
        [(2,)],
        [],
        ["operation_id", "id", "operation", "timestamp", "value", "previous_value"],
        ["a", "b"],
    ]


async def test_p4_with_extracted_diff(db: Database) -> None:
    await db.execute('CREATE TABLE t(k INTEGER PRIMARY KEY, "a""b", "my-col", "__OPERATION")')
    values = (7, b"\x00\xff", -(2**63), "hidden")
    found: list[Any] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        found.extend(await ctx.with_extracted_diff("SELECT * FROM DIFF"))
        found.append(await ctx.with_extracted_diff("SELECT typeof(k) AS t FROM DIFF WHERE k = 7"))
        done.set()

    async with db.write_transaction() as tx:
        await db.triggers.track_table_diff("t", handler, transaction=tx)
        await tx.execute("INSERT INTO t VALUES (?, ?, ?, ?)", values)
        await tx.execute('UPDATE t SET "my-col" = 0.1, "a""b" = \'{}\'')
        await tx.execute("DELETE FROM t")
    await asyncio.wait_for(done.wait(), PATIENCE)
    inserted, updated, deleted, types = found
    names = ["id", "k", 'a"b', "my-col"]
    assert inserted.keys() == [
        *names,
        "__operation",
        "__operation_id",
        "__timestamp",
        "__previous_value",
    ]
    assert tuple(inserted)[:6] == ("7", 7, b"\x00\xff", -(2**63), "INSERT", 1)
    assert inserted["__previous_value"] is None and inserted["__timestamp"].endswith("Z")
    assert tuple(updated)[:6] == ("7", 7, "{}", 0.1, "UPDATE", 2)
    assert '{"blob":"00FF"}' in updated["__previous_value"]
    assert tuple(deleted)[:5] == ("7", 7, "{}", 0.1, "DELETE")
    assert [row["t"] for row in types] == ["integer"] * 3


async def test_p4_a_column_named_id(db: Database) -> None:
    """It is the column, with its own type, not the key as text."""
    await db.execute("CREATE TABLE t(ID INTEGER PRIMARY KEY, v)")
    found: list[Any] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        found.extend(tuple(row) for row in await ctx.with_extracted_diff("SELECT id, v FROM DIFF"))
        done.set()

    await db.triggers.track_table_diff("t", handler)
    await db.execute("INSERT INTO t VALUES (5, 'a')")
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert found == [(5, "a")]


async def test_p4_columns_are_those_that_were_chosen(db: Database) -> None:
    keys: list[list[str]] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        keys.append((await ctx.with_extracted_diff("SELECT * FROM DIFF"))[0].keys())
        done.set()

    await db.triggers.track_table_diff("lists", handler, columns=["X"])
    await insert(db, "a")
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert keys[0][:3] == ["id", "x", "__operation"]


async def test_p4_a_write_from_the_diff(db: Database) -> None:
    await db.execute("CREATE TABLE copy(id)")
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        assert await ctx.with_diff("INSERT INTO copy SELECT id FROM DIFF") == []
        done.set()

    tracker = await db.triggers.track_table_diff("lists", handler)
    await insert(db, "a")
    await asyncio.wait_for(done.wait(), PATIENCE)
    # Its transaction is committed when it has returned.
    await tracker.stop()
    assert [row[0] for row in await db.fetch_all("SELECT id FROM copy")] == ["a"]


# -- delivery --------------------------------------------------------------------------------------


async def test_p6_consumed_in_one_transaction(a: Database, b: Database, recorder: Recorder) -> None:
    """Outside, the handler's work and the removal of its records are seen together."""
    await a.execute("CREATE TABLE done(id)")
    recorder.gate = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        await ctx.with_diff("INSERT INTO done SELECT id FROM DIFF")
        await recorder(ctx)

    tracker = await a.triggers.track_table_diff("lists", handler)
    state = f"SELECT (SELECT count(*) FROM {tracker.destination}), (SELECT count(*) FROM done)"
    await insert(b, "x")
    await recorder.entered.wait()
    assert tuple((await b.fetch_all(state))[0]) == (1, 0)
    recorder.gate.set()
    await recorder.until_seen(1)
    async with asyncio.timeout(PATIENCE):
        while (counts := tuple((await b.fetch_all(state))[0])) != (0, 1):
            assert counts == (1, 0)
            await asyncio.sleep(0)


async def test_p6_kept_when_the_handler_raises(db: Database, recorder: Recorder) -> None:
    await db.execute("CREATE TABLE tries(n)")

    async def handler(ctx: DiffContext) -> None:
        await ctx.transaction.execute("INSERT INTO tries VALUES (1)")
        await recorder(ctx)

    recorder.failures = [ZeroDivisionError()]
    await db.triggers.track_table_diff("lists", handler, on_error=recorder.on_error)
    await insert(db, "a")
    await recorder.until_seen(1)
    assert [type(error) for error in recorder.errors] == [ZeroDivisionError]

    async def written_once() -> bool:
        # What the failed call wrote went with it.
        return bool(await db.fetch_value("SELECT count(*) = 1 FROM tries"))

    await eventually(written_once)


async def test_p6_its_own_changes_come_in_the_next_call(db: Database, recorder: Recorder) -> None:
    async def handler(ctx: DiffContext) -> None:
        for row in await ctx.with_diff("SELECT id FROM DIFF"):
            if len(row["id"]) < 3:
                await ctx.transaction.execute(INSERT, (row["id"] + "a",))
        assert len(await ctx.with_diff("SELECT * FROM DIFF")) == 1
        await recorder(ctx)

    await db.triggers.track_table_diff("lists", handler)
    await insert(db, "a")
    await recorder.until_seen(3)
    assert [[one for _, one in call] for call in recorder.calls] == [["a"], ["aa"], ["aaa"]]
    await asyncio.sleep(0.1)
    assert len(recorder.calls) == 3


# Files are polled for, and a handler that is slow to ask leaves them free for moments only.
@pytest.mark.here
async def test_p6_a_handler_that_always_writes_keeps_nobody_out(
    a: Database, b: Database, recorder: Recorder
) -> None:
    """Its calls follow each other for as long as it writes, and each is a transaction that ends."""
    await insert(a, "own", "other")

    async def handler(ctx: DiffContext) -> None:
        await ctx.transaction.execute("UPDATE lists SET n = ifnull(n, 0) + 1 WHERE id = 'own'")
        await recorder(ctx)

    tracker = await a.triggers.track_table_diff("lists", handler, throttle=0)
    await b.execute("UPDATE lists SET x = 1 WHERE id = 'other'")
    await recorder.until_seen(20)
    await b.execute("UPDATE lists SET x = 2 WHERE id = 'other'")
    await recorder.until(lambda: recorder.seen.count(("UPDATE", "other")) == 2)
    async with asyncio.timeout(PATIENCE):
        await tracker.stop()
    assert all(len(call) <= 2 for call in recorder.calls)
    assert await leftovers(a) == []


async def test_p6_a_slow_handler_loses_nothing(
    a: Database, b: Database, recorder: Recorder
) -> None:
    """Others read meanwhile, and wait for their turn to write."""
    recorder.gate = asyncio.Event()
    tracker = await a.triggers.track_table_diff("lists", recorder, throttle=0)
    await insert(b, "first")
    await recorder.entered.wait()
    writing = [asyncio.create_task(insert(b, str(number))) for number in range(5)]
    await asyncio.sleep(0.05)
    assert not any(task.done() for task in writing)
    assert await b.fetch_value("SELECT count(*) FROM lists") == 1
    recorder.gate.set()
    await asyncio.gather(*writing)
    await recorder.until_seen(6)
    assert recorder.seen[0] == ("INSERT", "first") and len(recorder.calls[0]) == 1
    assert sorted(one for _, one in recorder.seen[1:]) == ["0", "1", "2", "3", "4"]
    await tracker.stop()


async def test_p6_a_handler_that_settles_its_source_ends(db: Database, recorder: Recorder) -> None:
    async def handler(ctx: DiffContext) -> None:
        await ctx.transaction.execute(
            "UPDATE lists SET name = upper(name) WHERE name <> upper(name)"
        )
        await recorder(ctx)

    tracker = await db.triggers.track_table_diff("lists", handler, throttle=0)
    await db.execute("INSERT INTO lists(id, name) VALUES ('a', 'x'), ('b', 'Y')")
    await recorder.until_seen(3)
    await tracker.stop()
    assert recorder.calls == [[("INSERT", "a"), ("INSERT", "b")], [("UPDATE", "a")]]


async def test_p7_bursts_are_coalesced_and_nothing_is_lost(
    a: Database, b: Database, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    over = asyncio.Event()
    planned = plans(monkeypatch, over)
    await a.triggers.track_table_diff("lists", recorder, throttle=LONGER)
    await insert(a, "0")
    await recorder.until_seen(1)
    for number in range(1, 100):
        await insert(b if number % 2 else a, str(number))
    assert len(recorder.calls) == 1
    over.set()
    await recorder.until_seen(100)
    assert [one for _, one in recorder.seen] == [str(number) for number in range(100)]
    assert [len(call) for call in recorder.calls] == [1, 99]
    assert 0 < max(planned) <= LONGER


async def test_p7_the_first_change_is_not_kept_waiting(db: Database, recorder: Recorder) -> None:
    await db.triggers.track_table_diff("lists", recorder, throttle=LONGER)
    await asyncio.sleep(0.05)
    await insert(db, "a")
    await recorder.until_seen(1)


async def test_p7_a_window_runs_once_more_after_its_last_change(
    db: Database, recorder: Recorder
) -> None:
    recorder.gate = asyncio.Event()
    await db.triggers.track_table_diff("lists", recorder, throttle=0.2)
    started = time.monotonic()
    await insert(db, "a")
    await recorder.entered.wait()
    writing = asyncio.create_task(insert(db, "b"))
    recorder.gate.set()
    await writing
    await recorder.until_seen(2)
    assert [len(call) for call in recorder.calls] == [1, 1]
    assert time.monotonic() - started >= 0.2 - ROUNDING


async def test_p7_one_handler_at_a_time(db: Database) -> None:
    running = most = 0
    seen = 0
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        nonlocal running, most, seen
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        seen += len(await ctx.with_diff("SELECT * FROM DIFF"))
        running -= 1
        if seen == 10:
            done.set()

    await db.triggers.track_table_diff("lists", handler, throttle=0)
    for number in range(10):
        await insert(db, str(number))
        await asyncio.sleep(0.002)
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert most == 1


async def test_p11_every_tab_sees_every_tab(connect: Open) -> None:
    tabs = [await connect() for _ in range(3)]
    recorders = [Recorder() for _ in tabs]
    for tab, recorder in zip(tabs, recorders, strict=True):
        await tab.triggers.track_table_diff("lists", recorder)
    for number, tab in enumerate(tabs):
        await insert(tab, str(number))
    for recorder in recorders:
        assert sorted(one for _, one in await recorder.until_seen(3)) == ["0", "1", "2"]


async def test_b5_only_changed(db: Database) -> None:
    await db.execute("CREATE TABLE t(k TEXT COLLATE NOCASE PRIMARY KEY, v COLLATE NOCASE, w)")
    for source, columns in (("lists", None), ("t", ["v"])):
        async with await db.triggers.create_diff_trigger(
            source, "d", when={"UPDATE": "TRUE"}, columns=columns, only_changed=True
        ):
            if source == "lists":
                await db.execute("INSERT INTO lists(id, n) VALUES ('a', 1)")
                await db.execute("UPDATE lists SET n = 1, name = NULL")
                await db.execute("UPDATE lists SET n = 2")
                expected = 1
            else:
                await db.execute("INSERT INTO t VALUES ('a', 'x', 1)")
                await db.execute("UPDATE t SET w = 2")
                for change in ("v = 'X'", "v = 1", "v = 1.0", "v = '1.0'", "v = NULL", "k = 'A'"):
                    await db.execute(f"UPDATE t SET {change}")
                    await db.execute(f"UPDATE t SET {change}")
                expected = 6
            assert await db.fetch_value("SELECT count(*) FROM d") == expected


# -- failures --------------------------------------------------------------------------------------


async def test_b6_pauses_grow(
    db: Database, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: list[float] = []
    planned = plans(monkeypatch)

    async def handler(ctx: DiffContext) -> None:
        times.append(time.monotonic())
        await recorder(ctx)

    recorder.failures = [ZeroDivisionError() for _ in range(3)]
    await db.triggers.track_table_diff("lists", handler, on_error=recorder.on_error)
    await insert(db, "a")
    await recorder.until_seen(1)
    pauses = [later - earlier for earlier, later in pairwise(times)]
    first = holdfast.triggers.insisting.FIRST_PAUSE
    assert len(pauses) == 3
    for pause, factor in zip(pauses, (1, 2, 4), strict=True):
        assert pause >= first * factor - ROUNDING
    assert len(recorder.errors) == 3
    # It begins anew after a success.
    planned.clear()
    recorder.failures = [ZeroDivisionError()]
    await insert(db, "b")
    await recorder.until_seen(2)
    assert len(recorder.errors) == 4
    assert 0 < max(planned) <= first + ROUNDING


async def test_b6_errors_never_stop_what_comes_later(db: Database, recorder: Recorder) -> None:
    recorder.failures = [ZeroDivisionError(), asyncio.CancelledError(), NestedTransactionError()]

    async def on_error(error: Exception) -> None:
        await recorder.on_error(error)
        raise OSError("on_error fails as well")

    await db.triggers.track_table_diff("lists", recorder, on_error=on_error)
    await insert(db, "a")
    await recorder.until(lambda: recorder.errors)
    await insert(db, "b")
    assert await recorder.until_seen(2) == [("INSERT", "a"), ("INSERT", "b")]
    assert [type(error) for error in recorder.errors] == [
        ZeroDivisionError,
        RuntimeError,
        NestedTransactionError,
    ]


async def test_b6_errors_are_logged_when_nobody_asks(
    db: Database, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    recorder.failures = [ZeroDivisionError("in the handler")]
    await db.triggers.track_table_diff("lists", recorder)
    await insert(db, "a")
    await recorder.until_seen(1)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "in the handler" in record.getMessage() and record.exc_info


async def test_holdfasts_own_errors_are_logged_in_one_line(
    db: Database, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async def is_logged() -> bool:
        return "tracking" in caplog.text

    await db.execute("CREATE TABLE plain(x)")
    async with await db.triggers.track_table_diff("plain", recorder):
        await db.execute("ALTER TABLE plain RENAME TO renamed")
        await eventually(is_logged)
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "tracking 'plain' failed" in record.getMessage() and not record.exc_info


async def test_a_transaction_by_mistake_is_an_error(db: Database, recorder: Recorder) -> None:
    """Each of these would wait for the handler that it is called in."""
    mistakes: list[Any] = [
        lambda: db.execute(INSERT, ("b",)),
        lambda: asyncio.create_task(db.execute(INSERT, ("b",))),  # type: ignore[arg-type]
        lambda: db.write_transaction().__aenter__(),
        lambda: db.fetch_all("SELECT 1"),
        lambda: db.triggers.create_diff_trigger("lists", "d"),
        lambda: anext(db.triggers.diffs("lists")),
        lambda: db.triggers.track_table_diff("lists", recorder),
        lambda: db.close(),
    ]

    async def handler(ctx: DiffContext) -> None:
        if len(recorder.errors) == len(recorder.calls):
            await mistakes[len(recorder.errors)]()
        await recorder(ctx)

    await db.triggers.track_table_diff("lists", handler, on_error=recorder.on_error)
    for number in range(len(mistakes)):
        await insert(db, str(number))
        await recorder.until_seen(number + 1)
    assert [type(error) for error in recorder.errors] == [NestedTransactionError] * len(mistakes)
    assert all("ctx.transaction" in str(error) for error in recorder.errors)
    assert len(inside(db).triggers._live) == 1


async def test_a_handler_that_yields_is_refused(db: Database, recorder: Recorder) -> None:
    async def yields(_: Any) -> Any:
        yield

    class Yields:
        async def __call__(self, _: Any) -> Any:
            yield

    for callback in (yields, Yields(), Yields().__call__, functools.partial(yields)):
        with pytest.raises(TypeError, match="on_change has a yield"):
            await db.triggers.track_table_diff("lists", callback)
        with pytest.raises(TypeError, match="on_error has a yield"):
            await db.triggers.track_table_diff("lists", recorder, on_error=callback)
        with pytest.raises(TypeError, match="before_create has a yield"):
            await db.triggers.track_table_diff("lists", recorder, before_create=callback)
    assert await db.triggers.tracked() == []


@pytest.mark.here
async def test_a_cancelled_tracker_ends_and_says_so(db: Database, recorder: Recorder) -> None:
    """As by a shutdown that cancels every task, or by a handler that cancels its own."""
    recorder.gate = asyncio.Event()

    async def on_error(error: Exception) -> None:
        await recorder.on_error(error)
        raise asyncio.CancelledError("of something that this waited for")

    tracker = await db.triggers.track_table_diff("lists", recorder, on_error=on_error)
    await insert(db, "a")
    await recorder.entered.wait()
    assert tracker._task is not None
    tracker._task.cancel()
    await asyncio.wait({tracker._task})
    assert tracker.ended and tracker.trigger.gone
    assert [type(error) for error in recorder.errors] == [RuntimeError]
    assert "cancelled, as by its handler" in str(recorder.errors[0])
    await insert(db, "b")
    await tracker.stop()
    assert recorder.calls == [] and await leftovers(db) == []


@pytest.mark.here
async def test_a_handler_that_cancels_its_own_task_ends_its_tracker(
    db: Database, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    called = 0

    async def handler(ctx: DiffContext) -> None:
        nonlocal called
        called += 1
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    tracker = await db.triggers.track_table_diff("lists", handler)
    other = await db.triggers.track_table_diff("lists", recorder)
    await insert(db, "a")
    await recorder.until_seen(1)
    await asyncio.wait({tracker._task})  # type: ignore[arg-type]
    assert tracker.ended and tracker.trigger.gone and called == 1
    assert "cancelled, as by its handler" in caplog.text
    await other.stop()
    assert await leftovers(db) == []


async def test_a_context_is_over_when_its_handler_is(db: Database, recorder: Recorder) -> None:
    kept: list[DiffContext] = []

    async def handler(ctx: DiffContext) -> None:
        kept.append(ctx)
        await recorder(ctx)

    tracker = await db.triggers.track_table_diff("lists", handler)
    await insert(db, "a")
    await recorder.until_seen(1)
    await tracker.stop()
    with pytest.raises(DatabaseClosedError):
        await kept[0].with_diff("SELECT * FROM DIFF")


async def test_b7_no_wake_up_is_lost(a: Database, b: Database, recorder: Recorder) -> None:
    """A commit that nobody announced, as of a writer that died right after it."""
    session_of(b).storage.announce = lambda tables, ddl: None  # type: ignore[method-assign]
    async with await a.triggers.track_table_diff("lists", recorder):
        await insert(b, "a")
        assert await recorder.until_seen(1) == [("INSERT", "a")]


async def test_b7_another_program_announces_nothing(
    connect: Open, file: Path, recorder: Recorder
) -> None:
    db = await connect()
    tracker = await db.triggers.track_table_diff("lists", recorder)
    other = apsw.Connection(str(file))
    other.set_busy_timeout(round(1000 * PATIENCE))
    other.execute("INSERT INTO lists(id) VALUES ('a')")
    other.close()
    assert await recorder.until_seen(1) == [("INSERT", "a")]
    await tracker.stop()


async def test_b7_what_was_there_at_the_start(db: Database, recorder: Recorder) -> None:
    async with db.write_transaction() as tx:
        await db.triggers.track_table_diff("lists", recorder, transaction=tx)
        await tx.execute(INSERT, ("a",))
    assert await recorder.until_seen(1) == [("INSERT", "a")]


# -- the end ---------------------------------------------------------------------------------------


async def test_b8_stop_waits_for_a_handler_in_flight(db: Database, recorder: Recorder) -> None:
    await db.execute("CREATE TABLE done(id)")
    recorder.gate = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        await recorder(ctx)
        await ctx.with_diff("INSERT INTO done SELECT id FROM DIFF")

    tracker = await db.triggers.track_table_diff("lists", handler)
    await insert(db, "a")
    await recorder.entered.wait()
    stopping = [asyncio.create_task(tracker.stop()) for _ in range(2)]
    await asyncio.sleep(0.02)
    assert not any(task.done() for task in stopping)
    recorder.gate.set()
    await asyncio.gather(*stopping)
    assert await db.fetch_value("SELECT id FROM done") == "a"
    assert await leftovers(db) == []
    await insert(db, "b")
    await tracker.stop()
    assert len(recorder.calls) == 1


async def test_b8_close_waits_for_a_handler_in_flight(
    database_name: str, recorder: Recorder
) -> None:
    db = await holdfast.open(database_name, schema=SCHEMA)
    await db.execute("CREATE TABLE done(id)")
    recorder.gate = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        await recorder(ctx)
        await ctx.with_diff("INSERT INTO done SELECT id FROM DIFF")

    await db.triggers.track_table_diff("lists", handler)
    await insert(db, "a")
    await recorder.entered.wait()
    closing = asyncio.create_task(db.close())
    await asyncio.sleep(0.02)
    assert not closing.done()
    recorder.gate.set()
    await closing
    async with holdfast.open(database_name, schema=SCHEMA) as again:
        assert await again.fetch_value("SELECT id FROM done") == "a"
        assert await leftovers(again) == []


async def test_b8_stop_from_the_handler_raises(db: Database, recorder: Recorder) -> None:
    async def handler(ctx: DiffContext) -> None:
        if not recorder.errors:
            await asyncio.gather(tracker.stop())
        await recorder(ctx)

    tracker = await db.triggers.track_table_diff("lists", handler, on_error=recorder.on_error)
    await insert(db, "a")
    await recorder.until_seen(1)
    assert [type(error) for error in recorder.errors] == [NestedTransactionError]
    assert "stop()" in str(recorder.errors[0])
    await tracker.stop()


async def test_b8_stop_inside_a_transaction_raises(db: Database, recorder: Recorder) -> None:
    tracker = await db.triggers.track_table_diff("lists", recorder)
    async with db.write_transaction(), asyncio.timeout(PATIENCE):
        with pytest.raises(NestedTransactionError):
            await tracker.stop()
    await insert(db, "a")
    assert await recorder.until_seen(1) == [("INSERT", "a")]
    await tracker.stop()


async def test_b8_stop_from_on_error(db: Database, recorder: Recorder) -> None:
    async def on_error(error: Exception) -> None:
        await asyncio.gather(tracker.stop())
        await recorder.on_error(error)

    recorder.failures = [ZeroDivisionError()]
    tracker = await db.triggers.track_table_diff("lists", recorder, on_error=on_error)
    await insert(db, "a")
    await recorder.until(lambda: recorder.errors)
    await tracker.stop()
    assert recorder.calls == [] and await leftovers(db) == []


async def test_b8_stop_waits_for_on_error(db: Database, recorder: Recorder) -> None:
    entered, gate, log = asyncio.Event(), asyncio.Event(), []

    async def on_error(error: Exception) -> None:
        entered.set()
        await gate.wait()
        log.append("told")

    recorder.failures = [ZeroDivisionError()]
    tracker = await db.triggers.track_table_diff("lists", recorder, on_error=on_error)
    await insert(db, "a")
    await entered.wait()
    stopping = asyncio.create_task(tracker.stop())
    await asyncio.sleep(0.02)
    assert not stopping.done()
    gate.set()
    await stopping
    assert log == ["told"] and recorder.calls == []


async def test_b8_close_drops_all_in_one_transaction(connect: Open, recorder: Recorder) -> None:
    a, b, c = await connect(), await connect(), await connect()
    await a.execute("CREATE TABLE marks(v)")
    for _ in range(3):
        await a.triggers.track_table_diff("lists", recorder)
    heard: list[Any] = []
    session_of(b).announcements.subscribe(heard.append)

    async def all_is_heard(of: Database) -> None:
        """News come in their order, and this is the last."""
        await of.execute("INSERT INTO marks VALUES ('last')")

        async def last() -> bool:
            return any(one.tables and "marks" in one.tables for one in heard)

        await eventually(last)

    await all_is_heard(a)
    heard.clear()
    await a.close()
    await all_is_heard(c)
    assert len([one for one in heard if one.ddl and one.tables]) == 1
    assert await leftovers(b) == []


async def test_a_stop_ends_a_long_pause(db: Database, recorder: Recorder) -> None:
    async with asyncio.timeout(PATIENCE):
        async with await db.triggers.track_table_diff("lists", recorder, throttle=LONGER):
            await insert(db, "a")
            await recorder.until_seen(1)
            await insert(db, "b")
            await asyncio.sleep(0.02)
    assert recorder.seen == [("INSERT", "a")]


@pytest.mark.parametrize("persist", [True, False])
@pytest.mark.parametrize("how", ["table", "view"])
async def test_b9_a_dropped_source_ends_its_tracker(
    connect: Open, recorder: Recorder, persist: bool, how: str
) -> None:
    a, b = await connect(), await connect()
    await a.execute("CREATE TABLE t(id)")
    source = "t" if how == "table" else "lists"
    recorder.gate = asyncio.Event()
    tracker = await a.triggers.track_table_diff(
        source, recorder, persist=persist, on_error=recorder.on_error
    )
    await a.execute(f"INSERT INTO {source}(id) VALUES ('last words')")
    await recorder.entered.wait()
    recorder.gate.set()
    if how == "table":
        await b.execute("DROP TABLE t")
    else:
        async with inside(b).write_transaction() as tx:
            await Schema([Table("drafts", [])]).apply(tx)
    await recorder.until(lambda: recorder.errors)
    assert [type(error) for error in recorder.errors] == [SourceDroppedError]
    assert len(recorder.seen) == 1
    await tracker.stop()
    assert await leftovers(a) == [] and await a.triggers.tracked() == []
    await tracker.stop()
    # Made again, it is nobody's source.
    if how == "table":
        await b.execute("CREATE TABLE t(id)")
    else:
        async with inside(b).write_transaction() as tx:
            await SCHEMA.apply(tx)
    for writer in (a, b):
        await writer.execute(f"INSERT INTO {source}(id) VALUES ('{session_of(writer).origin}')")


async def test_b9_last_words_are_delivered_first(
    a: Database, b: Database, recorder: Recorder
) -> None:
    await a.execute("CREATE TABLE t(id)")
    await a.triggers.track_table_diff("t", recorder, on_error=recorder.on_error)
    async with b.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES ('a')")
        await tx.execute("DROP TABLE t")
    await recorder.until(lambda: recorder.errors)
    assert recorder.seen == [("INSERT", "1")]
    assert [type(error) for error in recorder.errors] == [SourceDroppedError]


async def test_a_disposal_of_its_trigger_ends_a_tracker(
    db: Database, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = await db.triggers.track_table_diff("lists", recorder)
    await tracker.trigger.dispose()
    async with db.write_transaction() as tx:
        other = await db.triggers.track_table_diff("lists", recorder, transaction=tx)
        await other.trigger.dispose(tx)
    await insert(db, "a")

    async def ended() -> bool:
        return not inside(db).triggers._trackers

    await eventually(ended)
    assert recorder.calls == [] and caplog.records == []


async def test_b9_another_schema_change_ends_nothing(
    a: Database, b: Database, recorder: Recorder
) -> None:
    await a.triggers.track_table_diff("lists", recorder, on_error=recorder.on_error)
    await b.execute("CREATE TABLE other(a)")
    async with inside(b).write_transaction() as tx:
        wider = Table("lists", [holdfast.Column.text("name"), holdfast.Column.text("more")])
        await Schema([wider]).apply(tx)
    await insert(b, "a")
    assert await recorder.until_seen(1) == [("INSERT", "a")]
    assert recorder.errors == []


@pytest.mark.here
async def test_b10_a_backlog_is_bounded(connect: Open, recorder: Recorder) -> None:
    """The writer keeps it so: the consumer may be frozen."""
    a, b = await connect(), await connect()
    tracker = await a.triggers.track_table_diff(
        "lists", recorder, max_backlog=10, on_error=recorder.on_error, throttle=0
    )

    async def idle() -> bool:
        return not tracker._inbox._news.is_set()

    await eventually(idle)
    frozen = session_of(a).announcements._subscribers.copy()
    session_of(a).announcements._subscribers.clear()
    count = f"SELECT count(*) FROM {tracker.destination}"
    most = 0
    for number in range(35):
        await insert(b, str(number))
        most = max(most, await b.fetch_value(count))
    assert most == 10 and await b.fetch_value(count) == 5
    session_of(a).announcements._subscribers.update(frozen)
    await insert(b, "after")
    await recorder.until_seen(6)
    assert [type(error) for error in recorder.errors] == [BacklogExceededError]
    assert recorder.resets == [True]
    await insert(b, "later")
    await recorder.until_seen(7)
    assert recorder.resets == [True, False] and len(recorder.errors) == 1


async def test_b10_a_reset_is_told_until_it_is_handled(db: Database, recorder: Recorder) -> None:
    recorder.failures = [ZeroDivisionError()]
    tracker = await db.triggers.track_table_diff(
        "lists", recorder, max_backlog=2, on_error=recorder.on_error
    )
    async with db.write_transaction() as tx:
        await tx.execute_many(INSERT, [("a",), ("b",), ("c",)])
        # Nothing is left at all, and yet there is something to say.
        await tx.execute(f"DELETE FROM {tracker.destination}")
    await recorder.until(lambda: recorder.calls)
    assert recorder.calls == [[]] and recorder.resets == [True]
    assert [type(error) for error in recorder.errors] == [BacklogExceededError, ZeroDivisionError]


@pytest.mark.here
async def test_b10_a_discard_at_the_last_moment(
    a: Database, b: Database, recorder: Recorder
) -> None:
    """Between the look that tells the consumer and the transaction that calls it."""
    tracker = await a.triggers.track_table_diff(
        "lists", recorder, max_backlog=2, on_error=recorder.on_error, throttle=0
    )
    inbox: Any = tracker._inbox
    look = inbox.look

    async def look_and_be_overtaken() -> Any:
        found = await look()
        if found.last == 1:
            await insert(b, "b", "c", "d")
        return found

    inbox.look = look_and_be_overtaken
    # One's own, so that the consumer looks before it begins a transaction.
    await insert(a, "a")
    await recorder.until(lambda: recorder.calls)
    assert recorder.resets == [True]
    assert [type(error) for error in recorder.errors] == [BacklogExceededError]


@pytest.mark.here
async def test_b10_filling_costs_no_more_than_writing(db: Database, recorder: Recorder) -> None:
    """Each record looks at the two ends only, however many there are."""

    async def steps(rows: int) -> int:
        async with db.write_transaction() as tx:
            tracker = await db.triggers.track_table_diff(
                "lists", recorder, max_backlog=5000, transaction=tx
            )
            many = ((f"{tracker.destination} {number}",) for number in range(rows))
            await tx.execute_many(INSERT, many)
            raw = tx.connection
            counted: list[int] = []
            raw.set_progress_handler(lambda: bool(counted.append(1)), 50)
            await tx.execute(INSERT, (tracker.destination,))
            raw.set_progress_handler(None)
            await tracker.trigger.dispose(tx)
        return len(counted)

    assert await steps(2000) <= await steps(20) + 2


@pytest.mark.here
@pytest.mark.usefixtures("clock")
async def test_stop_beside_a_writer_keeps_to_one_bound_and_may_be_called_again() -> None:
    """The trigger is as long there as it could not be dropped."""
    async with holdfast.open("a.db", storage="memory", busy_timeout=2) as db:
        await db.execute("CREATE TABLE t(v)")
        tracker = await db.triggers.track_table_diff("t", Recorder())
        writing, done = asyncio.Event(), asyncio.Event()

        async def write() -> None:
            async with db.write_transaction():
                writing.set()
                await done.wait()

        writer = asyncio.ensure_future(write())
        await writing.wait()
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(holdfast.DatabaseBusyError, match="for longer than 2 s"):
                await tracker.stop()
            assert 2 <= time.monotonic() - start < 2.1
            assert not tracker.trigger.gone
        done.set()
        await writer
        await tracker.stop()
        assert tracker.trigger.gone
        assert (
            await db.fetch_all("SELECT name FROM temp.sqlite_master WHERE type = 'trigger'") == []
        )
