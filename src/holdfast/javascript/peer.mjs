// Calls between a page and the worker that has its databases. Part of holdfast.mjs.
import { Errors, callSite, named } from "./errors.mjs";
import { Flags } from "./flags.mjs";

// As in remote/server.py.
const PROTOCOL = 2;

// The other half is remote/peer.py, where the messages are described.
export class Peer {
  #port;
  #objects = new Map();
  #lastObject = 0;
  #calls = new Map();
  #lastCall = 0;
  #why = null;
  #flags = new Flags();

  constructor(port) {
    this.errors = new Errors();
    this.onClose = (_why) => {};
    this.#port = port;
    port.onmessage = ({ data: [kind, ...rest] }) => this.#kinds[kind](...rest);
  }

  #kinds = {
    result: (id, value) => this.#take(id)?.resolve(value),
    error: (id, plain) => {
      const call = this.#take(id);
      call?.reject(this.errors.read(plain, call.site));
    },
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

  /**
   * Call a method there; site: where the caller's caller is, for the stack of an error.
   *
   * TypeError: an argument cannot be sent.
   */
  request(target, method, args, site = callSite()) {
    if (this.#why) return { answer: Promise.reject(this.#gone(site)), cancel() {} };
    const id = ++this.#lastCall;
    const call = { ...Promise.withResolvers(), site, flag: this.#flags.take() };
    try {
      this.#post(["call", id, target, method, args, call.flag]);
    } catch (cause) {
      this.#flags.giveBack(call.flag);
      throw new TypeError(
        `an argument cannot be sent to the worker that has the database: ${cause.message}`,
        { cause },
      );
    }
    this.#calls.set(id, call);
    const cancel = () => {
      this.#post(["cancel", id]);
      if (!this.#calls.has(id)) return;
      this.#flags.raise(call.flag);
      call.flag = undefined;
    };
    return { answer: call.promise, cancel };
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
    for (const { reject, site } of this.#calls.values()) reject(this.#gone(site));
    this.#calls.clear();
    this.onClose(why);
  }

  /** Why this end was closed, told to who called at `site`. */
  #gone(site) {
    const { name, message, cause } = this.#why;
    return named(name, message, { cause, site });
  }

  #take(id) {
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    this.#flags.giveBack(call?.flag);
    return call;
  }

  #post(message) {
    if (!this.#why) this.#port.postMessage(message);
  }
}
