// Four tabs that write and read without pause: nobody starves, and the WAL stays bounded.
import { expect, test } from "./tabs.mjs";

// A turn is what a tab writes before another one does. It goes on until each had so many, and so
// much was written in all, however long that takes; where somebody starves it has no end.
const TURNS = Number(process.env.FAIRNESS_TURNS ?? 25);
// Of 15 frames or more each: more than the WAL may have.
const WRITES = 350;

const prepare = `
import asyncio, holdfast
import holdfast.storage.opfs.wal as wal
db = await holdfast.open("fairness.db", busy_timeout=60)
await db.execute("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, n INTEGER)")
await db.execute("CREATE TABLE IF NOT EXISTS pads(tab INTEGER PRIMARY KEY, pad BLOB)")
await db.execute("CREATE TABLE IF NOT EXISTS log(n INTEGER PRIMARY KEY, tab INTEGER)")
await db.execute("CREATE TABLE IF NOT EXISTS turns(tab INTEGER PRIMARY KEY, n INTEGER)")
await db.execute("INSERT OR IGNORE INTO t VALUES(1, 0)")
`;

// The most frames that the WAL had, and what a reader saw: sums of a table whose sum never changes,
// a transfer at a time.
const use = (me) => `
frames, wrong = 0, []
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
least = written = 0
while least < ${TURNS} or written < ${WRITES}:
    async with db.write_transaction() as tx:
        await tx.execute("UPDATE t SET n = n - 1 WHERE id = 1")
        await tx.execute("UPDATE t SET n = n + 1 WHERE id = ?", (${me} + 10,))
        await tx.execute("INSERT OR REPLACE INTO pads VALUES(?, randomblob(60000))", (${me},))
        last = await tx.fetch_one("SELECT n, tab FROM log ORDER BY n DESC LIMIT 1")
        await tx.execute("INSERT INTO log(tab) VALUES(?)", (${me},))
        if last is None or last["tab"] != ${me}:
            await tx.execute("UPDATE turns SET n = n + 1 WHERE tab = ?", (${me},))
        least = await tx.fetch_value("SELECT min(n) FROM turns")
        written = last["n"] + 1 if last else 1
    frames = max(frames, db._session.storage.node.wal.frames)
writing = False
await reader
{"frames": frames, "wrong": wrong, "threshold": wal.CHECKPOINT}
`;

test("everybody gets a turn, and the WAL stays bounded", async ({ openTab, handleMode }) => {
  test.setTimeout(600_000);
  const tabs = [];
  for (let n = 0; n < 4; n += 1) tabs.push(await openTab());
  for (const [me, tab] of tabs.entries()) {
    await tab.run(prepare);
    await tab.run(`
await db.execute("INSERT INTO t VALUES(?, 0)", (${me} + 10,))
await db.execute("INSERT INTO turns VALUES(?, 0)", (${me},))
`);
  }
  expect(await tabs[0].run(`(await db.status()).handle_mode`)).toBe(handleMode);
  const found = await Promise.all(tabs.map((tab, me) => tab.run(use(me))));

  for (const { wrong, frames, threshold } of found) {
    expect(wrong).toEqual([]);
    expect(frames).toBeLessThanOrEqual(4 * threshold);
  }
  const log = await tabs[0].run(`[row["tab"] for row in await db.fetch_all("SELECT tab FROM log ORDER BY n")]`);
  const turns = log.filter((tab, at) => tab !== log[at - 1]);
  // While all were at it. Whoever asks comes after those who asked before, each once; the computer
  // may keep a tab from asking for some of the time, but not for most of it.
  const begun = Math.max(...tabs.map((_, me) => turns.indexOf(me)));
  const waited = tabs.map((_, me) => {
    const own = [...turns.keys()].filter((at) => at >= begun && turns[at] === me);
    const gaps = own.slice(1).map((at, n) => at - own[n] - 1).sort((one, other) => one - other);
    return { median: gaps[gaps.length >> 1], longest: gaps.at(-1) };
  });
  const frames = Math.max(...found.map(({ frames }) => frames));
  console.log(
    `${log.length} writes in ${turns.length} turns, at most ${frames} frames; turns of others ` +
      `between one's own: ${waited.map(({ median, longest }) => `${median} (${longest})`).join(", ")}`,
  );
  for (const { median } of waited) expect(median).toBeLessThanOrEqual(3 * (tabs.length - 1));
});
