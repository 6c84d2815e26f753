"""`diffs()`: typed records, who wrote them, acknowledgement, and what a batch comes to."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from across import inside, session_of
from patience import LONGER, PATIENCE

import holdfast
from holdfast import (
    BacklogExceededError,
    Database,
    DiffContext,
    DiffOperation,
    DiffRecord,
    NestedTransactionError,
    SourceDroppedError,
    UnknownSourceError,
)
from holdfast.triggers.records import fold_diff

from .conftest import SCHEMA, Open, eventually, leftovers

Batches = AsyncGenerator[list[DiffRecord], None]

pytestmark = pytest.mark.everywhere


async def listening(db: Database, batches: Batches) -> asyncio.Task[list[DiffRecord]]:
    """The task of the first `anext`, once its trigger is there."""
    before = len(inside(db).triggers._live)
    task = asyncio.ensure_future(anext(batches))

    async def made() -> bool:
        return task.done() or len(inside(db).triggers._live) > before

    await eventually(made)
    return task


async def test_typed_records(db: Database) -> None:
    batches = db.triggers.diffs("t")
    await db.execute("CREATE TABLE t(k INTEGER PRIMARY KEY, v)")
    first = await listening(db, batches)
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (1, ?)", (b"\x00",))
        await tx.execute("UPDATE t SET v = 9007199254740993, k = 2")
        await tx.execute("DELETE FROM t")
    inserted, updated, deleted = await first
    assert isinstance(inserted, DiffRecord) and inserted.operation is DiffOperation.INSERT
    assert [record.operation_id for record in (inserted, updated, deleted)] == [1, 2, 3]
    assert (inserted.id, inserted.values, inserted.previous) == ("1", {"k": 1, "v": b"\x00"}, None)
    assert (updated.id, updated.previous_id) == ("2", "1")
    assert updated.values == {"k": 2, "v": 9007199254740993}
    assert updated.previous == {"k": 1, "v": b"\x00"}
    assert (deleted.id, deleted.values, deleted.previous) == ("2", None, updated.values)
    for record in (inserted, updated, deleted):
        assert record.timestamp.utcoffset() == timedelta(0)
        assert abs(record.timestamp - datetime.now(UTC)) < timedelta(seconds=5)
    await batches.aclose()
    assert await leftovers(db) == []


@pytest.mark.parametrize(
    ("values", "previous", "changed"),
    [
        ({"a": 1, "b": b"x"}, {"a": 1, "b": b"x"}, ()),
        ({"a": 2, "b": None}, {"a": 1, "b": ""}, ("a", "b")),
        ({"a": 1, "b": "1"}, {"a": 1.0, "b": b"1"}, ("a", "b")),
        ({"a": 1, "b": 2}, None, ("a", "b")),
        (None, {"a": 1, "b": 2}, ("a", "b")),
        ({}, {}, ()),
    ],
)
def test_what_changed(values: Any, previous: Any, changed: tuple[str, ...]) -> None:
    """What SQLite stores as another thing is another thing."""
    now = datetime.now(UTC)
    record = DiffRecord(1, DiffOperation.UPDATE, "k", now, values, previous, None, False)
    assert record.changed == changed


async def test_b4_text_that_is_no_utf8(db: Database) -> None:
    await db.execute("CREATE TABLE t(k TEXT PRIMARY KEY, v)")
    batches = db.triggers.diffs("t")
    first = await listening(db, batches)
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES (CAST(x'61FF62' AS TEXT), CAST(x'C3' AS TEXT))")
        await tx.execute("UPDATE t SET k = 'fine', v = CAST(x'22FE22' AS TEXT)")
    inserted, updated = await first

    def data(text: object) -> bytes:
        assert isinstance(text, str)
        return text.encode(errors="surrogateescape")

    assert data(inserted.id) == data(updated.previous_id) == b"a\xffb"
    assert inserted.values is not None
    assert {name: data(text) for name, text in inserted.values.items()} == {
        "k": b"a\xffb",
        "v": b"\xc3",
    }
    assert updated.values is not None
    assert (updated.id, data(updated.values["v"])) == ("fine", b'"\xfe"')
    # It goes on with what comes after.
    following = asyncio.ensure_future(anext(batches))
    await db.execute("DELETE FROM t")
    assert [record.id for record in await following] == ["fine"]
    await batches.aclose()


async def test_b13_another_program_is_told_apart(connect: Open, file: Path) -> None:
    db = await connect()
    batches = db.triggers.diffs("lists")
    first = await listening(db, batches)
    await db.execute("INSERT INTO lists(id) VALUES ('mine')")
    other = sqlite3.connect(file)
    other.execute("INSERT INTO lists(id) VALUES ('o1'), ('o2')")
    other.commit()
    other.close()
    found = await first
    while len(found) < 3:
        found += await anext(batches)
    assert [(record.id, record.remote) for record in found] == [
        ("mine", False),
        ("o1", True),
        ("o2", True),
    ]
    assert [record.transaction_id is None for record in found] == [False, True, True]
    await batches.aclose()


async def test_b13_transactions_and_writers_are_told_apart(connect: Open) -> None:
    a, b = await connect(), await connect()
    batches = a.triggers.diffs("lists")
    first = await listening(a, batches)

    async def transaction(db: Database, *ids: str) -> str:
        async with db.write_transaction() as tx:
            for one in ids:
                await tx.execute("INSERT INTO lists(id) VALUES (?)", (one,))
            return tx.id

    mine = await transaction(a, "a1", "a2")
    theirs = await transaction(b, "b1", "b2", "b3")
    later = await transaction(a, "a3")
    found = await first
    while len(found) < 6:
        found += await anext(batches)
    assert [(record.id, record.transaction_id, record.remote) for record in found] == [
        ("a1", mine, False),
        ("a2", mine, False),
        ("b1", theirs, True),
        ("b2", theirs, True),
        ("b3", theirs, True),
        ("a3", later, False),
    ]
    await batches.aclose()


@pytest.mark.parametrize("persist", [True, False])
async def test_b13_what_a_handler_writes_is_stamped_too(db: Database, persist: bool) -> None:
    """In the same transaction it removes older records, with smaller numbers."""
    written: list[str] = []

    async def handler(ctx: DiffContext) -> None:
        if not written:
            written.append(ctx.transaction.id)
            await ctx.transaction.execute("INSERT INTO lists(id) VALUES ('b'), ('c')")

    batches = db.triggers.diffs("lists", persist=persist, throttle=0)
    first = await listening(db, batches)
    await db.triggers.track_table_diff("lists", handler, persist=persist)
    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    found = await first
    while len(found) < 3:
        found += await anext(batches)
    assert [record.id for record in found] == ["a", "b", "c"]
    assert [record.transaction_id for record in found[1:]] == written * 2
    assert found[0].transaction_id not in (None, *written)
    assert not any(record.remote for record in found)
    await batches.aclose()


async def test_b13_one_update_for_each_transaction(db: Database) -> None:
    async with await db.triggers.create_diff_trigger("lists", "d"):
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO lists(id) VALUES ('a'), ('b'), ('c')")
        stamps = "SELECT transaction_id, origin, last_operation_id FROM d ORDER BY operation_id"
        assert [tuple(row) for row in await db.fetch_all(stamps)] == [
            (tx.id, session_of(db).origin, 3),
            (None, None, None),
            (None, None, None),
        ]


async def test_acknowledged_by_asking_for_the_next(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was consumed is removed a while later, and what was only given stays."""
    monkeypatch.setattr(holdfast.triggers.cutting, "AFTER", 0.05)
    batches = db.triggers.diffs("lists", throttle=0)
    first = await listening(db, batches)
    (destination,) = (trigger.destination for trigger in inside(db).triggers._live.values())

    async def kept() -> list[str]:
        return [row[0] for row in await db.fetch_all(f"SELECT id FROM {destination}")]

    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    assert [record.id for record in await first] == ["a"]
    await db.execute("INSERT INTO lists(id) VALUES ('b')")
    assert await kept() == ["a", "b"]
    assert [record.id for record in await anext(batches)] == ["b"]

    async def only_b() -> bool:
        return await kept() == ["b"]

    await eventually(only_b)
    await db.execute("INSERT INTO lists(id) VALUES ('c')")
    assert [record.id for record in await anext(batches)] == ["c"]
    await batches.aclose()


async def test_many_are_removed_at_once_and_a_backlog_without_delay(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holdfast.triggers.cutting, "AFTER", LONGER)
    monkeypatch.setattr(holdfast.triggers.cutting, "MANY", 10)
    for options in ({}, {"max_backlog": 5}):
        batches = db.triggers.diffs("lists", throttle=0, **options)  # type: ignore[arg-type]
        first = await listening(db, batches)
        (trigger,) = inside(db).triggers._live.values()
        many = 5 if options else 10
        for number in range(3 * many):
            await db.execute("INSERT INTO lists(id) VALUES (?)", (f"{many}-{number}",))
            assert [record.id for record in await first] == [f"{many}-{number}"]
            first = asyncio.ensure_future(anext(batches))

        async def few(of: str = trigger.destination, most: int = many) -> bool:
            return await db.fetch_value(f"SELECT count(*) FROM {of}") < most

        await eventually(few)
        first.cancel()
        await asyncio.wait([first])
        await batches.aclose()


async def test_bursts_come_together(db: Database) -> None:
    batches = db.triggers.diffs("lists", throttle=0.1)
    first = await listening(db, batches)
    for number in range(30):
        await db.execute("INSERT INTO lists(id) VALUES (?)", (str(number),))
    found = [await first]
    while sum(map(len, found)) < 30:
        found.append(await anext(batches))
    assert [record.id for batch in found for record in batch] == [str(n) for n in range(30)]
    assert len(found) < 10
    await batches.aclose()


async def test_leaving_the_loop_disposes(db: Database) -> None:
    async def one() -> None:
        async for batch in db.triggers.diffs("lists", columns=["name"]):
            assert batch[0].values == {"name": "x"}
            break

    task = asyncio.create_task(one())

    async def made() -> bool:
        return bool(inside(db).triggers._live)

    await eventually(made)
    await db.execute("INSERT INTO lists(id, name, n) VALUES ('a', 'x', 1)")
    await task

    async def gone() -> bool:
        return await leftovers(db) == [] and not inside(db).triggers._live

    await eventually(gone)


async def test_a_cancelled_loop_disposes(db: Database) -> None:
    batches = db.triggers.diffs("lists")
    task = await listening(db, batches)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await leftovers(db) == []
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_asking_inside_a_transaction_is_an_error(db: Database) -> None:
    """It would wait for changes that nobody can make meanwhile; and nothing is left of it."""
    batches = db.triggers.diffs("lists")
    first = await listening(db, batches)
    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    assert len(await first) == 1
    async with db.write_transaction() as tx, asyncio.timeout(PATIENCE):
        with pytest.raises(NestedTransactionError, match="would wait"):
            await anext(batches)
        await tx.execute("INSERT INTO lists(id) VALUES ('b')")

    async def gone() -> bool:
        return not await leftovers(db)

    await eventually(gone)
    assert await db.fetch_value("SELECT count(*) FROM lists") == 2


async def test_a_loop_that_is_cancelled_twice_disposes(db: Database) -> None:
    task = await listening(db, db.triggers.diffs("lists"))
    async with db.write_transaction():
        # It cannot drop anything as long as this is open.
        for _ in range(2):
            task.cancel()
            await asyncio.sleep(0.02)
        await asyncio.wait({task}, timeout=PATIENCE)
        assert task.cancelled()

    async def gone() -> bool:
        return not await leftovers(db)

    await eventually(gone)


async def test_closing_ends_the_loop(database_name: str) -> None:
    db = await holdfast.open(database_name, schema=SCHEMA)
    batches = db.triggers.diffs("lists")
    first = await listening(db, batches)
    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    assert len(await first) == 1
    await db.close()
    with pytest.raises(StopAsyncIteration):
        await anext(batches)


async def test_wrong_arguments_are_told_at_the_first_one(db: Database) -> None:
    with pytest.raises(UnknownSourceError):
        await anext(db.triggers.diffs("nope"))
    with pytest.raises(ValueError, match="throttle"):
        await anext(db.triggers.diffs("lists", throttle=-1))
    assert await leftovers(db) == []


async def test_b9_a_dropped_source_is_an_error(db: Database) -> None:
    await db.execute("CREATE TABLE t(id)")
    task = await listening(db, db.triggers.diffs("t"))
    await db.execute("DROP TABLE t")
    with pytest.raises(SourceDroppedError, match="'t'"):
        await task
    assert await leftovers(db) == []


async def test_b10_too_much_is_an_error(db: Database) -> None:
    task = await listening(db, db.triggers.diffs("lists", max_backlog=2))
    async with db.write_transaction() as tx:
        for number in range(3):
            await tx.execute("INSERT INTO lists(id) VALUES (?)", (str(number),))
    with pytest.raises(BacklogExceededError, match="read the source anew"):
        await task
    assert await leftovers(db) == []


async def test_b10_the_stamp_survives_a_discard(db: Database) -> None:
    options: Any = {"max_backlog": 2}
    tracker_calls: list[list[Any]] = []
    done = asyncio.Event()

    async def handler(ctx: DiffContext) -> None:
        rows = await ctx.transaction.fetch_all(f"SELECT * FROM {ctx.destination}")
        tracker_calls.append([(row["id"], row["transaction_id"]) for row in rows])
        done.set()

    await db.triggers.track_table_diff("lists", handler, **options)
    async with db.write_transaction() as tx:
        for number in range(3):
            await tx.execute("INSERT INTO lists(id) VALUES (?)", (str(number),))
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert tracker_calls[0] == [("2", tx.id)]


# -- net -------------------------------------------------------------------------------------------


async def test_b5_net_reads_a_replace_as_an_update(db: Database) -> None:
    await db.execute("CREATE TABLE t(k PRIMARY KEY, v)")
    await db.execute("INSERT INTO t VALUES (1, 'a')")
    batches = db.triggers.diffs("t", net=True)
    first = await listening(db, batches)
    await db.execute("REPLACE INTO t VALUES (1, 'b')")
    (record,) = await first
    assert (record.operation, record.id, record.values, record.previous) == (
        "UPDATE",
        "1",
        {"k": 1, "v": "b"},
        {"k": 1, "v": "a"},
    )
    await batches.aclose()


async def test_b5_without_net_a_replace_is_both(db: Database) -> None:
    await db.execute("INSERT INTO lists(id) VALUES ('a')")
    batches = db.triggers.diffs("lists")
    first = await listening(db, batches)
    await db.execute("REPLACE INTO lists(id, n) VALUES ('a', 1)")
    assert [record.operation for record in await first] == ["DELETE", "INSERT"]
    await batches.aclose()


async def test_b5_what_comes_to_nothing_is_not_given(db: Database) -> None:
    batches = db.triggers.diffs("lists", net=True, throttle=0)
    first = await listening(db, batches)
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO lists(id) VALUES ('a')")
        await tx.execute("DELETE FROM lists")
    await asyncio.sleep(0.05)
    await db.execute("INSERT INTO lists(id) VALUES ('b')")
    assert [record.id for record in await first] == ["b"]
    await batches.aclose()


def record(number: int, text: str) -> DiffRecord:
    """ "+a1" inserts a with 1, "a1>b2" updates a to b, "-a1" deletes it; keys are letters."""
    now = datetime.now(UTC)
    if text[0] in "+-":
        values = {"k": text[1], "v": text[2:]}
        operation = DiffOperation.INSERT if text[0] == "+" else DiffOperation.DELETE
        inserted, deleted = (values, None) if text[0] == "+" else (None, values)
        return DiffRecord(number, operation, text[1], now, inserted, deleted, None, False)
    old, new = text.split(">")
    return DiffRecord(
        number,
        DiffOperation.UPDATE,
        new[0],
        now,
        {"k": new[0], "v": new[1:]},
        {"k": old[0], "v": old[1:]},
        None,
        False,
        None if old[0] == new[0] else old[0],
    )


def written(found: DiffRecord) -> str:
    values, previous = found.values, found.previous
    new = f"{values['k']}{values['v']}" if values else ""
    old = f"{previous['k']}{previous['v']}" if previous else ""
    return {"INSERT": f"+{new}", "DELETE": f"-{old}"}.get(found.operation, f"{old}>{new}")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("+a1", "+a1"),
        ("+a1 a1>a2", "+a2"),
        ("+a1 a1>a2 -a2", ""),
        ("+a1 -a1 +a3", "+a3"),
        ("a1>a2 a2>a3", "a1>a3"),
        ("a1>a2 -a2", "-a1"),
        ("-a1 +a2", "a1>a2"),
        ("-a1 +a2 -a2", "-a1"),
        ("-a1 +b1 +a2", "+b1 a1>a2"),
        ("a1>b1", "-a1 +b1"),
        ("a1>b1 b1>a2", "a1>a2"),
        ("+a1 a1>b1", "+b1"),
        ("a1>c1 b2>a2 c1>b1", "a1>a2 b2>b1"),
    ],
)
def test_b5_folding(before: str, after: str) -> None:
    folded = fold_diff([record(n, text) for n, text in enumerate(before.split())])
    assert " ".join(map(written, folded)) == after


def test_b5_keys_that_are_null_are_not_one() -> None:
    now = datetime.now(UTC)

    def insert(number: int, key: str | None) -> DiffRecord:
        return DiffRecord(number, DiffOperation.INSERT, key, now, {}, None, None, False)

    assert len(fold_diff([insert(1, None), insert(2, None)])) == 2
    twice = [insert(1, "[1,null]"), insert(2, "[1,null]")]
    assert len(fold_diff(twice, ("a", "b"))) == 2
    assert len(fold_diff(twice, ("a",))) == 1


def test_b5_keys_that_look_alike_are_not_one() -> None:
    now = datetime.now(UTC)

    def insert(number: int, key: str | int | bytes | float) -> DiffRecord:
        values: dict[str, Any] = {"k": key}
        return DiffRecord(number, DiffOperation.INSERT, "1", now, values, None, None, False)

    assert len(fold_diff([insert(1, 1), insert(2, "1"), insert(3, b"1")], ("k",))) == 3
    # SQLite takes these two for equal.
    assert len(fold_diff([insert(1, 1), insert(2, 1.0)], ("k",))) == 1
