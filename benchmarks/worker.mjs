// One tab's side of the benchmark: a dedicated worker with one engine.
//
// { id, engine, call, args } → { id, result } or { id, error }; the engine is loaded at the first
// call. An engine is a module with a default export that is an object of async functions, the rows
// of workload.mjs among them.
const engines = {
  "raw OPFS": () => import("./engines/raw.mjs"),
  holdfast: () => import("./engines/holdfast.mjs"),
  "wa-sqlite OPFSCoopSyncVFS": async () => (await import("./engines/wa-sqlite.mjs")).coop,
  "wa-sqlite OPFSWriteAheadVFS": async () => (await import("./engines/wa-sqlite.mjs")).writeAhead,
  "sqlite-wasm opfs-sahpool": async () => (await import("./engines/sqlite-wasm.mjs")).sahpool,
  "apsw.speedtest": () => import("./engines/speedtest.mjs"),
  "sqlite-wasm opfs": async () => (await import("./engines/sqlite-wasm.mjs")).opfs,
};

let loaded;

onmessage = async ({ data: { id, engine, call, args } }) => {
  try {
    loaded ??= engines[engine]().then((module) => module.default ?? module);
    postMessage({ id, result: await (await loaded)[call](...args) });
  } catch (error) {
    postMessage({ id, error: `${engine}, ${call}: ${error.stack ?? error}` });
  }
};
