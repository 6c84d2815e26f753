// A page without Python of its own, and one with Python, on one database side by side.
import { wheelUrl } from "./tab.mjs";
import { expect, test } from "./tabs.mjs";

// A page of JavaScript, in which `open`, its `options` and `db` are there.
async function openPage(context) {
  const page = await context.newPage();
  page.on("pageerror", (error) => console.log(`[page] ${error}`));
  await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/javascript.html`);
  await page.evaluate(async (wheel) => {
    const { Worker } = window;
    window.workers = [];
    window.Worker = class extends Worker {
      constructor(...args) {
        super(...args);
        window.workers.push(this);
      }
    };
    window.holdfast = await import("/pyodide/holdfast.mjs");
    window.options = { pyodide: "/pyodide/", packages: [wheel] };
    window.db = await holdfast.open("both.db", options);
    await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text, data)");
    // What went wrong, as plain data.
    window.failure = async (work) => {
      try {
        await work();
        return null;
      } catch (error) {
        const { name, message, traceback } = error;
        return { name, message, traceback, ours: error instanceof holdfast.HoldfastError };
      }
    };
  }, wheelUrl());
  return page;
}

const OPEN = `
import asyncio, holdfast
db = await holdfast.open("both.db")
`;

test.use({ ownBrowser: true });

test("JavaScript has the whole of it, beside a page with Python", async ({ context, openTab }) => {
  const js = await openPage(context);

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
    const [kept, lost, own, sql, value, nested, left] = await js.evaluate(async () => {
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
      const short = await holdfast.open("both.db", { ...options, busyTimeout: 0.2 });
      const nested = await failure(() =>
        short.transaction(() => short.execute("INSERT INTO notes(text) VALUES('never')")),
      );
      await short.close();
      const left = await failure(() => short.execute("SELECT 1"));
      return [kept, lost, own, sql, value, nested, left];
    });
    expect([kept, lost, own]).toEqual([0, 0, true]);
    expect(sql).toMatchObject({ name: "SQLError", ours: true });
    expect(sql.traceback).toContain("holdfast/statements.py");
    expect(value).toMatchObject({ name: "ValueError", ours: true });
    expect(nested.name).toBe("NestedTransactionError");
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
    await js.evaluate(() => db.execute("UPDATE notes SET text = 'from JavaScript' WHERE id = 1"));
    await py.event((rows) => rows.includes("from JavaScript"));
    await expect.poll(() => js.evaluate(() => seen.watched.at(-1))).toBe(2);
    expect(await js.evaluate(() => seen.errors)).toEqual([true]);
    expect(await js.evaluate(() => seen.records)).toEqual([
      ["INSERT", "not this", true, true],
      ["INSERT", "from Python", true, true],
    ]);
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
      await holdfast.importDatabase("copy.db", new Blob([file]), { ...options, onProgress });
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
