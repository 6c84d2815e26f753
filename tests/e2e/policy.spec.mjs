// A strict Content-Security-Policy, on page and worker: no eval, no inline script, no blob or data
// URL; and nowhere here COOP and COEP. The page serves host.js, from the wheel, itself.
//
// Pyodide 314 refuses classic workers where it can tell; under this policy it cannot, and runs.
import { expect, test } from "./tabs.mjs";

const HOST = "/pyodide/host.js";

const OPEN = `
import asyncio, holdfast
db = await holdfast.open("policy.db", storage="opfs", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text TEXT)")

async def on_change(ctx):
    for note in await ctx.with_extracted_diff("SELECT text FROM DIFF"):
        emit(note["text"])

tracker = await db.triggers.track_table_diff("notes", on_change)
db.storage`;

const COUNT = `await db.fetch_value("SELECT count(*) FROM notes")`;

for (const classic of [false, true]) {
  test(`tabs share a database, ${classic ? "classic" : "module"} workers`, async ({ openTab }) => {
    const options = { folder: "strict", classic, scripts: [HOST] };
    const [a, b] = [await openTab(options), await openTab(options)];
    for (const tab of [a, b]) {
      // The policy is at work, and nothing is isolated.
      expect(await tab.run(NO_EVAL)).toMatch(/EvalError|unsafe-eval/);
      expect(await tab.run(`import js; js.crossOriginIsolated`)).toBe(false);
      expect(await tab.page.evaluate(() => crossOriginIsolated)).toBe(false);
      expect(await tab.run(OPEN)).toBe("opfs");
    }
    await a.run(`await db.execute("INSERT INTO notes(text) VALUES('from a')")`);
    for (const tab of [a, b]) await tab.event((event) => event === "from a");
    await b.run(`await db.execute_many("INSERT INTO notes(text) VALUES(?)", [("b",), ("c",)])`);
    for (const tab of [a, b]) for (const text of ["b", "c"]) await tab.event((e) => e === text);
    expect(await a.run(COUNT)).toBe(3);
    expect(await b.run(COUNT)).toBe(3);
    expect(await a.run(`await tracker.stop(); await db.close(); db.closed`)).toBe(true);
    expect(await b.run(`len(await db.triggers.tracked())`)).toBe(1);
  });
}

const NO_EVAL = `
from pyodide.code import run_js
from pyodide.ffi import JsException
try:
    run_js("1")
    answer = "was run"
except JsException as error:
    answer = str(error)
answer`;

const REFUSED = `
import holdfast
try:
    await holdfast.open("policy.db", storage="opfs")
    answer = "opened"
except holdfast.StorageUnavailableError as error:
    answer = str(error)
answer`;

test("without host.js the error says what to serve and where to load it", async ({ openTab }) => {
  const tab = await openTab({ folder: "strict" });
  const error = await tab.run(REFUSED);
  expect(error).toContain("Content-Security-Policy");
  expect(error).toContain("serve holdfast/browser/host.js yourself and load it in the worker");
});

test("a host.js of another version is refused", async ({ openTab }) => {
  const tab = await openTab({ folder: "strict", scripts: ["/strict/other_host.js"] });
  expect(await tab.run(REFUSED)).toMatch(/a host\.js of version 0\.0\.1.* holdfast is of version/);
});
