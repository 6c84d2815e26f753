// wa-sqlite with its two OPFS VFSs that several tabs can share. Statements are prepared once.
import { rows } from "../workload.mjs";

const base = "/rivals/@journeyapps/wa-sqlite";

async function load(vfsName) {
  const [{ default: factory }, SQLite, vfsModule] = await Promise.all([
    import(`${base}/dist/wa-sqlite.mjs`),
    import(`${base}/src/sqlite-api.js`),
    import(`${base}/src/examples/${vfsName}.js`),
  ]);
  const module = await factory();
  const sqlite3 = SQLite.Factory(module);
  const vfs = await vfsModule[vfsName].create(vfsName, module);
  sqlite3.vfs_register(vfs, true);
  return { sqlite3, SQLite };
}

function engine(vfsName) {
  let loading;
  return rows({
    async open(name) {
      loading ??= load(vfsName);
      const { sqlite3, SQLite } = await loading;
      const db = await sqlite3.open_v2(`/${name}-${vfsName}`);
      const prepared = new Map();

      const prepare = async (sql) => {
        if (!prepared.has(sql)) {
          // Not finalized by the iterator, so that it can be kept.
          const statements = sqlite3.statements(db, sql, { unscoped: true });
          prepared.set(sql, (await statements.next()).value);
        }
        return prepared.get(sql);
      };

      const all = async (sql, params = []) => {
        const statement = await prepare(sql);
        sqlite3.bind_collection(statement, params);
        const rows = [];
        try {
          while ((await sqlite3.step(statement)) === SQLite.SQLITE_ROW) {
            rows.push(sqlite3.row(statement));
          }
        } finally {
          await sqlite3.reset(statement);
        }
        return rows;
      };

      return {
        all,
        run: all,
        exec: (sql) => sqlite3.exec(db, sql),
        async close() {
          for (const statement of prepared.values()) await sqlite3.finalize(statement);
          await sqlite3.close(db);
        },
      };
    },
  });
}

export const coop = engine("OPFSCoopSyncVFS");
export const writeAhead = engine("OPFSWriteAheadVFS");
