// Diff triggers, and the handlers that the other end calls here. Part of holdfast.mjs.
import { Block, aroundTracker, ask } from "./calls.mjs";
import { named } from "./errors.mjs";
import { checkOptions, checkValue } from "./options.mjs";
import { Stream } from "./streams.mjs";
import { Transaction, end, inside, liveNumber } from "./transactions.mjs";
import { checkSql, disposedBy, plain, readRecord, readRows, readTracked } from "./values.mjs";

export class Triggers {
  #calls;

  constructor(calls) {
    this.#calls = calls;
  }

  async createDiffTrigger(options) {
    const names = [...TRIGGER, "destination", "signal"];
    const { destination, signal, ...given } = checkOptions("createDiffTrigger()", options, names);
    checkValue("source", given.source);
    checkValue("destination", destination);
    const setup = new Setup(this.#calls, given);
    await setup.make("create_diff_trigger", { ...given, destination }, signal);
    return new Trigger(setup);
  }

  async trackTableDiff(options) {
    const names = [...TRIGGER, ...TRACKER];
    const { onChange, onError, throttle, signal, ...given } = checkOptions(
      "trackTableDiff()",
      options,
      names,
    );
    checkValue("source", given.source);
    checkValue("onChange", onChange);
    const setup = new Handlers(this.#calls, given, onChange, onError ?? report);
    await setup.make("track_table_diff", { ...given, throttle: throttle ?? 0.03 }, signal);
    setup.endWith(signal);
    return new Tracker(setup);
  }

  diffs(source, options) {
    const calls = this.#calls;
    let setup;
    return new Stream(calls, "diffs()", options, DIFFS, {
      begin: ({ throttle = 0.03, net = false, signal: _, ...given }) => {
        checkValue("source", source);
        setup = new Setup(calls, given);
        return ["diffs", [triggerOptions({ ...given, source, throttle, net }), setup.export()]];
      },
      read: (records) => records.map(readRecord),
      ended: () => setup?.forget(),
    });
  }

  async tracked(options) {
    const { signal } = checkOptions("tracked()", options, ["signal"]);
    return (await this.#calls.ask("tracked", [], { signal })).map(readTracked);
  }

  async sweep() {
    return (await this.#calls.ask("sweep", [])).map(readTracked);
  }
}

const RECORD = ["when", "columns", "persist", "beforeCreate", "onlyChanged"];
const TRIGGER = ["source", ...RECORD, "transaction"];
const TRACKER = ["onChange", "onError", "throttle", "maxBacklog", "readOnly", "signal"];
const DIFFS = [...RECORD, "maxBacklog", "throttle", "net", "signal"];

const report = (error) => console.error("a tracker of holdfast failed:", error);

/** What the other end calls here for one trigger, and what is known of that. */
class Setup {
  #beforeCreate;
  #given;
  #exported = null;
  number = null;
  record = null;
  temporary = false;
  isGone = false;

  constructor(calls, { beforeCreate, transaction }) {
    this.calls = calls;
    this.#beforeCreate = beforeCreate;
    this.#given = transaction;
  }

  async make(method, options, signal) {
    const { calls } = this;
    const args = [triggerOptions(options), this.export()];
    const given = options.transaction && liveNumber(options.transaction);
    const undo = ([number]) => calls.peer.call(number, "dispose", given);
    try {
      // Inside the caller's own transaction it does not wait.
      const made = await (options.transaction
        ? ask(calls.peer, calls.number, method, args, { signal, undo })
        : calls.ask(method, args, { signal, undo }));
      [this.number, this.record, this.temporary] = made;
    } catch (error) {
      this.forget();
      throw error;
    }
  }

  /** The number by which the other end calls it. */
  export() {
    return (this.#exported ??= this.calls.peer.export(this));
  }

  forget() {
    this.calls.peer.forget(this.#exported);
  }

  // -- called by the other end -----------------------------------------------------------------

  before_create(number) {
    return this.#given ? this.#beforeCreate(this.#given) : this.lend(number, this.#beforeCreate);
  }

  /** It was disposed of, or never made. */
  gone() {
    this.isGone = true;
    if (this.number !== null) this.calls.peer.tell(this.number, "forget");
    this.forget();
  }

  /** Run `work` with a transaction of the other end's. This end does not wait for its end. */
  async lend(number, work, tracker = null) {
    const block = new Block(this.calls, tracker);
    const transaction = new Transaction(this.calls.peer, number, block);
    try {
      await block.enter(() => work(transaction, block));
    } finally {
      block.end();
      end(transaction);
    }
    return false;
  }
}

/** The same for a tracker. */
class Handlers extends Setup {
  #onChange;
  #onError;
  #running = 0;
  #abort = () => {};

  constructor(calls, options, onChange, onError) {
    super(calls, options);
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** Whether onChange or onError is running. */
  get running() {
    return this.#running > 0;
  }

  /** It ends when that is aborted; after a handler in flight. */
  endWith(signal) {
    if (!signal || this.isGone) return;
    const abort = () => this.tellEnd();
    this.#abort = () => signal.removeEventListener("abort", abort);
    if (signal.aborted) abort();
    else signal.addEventListener("abort", abort);
  }

  /** No more calls of the handler; the other end disposes of the trigger. */
  tellEnd() {
    if (!this.isGone) this.calls.peer.tell(this.number, "end");
  }

  gone() {
    this.#abort();
    super.gone();
  }

  /** That this answers is all that is asked. */
  ready() {}

  async change(diff, number, _id, destination, reset) {
    this.#running += 1;
    try {
      return await this.lend(
        number,
        (transaction, block) =>
          this.#onChange({ transaction, destination, reset, ...this.#queries(diff, block) }),
        this,
      );
    } finally {
      this.#running -= 1;
    }
  }

  async failed(error) {
    const block = new Block(null, this);
    this.#running += 1;
    try {
      await block.enter(() => this.#onError(this.calls.peer.errors.read(error)));
    } finally {
      block.end();
      this.#running -= 1;
    }
  }

  #queries(diff, block) {
    const query =
      (method) =>
      (sql, params) =>
        inside(block, async () =>
          readRows(await this.calls.peer.call(diff, method, checkSql(sql), plain(params))),
        );
    return { withDiff: query("with_diff"), withExtractedDiff: query("with_extracted_diff") };
  }
}

class Trigger {
  #setup;

  static {
    disposedBy(this, "dispose");
  }

  constructor(setup) {
    this.#setup = setup;
    const { id, source, destination, operations } = setup.record;
    Object.assign(this, { id, source, destination, operations, persisted: !setup.temporary });
  }

  get gone() {
    return this.#setup.isGone || this.#setup.calls.closed;
  }

  async dispose(options) {
    const { transaction } = checkOptions("dispose()", options, ["transaction"]);
    if (this.gone) return;
    const { calls, number } = this.#setup;
    if (transaction) await calls.peer.call(number, "dispose", liveNumber(transaction));
    else await calls.askOf(number, "dispose", [undefined]);
  }
}

class Tracker extends Trigger {
  #setup;

  static {
    disposedBy(this, "stop");
  }

  constructor(setup) {
    super(setup);
    this.#setup = setup;
  }

  async stop() {
    if (this.gone) return;
    const { calls, number, running } = this.#setup;
    const block = aroundTracker(this.#setup);
    if (block?.calls) {
      throw named(
        "NestedTransactionError",
        `stop() would wait for the handler of ${this.source} that it is called in; call it ` +
          "outside, or abort the signal that the tracker was made with",
      );
    }
    if (block) {
      // From onError: who waited for the end would wait for himself.
      this.#setup.tellEnd();
      return;
    }
    const late = () =>
      named(
        "NestedTransactionError",
        `stop() waited ${calls.timeout} s for the handler or the onError of ${this.source}, after ` +
          "which the tracker ends. If it was called in there, do not await it, or abort the " +
          "signal that the tracker was made with",
      );
    await calls.askOf(number, "stop", [], running ? { after: calls.timeout, late } : {});
  }
}

function triggerOptions(options) {
  const { source, destination, when, columns, persist, onlyChanged, maxBacklog } = options;
  const { throttle, net, readOnly, beforeCreate, transaction } = options;
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
  if (readOnly !== undefined) found.read_only = readOnly;
  if (maxBacklog !== undefined) found.max_backlog = maxBacklog;
  if (transaction) found.transaction = liveNumber(transaction);
  return found;
}
