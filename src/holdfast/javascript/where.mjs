// Which worker has the databases of a page without Python; as remote/where.py. Part of holdfast.mjs.
//
// The page may be a worker of the application's own: what it starts then is a worker of that worker.
//
//   storage       where the databases are
//   ---------------------------------------------------------------------------------------
//   "opfs"        a dedicated worker of the page, which lives as long as the page
//   "memory"      the same worker
//   "indexeddb"   a shared worker, of which there is one for all pages
//   "auto"        the first of "opfs" and "indexeddb" that the browser has, whatever it refuses at
//                 the moment
//
// If a worker dies, what was open in it fails, and the next that is opened starts another.
import { died, named, notStarted, refused } from "./errors.mjs";
import { Peer } from "./peer.mjs";
import { SharedTab } from "./shared.mjs";

// The name that makes holdfast.mjs the worker: see worker.mjs.
const WORKER = "holdfast:worker";

let own = null;
let shared = null;
// Why workers of this page have no OPFS, once that was tried: it does not change.
let noOpfs = null;
// What the last worker that has started was started with.
let said = {};

/** The other end of `storage`: a Peer that was greeted. */
export async function clientOf(storage, options) {
  if (!("Worker" in globalThis)) throw noWorkers();
  if (storage === "indexeddb") {
    if (!shared || shared.ended) {
      const start = startOptions(options);
      shared = new SharedTab(start);
      shared.ready.then(() => remember(start), () => {});
    }
    return shared.ready;
  }
  // Of a storage that does not exist Python tells.
  if (storage !== "auto") return ownWorker(options, storage === "opfs");
  try {
    if (noOpfs) throw noOpfs;
    return await clientOf("opfs", options);
  } catch (error) {
    // Nothing else leads to another storage: a name means one database.
    if (error !== noOpfs) throw error;
  }
  try {
    return await clientOf("indexeddb", options);
  } catch (error) {
    if (error.name !== "StorageUnavailableError") throw error;
    const tried = `"opfs": ${noOpfs.message}; "indexeddb": ${error.message}`;
    throw named("StorageUnavailableError", `no durable storage is available. Tried: ${tried}`);
  }
}

async function ownWorker(options, needsOpfs) {
  if (!own || own.ended) own = new OwnWorker(startOptions(options));
  const worker = own;
  if (needsOpfs) await worker.checkOpfs();
  else worker.wanted = true;
  return worker.ready;
}

/** The error of a context that can start no worker: a service worker, and some shared workers. */
function noWorkers() {
  const here = "ServiceWorkerGlobalScope" in globalThis ? "a service worker" : "this worker";
  return named(
    "StorageUnavailableError",
    `Holdfast needs a worker of its own, and ${here} cannot start one (Worker does not exist ` +
      "here). Open the database in a page, or in a dedicated worker of a page, and ask that with " +
      "postMessage()",
  );
}

/** An address as this page or worker means it; a worker made of a blob: URL is its origin's. */
const absolute = (url) =>
  new URL(url, location.protocol === "blob:" ? self.origin : location.href).href;

/** What a worker is started with: what these options leave out is as it was when one started. */
function startOptions(options) {
  const { pyodide = new URL(".", import.meta.url), packages, worker = import.meta.url } = {
    ...said,
    ...Object.fromEntries(Object.entries(options).filter(([, value]) => value !== undefined)),
  };
  const folder = String(pyodide);
  return {
    script: absolute(worker),
    pyodide: { indexURL: absolute(folder.endsWith("/") ? folder : `${folder}/`) },
    // Of the version that this module is of; another one would be refused.
    packages: [...(packages ?? [`holdfast==${globalThis.holdfastHost.version}`])].map((name) =>
      name.endsWith(".whl") ? absolute(name) : name,
    ),
  };
}

/** What a worker was started with, which has started. */
function remember({ script, pyodide, packages }) {
  said = { worker: script, pyodide: pyodide.indexURL, packages };
}

/** The page's own worker. */
class OwnWorker {
  #peer;
  #worker;
  #withdraw = new AbortController();
  #lock = `holdfast:worker:${crypto.randomUUID()}`;
  #opfs;
  #start;
  #alive = false;
  /** Whether it is of use without OPFS. */
  wanted = false;

  constructor(start) {
    const { script, ...options } = (this.#start = start);
    const { port1, port2 } = new MessageChannel();
    const peer = (this.#peer = new Peer(port1));
    const unhide = onHide(() => peer.tell(0, "rest"));
    const opfs = Promise.withResolvers();
    this.#opfs = opfs.promise;
    peer.onClose = (why) => {
      this.#worker?.terminate();
      this.#withdraw.abort();
      unhide();
      opfs.reject(why);
    };
    try {
      this.#worker = new Worker(script, { type: "module", name: WORKER });
      // A script that could not be loaded says no more than that there was an error. Once it lives,
      // one that nobody caught ends nothing but what it was raised in.
      this.#worker.onerror = ({ message }) =>
        this.#alive || this.#fail(message ?? "its script could not be loaded");
      this.#worker.onmessage = ({ data }) => this.#heard(data, opfs.resolve);
      const message = { lock: this.#lock, port: port2, python: false, ...options };
      this.#worker.postMessage(message, [port2]);
    } catch (error) {
      this.#fail(`${error.name}: ${error.message}`);
    }
    this.ready = peer.greet();
    this.ready.then(() => remember(start), () => {});
    // The caller, if there still is one, gets the error from the promise itself.
    for (const each of [this.#opfs, this.ready]) each.catch(() => {});
  }

  get ended() {
    return this.#peer.closed;
  }

  /** StorageUnavailableError: it has no OPFS. */
  async checkOpfs() {
    const why = await this.#opfs;
    if (!why) return;
    const error = named(
      "StorageUnavailableError",
      `OPFS cannot be used in a worker of this page: ${why}. Private windows, blocked site data ` +
        "and older browsers do that",
    );
    noOpfs = error;
    if (!this.wanted) this.#peer.close(error);
    throw error;
  }

  #heard({ alive, watched, opfs, failed }, told) {
    if (failed) this.#fail(`${failed.name}: ${failed.message}`);
    if (opfs !== undefined) told(opfs);
    this.#alive ||= alive === true;
    if (!watched) return;
    // Granted when the worker is gone, however it went.
    navigator.locks
      .request(this.#lock, { mode: "shared", signal: this.#withdraw.signal }, () =>
        this.#peer.close(died("the worker that has this page's databases")),
      )
      // Withdrawn: it is closed. Otherwise the worker's end would go unnoticed.
      .catch((error) => this.#peer.close(refused("navigator.locks", error)));
  }

  #fail(why) {
    const what = "the worker that would have this page's databases";
    this.#peer.close(notStarted(what, why, this.#start));
  }
}

/** Calls `callback` whenever the page is hidden, frozen or left; gives what ends that. */
function onHide(callback) {
  // A worker is not told of that. What it leaves idle is given up after a short time all the same.
  if (!globalThis.document) return () => {};
  const heard = ({ type }) => {
    // Of a page that is left, browsers say either first: that it goes, or that it is hidden.
    if (type !== "visibilitychange" || document.visibilityState === "hidden") callback();
  };
  const events = [
    [document, "visibilitychange"],
    [document, "freeze"],
    [window, "pagehide"],
  ];
  for (const [target, event] of events) target.addEventListener(event, heard);
  return () => events.forEach(([target, event]) => target.removeEventListener(event, heard));
}
