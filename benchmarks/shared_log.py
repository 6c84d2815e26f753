"""What many trackers of one table would cost if they shared one record of each change.

Now each tracker has a destination of its own, so a write costs as many inserts as there are
trackers. Here beside it: one destination for a source, and a cursor for each consumer; what every
consumer has passed is removed. Each consumer handles all records in one transaction, either way.

    python benchmarks/shared_log.py [trackers ...]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import holdfast
from holdfast import Database, Transaction

ROWS = 500
ROUNDS = 15
TRACKERS = (1, 3, 10, 40)

Consume = Callable[[Transaction, int], Awaitable[None]]


async def own_destinations(db: Database, trackers: int) -> Consume:
    """As it is: a table, and the triggers that fill it, for each."""
    for n in range(trackers):
        await db.triggers.create_diff_trigger("films", f"diff_{n}")

    async def consume(tx: Transaction, n: int) -> None:
        last = await tx.fetch_value(f"SELECT max(operation_id) FROM diff_{n}")
        await tx.fetch_all(f"SELECT * FROM diff_{n} WHERE operation_id <= ?", (last,))
        await tx.execute(f"DELETE FROM diff_{n} WHERE operation_id <= ?", (last,))

    return consume


async def one_log(db: Database, trackers: int) -> Consume:
    """One table for all, and how far each has read."""
    await db.triggers.create_diff_trigger("films", "log")
    await db.execute("CREATE TABLE cursors(consumer INTEGER PRIMARY KEY, passed INTEGER)")
    for n in range(trackers):
        await db.execute("INSERT INTO cursors VALUES(?, 0)", (n,))

    async def consume(tx: Transaction, n: int) -> None:
        last = await tx.fetch_value("SELECT max(operation_id) FROM log")
        passed = await tx.fetch_value("SELECT passed FROM cursors WHERE consumer = ?", (n,))
        await tx.fetch_all("SELECT * FROM log WHERE operation_id > ?", (passed,))
        await tx.execute("UPDATE cursors SET passed = ? WHERE consumer = ?", (last, n))
        await tx.execute("DELETE FROM log WHERE operation_id <= (SELECT min(passed) FROM cursors)")

    return consume


async def measure(
    design: Callable[[Database, int], Awaitable[Consume]], trackers: int
) -> list[float]:
    """µs for each row: written, and handled by all of them."""
    written, handled = [], []
    with tempfile.TemporaryDirectory() as folder:
        async with await holdfast.open(str(Path(folder) / "films.db"), storage="file") as db:
            await db.execute("CREATE TABLE films(id TEXT PRIMARY KEY, title TEXT, year INTEGER)")
            consume = await design(db, trackers)
            for turn in range(ROUNDS):
                began = time.perf_counter()
                async with db.write_transaction() as tx:
                    for n in range(ROWS):
                        row = (f"{turn}-{n}", f"Film {n}", 1900 + n % 120)
                        await tx.execute("INSERT INTO films VALUES(?, ?, ?)", row)
                between = time.perf_counter()
                for n in range(trackers):
                    async with db.write_transaction() as tx:
                        await consume(tx, n)
                written.append(between - began)
                handled.append(time.perf_counter() - between)
    return [statistics.median(times) / ROWS * 1e6 for times in (written, handled)]


async def main() -> None:
    trackers = [int(word) for word in sys.argv[1:]] or TRACKERS
    print("µs for each row; a destination for each tracker, one log for all")
    print("trackers   written: each    one   handled: each    one")
    for n in trackers:
        own, shared = await measure(own_destinations, n), await measure(one_log, n)
        print(f"{n:8} {own[0]:15.1f} {shared[0]:6.1f} {own[1]:15.1f} {shared[1]:6.1f}")


if __name__ == "__main__":
    asyncio.run(main())
