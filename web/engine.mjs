// The page's side of the worker: start it, call it, hear from it, kill it.

/** Dispatches what the worker tells (see demo.py) as events, their data in `detail`. */
export class Engine extends EventTarget {
  #worker = null;
  #calls = new Map();
  #lastCall = 0;

  /** A new worker; one that failed before ends. */
  start() {
    this.#worker?.terminate();
    const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
    worker.onmessage = ({ data }) => this.#take(data);
    worker.onerror = (event) => {
      this.#tell("failed", { type: "Error", message: event.message ?? "The worker did not load." });
    };
    this.#worker = worker;
  }

  /** Calls a method of the worker's Demo; rejects with an Error whose `name` is Python's. */
  call(method, args = {}) {
    if (!this.#worker) return Promise.reject(new Error("The worker of this tab is not running."));
    const id = ++this.#lastCall;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#worker.postMessage({ id, call: method, args });
    });
  }

  /** Ends the worker in the middle of whatever it does; no code of it runs any more. */
  crash() {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#calls.values()) {
      reject(new Error("The worker of this tab died before it answered."));
    }
    this.#calls.clear();
    this.#tell("crashed");
  }

  #take(data) {
    if (data.event) {
      this.#tell(data.event, data);
      return;
    }
    const { resolve, reject } = this.#calls.get(data.id);
    this.#calls.delete(data.id);
    if (data.error) {
      reject(Object.assign(new Error(data.error.message), { name: data.error.type }));
    } else {
      resolve(data.result);
    }
  }

  #tell(event, detail) {
    this.dispatchEvent(new CustomEvent(event, { detail }));
  }
}
