// Calls between a page and the worker that has its databases, and their errors. Part of holdfast.mjs.

// As in remote/server.py.
const PROTOCOL = 1;

/** Every error of a database; `name` is the type that it has in Python. */
export class HoldfastError extends Error {}

// The other half is remote/peer.py, where the messages are described.
export class Peer {
  #port;
  #objects = new Map();
  #lastObject = 0;
  #calls = new Map();
  #lastCall = 0;
  #why = null;

  constructor(port) {
    this.errors = new Errors();
    this.onClose = (_why) => {};
    this.#port = port;
    port.onmessage = ({ data: [kind, ...rest] }) => this.#kinds[kind](...rest);
  }

  #kinds = {
    result: (id, value) => this.#take(id)?.resolve(value),
    error: (id, plain) => this.#take(id)?.reject(this.errors.read(plain)),
    call: async (id, target, method, args) => {
      try {
        const value = await this.#objects.get(target)[method](...args);
        this.#post(["result", id, value]);
      } catch (error) {
        this.#post(["error", id, this.errors.plain(error)]);
      }
    },
    // What runs here cannot be interrupted; its answer comes all the same.
    cancel: () => {},
    tell: (target, method, args) => this.#objects.get(target)?.[method](...args),
  };

  get closed() {
    return this.#why !== null;
  }

  /** To come first. StorageUnavailableError: the other end is of another version. */
  async greet() {
    await this.call(0, "hello", PROTOCOL, globalThis.holdfastHost.version, undefined);
    return this;
  }

  request(target, method, args) {
    if (this.#why) return { answer: Promise.reject(this.#why), cancel() {} };
    const id = ++this.#lastCall;
    const answer = new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
    this.#post(["call", id, target, method, args]);
    return { answer, cancel: () => this.#post(["cancel", id]) };
  }

  call(target, method, ...args) {
    return this.request(target, method, args).answer;
  }

  tell(target, method, ...args) {
    this.#post(["tell", target, method, args]);
  }

  export(thing) {
    this.#objects.set(++this.#lastObject, thing);
    return this.#lastObject;
  }

  forget(number) {
    this.#objects.delete(number);
  }

  close(why) {
    if (this.#why) return;
    this.#why = why;
    this.#port.close();
    for (const { reject } of this.#calls.values()) reject(why);
    this.#calls.clear();
    this.onClose(why);
  }

  #take(id) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }

  #post(message) {
    if (!this.#why) this.#port.postMessage(message);
  }
}

// So many errors that were sent are kept, so that one that comes back is the very same object.
const KEPT = 100;

class Errors {
  #sent = new Map();
  #last = 0;
  #theirs = new WeakMap();

  plain(thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    const number = ++this.#last;
    this.#sent.set(number, thrown);
    this.#sent.delete(number - KEPT);
    return {
      type: error.name,
      module: "",
      message: error.message,
      args: [error.message],
      traceback: error.stack ?? "",
      number,
      yours: this.#theirs.get(error),
    };
  }

  read({ type, message, traceback, cause, number, yours }) {
    if (this.#sent.has(yours)) return this.#sent.get(yours);
    const error = named(type, message, cause && this.read(cause));
    error.traceback = traceback;
    this.#theirs.set(error, number);
    return error;
  }
}

export function named(name, message, cause) {
  const error = new HoldfastError(message, cause && { cause });
  error.name = name;
  return error;
}

/** The error for a worker, `what`, that is gone. */
export const died = (what) =>
  named(
    "DatabaseClosedError",
    `${what} died. What was committed is there; whether a commit that was under way is, is seen ` +
      "when the database is opened again, with open()",
  );

/** The error for a worker, `what`, that did not start; why, and what it was started with. */
export const notStarted = (what, why, { script, pyodide: { indexURL } }) =>
  named(
    "StorageUnavailableError",
    `${what} could not be started (${why}). Its script is ${script}, which has to be of the ` +
      `page's own origin, and Pyodide is looked for in ${indexURL}; other places are named by ` +
      'open("notes.db", { worker: "/holdfast.mjs", pyodide: "/pyodide/" })',
  );

/** The error for a call, `what`, that the browser refused with a DOMException. */
export const refused = (what, { name, message }) =>
  named(
    "StorageUnavailableError",
    `${what} was refused: ${name}: ${message.replace(/\.$/, "")}. ` +
      (["SecurityError", "NotAllowedError"].includes(name)
        ? "Private windows and blocked site data do that"
        : "Load the page again, and try again"),
  );
