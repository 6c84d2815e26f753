// What a browser refuses: an error that says so, and never a database in another place.
import { openPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

const refusing = (query = "") => `/e2e/refusing.mjs?${query}`;

// What opening raises on a page of JavaScript, which has a database open in a worker that refuses
// nothing.
const failure = (page, name, options) =>
  page.evaluate(
    ([name, more]) => failure(() => holdfast.open(name, { ...options, ...more })),
    [name, options],
  );

const raised = (python) => `
import holdfast
try:
    ${python}
    error = ""
except Exception as raised:
    error = f"{type(raised).__name__}: {raised}"
error
`;

test("where site data is blocked open() says so, in memory all goes on", async ({ context, openTab }) => {
  const blocked = "locks=SecurityError&opfs=SecurityError";
  const page = await openPage(context, "blocked.db", { storage: "memory", worker: refusing(blocked) });
  await page.evaluate(() => {
    navigator.locks.request = () => Promise.reject(new DOMException("blocked", "SecurityError"));
  });
  expect(await page.evaluate(async () => (await db.execute("INSERT INTO notes VALUES(1, 2, 3)")).changes)).toBe(1);
  for (const storage of ["auto", "opfs", "indexeddb"]) {
    const error = await failure(page, "blocked.db", { storage });
    expect(error.name).toBe("StorageUnavailableError");
    expect(error.message).toContain("SecurityError");
    if (storage === "auto") expect(error.message).toMatch(/"opfs": .*"indexeddb": /);
  }
  const block = `
from pyodide.code import run_js
run_js("""navigator.locks.request = () =>
  Promise.reject(new DOMException("blocked", "SecurityError"))""")
None`;
  for (const thread of ["worker", "page"]) {
    const tab = await openTab({ own: true, thread, killable: false });
    await tab.run(block);
    for (const storage of ["auto", "indexeddb"]) {
      const worker = thread === "page" ? `, worker="${refusing(blocked)}"` : "";
      expect(
        await tab.run(raised(`await holdfast.open("blocked.db", storage="${storage}"${worker})`)),
      ).toMatch(/^StorageUnavailableError/);
    }
  }
});

test("a refusal of the moment leads to no other storage", async ({ context }) => {
  const page = await openPage(context, "a.db", { storage: "memory", worker: refusing("opfs=UnknownError") });
  const error = await failure(page, "moment.db", { storage: "auto" });
  expect(error.name).toBe("StorageUnavailableError");
  expect(error.message).toMatch(/^OPFS refused 'moment\.db': UnknownError/);
  expect(await page.evaluate(() => indexedDB.databases())).not.toContainEqual(
    expect.objectContaining({ name: "holdfast/moment.db" }),
  );
});

test("what fails in a shared worker ends one call or one tab, and not the worker", async ({ context }) => {
  const shared = { storage: "indexeddb", worker: refusing("shared") };
  const one = await openPage(context, "shared.db", shared);
  const other = await openPage(context, "shared.db", shared);
  const write = (page) => page.evaluate(async () => (await db.execute("INSERT INTO notes(text) VALUES(1)")).changes);
  await one.evaluate(
    () =>
      new Promise((resolve) => {
        window.refuse = new BroadcastChannel("refuse");
        refuse.onmessage = resolve;
        refuse.postMessage("nothing caught");
      }),
  );
  for (const page of [one, other]) expect(await write(page)).toBe(1);
  // The third tab's lock is refused to the worker.
  await one.evaluate(() => refuse.postMessage("a tab"));
  await expect(openPage(context, "shared.db", shared)).rejects.toThrow(/UnknownError: refused by the test/);
  for (const page of [one, other]) expect(await write(page)).toBe(1);
  const next = await openPage(context, "shared.db", shared);
  expect(await write(next)).toBe(1);
});

test("a page that stands still while it looks for the shared worker keeps nobody from opening", async ({
  context,
}) => {
  const frozen = await openPage(context, "a.db", { storage: "memory" });
  // In the middle of it, for ever: as in one that is frozen, no timer ends.
  await frozen.evaluate(
    () =>
      new Promise((resolve) => {
        window.setTimeout = () => 0;
        navigator.locks.query = () => new Promise(resolve);
        holdfast.open("frozen.db", { ...options, storage: "indexeddb" });
      }),
  );
  const page = await openPage(context, "frozen.db", { storage: "indexeddb" });
  expect(await page.evaluate(() => db.storage)).toBe("indexeddb");
});

test("a database is no folder, and a shared worker of somebody else's is told so", async ({ openTab }) => {
  const tab = await openTab();
  await tab.run(`
import holdfast
db = await holdfast.open("v.db")
await db.execute("CREATE TABLE IF NOT EXISTS t(v)")`);
  for (const call of [
    `await holdfast.open("v.db/x")`,
    `await holdfast.delete_database("v.db/x")`,
    `await holdfast.import_database("v.db/x", await db.export())`,
  ]) {
    expect(await tab.run(raised(call))).toMatch(/^StorageUnavailableError: OPFS .*TypeMismatchError/);
  }
  expect(await tab.run(`"v.db" in await holdfast.databases()`)).toBe(true);
  const shared = await openTab({ own: true, thread: "shared", killable: false });
  for (const call of [`open("v.db")`, `delete_database("v.db")`, `databases()`]) {
    expect(await shared.run(raised(`await holdfast.${call}`))).toMatch(
      /^StorageUnavailableError: .*shared worker cannot reach/,
    );
  }
});
