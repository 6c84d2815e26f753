// Four tabs that write and read without pause: nobody starves, and the WAL stays bounded.
import { expect, test } from "./tabs.mjs";

const prepare = `
import asyncio, time, holdfast
import holdfast.storage.node as node
from holdfast.storage.leases import SLICE
db = await holdfast.open("fairness.db", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER)")
await db.execute("INSERT OR IGNORE INTO t VALUES(1, 0)")
`;

// The milliseconds that each write waited for its turn, the most frames that the WAL had, and what
// a reader saw: sums of a table whose sum never changes, a transfer at a time.
const use = (me, seconds) => `
waits, frames, wrong = [], 0, []
await db.execute("INSERT OR IGNORE INTO t VALUES(?, 0)", (${me} + 10,))
writing = True

async def read():
    while writing:
        async with db.read_transaction() as tx:
            total = await tx.fetch_value("SELECT sum(n) FROM t")
            await asyncio.sleep(0.001)
            if total != 0 or await tx.fetch_value("SELECT sum(n) FROM t") != 0:
                wrong.append(total)
        await asyncio.sleep(0.02)

reader = asyncio.ensure_future(read())
end = time.monotonic() + ${seconds}
while time.monotonic() < end:
    start = time.perf_counter()
    async with db.write_transaction() as tx:
        waits.append((time.perf_counter() - start) * 1e3)
        await tx.execute("UPDATE t SET n = n - 1 WHERE id = 1")
        await tx.execute("UPDATE t SET n = n + 1 WHERE id = ?", (${me} + 10,))
    frames = max(frames, db._storage.node.frames)
writing = False
await reader
{"waits": waits, "frames": frames, "wrong": wrong, "threshold": node.CHECKPOINT, "slice": SLICE * 1e3}
`;

test("everybody gets a turn, and the WAL stays bounded", async ({ openTab, handleMode }) => {
  const tabs = [];
  for (let n = 0; n < 4; n += 1) tabs.push(await openTab());
  for (const tab of tabs) await tab.run(prepare);
  expect(await tabs[0].run(`(await db.status()).handle_mode`)).toBe(handleMode);

  const seconds = Number(process.env.FAIRNESS_SECONDS ?? 6);
  test.setTimeout(180_000 + seconds * 2_000);
  const found = await Promise.all(tabs.map((tab, me) => tab.run(use(me, seconds))));

  for (const { waits, wrong, frames, threshold } of found) {
    expect(wrong).toEqual([]);
    expect(frames).toBeLessThanOrEqual(4 * threshold);
    expect(waits.length).toBeGreaterThan(10);
  }
  // A write behind one's own, within a turn, waits for nobody.
  const waited = found.flatMap(({ waits }) => waits.filter((wait) => wait > 1));
  waited.sort((one, other) => one - other);
  const median = waited[waited.length >> 1];
  const longest = waited.at(-1);
  console.log(
    `${waited.length} turns: median ${median.toFixed(1)} ms, longest ${longest.toFixed(1)} ms; ` +
      `at most ${Math.max(...found.map(({ frames }) => frames))} frames`,
  );
  // Shared handles change hands so fast that most waits are far shorter than what a tab may keep
  // the lease for, and the longest is a matter of that.
  const round = (tabs.length - 1) * found[0].slice;
  expect(longest).toBeLessThan(10 * (handleMode === "shared" ? Math.max(median, round) : median));
});
