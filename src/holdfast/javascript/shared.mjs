// The shared worker that has the databases of all pages, found or started from a page without
// Python: the page's half of the protocol that browser/shared.py describes. Part of holdfast.mjs.
import { HoldfastError, died, named, notStarted, refused } from "./errors.mjs";
import { Peer } from "./peer.mjs";

const LIVING = `holdfast:shared:${globalThis.holdfastHost.version}:`;

// How long to wait for the worker to answer, in milliseconds: as in browser/shared.py.
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
    // The caller, if there still is one, gets the error from the promise itself.
    this.ready.catch(() => {});
  }

  async #begin() {
    try {
      const { worker, port, life } = await this.#find();
      this.#worker = worker;
      this.#peer = new Peer(port);
      this.#peer.onClose = () => this.#end();
      const gone = this.#lock(life, "shared");
      gone.granted.then(
        () => this.#peer.close(died("the shared worker that has the databases")),
        (error) => this.#peer.close(error),
      );
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
    const own = this.#lock(`holdfast:tab:${crypto.randomUUID()}`);
    const found = own.granted.then(() => this.#join(own.name));
    try {
      return await Promise.race([found, late.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  async #join(own) {
    while (!this.ended) {
      const { held } = await navigator.locks.query();
      const life = held.map(({ name }) => name).find((name) => name.startsWith(LIVING));
      const joined = await (life ? this.#joinRunning(own, life) : this.#startOne(own));
      if (joined) return joined;
    }
  }

  #startOne(own) {
    const name = `holdfast-${crypto.randomUUID().replaceAll("-", "")}`;
    return this.#ask(own, name, this.#start.script, true);
  }

  async #joinRunning(own, life) {
    const rest = life.slice(LIVING.length);
    const colon = rest.indexOf(":");
    const gone = new Lock(life, "shared");
    const ended = gone.granted.then(() => null);
    // About to end, it answers nothing, or its script is gone; then its lock goes too.
    const asked = this.#ask(own, rest.slice(0, colon), rest.slice(colon + 1), false);
    try {
      return await Promise.race([asked.catch(() => ended), ended]);
    } finally {
      gone.release();
    }
  }

  /** Undefined: it is not the one that has the databases. */
  #ask(own, name, url, starts) {
    return new Promise((resolve, reject) => {
      const { script: _, ...options } = this.#start;
      const { port1: port, port2 } = new MessageChannel();
      const worker = new SharedWorker(url, { type: "module", name });
      // A script that could not be loaded says no more than that there was an error. Any other one
      // ends nothing but what it was raised in, unless that is the worker's start.
      worker.onerror = ({ message }) => {
        if (starts || message === undefined) reject(new Error(message ?? "its script could not be loaded"));
      };
      worker.port.onmessage = ({ data: { life, other, failed } }) => {
        if (other) resolve(undefined);
        else if (life) resolve({ worker, port, life });
        else {
          const why = `${failed.name}: ${failed.message}`;
          reject(new Error(why));
          if (this.#worker === worker) this.#peer.close(this.#notStarted(why));
        }
      };
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
    this.granted = new Promise((resolve, reject) => {
      const have = () => {
        resolve();
        return this.#released.promise;
      };
      const { signal } = this.#withdraw;
      navigator.locks.request(name, { mode, signal }, have).catch((error) => {
        if (!signal.aborted) reject(refused("navigator.locks", error));
      });
    });
    this.granted.catch(() => {}); // a caller that waits gets the error from the promise itself
  }

  /** Give it back, or withdraw the request. */
  release() {
    this.#released.resolve();
    this.#withdraw.abort();
  }
}
