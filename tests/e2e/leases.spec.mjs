// Who waits for whom: tabs that are stopped, idle or inside a transaction.
import { noLookOut, stopIdle } from "./idle.mjs";
import { expect, test } from "./tabs.mjs";

// For so long, in seconds, has a tab to wait before it is told that others keep the database.
const BOUND = 0.5;
// Longer than a lease takes to be handed over on a computer that is slow.
const PATIENCE = 60;

const open = `
import asyncio, time, holdfast
db = await holdfast.open("leases.db", busy_timeout=${PATIENCE})
${noLookOut}
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, who TEXT)")

async def outcome(awaitable, bound=${PATIENCE}):
    start = time.monotonic()
    db._session.storage.busy_timeout = bound
    try:
        await awaitable
    except holdfast.DatabaseBusyError:
        assert time.monotonic() - start >= bound * 0.9, "it did not wait for so long"
        return "busy"
    finally:
        db._session.storage.busy_timeout = ${PATIENCE}
    return "done"
`;

const insert = (who, bound = PATIENCE) =>
  `await outcome(db.execute("INSERT INTO t(who) VALUES('${who}')"), ${bound})`;
const rows = `[row["who"] for row in await db.fetch_all("SELECT who FROM t ORDER BY id")]`;

test("a tab that is stopped while it is idle delays nobody", async ({ openTab }) => {
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await b.run(insert("b"));
  // Nobody asked for what it kept.
  await stopIdle(b, a);
  expect(await a.run(insert("a"))).toBe("done");
  const c = await openTab();
  await c.run(open);
  expect(await c.run(insert("c"))).toBe("done");
  expect(await a.run(rows)).toEqual(["b", "a", "c"]);
  b.resume();
  expect(await b.run(rows)).toEqual(["b", "a", "c"]);
});

test("a tab that is stopped inside a transaction keeps it, and others are told in time", async ({
  openTab,
  handleMode,
}) => {
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await b.run(`
go_on = asyncio.Event()
async def write():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(who) VALUES('b')")
        emit("inside")
        await go_on.wait()
        await tx.execute("INSERT INTO t(who) VALUES('b, later')")
    emit("committed")
writing = asyncio.ensure_future(write())
`);
  await b.event((event) => event === "inside");
  await b.stop();
  // More than once: whoever was refused has left nothing in the queue.
  for (let n = 0; n < 2; n += 1) expect(await a.run(insert("a", BOUND))).toBe("busy");
  const bound = handleMode === "shared" ? PATIENCE : BOUND;
  const read = await a.run(`await outcome(db.fetch_all("SELECT * FROM t"), ${bound})`);
  expect(read).toBe(handleMode === "shared" ? "done" : "busy");
  if (handleMode === "shared") expect(await a.run(rows)).toEqual([]);

  b.resume();
  // It is inside still, and the only one to write.
  expect(await a.run(insert("a", BOUND))).toBe("busy");
  await b.run(`go_on.set()`);
  await b.event((event) => event === "committed");
  expect(await a.run(insert("a"))).toBe("done");
  for (const tab of [a, b]) {
    expect(await tab.run(rows)).toEqual(["b", "b, later", "a"]);
    expect(await tab.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
  }
});

test("a tab whose reader is stopped keeps no writer waiting, where handles are shared", async ({
  openTab,
  handleMode,
}) => {
  test.skip(handleMode === "exclusive", "one tab at a time, whether it reads or writes");
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await b.run(insert("b"));
  await b.run(`
go_on = asyncio.Event()
async def read():
    async with db.read_transaction() as tx:
        first = await tx.fetch_value("SELECT count(*) FROM t")
        emit("inside")
        await go_on.wait()
        emit([first, await tx.fetch_value("SELECT count(*) FROM t")])
reading = asyncio.ensure_future(read())
`);
  await b.event((event) => event === "inside");
  // Of what it kept after its write.
  await expect.poll(() => a.leases(), { intervals: [20] }).toEqual(["holdfast:leases.db:read"]);
  await b.stop();
  // Also where the WAL passes its threshold: what cannot be checkpointed now, waits.
  const written = await a.run(`
for _ in range(6):
    async with db.write_transaction() as tx:
        for _ in range(400):
            await tx.execute("INSERT INTO t(who) VALUES(?)", ("a" * 3000,))
(await db.status()).wal_frames
`);
  expect(written).toBeGreaterThan(1500);
  b.resume();
  await b.run(`go_on.set()`);
  expect(await b.event((event) => event.length === 2)).toEqual([1, 1]);
  expect(await b.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBe(2401);
  const more = `
await db.execute_many("INSERT INTO t(who) VALUES(?)", [("a" * 3000,)] * 200)
(await db.status()).wal_frames
`;
  await expect.poll(() => a.run(more)).toBeLessThan(500);
});

test("the last tab that leaves empties the WAL; none that leaves before, nor inside another's work", async ({
  openTab,
}) => {
  const a = await openTab({ own: true });
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  // Who has not heard of the others yet takes itself for the last one.
  const peers = (tab) =>
    expect.poll(() => tab.run(`len(db._session.storage.node._peers)`), { intervals: [20] });
  await peers(a).toBe(1);
  const bytes = () =>
    a.page.evaluate(async () => {
      const root = await navigator.storage.getDirectory();
      const file = await (await root.getDirectoryHandle("holdfast")).getFileHandle("leases.db-wal");
      return (await file.getFile()).size;
    });
  const many = `
async with db.write_transaction() as tx:
    await tx.execute_many("INSERT INTO t(who) VALUES(?)", [("a" * 3000,)] * 400)
`;
  const count = `await db.fetch_value("SELECT count(*) FROM t")`;
  const frames = `(await db.status()).wal_frames`;
  await a.run(many);
  await b.run(`
go_on = asyncio.Event()
async def write():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t(who) VALUES('b')")
        emit("inside")
        await go_on.wait()
writing = asyncio.ensure_future(write())
`);
  await b.event();
  await a.run(`await db.close()`);
  expect(await b.run(`go_on.set()\nawait writing\n${frames}`)).toBeGreaterThan(300);

  // One that opens it meanwhile, and one that leaves without a word.
  await a.run(open);
  const c = await openTab({ own: true });
  await c.run(open);
  await peers(b).toBe(2);
  await b.run(`await db.close()`);
  await c.terminateWorker();
  await peers(a).toBe(0);
  expect(await a.run(count)).toBe(401);
  expect(await a.run(frames)).toBeGreaterThan(300);
  // Nobody is in its way, and it has the time that a slow browser takes to say so.
  await a.run(`
import holdfast.storage.opfs.wal as wal
wal.BRIEFLY = ${PATIENCE}
await db.close()
`);
  expect(await bytes()).toBe(0);
  await b.run(open);
  expect([await b.run(count), await b.run(frames)]).toEqual([401, 0]);
  expect(await b.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
});
