"""The rows of the benchmark in Python; workload.mjs is the same for engines in JavaScript."""

import asyncio
import time

import js
from workload import turns  # workload.mjs, registered by engines/holdfast.mjs

import holdfast

FILL = "x" * 100
INSERT = "INSERT INTO t(a, b) VALUES(?, ?)"
MANY = 25_000

db = None
now = time.perf_counter


async def prepare(settings):
    global db
    db = await holdfast.open("bench.db")
    await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
    await db.execute("CREATE TABLE IF NOT EXISTS c(id INTEGER PRIMARY KEY, n INTEGER)")
    await db.execute("INSERT OR IGNORE INTO c VALUES(1, 0)")


async def reopen(settings):
    global db
    await db.close()
    start = now()
    db = await holdfast.open("bench.db")
    await db.fetch_one("SELECT n FROM c WHERE id = 1")
    return (now() - start) * 1e3


async def each(n, call):
    """Microseconds for each of n awaited calls."""
    start = now()
    for i in range(n):
        await call(i)
    return (now() - start) / n * 1e6


async def commit(n):
    return await each(n, lambda i: db.execute(INSERT, (i, FILL)))


async def relaxed(n):
    other = await holdfast.open("bench.db", synchronous="normal")
    try:
        return await each(n, lambda i: other.execute(INSERT, (i, FILL)))
    finally:
        await other.close()


async def bulk():
    await db.execute("DELETE FROM t")
    start = now()
    await db.execute_many(INSERT, ((i, FILL) for i in range(MANY)))
    return (now() - start) * 1e3


async def point(n):
    query = "SELECT a, b FROM t WHERE id = ?"
    return await each(n, lambda i: db.fetch_one(query, (1 + i * 7 % 20_000,)))


async def fill():
    await db.execute("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, pad BLOB)")
    if await db.fetch_value("SELECT count(*) FROM big"):
        return
    for _ in range(10):
        await db.execute_many("INSERT INTO big(pad) VALUES(zeroblob(?))", [(4000,)] * 1250)


async def scan(settings):
    await reopen(settings)
    start = now()
    await db.fetch_one("SELECT sum(length(pad)), max(pad) FROM big")
    return (now() - start) * 1e3


async def alternate(me, tabs, n):
    turn = turns()
    start = now()
    for i in range(n):
        k = i * tabs + me
        if k and (coming := turn.wait(k)):
            await coming
        if i == 0:
            start = now()
        await db.execute("UPDATE c SET n = n + 1 WHERE id = 1")
        turn.next(k + 1)
    elapsed = now() - start
    # The last message goes out before its channel ends.
    await asyncio.sleep(0.05)
    turn.close()
    return elapsed * 1e3 / ((n - 1) * tabs + 1)


async def writeFor(ms):
    count = 0
    end = now() + ms / 1e3
    while now() < end:
        await db.execute("UPDATE c SET n = n + 1 WHERE id = 1")
        count += 1
    return count


async def readFor(ms):
    count = 0
    start = now()
    while now() < start + ms / 1e3:
        await db.fetch_one("SELECT a, b FROM t WHERE id = ?", (1 + count * 7 % 20_000,))
        count += 1
    return (now() - start) / count * 1e6


async def counter():
    return await db.fetch_value("SELECT n FROM c WHERE id = 1")


async def close():
    await db.close()


# -- triggers; powersync.mjs has the same ---------------------------------------------------------

tracking = None
trackers = []
arrived = []
made = 0


def clock():
    return js.performance.timeOrigin + js.performance.now()


async def prepareTracking():
    global tracking
    items = holdfast.Table("items", [holdfast.Column.integer("a"), holdfast.Column.text("b")])
    tracking = await holdfast.open("tracking.db", holdfast.Schema([items]))
    await tracking.execute("DELETE FROM items")


async def handler(context):
    at = clock()
    if await context.with_diff("SELECT id FROM DIFF"):
        arrived.append(at)


async def track(n, throttle):
    for _ in range(n):
        trackers.append(
            await tracking.triggers.track_table_diff("items", handler, throttle=throttle / 1e3)
        )


async def untrack():
    for tracker in trackers:
        await tracker.stop()
    trackers.clear()


async def trackedRows(n):
    global made
    start = now()
    async with tracking.write_transaction() as tx:
        first, made = made, made + n
        await tx.execute(
            "WITH RECURSIVE s(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM s WHERE i + 1 < ?) "
            "INSERT INTO items(id, a, b) SELECT 'row-' || i, i, ? FROM s",
            (first, first + n, FILL),
        )
    return (now() - start) / n * 1e6


async def writeOne():
    await tracking.execute(
        "INSERT INTO items(id, a, b) VALUES(?, 1, ?)", (str(js.crypto.randomUUID()), FILL)
    )
    return clock()


async def arrivals():
    global arrived
    found, arrived = arrived, []
    return found


async def clear():
    await tracking.execute("DELETE FROM items")


async def stopTracking():
    await tracking.close()


# -- one tab writes, and others look on ------------------------------------------------------------

looking = []


async def look(kind):
    """Consume what is written from now on, in one of the ways of triggers.mjs."""
    if kind == "handlers":
        await track(1, 0)
        return
    if kind == "read_only handlers":
        trackers.append(
            await tracking.triggers.track_table_diff("items", handler, throttle=0, read_only=True)
        )
        return
    if kind == "diffs":
        found = tracking.triggers.diffs("items", throttle=0)
    else:
        found = tracking.watch("SELECT max(a), count(*) FROM items", throttle=0)

    async def consume():
        async for _ in found:
            arrived.append(clock())

    looking.append(asyncio.ensure_future(consume()))


async def lookAway():
    await untrack()
    for task in looking:
        task.cancel()
    await asyncio.gather(*looking, return_exceptions=True)
    looking.clear()


async def writeOnFor(ms):
    """Milliseconds for each single row that is written without pause."""
    count = 0
    start = now()
    while now() < start + ms / 1e3:
        await writeOne()
        count += 1
    return (now() - start) * 1e3 / count
