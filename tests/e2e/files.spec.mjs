// The files of a database: exported from one tab, imported, deleted, refused while a tab has it.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { expect, test } from "./tabs.mjs";

const python = process.env.PYTHON ?? "python3";

const start = `
import asyncio, base64, holdfast
from holdfast import DatabaseBusyError, NotADatabaseError

async def outcome(awaitable):
    try:
        return await awaitable
    except holdfast.HoldfastError as error:
        return type(error).__name__

async def filled(name, rows, mark):
    db = await holdfast.open(name, busy_timeout=60)
    await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, mark TEXT, pad BLOB)")
    await db.execute_many(
        "INSERT INTO t(mark, pad) VALUES(?, randomblob(2000))", [(mark,)] * rows)
    return db
`;

test("an export from a tab with triggers is a plain SQLite file", async ({ openTab }, testInfo) => {
  const a = await openTab();
  const b = await openTab();
  await a.run(start);
  await b.run(start);
  await a.run(`
from holdfast import Column, Schema, Table
db = await holdfast.open("a/x.db", schema=Schema([Table("lists", [Column.text("name")])]), busy_timeout=60)
await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
async def ignore(ctx): pass
tracker = await db.triggers.track_table_diff("t", ignore, throttle=1000)
await db.execute("INSERT INTO lists(id, name) VALUES('1', 'errands')")
await db.execute("INSERT INTO t(v) VALUES('one')")
`);
  // Others write while it is made.
  await b.run(`
db = await holdfast.open("a/x.db", busy_timeout=60)
async def write():
    while True:
        async with db.write_transaction() as tx:
            await tx.execute("INSERT INTO t(v) VALUES(randomblob(3000))")
            await tx.execute("INSERT INTO t(v) VALUES(randomblob(3000))")
        await asyncio.sleep(0)
writing = asyncio.ensure_future(write())
`);
  const data = await a.run(`
progress = []
data = await db.export(on_progress=lambda *done: progress.append(done))
assert progress[-1] == (len(data), len(data)), progress
assert progress == sorted(progress)
base64.b64encode(data).decode()`);
  expect(await b.run(`writing.done()`)).toBe(false);
  await b.run(`writing.cancel()`);

  const file = testInfo.outputPath("export.db");
  writeFileSync(file, Buffer.from(data, "base64"));
  const found = spawnSync(
    python,
    [
      "-c",
      `
import json, sqlite3, sys
data = open(sys.argv[1], "rb").read()
db = sqlite3.connect(sys.argv[1])
db.executescript("INSERT INTO lists(id, name) VALUES('2', 'more')")
print(json.dumps([
    list(data[18:20]),
    db.execute("PRAGMA integrity_check").fetchall(),
    [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type <> 'index' ORDER BY name")],
    db.execute("SELECT count(*) % 2 FROM t").fetchone(),
    db.execute("SELECT v FROM t WHERE id = 1").fetchone(),
    db.execute("SELECT name FROM lists ORDER BY id").fetchall(),
    db.execute("SELECT count(*) FROM ps_crud").fetchone(),
]))
`,
      file,
    ],
    { encoding: "utf8" },
  );
  expect(found.stderr).toBe("");
  expect(JSON.parse(found.stdout)).toEqual([
    [1, 1],
    [["ok"]],
    [
      "lists",
      "ps_crud",
      "ps_data__lists",
      "ps_tx",
      ...["delete", "insert", "update"].map((what) => `ps_view_${what}__lists`),
      "sqlite_sequence",
      "t",
    ],
    [1],
    ["one"],
    [["errands"], ["more"]],
    [2],
  ]);
});

test("an open database is neither replaced nor deleted, unless that is waited for", async ({
  openTab,
}) => {
  const a = await openTab();
  const b = await openTab();
  await a.run(start);
  await b.run(start);
  await a.run(`db = await filled("busy.db", 10, "old")`);
  const tried = await b.run(`
other = await filled("other.db", 20, "new")
data = await other.export()
await other.close()
# Known before anything is read.
def unread():
    raise AssertionError("the data was read")
    yield b""
[await outcome(holdfast.import_database("busy.db", unread())),
 await outcome(holdfast.delete_database("busy.db")),
 await outcome(holdfast.delete_database("busy.db", wait=0.1)),
 await holdfast.databases()]`);
  expect(tried).toEqual([...Array(3).fill("DatabaseBusyError"), ["busy.db", "other.db"]]);

  // The same from the tab that has it open itself.
  expect(await a.run(`await outcome(holdfast.delete_database("busy.db"))`)).toBe(
    "DatabaseBusyError",
  );
  await b.run(`
async def replace():
    emit("waiting")
    await holdfast.import_database("busy.db", data, wait=120)
    emit("replaced")
replacing = asyncio.ensure_future(replace())
`);
  await b.event((event) => event === "waiting");
  expect(await a.run(`await db.fetch_value("SELECT min(mark) FROM t")`)).toBe("old");
  await a.run(`await db.close()`);
  await b.event((event) => event === "replaced");
  expect(
    await a.run(`
db = await holdfast.open("busy.db", busy_timeout=60)
[await db.fetch_value("SELECT min(mark) || count(*) FROM t"), (await db.status()).wal_frames]`),
  ).toEqual(["new20", expect.any(Number)]);

  await b.run(`
async def delete():
    emit("deleting")
    emit(["deleted", await holdfast.delete_database("busy.db", wait=120)])
deleting = asyncio.ensure_future(delete())
`);
  await b.event((event) => event === "deleting");
  await a.terminateWorker();
  expect(await b.event((event) => event[0] === "deleted")).toEqual(["deleted", true]);
  expect(
    await b.run(`
[await holdfast.databases(), await holdfast.delete_database("busy.db"),
 [name for name in await holdfast.databases()]]`),
  ).toEqual([["other.db"], false, ["other.db"]]);
  expect(
    await b.run(`
db = await holdfast.open("busy.db", busy_timeout=60)
await db.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 't'")`),
  ).toBe(0);
});

// The worker stops inside its import, at a part of the way, and is terminated there: while the data
// arrives, or in the middle of the transaction that replaces the old database.
test("an import that is killed leaves the old database or the new one", async ({ openTab }) => {
  const a = await openTab();
  await a.run(start);
  await a.run(`
db = await filled("new.db", 7000, "new")
data = await db.export()
await db.close()
await (await filled("old.db", 4000, "old")).close()`);
  for (const [name, part, states] of [
    ["old.db", 0.3, ["old4000"]],
    ["old.db", 0.55, ["old4000"]],
    ["old.db", 0.8, ["old4000"]],
    ["fresh.db", 0.9, [""]],
    ["old.db", 0.95, ["old4000"]],
    ["old.db", 1, ["new7000"]],
    ["old.db", 0.4, ["new7000"]],
  ]) {
    const b = await openTab();
    await b.run(start);
    await b.run(`
async def replace():
    db = await holdfast.open("new.db", busy_timeout=60)
    # Read out first: a database that is still open elsewhere must not matter here.
    data = await db.export()
    await db.close()
    def stop(done, total):
        if total and done >= total * ${part}:
            emit("there")
            while True:
                pass
    await holdfast.import_database("${name}", data, on_progress=stop)
replacing = asyncio.ensure_future(replace())
None`);
    await b.event((event) => event === "there");
    await b.terminateWorker();
    const found = await a.run(`
listed = await holdfast.databases()
async with holdfast.open("${name}", busy_timeout=60) as db:
    there = await db.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 't'")
    state = await db.fetch_value("SELECT min(mark) || count(*) FROM t") if there else ""
    whole = await db.fetch_value("PRAGMA integrity_check")
[state, whole, "${name}" in listed]`);
    expect(states).toContain(found[0]);
    expect(found.slice(1)).toEqual(["ok", found[0] !== ""]);
    await b.close();
  }
  // What they left behind goes when somebody looks, once the browser has ended the dead worker.
  const left = await a.run(`
import js
async def left():
    root = await js.navigator.storage.getDirectory()
    folder = await root.getDirectoryHandle("holdfast-scratch")
    return [name async for name in folder.keys()]
await left()`);
  expect(left.length).toBeGreaterThan(0);
  await expect
    .poll(() =>
      a.run(`
await holdfast.import_database("fresh.db", data)
await left()`),
    )
    .toEqual([]);
});

test("an import takes what JavaScript has", async ({ openTab }) => {
  const a = await openTab();
  await a.run(start);
  expect(
    await a.run(`
import js
from pyodide.ffi import to_js
db = await filled("x.db", 2000, "x")
data = await db.export()
array = to_js(data)
blob = js.Blob.new(to_js([array]))
found = []
for name, value in {
    "blob": blob,
    "file": js.File.new(to_js([array]), "x.db"),
    "stream": blob.stream(),
    "response": js.Response.new(blob).body,
    "array": array,
    "buffer": array.buffer,
    "bytes": data,
    "chunks": db.export_chunks(),
}.items():
    told = []
    await holdfast.import_database(f"in/{name}.db", value, on_progress=lambda *each: told.append(each))
    assert told == sorted(told, key=lambda each: each[0]), told
    async with holdfast.open(f"in/{name}.db") as copy:
        found.append([name, await copy.fetch_value("SELECT count(*) FROM t"), told[-1][0] == len(data)])
    await holdfast.delete_database(f"in/{name}.db")
refused = [await outcome(holdfast.import_database("bad.db", value))
           for value in (js.Blob.new(), js.Blob.new(to_js(["no database"])), data[:-4096])]
status = await db.status()
assert status.quota > status.usage > len(data), status
assert await holdfast.persist() is status.persisted is False  # a page has to ask
found + [refused, await holdfast.databases()]`),
  ).toEqual([
    ...["blob", "file", "stream", "response", "array", "buffer", "bytes", "chunks"].map((name) => [
      name,
      2000,
      true,
    ]),
    Array(3).fill("NotADatabaseError"),
    ["x.db"],
  ]);
});

// BIG_MB=300 tries what a whole suite need not do each time.
test("a large database passes through little memory", async ({ openTab }) => {
  test.setTimeout(600_000);
  const size = Number(process.env.BIG_MB ?? 48);
  // Of a worker whose memory no other test made larger.
  const a = await openTab({ own: true });
  await a.run(start);
  const found = await a.run(`
import pyodide_js, time
heap = lambda: pyodide_js._module.HEAPU8.length
db = await holdfast.open("large.db")
await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, pad BLOB)")
await db.execute("CREATE INDEX i ON t(substr(pad, 1, 8))")
for _ in range(${size}):
    await db.execute_many("INSERT INTO t(pad) VALUES(randomblob(10000))", [()] * 100)
# Its pages are in the cache: that is the database's own memory.
await db.fetch_value("SELECT sum(length(pad)) FROM t")
before, began = heap(), time.monotonic()
exported = 0
async for chunk in db.export_chunks():
    exported += len(chunk)
after_export, middle = heap(), time.monotonic()
await holdfast.import_database("copy.db", db.export_chunks())
after_import, ended = heap(), time.monotonic()
async with holdfast.open("copy.db") as copy:
    n = await copy.fetch_value("SELECT count(*) FROM t")
await db.close()
{"megabytes": exported / 1e6, "export": (after_export - before) / 1e6,
 "import": (after_import - before) / 1e6, "rows": n, "seconds": [middle - began, ended - middle]}`);
  console.log(JSON.stringify(found));
  expect(found.rows).toBe(size * 100);
  expect(found.megabytes).toBeGreaterThan(size);
  expect(found.import).toBeLessThan(40);
});

test("what was closed can be replaced and deleted at once", async ({ openTab }) => {
  const a = await openTab();
  await a.run(start);
  const found = await a.run(`
found = set()
for n in range(10):
    db = await filled("closed.db", 1, "old")
    async def ignore(ctx): pass
    await db.triggers.track_table_diff("t", ignore)
    data = await db.export()
    await db.close()
    found.add(await outcome(holdfast.import_database("closed.db", data)))
    db = await filled("closed.db", 1, "new")
    await db.close()
    found.add(await outcome(holdfast.delete_database("closed.db")))
", ".join(sorted(map(str, found)))`);
  expect(found).toBe("None, True");
});
