// The shared worker that has the databases of all pages, found or started from a page without
// Python: the page's half of the protocol that browser/shared.py describes. Part of holdfast.mjs.
import { HoldfastError, Peer, died, named, notStarted } from "./peer.mjs";

const STARTING = "holdfast:shared:starting";
const LIVING = `holdfast:shared:${globalThis.holdfastHost.version}:`;

// How long to wait for other pages that look for the worker, and for the worker to answer, in
// milliseconds: as in shared.py.
const TIMEOUT = 60_000;

/** This page's end of the shared worker; `ready` is a Peer that was greeted. */
export class SharedTab {
  #start;
  #peer = null;
  #worker = null;
  #locks = [];
  ended = false;

  constructor(start) {
    this.#start = start;
    this.ready = this.#begin();
    // Whoever asks hears of it; perhaps nobody does any more.
    this.ready.catch(() => {});
  }

  async #begin() {
    try {
      const { worker, port, life } = await this.#find();
      this.#worker = worker;
      this.#peer = new Peer(port);
      this.#peer.onClose = () => this.#end();
      const gone = this.#lock(life, "shared");
      gone.granted.then(() => this.#peer.close(died("the shared worker that has the databases")));
      return await this.#peer.greet();
    } catch (error) {
      this.#end();
      throw error instanceof HoldfastError ? error : this.#notStarted(error.message);
    }
  }

  #end() {
    this.ended = true;
    for (const lock of this.#locks) lock.release();
    if (this.#worker) this.#worker.onerror = this.#worker.port.onmessage = null;
  }

  #lock(name, mode) {
    const lock = new Lock(name, mode);
    this.#locks.push(lock);
    return lock;
  }

  /** Join the worker that lives, or start one. */
  async #find() {
    const why = missing();
    if (why) {
      throw named(
        "StorageUnavailableError",
        `storage="indexeddb" cannot be used here: ${why}. It needs a browser with SharedWorker, ` +
          "IndexedDB and Web Locks, and a page served by https or from localhost",
      );
    }
    const late = Promise.withResolvers();
    const say = () => late.reject(new Error(`it did not answer within ${TIMEOUT / 1000} s`));
    const timer = setTimeout(say, TIMEOUT);
    const starting = this.#lock(STARTING);
    const own = this.#lock(`holdfast:tab:${crypto.randomUUID()}`);
    const found = Promise.all([starting.granted, own.granted]).then(() => this.#join(own.name));
    try {
      return await Promise.race([found, late.promise]);
    } finally {
      clearTimeout(timer);
      starting.release();
    }
  }

  async #join(own) {
    while (!this.ended) {
      const { held } = await navigator.locks.query();
      const life = held.map(({ name }) => name).find((name) => name.startsWith(LIVING));
      if (!life) {
        const name = `holdfast-${crypto.randomUUID().replaceAll("-", "")}`;
        return this.#ask(own, name, this.#start.script);
      }
      const rest = life.slice(LIVING.length);
      const colon = rest.indexOf(":");
      const gone = new Lock(life, "shared");
      const ended = gone.granted.then(() => null);
      // About to end, it answers nothing, or its script is gone; then its lock goes too.
      const answer = this.#ask(own, rest.slice(0, colon), rest.slice(colon + 1)).catch(() => ended);
      const joined = await Promise.race([answer, ended]);
      gone.release();
      if (joined) return joined;
    }
  }

  #ask(own, name, url) {
    return new Promise((resolve, reject) => {
      const { script: _, ...options } = this.#start;
      const { port1: port, port2 } = new MessageChannel();
      const worker = new SharedWorker(url, { type: "module", name });
      const fail = (why) => {
        reject(new Error(why));
        if (this.#worker === worker) this.#peer.close(this.#notStarted(why));
      };
      // A script that could not be loaded says no more than that there was an error.
      worker.onerror = ({ message }) => fail(message ?? "its script could not be loaded");
      worker.port.onmessage = ({ data: { life, failed } }) =>
        failed ? fail(`${failed.name}: ${failed.message}`) : resolve({ worker, port, life });
      worker.port.postMessage({ lock: own, port: port2, python: false, ...options }, [port2]);
    });
  }

  #notStarted(why) {
    return notStarted("the shared worker that would have the databases", why, this.#start);
  }
}

/** What is missing here for a shared worker; "" for nothing. */
function missing() {
  if (!isSecureContext) return "the page is not served by https or from localhost";
  for (const name of ["SharedWorker", "indexedDB"]) {
    if (!(name in globalThis)) {
      return `${name} does not exist${globalThis.document ? "" : " in a worker, only in its page"}`;
    }
  }
  return "locks" in navigator ? "" : "navigator.locks does not exist";
}

/** A Web Lock of the page's; `granted` never settles if it is released before. */
class Lock {
  #withdraw = new AbortController();
  #released = Promise.withResolvers();

  constructor(name, mode = "exclusive") {
    this.name = name;
    this.granted = new Promise((resolve) => {
      const have = () => {
        resolve();
        return this.#released.promise;
      };
      const { signal } = this.#withdraw;
      navigator.locks.request(name, { mode, signal }, have).catch(() => {}); // withdrawn
    });
  }

  /** Give it back, or withdraw the request. */
  release() {
    this.#released.resolve();
    this.#withdraw.abort();
  }
}
