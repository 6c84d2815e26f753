// Who keeps whom waiting, and whom not: long readers, slow writers, those who give up or die.
import { noLookOut } from "./idle.mjs";
import { expect, test } from "./tabs.mjs";

const open = `
import asyncio, holdfast
db = await holdfast.open("waiting.db", busy_timeout=60)
${noLookOut}
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, pad TEXT)")
go_on = asyncio.Event()
`;

// A transaction that stays open until `go_on` is set.
const stay = (kind, first) => `
async def stay():
    async with db.${kind}_transaction() as tx:
        ${first}
        emit("inside")
        await go_on.wait()
    emit("left")
staying = asyncio.ensure_future(stay())
`;
const inside = (event) => event === "inside";
const left = (event) => event === "left";
const count = `await tx.fetch_value("SELECT count(*) FROM t")`;
const frames = `(await db.status()).wal_frames`;
// 300 frames and more, in a transaction of its own.
const fill = `await db.execute_many("INSERT INTO t(pad) VALUES(?)", [("x" * 3000,)] * 300)`;

test("one long reader keeps no writer, no reader and no opening waiting", async ({
  openTab,
  handleMode,
}) => {
  test.skip(handleMode === "exclusive", "one tab at a time, whether it reads or writes");
  const [a, b, c, d] = [await openTab(), await openTab(), await openTab(), await openTab()];
  for (const tab of [a, b, c]) await tab.run(open);
  await b.run(fill);
  await a.run(stay("read", count));
  await a.event(inside);
  // Far beyond what makes a writer try for a checkpoint, and not without end on a slow machine.
  await b.run(`
async def write():
    written = 0
    while not go_on.is_set() and written < 60:
        ${fill}
        written += 1
    return written
writing = asyncio.ensure_future(write())
`);
  await expect.poll(() => b.run(frames)).toBeGreaterThan(3000);
  for (let n = 0; n < 20; n += 1) {
    expect(await c.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBeGreaterThan(300);
  }
  await d.run(open);
  expect(await d.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBeGreaterThan(300);
  expect(await b.run(`go_on.set()\nawait writing`)).toBeGreaterThan(5);
  const most = await b.run(frames);
  expect(most).toBeGreaterThan(3000);
  // All the while:
  expect(a.events.filter(left)).toEqual([]);
  await a.run(`go_on.set()\nawait staying`);
  // Soon, though nobody writes any more.
  await expect.poll(() => b.run(frames)).toBeLessThan(1000);
  for (const tab of [a, b, c, d]) {
    expect(await tab.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
  }
});

test("readers that overlap all the time let others write, and the WAL is emptied again and again", async ({
  openTab,
}) => {
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await a.run(`
async def read():
    while not go_on.is_set():
        async with db.read_transaction() as tx:
            ${count}
            await asyncio.sleep(0.04)
reading = [asyncio.ensure_future(read())]
await asyncio.sleep(0.02)
reading.append(asyncio.ensure_future(read()))
`);
  const [emptied, most] = await b.run(`
emptied = most = before = 0
for _ in range(200):
    ${fill}
    now = ${frames}
    emptied += now < before
    most, before = max(most, now), now
    if emptied == 3:
        break
[emptied, most]
`);
  console.log(`at most ${most} frames`);
  expect(emptied).toBe(3);
  await a.run(`go_on.set()\nawait asyncio.gather(*reading)`);
});

test("a slow write transaction keeps no reader waiting, however long the WAL is", async ({
  openTab,
  handleMode,
}) => {
  test.skip(handleMode === "exclusive", "one tab at a time, whether it reads or writes");
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await b.run(`for _ in range(4): ${fill}`);
  await b.run(stay("write", `await tx.execute("INSERT INTO t(pad) VALUES('slow')")`));
  await b.event(inside);
  expect(await a.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBe(1200);
  // It made room before it began.
  expect(await a.run(frames)).toBeLessThan(1000);
  expect(b.events.filter(left)).toEqual([]);
  await b.run(`go_on.set()\nawait staying`);
  expect(await a.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBe(1201);
});

for (const [how, give_up] of [
  ["gives up", (tab) => tab.run(`await deleting`)],
  ["is cancelled", (tab) => tab.run(`deleting.cancel()\nawait deleting`)],
  ["dies", (tab) => tab.terminateWorker()],
]) {
  test(`one that waits to delete a database and ${how} keeps nobody from opening it`, async ({
    openTab,
  }) => {
    const a = await openTab();
    const b = await openTab({ own: how === "dies" });
    const c = await openTab();
    await a.run(`${open}\nawait db.execute("INSERT INTO t(pad) VALUES('there')")`);
    await b.run(`
import asyncio, holdfast
async def delete():
    try:
        return await holdfast.delete_database("waiting.db", wait=${how === "gives up" ? 0.5 : 600})
    except (holdfast.DatabaseBusyError, asyncio.CancelledError) as error:
        return type(error).__name__
deleting = asyncio.ensure_future(delete())
`);
    const waits = () =>
      a.page.evaluate(async () => {
        const { held } = await navigator.locks.query();
        return held.some(({ name }) => name.endsWith(":claim"));
      });
    if (how !== "gives up") await expect.poll(waits, { intervals: [5] }).toBe(true);
    const outcome = await give_up(b);
    if (how !== "dies") {
      expect(outcome).toBe(how === "gives up" ? "DatabaseBusyError" : "CancelledError");
    }
    await c.run(open);
    expect(await c.run(`await db.fetch_value("SELECT pad FROM t")`)).toBe("there");
  });
}

test("one that waits to delete a database goes before those who open it meanwhile", async ({
  openTab,
}) => {
  const [a, b, c] = [await openTab(), await openTab(), await openTab()];
  await a.run(`${open}\nawait db.execute("INSERT INTO t(pad) VALUES('there')")`);
  await b.run(`
import asyncio, holdfast
deleting = asyncio.ensure_future(holdfast.delete_database("waiting.db", wait=600))
`);
  await expect
    .poll(() =>
      a.page.evaluate(async () => {
        const { held } = await navigator.locks.query();
        return held.some(({ name }) => name.endsWith(":claim"));
      }),
    )
    .toBe(true);
  await c.run(`
import asyncio, holdfast
opening = asyncio.ensure_future(holdfast.open("waiting.db", busy_timeout=120)._open())
`);
  await a.run(`await db.close()`);
  expect(await b.run(`await deleting`)).toBe(true);
  await c.run(`db = await opening`);
  expect(await c.run(`await db.fetch_value("SELECT count(*) FROM sqlite_schema WHERE name = 't'")`)).toBe(0);
});

test("calls that wait together are told together", async ({ openTab }) => {
  const a = await openTab();
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open);
  await a.run(stay("write", count));
  await a.event(inside);
  const waited = await b.run(`
import time
db._session.storage.busy_timeout = 1.0
start = time.monotonic()
async def wait():
    try:
        await db.execute("INSERT INTO t(pad) VALUES('b')")
    except holdfast.DatabaseBusyError:
        return time.monotonic() - start
waited = await asyncio.gather(*(wait() for _ in range(5)))
waited
`);
  expect(waited.length).toBe(5);
  // Not one after the other: the last in less than two bounds after the first.
  expect(Math.max(...waited) - Math.min(...waited)).toBeLessThan(1);
  expect(Math.min(...waited)).toBeGreaterThan(0.9);
  await a.run(`go_on.set()\nawait staying`);
});
