// The main job: two tabs, one database, each told of the other's changes; and a tab that dies.
// (On IndexedDB tabs that die or freeze leave more than triggers: indexeddb.spec.mjs.)
import { stopIdle } from "./idle.mjs";
import { expect, storages, test } from "./tabs.mjs";

const openOn = (storage) => `
import asyncio, holdfast
from holdfast import DiffOperation
db = await holdfast.open("lists.db", schema=holdfast.Schema([
    holdfast.Table("lists", [holdfast.Column.text("name"), holdfast.Column.integer("n")]),
])${storage}, busy_timeout=60)
`;
const open = openOn("");

// Every change of the view, as the handler sees it, sent to the test.
const track = (persist = "None") => `
async def report(ctx):
    for row in await ctx.with_diff("SELECT * FROM DIFF"):
        emit({"operation": row["operation"], "id": row["id"], "value": row["value"],
              "previous": row["previous_value"]})
tracker = await db.triggers.track_table_diff("lists", report, throttle=0, persist=${persist})
tracker.destination
`;

const insert = (id, n = 0) =>
  `await db.execute("INSERT INTO lists(id, name, n) VALUES(?, ?, ?)", ("${id}", "list ${id}", ${n}))`;

// What is left of triggers in the database, whoever made them.
const leftovers = `
MASTER = "(SELECT * FROM sqlite_master UNION ALL SELECT * FROM temp.sqlite_master)"
tracked = await db.triggers.tracked()
{
  "records": len(tracked),
  "held": sum(each.held for each in tracked),
  "destinations": await db.fetch_value(
      f"SELECT count(*) FROM {MASTER} WHERE type = 'table' AND name LIKE 'ps!_diff!_%' ESCAPE '!'"),
  "triggers": await db.fetch_value(
      f"SELECT count(DISTINCT substr(name, 1, 41)) FROM {MASTER} WHERE type = 'trigger' AND name LIKE 'holdfast!_%' ESCAPE '!'"),
}
`;
const none = { records: 0, held: 0, destinations: 0, triggers: 0 };
const one = { records: 1, held: 1, destinations: 1, triggers: 1 };

for (const { on, options, storage } of storages) {
  test(`P11: a write in one tab reaches the trackers and live queries of another, on ${on}`, async ({
    openTab,
  }) => {
    const a = await openTab(options);
    const b = await openTab(options);
    await a.run(openOn(storage));
    await b.run(openOn(storage));

    await test.step("a tracker", async () => {
      await a.run(track());
      await b.run(insert("x", 2));
      expect(await a.event()).toMatchObject({ operation: "INSERT", id: "x" });
      await b.run(`await db.execute("UPDATE lists SET n = 5 WHERE id = 'x'")`);
      const update = await a.event();
      expect(update).toMatchObject({ operation: "UPDATE", id: "x" });
      expect(JSON.parse(update.value)).toEqual({ name: "list x", n: 5 });
      expect(JSON.parse(update.previous)).toEqual({ name: "list x", n: 2 });
      await b.run(`await db.execute("DELETE FROM lists WHERE id = 'x'")`);
      expect(await a.event()).toMatchObject({ operation: "DELETE", id: "x" });
      // Its own writes too, each once.
      await a.run(insert("y"));
      expect(await a.event()).toMatchObject({ operation: "INSERT", id: "y" });
      expect(a.events).toEqual([]);
    });

    await test.step("watch and changes", async () => {
      await b.run(`
async def follow():
    async for rows in db.watch("SELECT id FROM lists ORDER BY id", throttle=0):
        emit({"rows": [row["id"] for row in rows]})
async def note():
    async for change in db.changes():
        emit({"tables": sorted(change.tables), "remote": change.remote})
tasks = [asyncio.ensure_future(follow()), asyncio.ensure_future(note())]
`);
      await b.event((event) => event.rows?.length === 1);
      await a.run(insert("x"));
      expect(await b.event((event) => event.tables)).toEqual({ tables: ["lists"], remote: true });
      await b.event((event) => event.rows?.length === 2);
      await b.run(insert("z"));
      // What another tab did is told again where the look-out was before its message.
      const own = await b.event((event) => event.remote === false);
      expect(own).toEqual({ tables: ["lists"], remote: false });
      await b.event((event) => event.rows?.length === 3);
    });

    await a.run(`await db.close()`);
    expect(await b.run(leftovers)).toEqual(none);
  });
}

test("P8: with a temporary trigger it does not: the problem that this package is for", async ({
  openTab,
}) => {
  const a = await openTab();
  const b = await openTab();
  await a.run(open);
  await b.run(open);
  await a.run(track("False"));

  await b.run(insert("from another tab"));
  // The row is there, for everybody to read …
  await expect
    .poll(() => a.run(`await db.fetch_value("SELECT count(*) FROM lists")`), { intervals: [20] })
    .toBe(1);
  // … and of the two writes the tracker is told of its own tab's alone.
  await a.run(insert("from this tab"));
  expect(await a.event()).toMatchObject({ id: "from this tab" });
  await a.run(`await tracker.stop()`);
  expect(a.events).toEqual([]);
});

for (const [how, kill] of [
  ["its worker is terminated", (tab) => tab.terminateWorker()],
  ["its renderer is killed", (tab) => tab.killRenderer()],
  ["it is closed", (tab) => tab.close()],
]) {
  test(`P12, B11: a tab's triggers are reclaimed when ${how}, and the others' live on`, async ({
    openTab,
    onPage,
  }) => {
    const a = await openTab();
    const b = await openTab();
    const c = await openTab(onPage);
    for (const tab of [a, b, c]) await tab.run(open + track());
    expect(await a.run(leftovers)).toEqual({ records: 3, held: 3, destinations: 3, triggers: 3 });

    await Promise.all([kill(b), kill(c)]);
    // The survivor sees the lock go: nobody has to open the database anew.
    await expect.poll(() => a.run(leftovers), { intervals: [20] }).toEqual(one);
    await a.run(insert("after"));
    expect(await a.event((event) => event.id === "after")).toBeTruthy();
  });
}

test("P10: orphans are gone when the next tab has opened the database", async ({ openTab }) => {
  const a = await openTab();
  await a.run(open);
  await a.run(track());
  await a.killRenderer();

  const b = await openTab();
  // As soon as the browser has noticed the death.
  const locks = () => navigator.locks.query().then(({ held }) => held.map(({ name }) => name));
  await expect.poll(() => b.page.evaluate(locks), { intervals: [5] }).toEqual([]);
  await b.run(open);
  expect(await b.run(leftovers)).toEqual(none);
});

for (const thread of ["worker", "page"]) {
  test(`P10: a stopped tab is not taken for a dead one (Python in the ${thread})`, async ({
    openTab,
    onPage,
  }) => {
    test.skip(thread === "page" && !onPage.thread, "there are none here");
    const a = await openTab();
    const b = await openTab(thread === "page" ? onPage : {});
    await a.run(open);
    await b.run(open);
    await b.run(track());
    // What is stopped holds nothing but its tab and its trigger.
    await stopIdle(b, a);

    await a.run(insert("while it sleeps"));
    expect(await a.run(`[each.id for each in await db.triggers.sweep()]`)).toEqual([]);
    expect(await a.run(leftovers)).toEqual(one);
    const c = await openTab();
    await c.run(open);
    expect(await c.run(leftovers)).toEqual(one);

    // It missed nothing.
    b.resume();
    expect(await b.event()).toMatchObject({ operation: "INSERT", id: "while it sleeps" });
  });
}
