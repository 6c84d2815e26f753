// What the browser, the user or another program does to a database: an error that says so, and
// nothing lost.
import { expect, test } from "./tabs.mjs";

const open = `
import asyncio, holdfast
db = await holdfast.open("failures.db", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, pad BLOB)")
`;

const insert = (bytes = 10) => `await db.execute("INSERT INTO t(pad) VALUES(zeroblob(${bytes}))")`;
const count = `await db.fetch_value("SELECT count(*) FROM t")`;

// What a statement raises, as text; "" for nothing.
const raised = (python) => `
try:
    ${python}
    error = ""
except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"
error
`;

// Files of OPFS, past holdfast: `change(bytes)` in JavaScript gives the new content.
const change = (name, change, from = name) => `
from pyodide.code import run_js
await run_js("""async () => {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle("holdfast", { create: true });
  const read = await (await folder.getFileHandle("${from}", { create: true })).getFile();
  const bytes = new Uint8Array(await read.arrayBuffer());
  const file = await folder.getFileHandle("${name}", { create: true });
  const handle = await file.createSyncAccessHandle();
  const changed = (${change})(bytes);
  handle.truncate(0);
  handle.write(changed, { at: 0 });
  handle.flush();
  handle.close();
}""")()
`;

// The size of a file and a number that any change to it changes.
const fingerprint = (name) => `
from pyodide.code import run_js
await run_js("""async () => {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle("holdfast");
  const file = await (await folder.getFileHandle("${name}")).getFile();
  const bytes = new Uint8Array(await file.arrayBuffer());
  return bytes.length + ":" + bytes.reduce((sum, byte) => (sum * 31 + byte) % 1000003, 7);
}""")()
`;

test.describe("in Chromium, which can take things away", () => {
  test.use({ ownBrowser: true });
  test.skip(({ browserName }) => browserName === "firefox", "these need the DevTools protocol");

  test("site data that is cleared under open tabs ends their writing, and a name opened after that is a new database", async ({
    openTab,
    context,
    handleMode,
  }, { annotations }) => {
    // As shared ones they are left to end with their worker.
    test.skip(handleMode === "exclusive", "Chromium never answers the close of a cleared handle");
    const ended = /^StorageUnavailableError: the files of 'failures.db' were removed/;
    const a = await openTab();
    const b = await openTab();
    for (const tab of [a, b]) await tab.run(open);
    await a.run(insert());
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    await devtools.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
    // Nothing tells a worker; it finds out soon after a write, most often after the next one.
    await expect.poll(() => a.run(raised(insert()))).toMatch(ended);
    expect(await a.run(count)).toBeGreaterThanOrEqual(1);
    // Pages that were open get new files from some browsers, and an error from others.
    const written = [];
    const openAnew = async (tab, label) => {
      const error = await tab.run(
        `await db.close()` + raised(`db = await holdfast.open("failures.db", busy_timeout=60)`),
      );
      annotations.push({ type: "opened after clearing", description: error || "a new database" });
      if (error) {
        expect(error).toMatch(/^StorageUnavailableError: .*load it again/);
        return;
      }
      // It has what was written into it, and nothing that was written into the one before.
      await expectNew(tab);
      await tab.run(`await db.execute("CREATE TABLE ${label}(x)")`);
      written.push(label);
    };
    const expectNew = async (tab) => {
      expect(
        await tab.run(
          `[row[0] for row in await db.fetch_all("SELECT name FROM sqlite_schema WHERE name IN ('t', 'by_a', 'by_b')")]`,
        ),
      ).toEqual(written);
    };
    await openAnew(a, "by_a");
    // The other tab finds out as well, and reads what it has read before.
    await expect.poll(() => b.run(raised(insert()))).toMatch(ended);
    expect(await b.run(count)).toBeGreaterThanOrEqual(1);
    await openAnew(b, "by_b");
    // In every browser this gives the new one.
    for (const tab of [a, b]) await tab.close();
    const c = await openTab({ own: true });
    await c.run(`
import holdfast
db = await holdfast.open("failures.db", busy_timeout=60)
`);
    await expectNew(c);
    await c.run(open);
    await c.run(insert());
    expect(await c.run(count)).toBe(1);
  });

  test("tabs of before and after the clearing of site data do not write over each other", async ({
    openTab,
    context,
    handleMode,
  }, { annotations }) => {
    test.skip(handleMode === "exclusive", "Chromium never answers the close of a cleared handle");
    const a = await openTab();
    await a.run(open);
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    await devtools.send("Storage.clearDataForOrigin", { origin, storageTypes: "all" });
    const b = await openTab({ own: true });
    let acknowledged = 0;
    const writing = [];
    for (const tab of [a, b]) {
      const refused = await tab.run(
        `import holdfast\n` + raised(`new = await holdfast.open("new.db", busy_timeout=60)`),
      );
      annotations.push({ type: "opened after clearing", description: refused || "both" });
      if (refused) expect(refused).toMatch(/^StorageUnavailableError: .*load it again/);
      else writing.push(tab);
    }
    expect(writing.length).toBeGreaterThan(0);
    await writing[0].run(`
await new.execute("CREATE TABLE c(n)")
await new.execute("INSERT INTO c VALUES(0)")
`);
    const increments = writing.map((tab) =>
      tab.run(`
for _ in range(100):
    async with new.write_transaction() as tx:
        n = await tx.fetch_value("SELECT n FROM c")
        await tx.execute("UPDATE c SET n = ?", (n + 1,))
100
`),
    );
    for (const done of increments) acknowledged += await done;
    for (const tab of writing) {
      expect(await tab.run(`await new.fetch_value("SELECT n FROM c")`)).toBe(acknowledged);
    }
  });

  test("at the quota a transaction is rolled back, and with room again all goes on", async ({
    openTab,
    context,
  }) => {
    const a = await openTab();
    const b = await openTab();
    for (const tab of [a, b]) await tab.run(open);
    await a.run(insert(100_000));
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    const { usage } = await devtools.send("Storage.getUsageAndQuota", { origin });
    await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: usage + 3_000_000 });
    const error = await a.run(`
rows = 0
error = ""
try:
    while True:
        async with db.write_transaction() as tx:
            for _ in range(3):
                await tx.execute("INSERT INTO t(pad) VALUES(zeroblob(100000))")
        rows += 3
except holdfast.QuotaExceededError as raised:
    error = str(raised)
error
`);
    expect(error).toContain("failures.db");
    const rows = await a.run("rows");
    expect(rows).toBeGreaterThan(0);
    for (const tab of [a, b]) expect(await tab.run(count)).toBe(1 + rows);
    // The other tab meets the same wall, in one statement that is larger than what may be left.
    expect(await b.run(raised(insert(3_000_000)))).toMatch(/^QuotaExceededError/);
    expect(await b.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");

    await devtools.send("Storage.overrideQuotaForOrigin", { origin });
    await b.run(insert(3_000_000));
    await a.run(insert(100_000));
    for (const tab of [a, b]) {
      expect(await tab.run(count)).toBe(3 + rows);
      expect(await tab.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
    }
  });
});

test("a file that is not a database is refused and left as it is", async ({ openTab }) => {
  const tab = await openTab();
  for (const content of [
    `() => new TextEncoder().encode("Dear diary, ".repeat(500))`,
    `() => new Uint8Array(4096).fill(7)`,
  ]) {
    await tab.run(change("failures.db", content));
    const before = await tab.run(fingerprint("failures.db"));
    expect(await tab.run(`import holdfast` + raised(`await holdfast.open("failures.db")`))).toMatch(
      /^NotADatabaseError: .*failures\.db.*left as it is/,
    );
    expect(await tab.run(fingerprint("failures.db"))).toBe(before);
  }
});

test("a WAL that lost its end gives the transactions before that", async ({ openTab }) => {
  const tab = await openTab();
  await tab.run(open);
  for (let n = 0; n < 10; n += 1) await tab.run(insert(2000));
  await tab.run(`await db.close()`);
  await tab.run(change("failures.db-wal", `(bytes) => bytes.slice(0, bytes.findLastIndex(Boolean) - 9000)`));
  await tab.run(open);
  const left = await tab.run(count);
  expect(left).toBeGreaterThan(0);
  expect(left).toBeLessThan(10);
  expect(await tab.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
  await tab.run(insert());
  expect(await tab.run(count)).toBe(left + 1);
});

test("a WAL of another database is refused, and both are left as they are", async ({ openTab }) => {
  const tab = await openTab();
  // A database with a past, all of it in its file.
  await tab.run(`${open}
for _ in range(5):
    await db.execute_many("INSERT INTO t(pad) VALUES(zeroblob(2000))", [()] * 800)
await db.close()
other = await holdfast.open("other.db")
await other.execute("CREATE TABLE another(x)")
await other.close()
`);
  const own = await tab.run(fingerprint("failures.db-wal"));
  await tab.run(change("kept-wal-copy", `(bytes) => bytes`, "failures.db-wal"));
  await tab.run(change("failures.db-wal", `(bytes) => bytes`, "other.db-wal"));
  const before = await tab.run(fingerprint("failures.db"));
  expect(await tab.run(raised(`await holdfast.open("failures.db")`))).toMatch(
    /^NotADatabaseError: the WAL beside 'failures\.db' was written for another database/,
  );
  expect(await tab.run(fingerprint("failures.db"))).toBe(before);
  // With its own WAL back, it is whole.
  await tab.run(change("failures.db-wal", `(bytes) => bytes`, "kept-wal-copy"));
  expect(await tab.run(fingerprint("failures.db-wal"))).toBe(own);
  await tab.run(open);
  expect(await tab.run(count)).toBe(4000);
});

test("a flipped bit is an error where it is read, and spoils nothing else", async ({ openTab }) => {
  const tab = await openTab();
  await tab.run(`${open}
await db.execute("CREATE TABLE whole(id INTEGER PRIMARY KEY, pad)")
await db.execute_many("INSERT INTO t(pad) VALUES(zeroblob(900))", [()] * 40)
await db.execute_many("INSERT INTO whole(pad) VALUES(zeroblob(900))", [()] * 40)
await db.execute("VACUUM")
async with db.write_transaction() as tx:
    pass
root = await db.fetch_value("SELECT rootpage FROM sqlite_schema WHERE name = 't'")
# Until all of it is in the file: the WAL begins anew.
most, frames = 0, 1
while frames >= most:
    most = frames
    await db.execute("UPDATE whole SET pad = randomblob(901) WHERE id = 1")
    frames = db._session.storage.node.status("frames")
await db.close()
`);
  const root = await tab.run("root");
  // The page's type, its first byte, of the table's root.
  await tab.run(
    change("failures.db", `(bytes) => { bytes[${(root - 1) * 4096}] ^= 0x40; return bytes; }`),
  );
  await tab.run(open);
  expect(await tab.run(raised(count))).toMatch(/^CorruptError/);
  expect(await tab.run(raised(insert()))).toMatch(/^CorruptError/);
  expect(await tab.run(`await db.fetch_value("SELECT count(*) FROM whole")`)).toBe(40);
  await tab.run(`await db.execute("INSERT INTO whole(pad) VALUES(1)")`);
  expect(await tab.run(`await db.fetch_value("SELECT count(*) FROM whole")`)).toBe(41);
});

test("a file that somebody else has open is waited for, within the bound", async ({ openTab }) => {
  const tab = await openTab();
  await tab.run(`
import asyncio, holdfast
from pyodide.code import run_js
release = await run_js("""async () => {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle("holdfast", { create: true });
  const file = await folder.getFileHandle("failures.db", { create: true });
  const handle = await file.createSyncAccessHandle();
  return () => handle.close();
}""")()
`);
  expect(await tab.run(raised(`await holdfast.open("failures.db", busy_timeout=0.2)`))).toMatch(
    /^DatabaseBusyError: .*failures\.db/,
  );
  await tab.run(`
opening = asyncio.ensure_future(holdfast.open("failures.db", busy_timeout=60)._open())
await asyncio.sleep(0)
release()
db = await opening
`);
  expect(await tab.run(`await db.fetch_value("SELECT 7")`)).toBe(7);
});

test("a browser that refuses OPFS is told so", async ({ openTab }) => {
  const tab = await openTab({ own: true });
  await tab.run(`
import holdfast
from pyodide.code import run_js
run_js("""navigator.storage.getDirectory = () =>
  Promise.reject(new DOMException("Security error when calling GetDirectory", "SecurityError"))""")
None
`);
  expect(await tab.run(raised(`await holdfast.open("failures.db")`))).toMatch(
    /^StorageUnavailableError: OPFS refused 'failures\.db': SecurityError/,
  );
});

test("pages with another version of the package do not mix with this one", async ({ openTab }) => {
  const a = await openTab();
  const b = await openTab({ own: true });
  await a.run(open);
  await a.run(insert());
  await b.run(`import holdfast, holdfast.storage.opfs.node as node; node.PROTOCOL -= 1`);
  expect(await b.run(raised(`await holdfast.open("failures.db")`))).toMatch(
    /^StorageUnavailableError: 'failures\.db' is open in a page with another version/,
  );
  // Another database is none of its business, not even one whose name looks like a lock.
  await b.run(`await (await holdfast.open("failures.db:tab:5")).close()`);
  await a.run(insert());
  await a.run(`await db.close()`);
  await b.run(open);
  expect(await b.run(count)).toBe(2);
  expect(await a.run(raised(`await holdfast.open("failures.db")`))).toMatch(
    /^StorageUnavailableError/,
  );
});
