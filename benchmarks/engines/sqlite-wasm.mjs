// SQLite's own WebAssembly build with its two OPFS VFSs. Statements are prepared once.
//
// opfs-sahpool keeps all files to one tab; opfs shares them, and needs a cross-origin isolated page.
import { rows } from "../workload.mjs";

async function load() {
  const { default: init } = await import("/rivals/@sqlite.org/sqlite-wasm/dist/index.mjs");
  return init({ print() {}, printErr() {} });
}

function engine(open, closed = () => {}) {
  let loading;
  return rows({
    async open(name) {
      loading ??= load();
      const db = await open(await loading, name);
      const prepared = new Map();

      const all = (sql, params = []) => {
        if (!prepared.has(sql)) prepared.set(sql, db.prepare(sql));
        const statement = prepared.get(sql);
        if (params.length) statement.bind(params);
        const found = [];
        try {
          while (statement.step()) found.push(statement.get([]));
        } finally {
          statement.reset();
        }
        return found;
      };

      // Another tab's lock is waited for here: this VFS polls for it.
      db.exec("PRAGMA busy_timeout = 20000");
      return {
        all,
        run: all,
        exec: (sql) => db.exec(sql),
        close() {
          for (const statement of prepared.values()) statement.finalize();
          db.close();
          closed();
        },
      };
    },
  });
}

let pool;

// The pool opens all its handles before any database. An opening that found them open would not be
// that of a tab that comes, so they are closed with the database, and opened with it.
export const sahpool = engine(
  async (sqlite3, name) => {
    pool ??= await sqlite3.installOpfsSAHPoolVfs({ name: "bench-pool" });
    if (pool.isPaused()) await pool.unpauseVfs();
    return new pool.OpfsSAHPoolDb(`/${name}`);
  },
  () => pool.pauseVfs(),
);

export const opfs = engine((sqlite3, name) => {
  if (!sqlite3.oo1.OpfsDb) throw new Error("the opfs VFS is missing; is the page isolated?");
  return new sqlite3.oo1.OpfsDb(`/${name}-opfs`);
});
