"""What run.mjs measures, in one tab's Python; every function gives figures of one round."""

import asyncio
import time

import js
from pyodide.code import run_js
from pyodide.ffi import create_proxy

import holdfast

_RAW = """async (n) => {
  const root = await navigator.storage.getDirectory();
  const file = await root.getFileHandle("raw", { create: true });
  const handle = await file.createSyncAccessHandle({ mode: "readwrite-unsafe" });
  const page = new Uint8Array(4096).fill(7);
  const time = (n, f) => {
    const start = performance.now();
    for (let i = 0; i < n; i++) f(i);
    return ((performance.now() - start) / n) * 1000;
  };
  handle.truncate(0);
  const append = time(n, (i) => {
    handle.write(page, { at: i * 4096 });
    handle.flush();
  });
  const read = time(n * 5, (i) => handle.read(page, { at: (i % n) * 4096 }));
  handle.close();
  return [append, read];
}"""


async def prepare():
    global db, relaxed, turn, turns
    db = await holdfast.open("bench.db")
    relaxed = await holdfast.open("bench.db", synchronous="normal")
    await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
    await db.execute("CREATE TABLE IF NOT EXISTS c(id INTEGER PRIMARY KEY, n INTEGER)")
    await db.execute("INSERT OR IGNORE INTO c VALUES(1, 0)")
    await db.execute("CREATE TABLE IF NOT EXISTS log(id INTEGER PRIMARY KEY, who INTEGER)")
    # Turns pass from tab to tab on a channel of the benchmark's own.
    turn = asyncio.Event()
    turns = js.BroadcastChannel.new("bench-turns")
    turns.onmessage = create_proxy(lambda event: turn.set())


async def each(n, call):
    """Microseconds for each of n awaited calls."""
    start = time.perf_counter()
    for i in range(n):
        await call(i)
    return (time.perf_counter() - start) / n * 1e6


async def alone():
    n = 200
    raw_append, raw_read = await run_js(_RAW)(n)
    insert = "INSERT INTO t(a, b) VALUES(?, ?)"
    durable = await each(n, lambda i: db.execute(insert, (i, "x" * 100)))
    relaxed_us = await each(n, lambda i: relaxed.execute(insert, (i, "x" * 100)))
    rows = [(i, "y" * 100) for i in range(25_000)]
    many = await each(1, lambda _: db.execute_many(insert, rows))
    point = await each(
        2000, lambda i: db.fetch_one("SELECT a, b FROM t WHERE id = ?", (1 + i * 7 % 20_000,))
    )
    # Between rounds, so that each one meets the same table.
    await db.execute("DELETE FROM t WHERE id > 25000")
    return {
        "raw: append 4 KiB + flush": raw_append,
        "raw: read 4 KiB": raw_read,
        "durable one-row transaction": durable,
        "one-row transaction, synchronous=normal": relaxed_us,
        "25,000 rows in one transaction": many / 1e3,
        "point read, fetch_one by primary key": point,
    }


async def alternate(me, n=100):
    """Milliseconds of one write when two tabs take turns: each lets go after every write.

    Of both tabs' writes together; and how many of them followed one of the other tab.
    """
    start = time.perf_counter()
    for _ in range(n):
        await db.execute("INSERT INTO log(who) VALUES(?)", (me,))
        await asyncio.sleep(0)
    each = (time.perf_counter() - start) / (2 * n) * 1e3
    switches = await db.fetch_value(
        "SELECT avg(who <> before) FROM (SELECT who, lag(who) OVER (ORDER BY id) AS before "
        "FROM log ORDER BY id DESC LIMIT ?)",
        (n,),
    )
    return [each, switches]


async def ping_pong(me, n=100):
    """Milliseconds of one write when each waits for a message of the other, which it includes."""
    if me == 0:
        await asyncio.sleep(0.2)  # both have begun; the first turn is ours
        turn.set()
    start = None
    for _ in range(n):
        await turn.wait()
        turn.clear()
        start = start or time.perf_counter()
        await db.execute("UPDATE c SET n = n + 1 WHERE id = 1")
        turns.postMessage(0)
    elapsed = time.perf_counter() - start
    if me == 0:
        await turn.wait()
    turn.clear()
    return elapsed / (2 * n - 1) * 1e3


async def at_once(n=200):
    """Milliseconds of one write, of all that are written, when two tabs write without pause."""
    start = time.perf_counter()
    for _ in range(n):
        await db.execute("UPDATE c SET n = n + 1 WHERE id = 1")
    return (time.perf_counter() - start) / (2 * n) * 1e3


async def check(total):
    assert await db.fetch_value("PRAGMA integrity_check") == "ok"
    assert await db.fetch_value("SELECT n FROM c") % 600 == 0, "an update was lost"


def version():
    return str(js.navigator.userAgent)
