// A tab dies in the middle of a large transaction: what was acknowledged is there, what was not is
// there whole or not at all, and everybody goes on at once.
import { expect, test } from "./tabs.mjs";

const open = `
import asyncio, holdfast
db = await holdfast.open("crash.db", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, round INTEGER, pad BLOB)")
await db.execute("CREATE INDEX IF NOT EXISTS by_round ON t(round)")
`;

// Rounds of one small, one large transaction, each acknowledged to the test after its commit. The
// large ones pass SQLite's page cache, so that a part of them is in the WAL before they commit.
const rounds = (last = 1000) => `
async def rounds():
    round = await db.fetch_value("SELECT coalesce(max(round), 0) FROM t")
    while round < ${last}:
        round += 1
        rows = 10 if round % 2 else 3000
        async with db.write_transaction() as tx:
            for start in range(0, rows, 100):
                await tx.execute_many(
                    "INSERT INTO t(round, pad) VALUES(?, zeroblob(4000))", [(round,)] * min(100, rows))
                if start == rows // 2:
                    emit({"inside": round})
                    # Lets the worker be terminated, and messages of others be heard.
                    await asyncio.sleep(0)
            await tx.execute("UPDATE t SET pad = zeroblob(4001) WHERE round = ?", (round - 1,))
        emit({"acknowledged": round})
task = asyncio.ensure_future(rounds())
`;

const state = `
{
  "integrity": await db.fetch_value("PRAGMA integrity_check"),
  "last": await db.fetch_value("SELECT coalesce(max(round), 0) FROM t"),
  "torn": [list(row) for row in await db.fetch_all(
      "SELECT round, count(*) FROM t GROUP BY round HAVING count(*) <> CASE round % 2 WHEN 1 THEN 10 ELSE 3000 END")],
  "half_updated": await db.fetch_value(
      "SELECT count(*) FROM t WHERE length(pad) <> 4001 AND round < (SELECT max(round) FROM t)"),
  "rounds": await db.fetch_value("SELECT count(DISTINCT round) FROM t"),
}
`;

/**
 * Lets the tab write until a large transaction is half done, and calls `kill` then. It writes no
 * more after that one: what it says of others might be lost with it.
 */
async function killInside(tab, kill) {
  await tab.run(rounds(4));
  await tab.event((event) => event.acknowledged === 3);
  await tab.event((event) => event.inside === 4);
  await kill(tab);
}

/** Whether a `state` is whole, and has what `dead` was told to be committed. */
function check(found, dead) {
  const acknowledged = Math.max(...dead.events.map((event) => event.acknowledged ?? 0), 3);
  expect(found).toMatchObject({ integrity: "ok", torn: [], half_updated: 0 });
  // The last one may have been committed without being acknowledged any more.
  expect([acknowledged, acknowledged + 1]).toContain(found.last);
  expect(found.rounds).toBe(found.last);
}

for (const [how, kill, options] of [
  ["worker of a writing tab", (tab) => tab.terminateWorker(), {}],
  ["renderer of a writing tab", (tab) => tab.killRenderer(), {}],
  ["worker that a writing page started", (tab) => tab.terminateWorker(), { thread: "page" }],
]) {
  test(`killing the ${how} loses nothing acknowledged`, async ({ openTab, onPage }) => {
    test.skip(options.thread === "page" && !onPage.thread, "there are none here");
    const a = await openTab();
    const b = await openTab(options);
    await a.run(open);
    await b.run(open);

    await killInside(b, kill);
    const seen = await a.run(state);
    check(seen, b);
    const fresh = await openTab();
    await fresh.run(open);
    expect(await fresh.run(state)).toEqual(seen);

    // The survivor writes on.
    await a.run(rounds());
    await a.event((event) => event.acknowledged === seen.last + 2);
    await a.run(`task.cancel()`);
    expect(await fresh.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
  });
}

test.describe("the browser", () => {
  test.use({ ownBrowser: true });

  test("killing it with all of its tabs loses nothing acknowledged", async ({
    openTab,
    tabBrowser,
  }) => {
    const a = await openTab();
    const b = await openTab();
    await a.run(open);
    await b.run(open);
    await killInside(b, () => tabBrowser.restart());
    const fresh = await openTab();
    await fresh.run(open);
    check(await fresh.run(state), b);
    await fresh.run(rounds());
    const next = await fresh.event((event) => event.acknowledged);
    await fresh.run(`task.cancel()`);
    expect(await fresh.run(`await db.fetch_value("SELECT max(round) FROM t")`)).toBeGreaterThanOrEqual(
      next.acknowledged,
    );
  });
});

test("no update is lost between tabs that count, wherever their Python runs", async ({
  openTab,
  onPage,
}) => {
  const tabs = [await openTab(), await openTab(), await openTab(onPage)];
  for (const tab of tabs) await tab.run(open);
  await tabs[0].run(`await db.execute("INSERT INTO t(id, round) VALUES(1, 0)")`);
  await Promise.all(
    tabs.map((tab) =>
      tab.run(`
for _ in range(100):
    async with db.write_transaction() as tx:
        n = await tx.fetch_value("SELECT round FROM t WHERE id = 1")
        await asyncio.sleep(0)
        await tx.execute("UPDATE t SET round = ? WHERE id = 1", (n + 1,))
`),
    ),
  );
  for (const tab of tabs) {
    expect(await tab.run(`await db.fetch_value("SELECT round FROM t WHERE id = 1")`)).toBe(300);
  }
});

test("readers see one snapshot each, beside a writer", async ({ openTab }) => {
  const a = await openTab();
  const b = await openTab();
  await a.run(open);
  await b.run(open);
  await a.run(`
await db.execute_many("INSERT INTO t(id, round) VALUES(?, 100)", [(i,) for i in range(200)])
import random
async def transfer():
    while True:
        x, y = random.sample(range(200), 2)
        async with db.write_transaction() as tx:
            await tx.execute("UPDATE t SET round = round - 1 WHERE id = ?", (x,))
            await tx.execute("UPDATE t SET round = round + 1, pad = randomblob(500) WHERE id = ?", (y,))
task = asyncio.ensure_future(transfer())
`);
  const sums = await b.run(`
sums = set()
for _ in range(150):
    async with db.read_transaction() as tx:
        first = await tx.fetch_value("SELECT sum(round) FROM t")
        await asyncio.sleep(0.001)
        sums.add((first, await tx.fetch_value("SELECT sum(round) FROM t")))
[list(each) for each in sums]
`);
  expect(sums).toEqual([[20000, 20000]]);
  expect(await a.run(`task.done()`)).toBe(false);
});
