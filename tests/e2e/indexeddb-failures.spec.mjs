// storage="indexeddb" when the browser takes things away.
import { expect, test } from "./tabs.mjs";

const page = { thread: "page", killable: false };

const open = `
import asyncio, holdfast
db = await holdfast.open("failures.db", storage="indexeddb")
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, pad BLOB)")
`;
const insert = (bytes) => `await db.execute("INSERT INTO t(pad) VALUES(randomblob(${bytes}))")`;
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

test.describe("in Chromium, which can take things away", () => {
  test.use({ ownBrowser: true });
  test.skip(({ browserName }) => browserName === "firefox", "these need the DevTools protocol");

  test("site data that is cleared under open tabs ends their writing, and a new database is had", async ({
    openTab,
    context,
  }) => {
    const a = await openTab(page);
    const b = await openTab(page);
    for (const tab of [a, b]) await tab.run(open);
    await a.run(insert(10));
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    await devtools.send("Storage.clearDataForOrigin", { origin, storageTypes: "indexeddb" });
    for (const tab of [a, b]) {
      expect(await tab.run(raised(insert(10)))).toMatch(/^StorageUnavailableError: .*was cleared/);
    }
    for (const tab of [a, b]) await tab.run(`await db.close()`);
    for (const tab of [a, b]) await tab.run(open);
    await b.run(insert(10));
    expect(await a.run(count)).toBe(1);
  });
});
