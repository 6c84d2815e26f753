// Statements that run when their caller gives up. Those here never end by themselves, and while one
// runs its worker hears no message: whatever is answered after one shows that it was interrupted.
import { openPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

const NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)";

for (const storage of ["opfs", "indexeddb"]) {
  test(`an aborted statement ends, and what it wrote is undone (${storage})`, async ({ context }) => {
    const page = await openPage(context, "endless.db", { storage });
    const found = await page.evaluate(async (numbers) => {
      const mine = new Error("mine");
      const calls = {
        rows: (signal) => db.fetchAll(`${numbers} SELECT i FROM n`, [], { signal }),
        value: (signal) => db.fetchValue(`${numbers} SELECT count(*) FROM n`, [], { signal }),
        write: (signal) =>
          db.execute(`INSERT INTO notes(text) ${numbers} SELECT i FROM n`, [], { signal }),
        many: (signal) =>
          db.executeMany(
            `INSERT INTO notes(text) ${numbers} SELECT i FROM n LIMIT ?`,
            [[1], [-1]],
            { signal },
          ),
        watch: (signal) => db.watch(`${numbers} SELECT count(*) FROM n`, [], { signal }).next(),
        transaction: (signal) =>
          db.transaction(
            async (tx) => {
              await tx.execute("INSERT INTO notes(text) VALUES('lost')");
              await tx.execute(`INSERT INTO notes(text) ${numbers} SELECT i FROM n`);
            },
            { signal },
          ),
        read_transaction: (signal) =>
          db.readTransaction((tx) => tx.fetchAll(`${numbers} SELECT i FROM n`), { signal }),
      };
      const found = {};
      for (const [what, call] of Object.entries(calls)) {
        const controller = new AbortController();
        const calling = call(controller.signal).catch((error) => error === mine);
        await new Promise((resolve) => setTimeout(resolve, 150)); // it runs by then, mostly
        controller.abort(mine);
        const began = performance.now();
        const aborted = await calling;
        // Of the page's other calls.
        const count = await db.fetchValue("SELECT count(*) FROM notes");
        found[what] = [aborted, count];
        console.log(`${what}: ${Math.round(performance.now() - began)} ms`);
      }
      // In a transaction that goes on: what is read leaves it open, and what writes ends it.
      const inside = async (sql) => {
        const controller = new AbortController();
        return db
          .transaction(async (tx) => {
            await tx.execute("INSERT INTO notes(text) VALUES('inside')");
            const calling = tx.execute(sql, [], { signal: controller.signal });
            setTimeout(() => controller.abort(mine), 150);
            await calling.catch(() => {});
            await tx.fetchValue("SELECT 1");
          })
          .catch(({ name }) => name);
      };
      found.reads = await inside(`${numbers} SELECT count(*) FROM n`);
      found.writes = await inside(`INSERT INTO notes(text) ${numbers} SELECT i FROM n`);
      found.texts = (await db.fetchAll("SELECT text FROM notes")).map(({ text }) => text);
      return found;
    }, NUMBERS);
    const undone = [true, 0];
    expect(found).toEqual({
      ...Object.fromEntries(
        ["rows", "value", "write", "many", "watch", "transaction", "read_transaction"].map((what) => [
          what,
          undone,
        ]),
      ),
      reads: undefined,
      writes: "DatabaseClosedError",
      texts: ["inside"],
    });
  });
}

test("a task of Python that is cancelled ends its statement in the worker", async ({ openTab }) => {
  for (const storage of ["opfs", "indexeddb"]) {
    const tab = await openTab({ thread: "page", killable: false });
    const counts = await tab.run(`
import asyncio, holdfast
db = await holdfast.open("endless.db", storage="${storage}", busy_timeout=60)
await db.execute("CREATE TABLE t(v)")
NUMBERS = "${NUMBERS}"
counts = []
async def in_transaction():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES('lost')")
        await tx.fetch_all(NUMBERS + " SELECT i FROM n")
for call in (
    lambda: db.fetch_all(NUMBERS + " SELECT i FROM n"),
    lambda: db.execute("INSERT INTO t " + NUMBERS + " SELECT i FROM n"),
    lambda: anext(db.watch(NUMBERS + " SELECT count(*) FROM n")),
    in_transaction,
):
    task = asyncio.ensure_future(call())
    await asyncio.sleep(0.15)
    task.cancel()
    await asyncio.wait({task})
    counts.append([task.cancelled(), await db.fetch_value("SELECT count(*) FROM t")])
counts
`);
    expect(counts).toEqual(Array(4).fill([true, 0]));
  }
});
