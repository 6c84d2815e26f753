// The rows about triggers with @powersync/web, as its users have it: the API on the page, its
// database worker (OPFSCoopSyncVFS) behind. The same rows in Python are in workload.py.
import { PowerSyncDatabase, Schema, Table, WASQLiteVFS, column } from "@powersync/web";

const FILL = "x".repeat(100);
let db;
let trackers = [];
let arrived = [];
let made = 0;

const clock = () => performance.timeOrigin + performance.now();

export async function prepareTracking() {
  db = new PowerSyncDatabase({
    schema: new Schema({ items: new Table({ a: column.integer, b: column.text }) }),
    database: {
      dbFilename: "tracking-powersync.db",
      vfs: WASQLiteVFS.OPFSCoopSyncVFS,
      worker: "/rivals/@powersync/web/dist/worker/worker.js",
    },
    flags: { enableMultiTabs: true },
  });
  await db.init();
  await db.execute("DELETE FROM items");
}

/** `n` trackers of all that happens to `items`, their handlers at most once in `throttle` ms. */
export async function track(n, throttle) {
  for (let i = 0; i < n; i += 1) {
    const stop = await db.triggers.trackTableDiff({
      source: "items",
      when: { INSERT: "TRUE", UPDATE: "TRUE", DELETE: "TRUE" },
      useStorage: true,
      throttleMs: throttle,
      onChange: async (context) => {
        const at = clock();
        const rows = await context.withDiff("SELECT id FROM DIFF");
        if (rows.length) arrived.push(at);
      },
    });
    trackers.push(stop);
  }
}

export async function untrack() {
  for (const stop of trackers) await stop();
  trackers = [];
}

/** Microseconds for each of `n` rows that one transaction inserts. */
export async function trackedRows(n) {
  const start = performance.now();
  await db.writeTransaction(async (tx) => {
    const first = (made += n) - n;
    await tx.execute(
      "WITH RECURSIVE s(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM s WHERE i + 1 < ?) " +
        "INSERT INTO items(id, a, b) SELECT 'row-' || i, i, ? FROM s",
      [first, first + n, FILL],
    );
  });
  return ((performance.now() - start) / n) * 1000;
}

/** When one row was committed, in milliseconds since the epoch. */
export async function writeOne() {
  await db.execute("INSERT INTO items(id, a, b) VALUES(?, 1, ?)", [crypto.randomUUID(), FILL]);
  return clock();
}

/** When the handlers were called since this was last asked. */
export async function arrivals() {
  const found = arrived;
  arrived = [];
  return found;
}

export const clear = () => db.execute("DELETE FROM items");
export const stopTracking = () => db.close();

export const look = () => track(1, 0);
export const lookAway = untrack;

/** Milliseconds for each single row that is written without pause. */
export async function writeOnFor(ms) {
  const start = performance.now();
  let count = 0;
  while (performance.now() < start + ms) {
    await writeOne();
    count += 1;
  }
  return (performance.now() - start) / count;
}
