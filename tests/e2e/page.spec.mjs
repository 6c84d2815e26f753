// Python on a page's main thread, with its databases in the worker that holdfast starts for it.
import { expect, test } from "./tabs.mjs";

const OPEN = `
import asyncio, holdfast
db = await holdfast.open("page.db", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text, data)")
`;
const COUNT = `await db.fetch_value("SELECT count(*) FROM notes")`;

test("everything works across: values, transactions, errors, cancellation, iterators, handlers", async ({
  openTab,
}) => {
  const a = await openTab({ thread: "page" });
  await a.run(OPEN);
  expect(await a.run(`
from importlib.metadata import version
[db.storage, db.persists_triggers, isinstance(db, holdfast.Database), (await db.status()).storage]
`)).toEqual(["opfs", true, true, "opfs"]);

  await test.step("values and transactions", async () => {
    expect(await a.run(`
many = [(None, b"\\0\\xff"), ("ü", 2**63 - 1), (1.5, -(2**63))]
await db.execute_many("INSERT INTO notes(text, data) VALUES(?, ?)", many)
rows = await db.fetch_all("SELECT text, data FROM notes ORDER BY id")
async with db.write_transaction() as tx:
    await tx.execute("DELETE FROM notes")
    inside = await tx.fetch_value("SELECT count(*) FROM notes")
    try:
        await db.execute("SELECT 1")
        nested = None
    except holdfast.NestedTransactionError as error:
        nested = str(error)
    try:
        tx.connection
        raw = None
    except AttributeError as error:
        raw = str(error)
[[tuple(row) for row in rows] == many, inside, "would wait" in nested, "interpreter" in raw]
`)).toEqual([true, 0, true, true]);
  });

  await test.step("errors have their types, attributes and tracebacks", async () => {
    const [type, code, cause] = await a.run(`
import apsw, traceback
await db.execute("CREATE UNIQUE INDEX one ON notes(text)")
await db.execute("INSERT INTO notes(text) VALUES('same')")
try:
    await db.execute("INSERT INTO notes(text) VALUES('same')")
except apsw.ConstraintError as error:
    caught = [type(error).__name__, error.extendedresult, "".join(traceback.format_exception(error))]
caught`);
    expect(type).toBe("ConstraintError");
    expect(code).toBe(2067);
    // Where it was raised in the worker, and where it was awaited here.
    expect(cause).toContain("holdfast/sqlite/connection.py");
    expect(cause).toContain('File "<exec>"');
  });

  await test.step("a cancelled transaction is rolled back before its task has ended", async () => {
    expect(await a.run(`
inside = asyncio.Event()
async def work():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO notes(text) VALUES('lost')")
        inside.set()
        await asyncio.Event().wait()
task = asyncio.ensure_future(work())
await inside.wait()
waiting = asyncio.ensure_future(db.execute("INSERT INTO notes(text) VALUES('never')"))
await asyncio.sleep(0)
waiting.cancel()
task.cancel()
await asyncio.wait([task, waiting])
[task.cancelled(), waiting.cancelled(), ${COUNT}]`)).toEqual([true, true, 1]);
  });

  await test.step("iterators and handlers hear of another tab", async () => {
    const b = await openTab();
    await b.run(OPEN);
    await a.run(`
class Mine(Exception):
    pass
failures = [Mine("the first time")]
async def on_change(ctx):
    if failures:
        raise failures.pop()
    rows = await ctx.with_extracted_diff("SELECT text FROM DIFF")
    emit({"diff": [row["text"] for row in rows]})
async def on_error(error):
    emit({"error": type(error) is Mine})
tracker = await db.triggers.track_table_diff("notes", on_change, on_error=on_error)
async def follow():
    async for rows in db.watch("SELECT text FROM notes ORDER BY id"):
        emit({"rows": len(rows)})
async def read():
    async for diff in db.triggers.diffs("notes"):
        emit({"remote": [record.remote for record in diff]})
tasks = [asyncio.ensure_future(each()) for each in (follow, read)]
`);
    await a.event((event) => event.rows === 1);
    await expect.poll(() => b.run(`len(await db.triggers.tracked())`)).toBe(2);
    await b.run(`await db.execute("INSERT INTO notes(text) VALUES('from b')")`);
    expect(await a.event((event) => "error" in event)).toEqual({ error: true });
    expect(await a.event((event) => event.diff)).toEqual({ diff: ["from b"] });
    expect(await a.event((event) => event.remote)).toEqual({ remote: [true] });
    await a.event((event) => event.rows === 2);
    await a.run(`
await tracker.stop()
for task in tasks:
    task.cancel()
await asyncio.wait(tasks)
None`);
    expect(await b.run(`len(await db.triggers.tracked())`)).toBe(0);
  });

  await test.step("files come in and go out", async () => {
    expect(await a.run(`
data = await db.export()
seen = []
await holdfast.import_database("copy.db", data, on_progress=lambda done, total: seen.append(done))
async with holdfast.open("copy.db") as copy:
    found = await copy.fetch_value("SELECT count(*) FROM notes")
names = await holdfast.databases()
gone = await holdfast.delete_database("copy.db")
[found, seen[-1] == len(data), names, gone]`)).toEqual([2, true, ["copy.db", "page.db"], true]);
  });
});

test("a worker that dies is an error that says so; opening again works, and nothing is lost", async ({
  openTab,
}) => {
  const a = await openTab({ thread: "page" });
  await a.run(OPEN);
  await a.run(`
await db.execute("INSERT INTO notes(text) VALUES('kept')")
begun = asyncio.Event()
async def write():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO notes(text) VALUES('lost')")
        begun.set()
        await asyncio.Event().wait()
async def follow():
    async for rows in db.watch("SELECT * FROM notes"):
        pass
tracker = await db.triggers.track_table_diff("notes", lambda ctx: None)
writing, following = (asyncio.ensure_future(each()) for each in (write, follow))
await begun.wait()
waiting = asyncio.ensure_future(db.execute("INSERT INTO notes(text) VALUES('never')"))
await asyncio.sleep(0)`);
  await a.terminateWorker();
  const [errors, closed] = await a.run(`
errors = []
for task in (waiting, following):
    try:
        await task
    except holdfast.DatabaseClosedError as error:
        errors.append(str(error))
writing.cancel()
await asyncio.wait([writing])
for call in (db.fetch_value("SELECT 1"), db.status()):
    try:
        await call
    except holdfast.DatabaseClosedError as error:
        errors.append(str(error))
await tracker.stop()
await db.close()
[errors, db.closed]`);
  expect(errors).toHaveLength(4);
  for (const error of errors) expect(error).toMatch(/worker that has this page's databases died/);
  expect(closed).toBe(true);
  await a.run(OPEN);
  expect(await a.run(`[row[0] for row in await db.fetch_all("SELECT text FROM notes")]`)).toEqual([
    "kept",
  ]);
  expect(await a.run(`len(await db.triggers.tracked())`)).toBe(0);
});

test("under a strict policy the page says where holdfast.mjs is", async ({ openTab }) => {
  const a = await openTab({ thread: "page", folder: "strict" });
  const refused = await a.run(`
import holdfast
try:
    await holdfast.open("strict.db")
    answer = "opened"
except holdfast.StorageUnavailableError as error:
    answer = str(error)
answer`);
  expect(refused).toContain('worker="/holdfast.mjs"');
  expect(await a.run(`
db = await holdfast.open("strict.db", worker="/strict/pyodide/holdfast.mjs")
await db.execute("CREATE TABLE t(x)")
[db.storage, await db.fetch_value("SELECT count(*) FROM t")]`)).toEqual(["opfs", 0]);
});
