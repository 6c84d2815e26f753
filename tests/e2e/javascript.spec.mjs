// A page without Python of its own, and one with Python, on one database side by side.
import { openPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

const OPEN = `
import asyncio, holdfast
db = await holdfast.open("both.db", busy_timeout=60)
`;

test("JavaScript has the whole of it, beside a page with Python", async ({ context, openTab }) => {
  const js = await openPage(context, "both.db");

  await test.step("values", async () => {
    const found = await js.evaluate(async () => {
      const bytes = new Uint8Array([0, 255]);
      await db.execute("INSERT INTO notes(text, data) VALUES(?, ?)", [null, bytes]);
      await db.executeMany("INSERT INTO notes(text, data) VALUES(:text, :data)", [
        { text: "ü", data: 2n ** 62n },
        { text: true, data: 1.5 },
      ]);
      const rows = await db.fetchAll("SELECT text, data FROM notes ORDER BY id");
      return [
        [...rows[0].data],
        rows[0].text,
        rows[1].data === 2n ** 62n,
        rows[2],
        await db.fetchOne("SELECT text FROM notes WHERE id = ?", [99]),
        await db.fetchValue("SELECT count(*) FROM notes"),
        db.storage,
      ];
    });
    expect(found).toEqual([[0, 255], null, true, { text: 1, data: 1.5 }, null, 3, "opfs"]);
  });

  await test.step("transactions and errors", async () => {
    const [kept, lost, own, sql, value, left] = await js.evaluate(async () => {
      const kept = await db.transaction(async (tx) => {
        await tx.execute("DELETE FROM notes");
        return tx.fetchValue("SELECT count(*) FROM notes");
      });
      const mine = new RangeError("mine");
      let own;
      await db
        .transaction(async (tx) => {
          await tx.execute("INSERT INTO notes(text) VALUES('lost')");
          throw mine;
        })
        .catch((error) => (own = error === mine));
      const lost = await db.fetchValue("SELECT count(*) FROM notes");
      const sql = await failure(() => db.execute("SELEKT"));
      const value = await failure(() => db.fetchAll("DELETE FROM notes"));
      const other = await holdfast.open("both.db");
      await other.close();
      const left = await failure(() => other.execute("SELECT 1"));
      return [kept, lost, own, sql, value, left];
    });
    expect([kept, lost, own]).toEqual([0, 0, true]);
    expect(sql).toMatchObject({ name: "SQLError", ours: true });
    expect(sql.traceback).toContain("holdfast/sqlite/statements.py");
    expect(value).toMatchObject({ name: "ValueError", ours: true });
    expect(left.name).toBe("DatabaseClosedError");
  });

  const py = await openTab({ thread: "page" });
  await py.run(OPEN);

  await test.step("each hears what the other writes", async () => {
    await js.evaluate(async () => {
      window.seen = { handled: [], errors: [], watched: [], records: [], changes: [] };
      let failed = false;
      window.mine = new Error("the first time");
      window.tracker = await db.triggers.trackTableDiff({
        source: "notes",
        when: { INSERT: "NEW.text <> 'not this'" },
        throttle: 0,
        async onChange(context) {
          if (!failed) {
            failed = true;
            throw mine;
          }
          const rows = await context.withExtractedDiff("SELECT text FROM DIFF");
          seen.handled.push(...rows.map((row) => row.text));
          await context.transaction.execute("CREATE TABLE IF NOT EXISTS handled(n)");
          await context.transaction.execute("INSERT INTO handled VALUES(?)", [rows.length]);
        },
        onError: (error) => seen.errors.push(error === mine),
      });
      (async () => {
        for await (const rows of db.watch("SELECT text FROM notes ORDER BY id")) {
          seen.watched.push(rows.length);
        }
      })();
      (async () => {
        for await (const records of db.triggers.diffs("notes", { columns: ["text"] })) {
          for (const { operation, values, remote, timestamp } of records) {
            seen.records.push([operation, values.text, remote, timestamp instanceof Date]);
          }
          if (seen.records.length === 2) break;
        }
      })();
    });
    await py.run(`
async def follow():
    async for rows in db.watch("SELECT text FROM notes ORDER BY id"):
        emit([row["text"] for row in rows])
task = asyncio.ensure_future(follow())
len(await db.triggers.tracked())`);
    await expect.poll(() => py.run(`len(await db.triggers.tracked())`)).toBe(2);
    await py.run(`await db.execute("INSERT INTO notes(text) VALUES('not this'), ('from Python')")`);
    await expect.poll(() => js.evaluate(() => seen.handled)).toEqual(["from Python"]);
    await expect
      .poll(() => js.evaluate(() => seen.records))
      .toEqual([
        ["INSERT", "not this", true, true],
        ["INSERT", "from Python", true, true],
      ]);
    await js.evaluate(() => db.execute("UPDATE notes SET text = 'from JavaScript' WHERE id = 1"));
    await py.event((rows) => rows.includes("from JavaScript"));
    await expect.poll(() => js.evaluate(() => seen.watched.at(-1))).toBe(2);
    expect(await js.evaluate(() => seen.errors)).toEqual([true]);
    expect(await js.evaluate(() => tracker.stop().then(() => tracker.gone))).toBe(true);
    // The loop was left, so its trigger went too.
    await expect.poll(() => py.run(`len(await db.triggers.tracked())`)).toBe(0);
    expect(await py.run(`await db.fetch_value("SELECT sum(n) FROM handled")`)).toBe(1);
  });

  await test.step("files", async () => {
    const found = await js.evaluate(async () => {
      const file = await db.export();
      const seen = [];
      const onProgress = (done) => seen.push(done);
      await holdfast.importDatabase("copy.db", new Blob([file]), { onProgress });
      const names = await holdfast.databases();
      const busy = await failure(() => holdfast.importDatabase("both.db", file));
      const gone = await holdfast.deleteDatabase("copy.db");
      return [seen.at(-1) === file.length, names, busy.name, gone];
    });
    expect(found).toEqual([true, ["both.db", "copy.db"], "DatabaseBusyError", true]);
  });

  await test.step("its worker dies", async () => {
    const [pending, later, count] = await js.evaluate(async () => {
      const held = db.transaction(() => new Promise(() => {}));
      const pending = failure(() => db.execute("DELETE FROM notes"));
      held.catch(() => {});
      await db.status();
      workers.pop().terminate();
      const found = [await pending, await failure(() => db.status())];
      window.db = await holdfast.open("both.db", options);
      return [...found, await db.fetchValue("SELECT count(*) FROM notes")];
    });
    for (const error of [pending, later]) {
      expect(error).toMatchObject({ name: "DatabaseClosedError", ours: true });
      expect(error.message).toContain("died");
    }
    expect(count).toBe(2);
  });
});

test("storages: by name, or whatever can be had; never one that forgets", async ({
  context,
  openTab,
}) => {
  const first = await openPage(context, "kept.db", { storage: "indexeddb" });
  const insert = (text) =>
    db.execute("INSERT INTO notes(text) VALUES(?)", [text]).then(({ changes }) => changes);
  const texts = () => db.fetchAll("SELECT text FROM notes ORDER BY id");
  expect(await first.evaluate(() => [db.storage, db.persistsTriggers])).toEqual(["indexeddb", false]);

  // One with Python joins the worker that one without has started, and the other way round.
  const python = await openTab({ thread: "page", killable: false });
  await python.run(`
import asyncio, holdfast
db = await holdfast.open("kept.db", storage="indexeddb", busy_timeout=60)
async def seen(ctx):
    emit([row["id"] for row in await ctx.with_diff("SELECT id FROM DIFF")])
tracker = await db.triggers.track_table_diff("notes", seen)
None`);
  const second = await openPage(context, "kept.db", { storage: "indexeddb" });
  await second.evaluate(async () => {
    window.seen = [];
    window.tracker = await db.triggers.trackTableDiff({
      source: "notes",
      onChange: async (context) => {
        const rows = await context.withExtractedDiff("SELECT text FROM DIFF");
        seen.push(...rows.map(({ text }) => text));
      },
    });
  });
  expect(await first.evaluate(() => db.status().then(({ tabs }) => tabs))).toBe(3);
  expect(await first.evaluate(insert, "one")).toBe(1);
  expect(await python.event()).toEqual(["1"]);
  await expect.poll(() => second.evaluate(() => seen)).toEqual(["one"]);

  // The page that started it goes; what was written is there for who comes.
  await first.close();
  await python.close();
  expect(await second.evaluate(texts)).toEqual([{ text: "one" }]);
  await second.reload();
  await second.close();
  const weak = await openPage(context, "kept.db", { storage: "auto", worker: "/e2e/weak.mjs" });
  expect(await weak.evaluate(() => [db.storage, workers.length])).toEqual(["indexeddb", 1]);
  expect(await weak.evaluate(texts)).toEqual([{ text: "one" }]);
  expect(await weak.evaluate(() => holdfast.databases())).toEqual(["kept.db"]);

  const refused = await weak.evaluate(async () => {
    // Asked for by name there is a database that forgets, also where there is no OPFS.
    const memory = await holdfast.open("kept.db", { ...options, storage: "memory" });
    const opfs = await failure(() => holdfast.open("kept.db", { ...options, storage: "opfs" }));
    const none = await failure(() => holdfast.open("kept.db", { ...options, storage: "cloud" }));
    const tables = await memory.fetchValue("SELECT count(*) FROM sqlite_master WHERE name = 'notes'");
    await memory.close();
    await db.close();
    const gone = await holdfast.deleteDatabase("kept.db", { storage: "indexeddb" });
    return [opfs, none, memory.storage, tables, gone];
  });
  expect(refused[0]).toMatchObject({ name: "StorageUnavailableError", ours: true });
  expect(refused[0].message).toContain("createSyncAccessHandle does not exist");
  expect(refused[1].name).toBe("ValueError");
  expect(refused.slice(2)).toEqual(["memory", 0, true]);
  const nothing = await weak.evaluate(async () => {
    Reflect.deleteProperty(window, "SharedWorker");
    // The module anew, which knows of no worker yet.
    const again = await import("/pyodide/holdfast.mjs?again");
    return failure(() => again.open("kept.db", options));
  });
  expect(nothing.name).toBe("StorageUnavailableError");
  expect(nothing.message).toMatch(/"opfs": .*createSyncAccessHandle does not exist/);
  expect(nothing.message).toMatch(/"indexeddb": .*SharedWorker does not exist/);
});

test("a worker that cannot be started is an error that says what to do", async ({ context }) => {
  const page = await openPage(context, "works.db");
  const errors = await page.evaluate(async () => {
    const again = await import("/pyodide/holdfast.mjs?again");
    const tried = [
      { pyodide: "/nowhere/" },
      { worker: "/nowhere/holdfast.mjs" },
      { worker: "https://elsewhere.example/holdfast.mjs" },
    ];
    const found = [];
    for (const each of tried) {
      found.push(await failure(() => again.open("x.db", { storage: "opfs", ...options, ...each })));
    }
    // Nothing of that is in the way of what is right.
    const db = await again.open("works.db", options);
    return [...found.map((error) => [error.name, error.message]), await db.fetchValue("SELECT 1")];
  });
  expect(errors.pop()).toBe(1);
  expect(errors.map(([name]) => name)).toEqual(Array(3).fill("StorageUnavailableError"));
  expect(errors[0][1]).toContain("/nowhere/");
  expect(errors[1][1]).toContain("/nowhere/holdfast.mjs");
  expect(errors[2][1]).toContain("own origin");
});
