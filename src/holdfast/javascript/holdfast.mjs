// Holdfast for JavaScript, and the worker that has the databases of a page, in one module.
//
//   import { open } from "/holdfast.mjs";
//   const db = await open("notes.db", { pyodide: "/pyodide/" });
//
// What there is, and what it takes: holdfast.d.mts. Python on the main thread of a page starts the
// same worker, from this same file (see browser/page.py).
import "../browser/host.js";
import "./worker.mjs";
import { Block, Calls, ask, checked } from "./calls.mjs";
import { clientOf } from "./where.mjs";
import { HoldfastError, callSite } from "./errors.mjs";
import { WORKER_OPTIONS, checkOptions, checkValue, kindOf } from "./options.mjs";
import { Stream } from "./streams.mjs";
import { Statements, Transaction, end } from "./transactions.mjs";
import { Triggers } from "./triggers.mjs";
import { checkSql, chunksOf, disposedBy, plain, plainSchema, readRows, renamed } from "./values.mjs";

export { HoldfastError };

const OPEN = ["storage", "schema", "persistTriggers", "synchronous", "busyTimeout", "signal"];

export async function open(name, options) {
  checkValue("name", name);
  const given = checkOptions("open()", options, [...OPEN, ...WORKER_OPTIONS]);
  const { storage = "auto", busyTimeout = 10, signal } = given;
  const site = callSite();
  const args = {
    schema: plainSchema(given.schema),
    storage,
    persist_triggers: given.persistTriggers,
    synchronous: given.synchronous ?? "full",
    busy_timeout: busyTimeout,
  };
  const peer = await found(storage, given);
  const undo = ({ number }) => peer.call(number, "close");
  const opened = await ask(peer, 0, "open", [name, args], { signal, undo, site });
  return new Database(new Calls(peer, opened.number, opened.name, busyTimeout), opened);
}

const IMPORT = ["storage", "wait", "onProgress", "ignoreCheckConstraints", "signal"];

export async function importDatabase(name, data, options) {
  checkValue("name", name);
  const given = checkOptions("importDatabase()", options, [...IMPORT, ...WORKER_OPTIONS]);
  const { onProgress, storage = "auto", wait = 0, signal } = given;
  const site = callSite();
  const [chunks, total] = chunksOf(data);
  const peer = await found(storage, given);
  const number = peer.export({
    async next() {
      const { done, value } = await chunks.next();
      return done ? [] : [value];
    },
    progress: (done, total) => onProgress(done, total ?? null),
  });
  const ignore = Boolean(given.ignoreCheckConstraints);
  const args = [name, number, total, storage, wait, Boolean(onProgress), ignore];
  try {
    await ask(peer, 0, "import_database", args, { signal, writes: true, site });
  } finally {
    peer.forget(number);
  }
}

export async function deleteDatabase(name, options) {
  checkValue("name", name);
  const names = ["storage", "wait", "signal", ...WORKER_OPTIONS];
  const given = checkOptions("deleteDatabase()", options, names);
  const { storage = "auto", wait = 0, signal } = given;
  const site = callSite();
  const peer = await found(storage, given);
  return ask(peer, 0, "delete_database", [name, storage, wait], { signal, writes: true, site });
}

export async function databases(options) {
  const names = ["storage", "signal", ...WORKER_OPTIONS];
  const given = checkOptions("databases()", options, names);
  const { storage = "auto", signal } = given;
  const site = callSite();
  const peer = await found(storage, given);
  return ask(peer, 0, "databases", [storage, undefined], { signal, site });
}

/** The worker, which is everybody's: a signal ends the wait for it, not its start. */
async function found(storage, options) {
  const signal = checked(options.signal);
  const starting = clientOf(storage, options);
  if (!signal) return starting;
  const aborted = Promise.withResolvers();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    return await Promise.race([starting, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

class Database extends Statements {
  #calls;

  static {
    disposedBy(this, "close");
  }

  constructor(calls, { name, storage, persists_triggers }) {
    super(async (method, args, read, options) => read(await calls.ask(method, args(), options)));
    this.#calls = calls;
    this.name = name;
    this.storage = storage;
    this.persistsTriggers = persists_triggers;
    this.triggers = new Triggers(calls);
  }

  get closed() {
    return this.#calls.closed;
  }

  transaction(work, options) {
    return this.#within("transaction()", work, options, true);
  }

  readTransaction(work, options) {
    return this.#within("readTransaction()", work, options, false);
  }

  async #within(what, work, options, writable) {
    if (typeof work !== "function") {
      throw new TypeError(`${what} is given a function, not ${kindOf(work)}`);
    }
    const { signal } = checkOptions(what, options, ["signal"]);
    const calls = this.#calls;
    const site = callSite();
    const undo = ([number]) => calls.peer.call(number, "roll_back");
    const [number] = await calls.ask("begin", [writable], { signal, undo });
    const block = writable ? new Block(calls) : null;
    const transaction = new Transaction(calls.peer, number, block, signal);
    let result;
    try {
      const run = () => work(transaction);
      result = await unlessAborted(signal, block ? () => block.enter(run) : run);
      block?.end();
    } catch (error) {
      block?.end();
      end(transaction, signal?.aborted ? signal.reason : undefined);
      await calls.peer.call(number, "roll_back", error?.name === "FullError");
      throw error;
    }
    end(transaction);
    await calls.peer.request(number, "commit", [], site).answer;
    return result;
  }

  watch(sql, params, options) {
    const calls = this.#calls;
    return new Stream(calls, "watch()", options, ["throttle", "distinct", "signal"], {
      begin: ({ throttle = 0.03, distinct = true }) => [
        "watch",
        [checkSql(sql), plain(params), throttle, distinct],
      ],
      read: readRows,
    });
  }

  changes(tables, options) {
    const calls = this.#calls;
    return new Stream(calls, "changes()", options, ["signal"], {
      begin: () => {
        if (tables !== undefined) checkValue("tables", tables);
        return ["changes", [tables && [...tables]]];
      },
      read: ([names, remote]) => ({ tables: new Set(names), remote }),
      free: true,
    });
  }

  async export(options) {
    try {
      const chunks = [];
      for await (const chunk of this.exportChunks(options)) chunks.push(chunk);
      return new Uint8Array(await new Blob(chunks).arrayBuffer());
    } catch (error) {
      // A RangeError of an ArrayBuffer, and in Chromium a NotReadableError of the Blob.
      if (!["RangeError", "NotReadableError", "MemoryError"].includes(error.name)) throw error;
      throw named(
        "MemoryError",
        `there is not enough memory for an export of "${this.name}" in one piece; exportChunks() ` +
          "gives it in parts of 1 MiB",
        error,
      );
    }
  }

  exportChunks(options) {
    const calls = this.#calls;
    let number;
    return new Stream(calls, "exportChunks()", options, ["onProgress", "signal"], {
      begin: ({ onProgress }) => {
        number = onProgress && calls.peer.export({ progress: onProgress });
        return ["export_chunks", [number]];
      },
      read: (chunk) => chunk,
      ended: () => calls.peer.forget(number),
    });
  }

  async status(options) {
    const { signal } = checkOptions("status()", options, ["signal"]);
    return renamed(await this.#calls.ask("status", [], { signal }));
  }

  close() {
    return this.#calls.close();
  }
}

/** What `work` gives, or at once the reason of the signal; work that is begun is not interrupted. */
async function unlessAborted(signal, work) {
  if (!signal) return work();
  const aborted = Promise.withResolvers();
  const abort = () => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  try {
    signal.throwIfAborted();
    const result = await Promise.race([work(), aborted.promise]);
    signal.throwIfAborted();
    return result;
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
