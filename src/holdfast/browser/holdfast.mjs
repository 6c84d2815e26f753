// Holdfast for JavaScript, and the worker that has the databases of a page, in one module.
//
//   import { open } from "/holdfast.mjs";
//   const db = await open("notes.db", { pyodide: "/pyodide/" });
//
// What there is, and what it takes: holdfast.d.mts. Python on the main thread of a page starts the
// same worker, from this same file (see page.py).
import "./host.js";
import "./worker.mjs";
import { Block, Calls, ask, checked } from "./calls.mjs";
import { engine } from "./engines.mjs";
import { HoldfastError } from "./peer.mjs";
import { Stream } from "./streams.mjs";
import { Statements, Transaction, end } from "./transactions.mjs";
import { Triggers } from "./triggers.mjs";
import { chunksOf, disposedBy, plain, plainSchema, readRows, renamed } from "./values.mjs";

export { HoldfastError };

export async function open(name, options = {}) {
  const { storage = "auto", busyTimeout = 10, signal } = options;
  const peer = await found(storage, options);
  const undo = ({ number }) => peer.call(number, "close");
  const args = {
    schema: plainSchema(options.schema),
    storage,
    persist_triggers: options.persistTriggers,
    synchronous: options.synchronous ?? "full",
    busy_timeout: busyTimeout,
  };
  const opened = await ask(peer, 0, "open", [name, args], { signal, undo });
  return new Database(new Calls(peer, opened.number, busyTimeout), opened);
}

export async function importDatabase(name, data, options = {}) {
  const { onProgress, storage = "auto", wait = 0, signal } = options;
  const [chunks, total] = chunksOf(data);
  const peer = await found(storage, options);
  const number = peer.export({
    async next() {
      const { done, value } = await chunks.next();
      return done ? [] : [value];
    },
    progress: (done, total) => onProgress(done, total ?? null),
  });
  const args = [name, number, total, storage, wait, Boolean(onProgress)];
  try {
    await ask(peer, 0, "import_database", args, { signal, writes: true });
  } finally {
    peer.forget(number);
  }
}

export async function deleteDatabase(name, options = {}) {
  const { storage = "auto", wait = 0, signal } = options;
  const peer = await found(storage, options);
  return ask(peer, 0, "delete_database", [name, storage, wait], { signal, writes: true });
}

export async function databases(options = {}) {
  const { storage = "auto", signal } = options;
  const peer = await found(storage, options);
  return ask(peer, 0, "databases", [storage, undefined], { signal });
}

/** The worker, which is everybody's: a signal ends the wait for it, not its start. */
async function found(storage, options) {
  const signal = checked(options.signal);
  const starting = engine(storage, options);
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

  transaction(work, { signal } = {}) {
    return this.#within(work, true, signal);
  }

  readTransaction(work, { signal } = {}) {
    return this.#within(work, false, signal);
  }

  async #within(work, writable, signal) {
    if (typeof work !== "function") throw new TypeError("a transaction is given a function");
    const calls = this.#calls;
    const undo = ([number]) => calls.peer.call(number, "roll_back");
    const [number] = await calls.ask("begin", [writable], { signal, undo });
    const block = writable ? new Block(calls) : null;
    const transaction = new Transaction(calls.peer, number, block);
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
    await calls.peer.call(number, "commit");
    return result;
  }

  watch(sql, params = [], { throttle = 0.03, distinct = true, signal } = {}) {
    const calls = this.#calls;
    return new Stream(calls, {
      begin: async () => calls.ask("watch", [sql, plain(params), throttle, distinct]),
      read: readRows,
      signal,
    });
  }

  changes(tables, { signal } = {}) {
    const calls = this.#calls;
    return new Stream(calls, {
      begin: async () => calls.ask("changes", [tables && [...tables]]),
      read: ([names, remote]) => ({ tables: new Set(names), remote }),
      free: true,
      signal,
    });
  }

  async export(options) {
    const chunks = [];
    for await (const chunk of this.exportChunks(options)) chunks.push(chunk);
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  }

  exportChunks({ onProgress, signal } = {}) {
    const calls = this.#calls;
    let number;
    return new Stream(calls, {
      begin: () => {
        number = onProgress && calls.peer.export({ progress: onProgress });
        return calls.ask("export_chunks", [number]);
      },
      read: (chunk) => chunk,
      signal,
      ended: () => calls.peer.forget(number),
    });
  }

  async status({ signal } = {}) {
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
