// SQLite's own WebAssembly build with its two OPFS VFSs. Statements are prepared once.
//
// opfs-sahpool keeps all files to one tab; opfs shares them, and needs a cross-origin isolated page.
import { rows } from "../workload.mjs";

async function load() {
  const { default: init } = await import("/rivals/@sqlite.org/sqlite-wasm/dist/index.mjs");
  return init({ print() {}, printErr() {} });
}

function engine(open) {
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
        },
      };
    },
  });
}

let pool;

export const sahpool = engine(async (sqlite3, name) => {
  pool ??= sqlite3.installOpfsSAHPoolVfs({ name: "bench-pool" });
  return new (await pool).OpfsSAHPoolDb(`/${name}`);
});

export const opfs = engine((sqlite3, name) => {
  if (!sqlite3.oo1.OpfsDb) throw new Error("the opfs VFS is missing; is the page isolated?");
  return new sqlite3.oo1.OpfsDb(`/${name}-opfs`);
});
