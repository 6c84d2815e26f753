// The rows of the benchmark for engines in JavaScript; workload.py is the same for Python.
//
// The clock runs inside the worker, around the engine's own calls in its own style. `rows` takes
// { open(name) → { run(sql, params), all(sql, params), exec(sql), close() } }.
export const FILL = "x".repeat(100);
export const INSERT = "INSERT INTO t(a, b) VALUES(?, ?)";
const MANY = 25_000;

const now = () => performance.now();

// Lets messages in, without the four milliseconds that nested timers are made to wait.
const { port1, port2 } = new MessageChannel();
const breathe = () =>
  new Promise((resolve) => {
    port2.onmessage = resolve;
    port1.postMessage(0);
  });

/** Turns that pass from tab to tab on a channel: `wait(k)` resolves when it is turn `k`. */
export function turns() {
  const channel = new BroadcastChannel("bench-turns");
  const waiting = new Map();
  const come = new Set();
  channel.onmessage = ({ data }) => {
    const resolve = waiting.get(data);
    if (resolve) resolve();
    else come.add(data);
  };
  return {
    wait: (k) => (come.delete(k) ? undefined : new Promise((resolve) => waiting.set(k, resolve))),
    next: (k) => channel.postMessage(k),
    close: () => channel.close(),
  };
}

export function rows({ open }) {
  let db;

  async function each(n, call) {
    const start = now();
    for (let i = 0; i < n; i += 1) await call(i);
    return ((now() - start) / n) * 1000;
  }

  return {
    async prepare(settings) {
      db = await open("bench.db");
      for (const sql of settings) await db.exec(sql);
      await db.exec("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, a INTEGER, b TEXT)");
      await db.exec("CREATE TABLE IF NOT EXISTS c(id INTEGER PRIMARY KEY, n INTEGER)");
      await db.exec("INSERT OR IGNORE INTO c VALUES(1, 0)");
    },

    /** Milliseconds from a closed database to its first row. */
    async reopen(settings) {
      await db.close();
      const start = now();
      db = await open("bench.db");
      await db.all("SELECT n FROM c WHERE id = 1");
      const elapsed = now() - start;
      for (const sql of settings) await db.exec(sql);
      return elapsed;
    },

    commit: (n) => each(n, (i) => db.run(INSERT, [i, FILL])),

    async relaxed(n) {
      await db.exec("PRAGMA synchronous = NORMAL");
      const elapsed = await each(n, (i) => db.run(INSERT, [i, FILL]));
      await db.exec("PRAGMA synchronous = FULL");
      return elapsed;
    },

    /** Milliseconds for 25,000 rows in one transaction. */
    async bulk() {
      await db.exec("DELETE FROM t");
      const start = now();
      await db.run("BEGIN IMMEDIATE");
      for (let i = 0; i < MANY; i += 1) await db.run(INSERT, [i, FILL]);
      await db.run("COMMIT");
      return now() - start;
    },

    point: (n) =>
      each(n, (i) => db.all("SELECT a, b FROM t WHERE id = ?", [1 + ((i * 7) % 20_000)])),

    /** 50 MB that `scan` reads. */
    async fill() {
      await db.exec("CREATE TABLE IF NOT EXISTS big(id INTEGER PRIMARY KEY, pad BLOB)");
      if ((await db.all("SELECT count(*) FROM big"))[0][0]) return;
      for (let part = 0; part < 10; part += 1) {
        await db.run("BEGIN IMMEDIATE");
        for (let i = 0; i < 1250; i += 1) await db.run("INSERT INTO big(pad) VALUES(zeroblob(4000))");
        await db.run("COMMIT");
      }
    },

    /** Milliseconds to read all of it with nothing cached. */
    async scan(settings) {
      await this.reopen(settings);
      const start = now();
      await db.all("SELECT sum(length(pad)), max(pad) FROM big");
      return now() - start;
    },

    /** Milliseconds of one write when each of `tabs` tabs writes on the message of the one before. */
    async alternate(me, tabs, n) {
      const turn = turns();
      let start = now();
      for (let i = 0; i < n; i += 1) {
        const k = i * tabs + me;
        if (k > 0) await turn.wait(k);
        if (i === 0) start = now();
        await db.run("UPDATE c SET n = n + 1 WHERE id = 1");
        turn.next(k + 1);
      }
      const elapsed = now() - start;
      // The last message goes out before its channel ends.
      await new Promise((resolve) => setTimeout(resolve, 50));
      turn.close();
      return elapsed / ((n - 1) * tabs + 1);
    },

    /** Writes of a tab that writes for `ms` milliseconds without pause. */
    async writeFor(ms) {
      let count = 0;
      for (const end = now() + ms; now() < end; count += 1) {
        await db.run("UPDATE c SET n = n + 1 WHERE id = 1");
        if (count % 10 === 9) await breathe();
      }
      return count;
    },

    /** Microseconds of a read of one row, beside whatever others do, for `ms` milliseconds. */
    async readFor(ms) {
      let count = 0;
      const start = now();
      while (now() < start + ms) {
        await db.all("SELECT a, b FROM t WHERE id = ?", [1 + ((count * 7) % 20_000)]);
        count += 1;
        if (count % 10 === 0) await breathe();
      }
      return ((now() - start) / count) * 1000;
    },

    /** What the counter says: every write of `alternate` and `writeFor`, or some were lost. */
    async counter() {
      return (await db.all("SELECT n FROM c WHERE id = 1"))[0][0];
    },

    close: () => db.close(),
  };
}
