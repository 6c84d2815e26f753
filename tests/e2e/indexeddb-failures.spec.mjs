// storage="indexeddb" when tabs come and go at the worst moments, and when the browser takes away.
import { expect, test } from "./tabs.mjs";

const page = { thread: "page", killable: false };

const open = `
import asyncio, holdfast
db = await holdfast.open("failures.db", storage="indexeddb", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, pad BLOB)")
`;
const insert = (bytes) => `await db.execute("INSERT INTO t(pad) VALUES(randomblob(${bytes}))")`;
const integrity = `await db.fetch_value("PRAGMA integrity_check")`;
const count = `await db.fetch_value("SELECT count(*) FROM t")`;

// What a statement raises, as text; "" for nothing.
const raised = (python) => `
try:
    ${python}
    error = ""
except holdfast.HoldfastError as raised:
    error = f"{type(raised).__name__}: {raised}"
error
`;

// Resolves when a lock of such a name is held: what is asked for goes on meanwhile.
const whenHeld = (tab, pattern) =>
  tab.page.evaluate(async (pattern) => {
    const isHeld = ({ held }) => held.some(({ name }) => new RegExp(pattern).test(name));
    while (!isHeld(await navigator.locks.query()));
  }, pattern);

test("tabs that open at once find one worker, also if its maker is reloaded or closed right then", async ({
  openTab,
}) => {
  const tabs = [await openTab(page), await openTab(page), await openTab(page)];
  // Just when it looks for the worker; when the worker has begun, its Python not yet.
  for (const [moment, leave] of [
    ["^holdfast:tab:", "reload"],
    ["^holdfast:shared:[0-9]", "close"],
  ]) {
    const [maker, ...others] = tabs;
    const left = maker.run(open).catch((error) => error.message);
    const opening = others.map((tab) => tab.run(open));
    // It may be over before this tab, which opens too, comes to look.
    await Promise.race([whenHeld(others[0], moment), Promise.all(opening)]);
    await maker[leave]();
    expect(await left).not.toBeNull();
    await Promise.all(opening);
    for (const tab of others) await tab.run(insert(10));
    await expect.poll(() => others[0].run(`(await db.status()).tabs`), { intervals: [20] }).toBe(2);
    expect(await others[1].run(count)).toBe(await others[0].run(count));
    if (leave === "close") {
      expect(await others[0].run(count)).toBe(4);
      continue;
    }
    await maker.run(open);
    expect(await maker.run(`(await db.status()).tabs`)).toBe(3);
    // When all are gone, so is the worker.
    await Promise.all(tabs.map((tab) => tab.reload()));
  }
});

test.describe("in Chromium, which can take things away", () => {
  test.use({ ownBrowser: true });
  test.skip(({ browserName }) => browserName === "firefox", "these need the DevTools protocol");

  test("at the quota a transaction and an import are undone, and with room again all goes on", async ({
    openTab,
    context,
  }) => {
    const a = await openTab(page);
    const b = await openTab(page);
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    // Before there is any database: Chromium asks for what is left only now and then.
    const { usage } = await devtools.send("Storage.getUsageAndQuota", { origin });
    await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: usage + 20_000_000 });
    for (const tab of [a, b]) await tab.run(open);
    const [kept, error] = await a.run(`
kept, error = 0, None
while error is None and kept < 1000:
    try:
        await db.execute_many("INSERT INTO t(pad) VALUES(randomblob(?))", [(100_000,)] * 10)
        kept += 10
    except holdfast.HoldfastError as raised:
        error = f"{type(raised).__name__}: {raised}"
[kept, error]`);
    expect(error).toMatch(/^QuotaExceededError: .*failures\.db/);
    for (const tab of [a, b]) expect(await tab.run(count)).toBe(kept);
    expect(await b.run(integrity)).toBe("ok");
    await b.run(`data = await db.export()`);
    const import_ = `await holdfast.import_database("copy.db", data, storage="indexeddb")`;
    expect(await b.run(raised(import_))).toMatch(/^QuotaExceededError: .*copy\.db/);
    expect(await b.run(`await holdfast.databases("indexeddb")`)).toEqual(["failures.db"]);

    await devtools.send("Storage.overrideQuotaForOrigin", { origin });
    await expect.poll(() => b.run(raised(import_)), { timeout: 60_000 }).toBe("");
    await b.run(insert(1_000_000));
    for (const tab of [a, b]) expect(await tab.run(count)).toBe(kept + 1);
    for (const tab of [a, b]) await tab.run(`await db.close()`);
    await a.run(open);
    expect(await a.run(count)).toBe(kept + 1);
    expect(await a.run(integrity)).toBe("ok");
  });

  test("site data that is cleared under open tabs ends their writing, and a name opened after that is a new database", async ({
    openTab,
    context,
  }, { annotations }) => {
    const a = await openTab(page);
    const b = await openTab(page);
    for (const tab of [a, b]) await tab.run(open);
    // In the middle of a commit, most often.
    await a.run(`
async def write():
    while True:
        await db.execute("INSERT INTO t(pad) VALUES(randomblob(1000000))")
        emit("written")
writing = asyncio.ensure_future(write())
`);
    await a.event();
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    await devtools.send("Storage.clearDataForOrigin", { origin, storageTypes: "indexeddb" });
    // Of what it interrupts the browser does not say why; nor is all of it told at the same time.
    expect(await a.run(raised(`await writing`))).toMatch(/^StorageUnavailableError: /);
    for (const tab of [a, b]) {
      await expect
        .poll(() => tab.run(raised(insert(10))))
        .toMatch(/^StorageUnavailableError: .*site's data was cleared/);
    }
    for (const tab of [a, b]) await tab.run(`await db.close()`);
    // Pages that were open get a new database from some browsers, and an error from others.
    let rows = 0;
    for (const tab of [a, b]) {
      const error = await tab.run(raised(`db = await holdfast.open("failures.db", storage="indexeddb")`));
      annotations.push({ type: "opened after clearing", description: error || "a new database" });
      if (error) {
        expect(error).toMatch(/^StorageUnavailableError: .*load it again/);
        continue;
      }
      await tab.run(open);
      await tab.run(insert(10));
      rows += 1;
      expect(await tab.run(count)).toBe(rows);
    }
    // In every browser this gives the new one.
    for (const tab of [a, b]) await tab.close();
    const c = await openTab(page);
    await c.run(open);
    expect(await c.run(count)).toBe(rows);
  });
});
