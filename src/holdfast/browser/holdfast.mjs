// Holdfast for JavaScript, and the worker that has the databases of a page, in one module.
//
//   import { open } from "/holdfast.mjs";
//   const db = await open("notes.db", { pyodide: "/pyodide/" });
//
// What there is, and what it takes: holdfast.d.mts. Python on the main thread of a page starts the
// same worker, from this same file (see page.py).
import "./host.js";
import "./worker.mjs";
import { Client, HoldfastError, named } from "./peer.mjs";
import {
  chunksOf,
  plain,
  plainSchema,
  readRecord,
  readResult,
  readRow,
  readRows,
  readTracked,
  renamed,
} from "./values.mjs";

export { HoldfastError };

export async function open(name, options = {}) {
  const client = await Client.started(options);
  const found = await client.peer.call(0, "open", name, {
    schema: plainSchema(options.schema),
    storage: options.storage ?? "auto",
    persist_triggers: options.persistTriggers,
    synchronous: options.synchronous ?? "full",
    busy_timeout: options.busyTimeout ?? 10,
  });
  return new Database(client.peer, found, options.busyTimeout ?? 10);
}

export async function importDatabase(name, data, options = {}) {
  const { peer } = await Client.started(options);
  const { onProgress, storage = "auto", wait = 0 } = options;
  const [chunks, total] = chunksOf(data);
  const number = peer.export({
    async next() {
      const { done, value } = await chunks.next();
      return done ? [] : [value];
    },
    progress: (done, total) => onProgress(done, total ?? null),
  });
  try {
    await peer.call(0, "import_database", name, number, total, storage, wait, Boolean(onProgress));
  } finally {
    peer.forget(number);
  }
}

export async function deleteDatabase(name, options = {}) {
  const { peer } = await Client.started(options);
  return peer.call(0, "delete_database", name, options.storage ?? "auto", options.wait ?? 0);
}

export async function databases(options = {}) {
  const { peer } = await Client.started(options);
  return peer.call(0, "databases", options.storage ?? "auto", undefined);
}

class Database {
  #peer;
  #number;
  #closed = false;
  #waits;

  constructor(peer, found, busyTimeout) {
    this.#peer = peer;
    this.#number = found.number;
    this.#waits = new Waits(peer, busyTimeout);
    this.name = found.name;
    this.storage = found.storage;
    this.persistsTriggers = found.persists_triggers;
    this.triggers = new Triggers(peer, found.number, this.#waits);
  }

  get closed() {
    return this.#closed || this.#peer.closed;
  }

  execute(sql, params = []) {
    return this.#waits.call(this.#number, "execute", sql, plain(params)).then(readResult);
  }

  executeMany(sql, many) {
    const params = Array.from(many, plain);
    return this.#waits.call(this.#number, "execute_many", sql, params).then(readResult);
  }

  async fetchAll(sql, params = []) {
    return readRows(await this.#waits.call(this.#number, "fetch_all", sql, plain(params)));
  }

  async fetchOne(sql, params = []) {
    return readRow(await this.#waits.call(this.#number, "fetch_one", sql, plain(params)));
  }

  async fetchValue(sql, params = []) {
    return (await this.#waits.call(this.#number, "fetch_value", sql, plain(params))) ?? null;
  }

  transaction(work) {
    return this.#within(work, true);
  }

  readTransaction(work) {
    return this.#within(work, false);
  }

  async #within(work, writable) {
    const [number] = await this.#waits.call(this.#number, "begin", writable);
    const transaction = new Transaction(this.#peer, number);
    let result;
    try {
      result = await this.#waits.during(writable, () => work(transaction));
    } catch (error) {
      end(transaction);
      await this.#peer.call(number, "roll_back", error?.name === "FullError");
      throw error;
    }
    end(transaction);
    await this.#peer.call(number, "commit");
    return result;
  }

  async *watch(sql, params = [], { throttle = 0.03 } = {}) {
    const begun = this.#peer.call(this.#number, "watch", sql, plain(params), throttle);
    for await (const rows of items(this.#peer, begun)) yield readRows(rows);
  }

  async *changes(tables) {
    const begun = this.#peer.call(this.#number, "changes", tables && [...tables]);
    for await (const [names, remote] of items(this.#peer, begun)) {
      yield { tables: new Set(names), remote };
    }
  }

  async export({ onProgress } = {}) {
    const chunks = [];
    for await (const chunk of this.exportChunks({ onProgress })) chunks.push(chunk);
    return new Uint8Array(await new Blob(chunks).arrayBuffer());
  }

  async *exportChunks({ onProgress } = {}) {
    const number = onProgress && this.#peer.export({ progress: onProgress });
    try {
      yield* items(this.#peer, this.#peer.call(this.#number, "export_chunks", number));
    } finally {
      if (onProgress) this.#peer.forget(number);
    }
  }

  async status() {
    return renamed(await this.#peer.call(this.#number, "status"));
  }

  async close() {
    if (this.closed) return;
    this.#closed = true;
    await this.#peer.call(this.#number, "close");
  }
}

// A transaction that was ended says so itself: what it was known by may be somebody else's.
const ends = new WeakMap();
const end = (transaction) => ends.get(transaction)();

class Transaction {
  #peer;
  #number;
  #open = true;

  constructor(peer, number) {
    this.#peer = peer;
    this.#number = number;
    ends.set(this, () => (this.#open = false));
  }

  /** What the worker knows it by; for `transaction` of a trigger. */
  static number(transaction) {
    return transaction.#live();
  }

  async execute(sql, params = []) {
    return readResult(await this.#call("execute", sql, plain(params)));
  }

  async executeMany(sql, many) {
    return readResult(await this.#call("execute_many", sql, Array.from(many, plain)));
  }

  async fetchAll(sql, params = []) {
    return readRows(await this.#call("fetch_all", sql, plain(params)));
  }

  async fetchOne(sql, params = []) {
    return readRow(await this.#call("fetch_one", sql, plain(params)));
  }

  async fetchValue(sql, params = []) {
    return (await this.#call("fetch_value", sql, plain(params))) ?? null;
  }

  #live() {
    if (!this.#open) {
      throw named(
        "DatabaseClosedError",
        "the transaction has ended; use it inside its function only, and await all that is called",
      );
    }
    return this.#number;
  }

  #call(method, ...args) {
    return this.#peer.call(this.#live(), method, ...args);
  }
}

class Triggers {
  #peer;
  #number;
  #waits;

  constructor(peer, number, waits) {
    this.#peer = peer;
    this.#number = number;
    this.#waits = waits;
  }

  async createDiffTrigger({ destination, ...options }) {
    const made = await this.#make("create_diff_trigger", { ...options, destination }, {});
    return new Trigger(this.#peer, made);
  }

  async trackTableDiff({ onChange, onError = report, throttle = 0.03, ...options }) {
    if (typeof onChange !== "function") throw new TypeError("onChange must be a function");
    const peer = this.#peer;
    const handlers = {
      change: (diff, number, _id, destination, reset) =>
        this.#lend(number, (transaction) =>
          onChange({ transaction, destination, reset, ...contextOf(peer, diff) }),
        ),
      failed: (plain) => onError(peer.errors.read(plain)),
    };
    const made = await this.#make("track_table_diff", { ...options, throttle }, handlers);
    return new Tracker(peer, made);
  }

  async *diffs(source, { throttle = 0.03, net = false, ...options } = {}) {
    const found = triggerOptions({ ...options, source, throttle, net });
    const number = this.#peer.export(this.#setup(options, {}));
    try {
      const begun = this.#waits.call(this.#number, "diffs", found, number);
      for await (const records of items(this.#peer, begun)) yield records.map(readRecord);
    } finally {
      this.#peer.forget(number);
    }
  }

  async tracked() {
    return (await this.#peer.call(this.#number, "tracked")).map(readTracked);
  }

  async sweep() {
    return (await this.#waits.call(this.#number, "sweep")).map(readTracked);
  }

  async #make(method, options, handlers) {
    const peer = this.#peer;
    const calls = this.#setup(options, handlers);
    const number = peer.export(calls);
    const made = {};
    calls.gone = () => {
      made.gone = true;
      if (made.number) peer.tell(made.number, "forget");
      peer.forget(number);
    };
    const caller = options.transaction ? peer : this.#waits;
    try {
      const found = await caller.call(this.#number, method, triggerOptions(options), number);
      [made.number, made.record, made.temporary] = found;
    } catch (error) {
      peer.forget(number);
      throw error;
    }
    return made;
  }

  #setup({ beforeCreate, transaction }, handlers) {
    return {
      ...handlers,
      gone() {},
      // Nobody here waits for the end of what is lent.
      before_create: (number) =>
        transaction ? beforeCreate(transaction) : this.#lend(number, beforeCreate),
    };
  }

  async #lend(number, work) {
    const transaction = new Transaction(this.#peer, number);
    try {
      await this.#waits.during(true, () => work(transaction));
    } finally {
      end(transaction);
    }
    return false;
  }
}

class Trigger {
  #peer;
  #made;

  constructor(peer, made) {
    this.#peer = peer;
    this.#made = made;
    const { id, source, destination, operations } = made.record;
    Object.assign(this, { id, source, destination, operations, persisted: !made.temporary });
  }

  get gone() {
    return this.#made.gone ?? false;
  }

  async dispose({ transaction } = {}) {
    if (this.gone) return;
    await this.#end("dispose", transaction && Transaction.number(transaction));
  }

  async #end(method, ...args) {
    await this.#peer.call(this.#made.number, method, ...args);
  }

  static end(trigger, method) {
    return trigger.#end(method);
  }
}

class Tracker extends Trigger {
  async stop() {
    if (!this.gone) await Trigger.end(this, "stop");
  }
}

const contextOf = (peer, diff) => ({
  async withDiff(sql, params = []) {
    return readRows(await peer.call(diff, "with_diff", sql, plain(params)));
  },
  async withExtractedDiff(sql, params = []) {
    return readRows(await peer.call(diff, "with_extracted_diff", sql, plain(params)));
  },
});

const report = (error) => console.error("a tracker of holdfast failed:", error);

// JavaScript does not tell whether a call is made inside of a transaction. One that is would wait
// for its end, and keep it from ending; so while one is open, waiting has a bound.
class Waits {
  #peer;
  #timeout;
  #open = 0;

  constructor(peer, timeout) {
    this.#peer = peer;
    this.#timeout = timeout;
  }

  async during(writable, work) {
    if (writable) this.#open += 1;
    try {
      return await work();
    } finally {
      if (writable) this.#open -= 1;
    }
  }

  async call(target, method, ...args) {
    const request = this.#peer.request(target, method, args);
    if (!this.#open) return request.answer;
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      request.cancel();
    }, 1000 * this.#timeout);
    try {
      return await request.answer;
    } catch (error) {
      if (!late || error.name !== "CancelledError") throw error;
      throw named(
        "NestedTransactionError",
        `this waited ${this.#timeout} s for a write transaction of this page. If it was called in ` +
          "there, use the methods of that transaction (or of the handler's ctx.transaction)",
      );
    } finally {
      clearTimeout(timer);
    }
  }
}

async function* items(peer, begun) {
  const number = await begun;
  let ended = false;
  try {
    for (;;) {
      let found;
      try {
        found = await peer.call(number, "next");
      } catch (error) {
        ended = true;
        throw error;
      }
      if (found.length === 0) {
        ended = true;
        return;
      }
      yield found[0];
    }
  } finally {
    if (!ended && !peer.closed) await peer.call(number, "close");
  }
}

function triggerOptions(options) {
  const { source, destination, when, columns, persist, onlyChanged, maxBacklog } = options;
  const { throttle, net, beforeCreate, transaction } = options;
  const found = {
    source,
    when: when ?? undefined,
    columns: columns && [...columns],
    persist: persist ?? undefined,
    only_changed: onlyChanged ?? false,
    before_create: Boolean(beforeCreate),
  };
  if (destination !== undefined) found.destination = destination;
  if (throttle !== undefined) found.throttle = throttle;
  if (net !== undefined) found.net = net;
  if (maxBacklog !== undefined) found.max_backlog = maxBacklog;
  if (transaction) found.transaction = Transaction.number(transaction);
  return found;
}
