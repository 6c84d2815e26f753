// storage="indexeddb": the connection of all tabs, in a shared worker; Python on the pages' threads.
import { expect, test } from "./tabs.mjs";

const open = (options = "") => `
import asyncio, holdfast
db = await holdfast.open("notes.db", storage="indexeddb", busy_timeout=60${options})
await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text TEXT)")
[db.storage, db.persists_triggers]`;

const page = { thread: "page", killable: false };

test("tabs share one connection, and what a tab leaves behind goes with it", async ({ openTab }) => {
  const first = await openTab(page);
  expect(await first.run(open())).toEqual(["indexeddb", false]);
  const second = await openTab(page);
  await second.run(open());
  expect(await second.run(`(await db.status()).tabs`)).toBe(2);

  // A trigger of one records what the other writes.
  await first.run(`
async def seen(ctx):
    emit([[r["operation"], r["id"]] for r in await ctx.with_diff("SELECT * FROM DIFF")])
tracker = await db.triggers.track_table_diff("notes", seen)
async def listen():
    async for change in db.changes():
        emit([sorted(change.tables), change.remote])
async def follow():
    async for records in db.triggers.diffs("notes"):
        emit([[r.operation, r.values, r.remote] for r in records])
tasks = [asyncio.ensure_future(listen()), asyncio.ensure_future(follow())]
while len(await db.fetch_all("SELECT 1 FROM temp.sqlite_master WHERE name LIKE 'ps_diff%'")) < 2:
    await asyncio.sleep(0.01)`);
  await second.run(`(await db.execute("INSERT INTO notes(text) VALUES('hello')")).changes`);
  const events = [];
  for (let i = 0; i < 3; i++) events.push(JSON.stringify(await first.event()));
  expect(events.sort()).toEqual(
    [
      [["notes"], true],
      [["INSERT", "1"]],
      [["INSERT", { id: 1, text: "hello" }, true]],
    ]
      .map((event) => JSON.stringify(event))
      .sort(),
  );

  // The tab that started the worker goes, in the middle of a transaction.
  await first.run(`
await db.execute("CREATE TEMP TABLE mine(v)")
tx = db.write_transaction()
inside = await tx.__aenter__()
await inside.execute("INSERT INTO notes(text) VALUES('never')")
None`);
  await first.close();
  const left = `
async with db.write_transaction() as tx:
    await tx.execute("INSERT INTO notes(text) VALUES('world')")
while await db.fetch_value(
    "SELECT count(*) FROM temp.sqlite_master WHERE type <> 'index' "
    "AND name NOT IN ('sqlite_sequence', 'ps_triggers')"
):
    await asyncio.sleep(0.01)
[[r[0] for r in await db.fetch_all("SELECT text FROM notes")], (await db.status()).tabs]`;
  expect(await second.run(left)).toEqual([["hello", "world"], 1]);

  // Another finds the worker, whose script is a blob of a page that is gone.
  const third = await openTab(page);
  await third.run(open());
  expect(await third.run(`(await db.status()).tabs`)).toBe(2);
  await second.close();
  await third.run(`await db.execute("INSERT INTO notes(text) VALUES('again')")
await db.close()
emit("closed")`);
  await third.close();

  // And when all are gone, the worker is: the next starts one, and finds what was committed.
  const last = await openTab(page);
  await last.run(open());
  const rows = `[r[0] for r in await db.fetch_all("SELECT text FROM notes")]`;
  expect(await last.run(rows)).toEqual(["hello", "world", "again"]);
  expect(await last.run(`
data = await db.export()
await db.close()
await holdfast.import_database("copy.db", data, storage="indexeddb")
names = await holdfast.databases("indexeddb")
gone = await holdfast.delete_database("notes.db", storage="indexeddb")
[data[:15].decode(), names, gone, await holdfast.databases("indexeddb")]`)).toEqual([
    "SQLite format 3",
    ["copy.db", "notes.db"],
    true,
    ["copy.db"],
  ]);
});

test("a shared worker that dies in the middle of a commit loses nothing", async ({ openTab }) => {
  const tab = await openTab(page);
  const other = await openTab(page);
  const served = `, worker="/e2e/weak.mjs"`;
  // Each transaction is two rows on many pages; \`told\` is how many were acknowledged.
  await tab.run(`
import asyncio, holdfast
from js import BroadcastChannel
weaken = BroadcastChannel.new("weaken")
told = 0
async def until_it_dies(n):
    global told
    async with holdfast.open("notes.db", storage="indexeddb", worker="/e2e/weak.mjs") as db:
        await db.execute("CREATE TABLE IF NOT EXISTS t(v)")
        found = await db.fetch_value("SELECT count(*) FROM t")
        assert found in (told * 2, told * 2 + 2), (found, told)
        assert await db.fetch_value("PRAGMA integrity_check") == "ok"
        told = found // 2
        weaken.postMessage(n)
        while True:
            async with db.write_transaction() as tx:
                await tx.execute("INSERT INTO t VALUES(randomblob(9000)), (randomblob(9000))")
            told += 1`);
  await other.run(open(served));
  const deaths = [];
  for (const n of [1, 2, 5, 30]) {
    const death = `
try:
    await until_it_dies(${n})
except holdfast.HoldfastError as error:
    found = [type(error).__name__, str(error)]
found`;
    deaths.push(await tab.run(death));
    await expect(other.run(`await db.fetch_value("SELECT 1")`)).rejects.toThrow(/died/);
    await other.run(open(served));
  }
  for (const [kind, message] of deaths) {
    expect(message).toMatch(/shared worker .* died/);
    expect(kind).toBe("DatabaseClosedError");
  }
  expect(await tab.run(`told`)).toBeGreaterThan(2);
  expect(await other.run(`
[await db.fetch_value("SELECT count(*) % 2 FROM t"), await db.fetch_value("PRAGMA integrity_check")]
`)).toEqual([0, "ok"]);
});

test("auto takes what can be had, and says what was tried", async ({ openTab }) => {
  const tab = await openTab(page);
  const kind = (options) => `
async with holdfast.open("auto.db"${options}) as db:
    found = db.storage
found`;
  await tab.run(`import holdfast`);
  expect(await tab.run(kind(``))).toBe("opfs");

  const weak = await openTab(page);
  await weak.run(`import holdfast`);
  expect(await weak.run(kind(`, worker="/e2e/weak.mjs"`))).toBe("indexeddb");
  expect(await weak.run(`await holdfast.databases()`)).toEqual(["auto.db"]);

  const nothing = await openTab(page);
  const error = await nothing.run(`
import holdfast, js
js.Reflect.deleteProperty(js.globalThis, "SharedWorker")
try:
    await holdfast.open("auto.db", worker="/e2e/weak.mjs")
except holdfast.StorageUnavailableError as error:
    found = str(error)
found`);
  expect(error).toMatch(/"opfs": .*createSyncAccessHandle does not exist/);
  expect(error).toMatch(/"indexeddb": .*SharedWorker does not exist/);

  const worker = await openTab({ killable: false });
  await expect(worker.run(open())).rejects.toThrow(/StorageUnavailableError.*main thread/s);
});
