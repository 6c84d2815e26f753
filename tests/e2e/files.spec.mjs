// The files of a database: exported from one tab, imported, deleted, refused while a tab has it.
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
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
    db = await holdfast.open(name)
    await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, mark TEXT, pad BLOB)")
    await db.execute_many(
        "INSERT INTO t(mark, pad) VALUES(?, randomblob(2000))", [(mark,)] * rows)
    return db
`;

test("an export from a tab with triggers is a plain SQLite file", async ({ openTab, profile }) => {
  const a = await openTab();
  const b = await openTab();
  await a.run(start);
  await b.run(start);
  await a.run(`
from holdfast import Column, Schema, Table
db = await holdfast.open("a/x.db", schema=Schema([Table("lists", [Column.text("name")])]))
await db.execute("CREATE TABLE t(id INTEGER PRIMARY KEY, v)")
async def ignore(ctx): pass
tracker = await db.triggers.track_table_diff("t", ignore, throttle=1000)
await db.execute("INSERT INTO lists(id, name) VALUES('1', 'errands')")
await db.execute("INSERT INTO t(v) VALUES('one')")
`);
  // Others write while it is made.
  await b.run(`
db = await holdfast.open("a/x.db")
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

  const file = join(profile, "export.db");
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
[await outcome(holdfast.import_database("busy.db", data)),
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
    await holdfast.import_database("busy.db", data, wait=30)
    emit("replaced")
replacing = asyncio.ensure_future(replace())
`);
  await b.event((event) => event === "waiting");
  expect(await a.run(`await db.fetch_value("SELECT min(mark) FROM t")`)).toBe("old");
  await a.run(`await db.close()`);
  await b.event((event) => event === "replaced");
  expect(
    await a.run(`
db = await holdfast.open("busy.db")
[await db.fetch_value("SELECT min(mark) || count(*) FROM t"), (await db.status()).wal_frames]`),
  ).toEqual(["new20", expect.any(Number)]);

  await b.run(`
async def delete():
    emit("deleting")
    emit(["deleted", await holdfast.delete_database("busy.db", wait=30)])
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
db = await holdfast.open("busy.db")
await db.fetch_value("SELECT count(*) FROM sqlite_master WHERE name = 't'")`),
  ).toBe(0);
});
