// A page's worker, and the protocol that is spoken with it. Part of holdfast.mjs.

// The name that makes holdfast.mjs the worker: see worker.mjs.
const WORKER = "holdfast";
// As in remote/server.py.
const PROTOCOL = 1;

/** Every error of a database; `name` is the type that it has in Python. */
export class HoldfastError extends Error {}

export class Client {
  static #started;

  /** The one worker of this page; a new one if there is none that lives. */
  static async started(options) {
    const living = await Client.#started?.catch(() => null);
    if (living && !living.peer.closed) return living;
    Client.#started = Client.#start(options);
    return Client.#started;
  }

  static async #start({ pyodide, packages = ["holdfast"], worker = import.meta.url }) {
    if (!pyodide) {
      throw new TypeError('say where Pyodide is: open("notes.db", { pyodide: "/pyodide/" })');
    }
    const lock = `holdfast:worker:${crypto.randomUUID()}`;
    const withdraw = new AbortController();
    const { port1, port2 } = new MessageChannel();
    const peer = new Peer(port1);
    const engine = new Worker(worker, { type: "module", name: WORKER });
    const indexURL = new URL(pyodide.endsWith("/") ? pyodide : `${pyodide}/`, location.href).href;
    const start = { lock, port: port2, python: false, pyodide: { indexURL }, packages };
    engine.postMessage(start, [port2]);
    const hide = () => document.visibilityState === "hidden" && peer.tell(0, "rest");
    const hiding = [
      [document, "visibilitychange"],
      [document, "freeze"],
      [window, "pagehide"],
    ];
    for (const [target, event] of hiding) target.addEventListener(event, hide);
    peer.onClose = () => {
      engine.terminate();
      withdraw.abort();
      for (const [target, event] of hiding) target.removeEventListener(event, hide);
    };
    const notStarted = (why) =>
      peer.close(
        named(
          "StorageUnavailableError",
          `the worker that would have this page's databases could not be started (${why})`,
        ),
      );
    engine.onerror = ({ message }) => notStarted(message ?? "its script could not be loaded");
    engine.onmessage = ({ data: { alive, failed } }) => {
      if (failed) return notStarted(`${failed.name}: ${failed.message}`);
      if (!alive) return;
      // Granted when the worker is gone, however it went.
      navigator.locks
        .request(lock, { mode: "shared", signal: withdraw.signal }, () => peer.close(died()))
        .catch(() => {}); // withdrawn: nobody waits for it any more
    };
    const { version } = globalThis.holdfastHost;
    await peer.call(0, "hello", PROTOCOL, version, undefined);
    return new Client(peer);
  }

  constructor(peer) {
    this.peer = peer;
  }
}

const died = () =>
  named(
    "DatabaseClosedError",
    "the worker that has this page's databases died. What was committed is there; whether a " +
      "commit that was under way is, is seen when the database is opened again, with open()",
  );

// The other half is remote/peer.py, where the messages are described.
class Peer {
  #port;
  #objects = new Map();
  #lastObject = 0;
  #calls = new Map();
  #lastCall = 0;
  #why = null;

  constructor(port) {
    this.errors = new Errors();
    this.onClose = () => {};
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
    this.onClose();
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
