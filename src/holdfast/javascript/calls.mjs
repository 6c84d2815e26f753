// What is asked of a database: with a signal, and told at once where it would wait for itself.
// Part of holdfast.mjs.
import { named } from "./errors.mjs";

// -- inside of a transaction ----------------------------------------------------------------------
//
// A browser does not tell whether a call is made inside of a transaction's function. Two cases are
// known for certain, and are most of what is written:
//
// * what the function calls before it first awaits something;
// * what it calls right after it has awaited a method of its own transaction: the promise of that is
//   settled between two microtasks of ours, and what awaits it runs between them, and nothing else.
//
// A call on the database itself is refused there, as Python does it: it would wait for the end of
// the transaction, and most often keep it from ending. Elsewhere, such as after await of somebody
// else's promise, it is not known; so while a write transaction is open, waiting has a bound.

let current = null;

/**
 * What is run inside of it.
 *
 * calls     of the database whose write transaction it is; null if it is none
 * tracker   whose handler it is, or, without a transaction, whose onError
 */
export class Block {
  ended = false;

  constructor(calls, tracker = null) {
    this.calls = calls;
    this.tracker = tracker;
    calls?.blocks.add(this);
  }

  end() {
    this.ended = true;
    this.calls?.blocks.delete(this);
  }

  /** Call it inside of this block. */
  enter(work) {
    const outer = current;
    current = this;
    try {
      return work();
    } finally {
      current = outer;
    }
  }

  /** The same promise, what awaits it being inside of this block. */
  continue(promise) {
    return new Promise((resolve, reject) => {
      const inside = (settle) => (value) => {
        queueMicrotask(() => (current = this));
        settle(value);
        queueMicrotask(() => (current = null));
      };
      promise.then(inside(resolve), inside(reject));
    });
  }
}

/** The block that is certainly around the caller, of that tracker; or null. */
export const aroundTracker = (tracker) =>
  current !== null && !current.ended && current.tracker === tracker ? current : null;

/** Whether the caller is certainly inside of a write transaction of that database. */
const isInside = (calls) => current !== null && !current.ended && current.calls === calls;

// -- calls ----------------------------------------------------------------------------------------

/** The signal of some options. Its reason is thrown if it is aborted already. */
export function checked(signal) {
  if (signal === undefined || signal === null) return undefined;
  if (!(signal instanceof AbortSignal)) throw new TypeError("signal must be an AbortSignal");
  signal.throwIfAborted();
  return signal;
}

/** `work` with a signal that is aborted when one of the two is; each may be missing. */
export async function withEither(one, other, work) {
  if (!one || !other) return work(one ?? other);
  const controller = new AbortController();
  const abort = ({ target }) => controller.abort(target.reason);
  const signals = [one, other];
  for (const signal of signals) {
    if (signal.aborted) controller.abort(signal.reason);
    signal.addEventListener("abort", abort);
  }
  try {
    return await work(controller.signal);
  } finally {
    for (const signal of signals) signal.removeEventListener("abort", abort);
  }
}

/**
 * Call a method of the other end; its value.
 *
 * When `signal` is aborted, the call is cancelled there, and this rejects with the signal's reason:
 *
 *   by default           at once, whatever comes of it
 *   undo, a function     when it is answered; a value that came in spite of it is undone first
 *   writes: true         when it is answered; if it came too late, the value is given as ever
 *
 * after: so many seconds after which it is cancelled, and `late` gives the error; null: never.
 * site: see Peer.request.
 */
export async function ask(peer, target, method, args, options = {}) {
  const { undo, writes = false, after = null, late } = options;
  const signal = checked(options.signal);
  const request = peer.request(target, method, args, options.site);
  if (!signal && after === null) return request.answer;
  const whole = writes || undo !== undefined;
  const aborted = Promise.withResolvers();
  const abort = () => {
    request.cancel();
    if (!whole) aborted.reject(signal.reason);
  };
  signal?.addEventListener("abort", abort);
  let isLate = false;
  const bound = () => {
    isLate = true;
    request.cancel();
  };
  const timer = after === null ? undefined : setTimeout(bound, 1000 * after);
  try {
    const value = await Promise.race([request.answer, aborted.promise]);
    if (!signal?.aborted || writes) return value;
    await undo?.(value);
    throw signal.reason;
  } catch (error) {
    const cancelled = error?.name === "CancelledError";
    if (signal?.aborted && (cancelled || !writes)) throw signal.reason;
    if (isLate && cancelled) throw late();
    throw error;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", abort);
  }
}

/** The calls of one database. */
export class Calls {
  /** The write transactions of this page that are open. */
  blocks = new Set();
  #closed = false;

  /** timeout: seconds after which waiting for another call of this page becomes an error. */
  constructor(peer, number, name, timeout) {
    this.peer = peer;
    this.name = name;
    this.number = number;
    this.timeout = timeout;
  }

  /** Whether the database was closed, or is gone. */
  get closed() {
    return this.#closed || this.peer.closed;
  }

  async close() {
    if (this.closed) return;
    this.#closed = true;
    await this.peer.call(this.number, "close");
  }

  /** Ask something of the database itself; options as of `ask`. */
  ask(method, args, options) {
    return this.askOf(this.number, method, args, options);
  }

  /** Ask it of what belongs to the database, and may have to wait for its transactions. */
  async askOf(target, method, args, options) {
    this.check();
    const after = this.blocks.size > 0 ? this.timeout : null;
    const late = () =>
      named(
        "NestedTransactionError",
        `this waited ${this.timeout} s for a write transaction of this page. If it was called in ` +
          "there, use the methods of that transaction (or of the handler's context.transaction)",
      );
    return ask(this.peer, target, method, args, { after, late, ...options });
  }

  /**
   * NestedTransactionError: the caller is inside of a write transaction of this database.
   * DatabaseClosedError: it is closed.
   */
  check() {
    if (this.#closed) {
      throw named(
        "DatabaseClosedError",
        `the database ${JSON.stringify(this.name)} is closed; open it again with open()`,
      );
    }
    if (!isInside(this)) return;
    throw named(
      "NestedTransactionError",
      "inside of a write transaction only its own methods are called (in a handler, those of " +
        "context.transaction): this would wait for its end. To begin what does not belong to it, " +
        "use queueMicrotask(() => …)",
    );
  }
}
