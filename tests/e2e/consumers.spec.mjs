// Consumers in several tabs: what they are told, and that nothing is lost or left when tabs die.
import { readFileSync } from "node:fs";
import { stopIdle } from "./idle.mjs";
import { expect, storages, test } from "./tabs.mjs";

// JSON that is a literal of Python's too.
const literal = (value) => JSON.stringify(JSON.stringify(value));

const open = (storage) => `
import asyncio, holdfast
db = await holdfast.open("shared.db", busy_timeout=60${storage})
await db.execute("CREATE TABLE IF NOT EXISTS t(k INTEGER PRIMARY KEY, v)")
`;

const follow = `
async def on_error(error):
    emit({"error": type(error).__name__})
async def handler(ctx):
    rows = await ctx.with_diff("SELECT id FROM DIFF")
    emit({"ids": [row["id"] for row in rows], "reset": ctx.reset})
`;

for (const { on, options, storage } of storages) {
  test(`B7, B9, B10, B13: what another tab does is told, on ${on}`, async ({
    openTab,
  }) => {
    const a = await openTab(options);
    const b = await openTab(options);
    // The first has the shared worker in its process, and goes on to the end.
    await b.run(open(storage));
    await a.run(open(storage));

    await test.step("records tell whose they are, and which belong together", async () => {
      await a.run(`
async def stream():
    async for batch in db.triggers.diffs("t", throttle=0):
        for one in batch:
            emit({"id": one.id, "remote": one.remote, "transaction": one.transaction_id,
                  "changed": list(one.changed)})
streaming = asyncio.ensure_future(stream())
while not await db.fetch_value(
    "SELECT count(*) FROM (SELECT * FROM sqlite_master UNION ALL SELECT * FROM temp.sqlite_master)"
    " WHERE type = 'trigger'"):
    await asyncio.sleep(0.005)
`);
      await b.run(`
async with db.write_transaction() as tx:
    await tx.execute("INSERT INTO t VALUES(1, 'x'), (2, 'y')")
`);
      await a.run(`await db.execute("UPDATE t SET v = 'z' WHERE k = 2")`);
      const [one, two, three] = [await a.event(), await a.event(), await a.event()];
      expect([one.id, one.remote, one.changed]).toEqual(["1", true, ["k", "v"]]);
      expect([two.id, two.remote]).toEqual(["2", true]);
      expect([three.id, three.remote, three.changed]).toEqual(["2", false, ["v"]]);
      expect(two.transaction).toBe(one.transaction);
      expect(three.transaction).not.toBe(one.transaction);
      await a.run(`
streaming.cancel()
await asyncio.wait({streaming})
None
`);
    });

    await a.run(follow);
    await test.step("a change whose announcement is lost is found", async () => {
      // On IndexedDB there are no messages.
      if (on !== "OPFS") return b.run(`await db.execute("INSERT INTO t VALUES(3, '')")`);
      await a.run(`
tracker = await db.triggers.track_table_diff("t", handler, throttle=0, on_error=on_error)
`);
      await b.run(`
announce, db._session.storage.announce = db._session.storage.announce, lambda tables, ddl: None
await db.execute("INSERT INTO t VALUES(3, '')")
db._session.storage.announce = announce
`);
      expect(await a.event()).toEqual({ ids: ["3"], reset: false });
      await a.run(`await tracker.stop()`);
    });

    await test.step("the backlog of a tab that hangs stays bounded, and it is told", async () => {
      const destination = await a.run(`
tracker = await db.triggers.track_table_diff(
    "t", handler, throttle=0, on_error=on_error, max_backlog=5)
tracker.destination
`);
      // What hangs with a lease keeps the others out, as it must.
      await stopIdle(a, b);
      const kept = await b.run(`
most = 0
for k in range(10, 22):
    await db.execute("INSERT INTO t VALUES(?, '')", (k,))
    most = max(most, await db.fetch_value("SELECT count(*) FROM ${destination}"))
[most, all(each.held for each in await db.triggers.tracked())]
`);
      expect(kept).toEqual([5, true]);
      a.resume();
      expect(await a.event()).toEqual({ error: "BacklogExceededError" });
      expect(await a.event()).toEqual({ ids: ["20", "21"], reset: true });
      await a.run(`await tracker.stop()`);
    });

    await test.step("a source that is dropped ends its consumers, after its last changes", async () => {
      await a.run(`
tracker = await db.triggers.track_table_diff("t", handler, throttle=0, on_error=on_error)
`);
      await b.run(`
async with db.write_transaction() as tx:
    await tx.execute("INSERT INTO t VALUES(30, '')")
    await tx.execute("DROP TABLE t")
`);
      expect(await a.event()).toEqual({ ids: ["30"], reset: false });
      expect(await a.event()).toEqual({ error: "SourceDroppedError" });
      await a.run(`await tracker.stop()`);
      expect(await b.run(`len(await db.triggers.tracked())`)).toBe(0);
    });
    expect(a.events).toEqual([]);
  });
}

test("consumers on a page's main thread that fail, are slow or are cancelled lose nothing", async ({
  openTab,
  onPage,
}) => {
  test.skip(!onPage.thread, "there are none here");
  const a = await openTab(onPage);
  const b = await openTab();
  for (const tab of [a, b]) await tab.run(open(""));
  await a.run(`
failures = [RuntimeError("the first"), RuntimeError("the second")]
effects, told = [], []
async def handler(ctx):
    rows = await ctx.with_diff("SELECT id FROM DIFF")
    await asyncio.sleep(0.02)
    await ctx.transaction.execute("DELETE FROM t WHERE k = -1")
    if failures:
        raise failures[0]
    effects.extend(int(row["id"]) for row in rows)
async def on_error(error):
    told.append(error is failures.pop(0))
tracker = await db.triggers.track_table_diff("t", handler, throttle=0, on_error=on_error)

seen = []
async def stream(first):
    async for batch in db.triggers.diffs("t", throttle=0):
        if first:
            await asyncio.Event().wait()
        seen.extend(int(one.id) for one in batch)
`);
  await a.run(`
cancelled = asyncio.ensure_future(stream(True))
async def stopped():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(-1, 'never')")
        emit("inside")
        await asyncio.Event().wait()
writing = asyncio.ensure_future(stopped())
`);
  await a.event();
  // It waits for the page's transaction, which is taken back.
  const wrote = b.run(`
for k in range(40):
    await db.execute("INSERT INTO t VALUES(?, 'b')", (k,))
`);
  await a.run(`
writing.cancel()
await asyncio.wait({writing})
cancelled.cancel()
await asyncio.wait({cancelled})
following = asyncio.ensure_future(stream(False))
`);
  await wrote;
  await expect.poll(() => a.run(`effects`), { intervals: [50] }).toEqual([...Array(40).keys()]);
  expect(await a.run(`told`)).toEqual([true, true]);
  // The stream began somewhere among them: it has the rest, each once.
  const held = `sum(each.held for each in await db.triggers.tracked())`;
  await expect.poll(() => b.run(held), { intervals: [50] }).toBe(2);
  await b.run(`await db.execute("INSERT INTO t VALUES(40, 'last')")`);
  await expect.poll(() => a.run(`seen[-1:]`), { intervals: [50] }).toEqual([40]);
  const seen = await a.run(`seen`);
  expect(seen).toEqual([...Array(41).keys()].slice(41 - seen.length));
  expect(await b.run(held)).toBe(2);
  await a.run(`
await tracker.stop()
following.cancel()
await asyncio.wait({following})
None
`);
  expect(await b.run(`len(await db.triggers.tracked())`)).toBe(0);
  expect(await b.run(`await db.fetch_value("SELECT count(*) FROM t")`)).toBe(41);
});

const sources = {
  consumers: readFileSync("tests/unit/faults/consumers.py", "utf8"),
  mortal: readFileSync("tests/e2e/pages/mortal.py", "utf8"),
};
const load = `
import asyncio, json, sys, types
for name, text in json.loads(${literal(sources)}).items():
    sys.modules[name] = types.ModuleType(name)
    exec(text, vars(sys.modules[name]))
import mortal
db = await mortal.open_database("mortal.db")
`;

test("P12, B1, B11: tabs die in the middle of making, handling and disposing", async ({
  openTab,
}) => {
  test.slow(); // many starts of Python
  // What these load changes the package, so nobody else may have them.
  const survivor = await openTab({ own: true });
  await survivor.run(`${load}
immortal = mortal.Mortal(db, 1, lambda count: emit({"swept": count}))
await immortal.create("tracked")
`);
  let victim;
  const deaths = [7, 120, 33, 0, 180];
  for (const [round, delay] of deaths.entries()) {
    if (victim) await victim.restartWorker();
    else victim = await openTab({ own: true });
    await victim.run(`${load}
life = asyncio.ensure_future(mortal.Mortal(db, ${round + 2}, emit).live())
`);
    await victim.event((count) => count >= 12);
    await new Promise((resolve) => setTimeout(resolve, delay));
    if (round === deaths.length - 1) await victim.killRenderer();
    else await victim.terminateWorker();

    // At once, with what the dead tab left; and when the survivor has cleaned up.
    await survivor.run(`await mortal.examine(db)`);
    await expect
      .poll(() => survivor.run(`await mortal.examine(db)`), { intervals: [50] })
      .toEqual(["ps_diff_tracked1000"]);
    expect(victim.events).not.toContain(-1);
  }
  await expect
    .poll(() => survivor.run(`await mortal.undelivered(db, "tracked1000")`), { intervals: [50] })
    .toBe(0);
  await survivor.run(`await db.close()`);
  expect(survivor.events).toEqual([]);
});
