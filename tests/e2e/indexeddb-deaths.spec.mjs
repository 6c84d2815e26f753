// storage="indexeddb" when processes die or stop: the shared worker's own, and those of its tabs.
import { expect, test } from "./tabs.mjs";

// Which processes there are is part of these tests.
test.use({ ownBrowser: true });

const page = { thread: "page" };

const open = (options = "") => `
import asyncio, holdfast
db = await holdfast.open("deaths.db", storage="indexeddb", busy_timeout=60${options})
await db.execute("CREATE TABLE IF NOT EXISTS t(n INTEGER, pad BLOB)")
`;

// Keeps the shared worker busy, and nobody else.
const spin = (tab) => () =>
  tab.run(`
await db.fetch_value(
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c LIMIT 300000) SELECT count(*) FROM c")
`);

// Transactions of 40 rows on 120 pages, each of which also rewrites the rows of the one before.
const write = (weakness) => `
from js import BroadcastChannel, Object
from pyodide.ffi import create_proxy, to_js
async def write():
    while True:
        async with db.write_transaction() as tx:
            n = await tx.fetch_value("SELECT coalesce(max(n), 0) + 1 FROM t")
            await tx.execute_many("INSERT INTO t VALUES(?, randomblob(9000))", [(n,)] * 40)
            await tx.execute("UPDATE t SET pad = zeroblob(9000) WHERE n = ?", (n - 1,))
        emit({"acknowledged": n})
weaken = BroadcastChannel.new("weaken")
weaken.onmessage = create_proxy(lambda event: emit({"hanging": event.data}))
weaken.postMessage(to_js(${weakness}, dict_converter=Object.fromEntries))
writing = asyncio.ensure_future(write())
None`;

const state = `
{
  "integrity": await db.fetch_value("PRAGMA integrity_check"),
  "last": await db.fetch_value("SELECT max(n) FROM t"),
  "transactions": await db.fetch_value("SELECT count(DISTINCT n) FROM t"),
  "torn": [row[0] for row in await db.fetch_all("""
      SELECT n FROM t GROUP BY n HAVING count(*) <> 40
        OR sum(pad = zeroblob(9000)) <> CASE n WHEN (SELECT max(n) FROM t) THEN 0 ELSE 40 END""")],
}`;

test("kill -9 of the shared worker's process, in the middle of a commit, loses nothing", async ({
  openTab,
  tabBrowser,
}) => {
  const served = `, worker="/e2e/weak.mjs"`;
  const tabs = [await openTab(page), await openTab(page), await openTab(page)];
  for (const tab of tabs) await tab.run(open(served));
  let acknowledged = 0;
  for (const weakness of [`{"hangs": 300, "at": "put"}`, `{"hangs": 4, "at": "commit"}`]) {
    const living = tabs.filter((tab) => tab.usable);
    const writer = living.at(-1);
    await writer.run(write(weakness));
    await writer.event((event) => event.hanging === "hanging");
    // Nothing else is busy now.
    const pid = await tabBrowser.processOf((spin) => new Promise((go) => setTimeout(go, spin)));
    for (const event of writer.events) acknowledged = Math.max(acknowledged, event.acknowledged ?? 0);
    const dead = await tabBrowser.kill(pid);
    const survivors = living.filter((tab) => tab !== dead);
    expect(survivors.length).toBeGreaterThanOrEqual(living.length - 1);
    for (const tab of survivors) {
      const error = await tab.run(`
try:
    await db.fetch_value("SELECT 1")
    error = None
except holdfast.DatabaseClosedError as raised:
    error = str(raised)
error`);
      expect(error).toMatch(/shared worker .* died.*holdfast\.open\(\)/);
    }
    if (writer !== dead) await expect(writer.run(`await writing`)).rejects.toThrow(/died/);
    const found = [];
    for (const tab of survivors) {
      await tab.run(open(served));
      found.push(await tab.run(state));
      expect(found.at(-1)).toEqual(found[0]);
    }
    expect(found[0]).toMatchObject({ integrity: "ok", torn: [] });
    // The last one may have been committed without being acknowledged any more.
    expect([acknowledged, acknowledged + 1]).toContain(found[0].last);
    expect(found[0].transactions).toBe(found[0].last);
    acknowledged = found[0].last;
  }
  expect(acknowledged).toBeGreaterThan(3);
});

// Of a tab: a table, a trigger of SQL's and a tracker, all temporary, on the one connection.
const make = (who) => `
await db.execute("CREATE TEMP TABLE of_${who}(n)")
await db.execute("""
    CREATE TEMP TRIGGER fills_${who} AFTER INSERT ON main.t
    BEGIN INSERT INTO of_${who} VALUES(NEW.n); END""")
async def report(ctx):
    emit([row["n"] for row in await ctx.with_extracted_diff("SELECT n FROM DIFF")])
tracker = await db.triggers.track_table_diff("t", report, throttle=0)
tracker.destination`;

const temporary = `
sorted(row[0] for row in await db.fetch_all(
    "SELECT name FROM temp.sqlite_master WHERE type = 'table' "
    "AND name NOT IN ('sqlite_sequence', 'ps_triggers') OR name LIKE 'fills%'"))`;

test("P10, P12, B11: what a tab made goes when it is killed or closed, and stays while it is frozen", async ({
  openTab,
  tabBrowser,
}) => {
  const host = await openTab(page);
  await host.run(open());
  const [killed, closed, frozen] = [await openTab(page), await openTab(page), await openTab(page)];
  const made = {};
  for (const [who, tab] of Object.entries({ killed, closed, frozen })) {
    await tab.run(open());
    made[who] = [await tab.run(make(who)), `fills_${who}`, `of_${who}`];
  }
  const worker = await tabBrowser.processOf(spin(host));
  for (const tab of [killed, closed, frozen]) expect(tab.pid).not.toBe(worker);
  expect(await host.run(temporary)).toEqual(Object.values(made).flat().sort());

  await frozen.stop();
  await closed.close();
  await expect
    .poll(() => host.run(temporary), { intervals: [20] })
    .toEqual([...made.killed, ...made.frozen].sort());
  // In the middle of a transaction.
  await killed.run(`
inside = await db.write_transaction().__aenter__()
await inside.execute("INSERT INTO t(n) VALUES(0)")
None`);
  await killed.killRenderer();
  // A frozen one may be asked for ever.
  await host.run(`await db.execute("INSERT INTO t(n) VALUES(1)")`);
  await expect.poll(() => host.run(temporary), { intervals: [20] }).toEqual(made.frozen.sort());
  await host.run(`await db.execute("INSERT INTO t(n) VALUES(2)")`);
  expect(await host.run(`(await db.status()).tabs`)).toBe(2);

  frozen.resume();
  const told = [...(await frozen.event())];
  while (told.length < 2) told.push(...(await frozen.event()));
  expect(told).toEqual([1, 2]);
  const rows = (table) => `[row[0] for row in await db.fetch_all("SELECT n FROM ${table}")]`;
  expect(await frozen.run(rows("of_frozen"))).toEqual([1, 2]);
  expect(await frozen.run(rows("t"))).toEqual([1, 2]);
});
