// Async iterators over what the other end gives item by item. Part of holdfast.mjs.
import { checked } from "./calls.mjs";
import { callSite } from "./errors.mjs";
import { checkOptions } from "./options.mjs";
import { disposedBy } from "./values.mjs";

/**
 * what, options, names   as checkOptions() takes them; `signal`, aborted, rejects the next item with
 *                        its reason, and the stream ends
 * begin                  called once, for the first item, with the options; the method that begins
 *                        it at the other end, and its arguments
 * read                   an item, of what was sent
 * free                   whether it may be read inside of a write transaction
 * ended                  called when it has ended, however that went
 *
 * What is wrong with an argument is told when the first item is asked for.
 *
 * Ended by return(), which a `for await` that is left calls, also while an item is awaited.
 */
export class Stream {
  #calls;
  #begin;
  #read;
  #free;
  #signal;
  #ended;
  #abort = () => this.#fail(this.#signal.reason);

  #number = null; // at the other end, from its first item to its end
  #request = null;
  #pulling = null;
  #last = Promise.resolve(); // that was asked for: one comes after the other
  #waiting = false;
  #stop = Promise.withResolvers();
  #failure = null; // for the next caller
  #ending = null;
  #finished = false;

  static {
    disposedBy(this, "return");
  }

  constructor(calls, what, options, names, { begin, read, free = false, ended = () => {} }) {
    this.#calls = calls;
    this.#read = read;
    this.#free = free;
    this.#ended = ended;
    this.#stop.promise.catch(() => {});
    try {
      const given = checkOptions(what, options, names);
      this.#begin = () => begin(given);
      this.#signal = checked(given.signal);
      this.#signal?.addEventListener("abort", this.#abort);
    } catch (error) {
      this.#fail(error);
    }
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  next() {
    if (!this.#ending && !this.#free) {
      try {
        this.#calls.check();
      } catch (error) {
        this.#fail(error);
      }
    }
    const site = callSite();
    const found = this.#last.then(() => this.#next(site));
    this.#last = found.catch(() => {});
    return found;
  }

  async return(value) {
    await this.#close();
    return { done: true, value };
  }

  async throw(error) {
    await this.#close();
    throw error;
  }

  async #next(site) {
    if (this.#ending) {
      const failure = this.#failure;
      this.#failure = null;
      if (failure) throw failure.error;
      return done();
    }
    this.#waiting = true;
    this.#pulling = this.#pull(site);
    try {
      return await Promise.race([this.#pulling, this.#stop.promise]);
    } finally {
      this.#waiting = false;
    }
  }

  async #pull(site) {
    try {
      if (this.#number === null) {
        const [method, args] = this.#begin();
        this.#number = await this.#calls.ask(method, args, { site });
      }
      if (this.#ending) return done();
      this.#request = this.#calls.peer.request(this.#number, "next", [], site);
      const found = await this.#request.answer;
      if (found.length > 0) return { done: false, value: this.#read(found[0]) };
      this.#finish();
      return done();
    } catch (error) {
      // Which has ended it there as well.
      this.#finish();
      throw error;
    } finally {
      this.#request = null;
    }
  }

  #fail(error) {
    if (this.#waiting) this.#stop.reject(error);
    else this.#failure = { error };
    this.#close().catch((error) => console.error("a stream of holdfast did not end well:", error));
  }

  #close() {
    return (this.#ending ??= this.#end());
  }

  async #end() {
    this.#stop.resolve(done());
    this.#request?.cancel();
    await this.#pulling?.catch(() => {});
    const { peer, blocks } = this.#calls;
    // The end of `diffs` writes: inside of a transaction it would wait for that.
    if (blocks.size > 0 && this.#number !== null) peer.tell(this.#number, "close");
    else if (this.#number !== null && !peer.closed) await peer.call(this.#number, "close");
    this.#finish();
  }

  #finish() {
    this.#ending ??= Promise.resolve();
    this.#number = null;
    if (this.#finished) return;
    this.#finished = true;
    this.#signal?.removeEventListener("abort", this.#abort);
    this.#ended();
  }
}

const done = () => ({ done: true, value: undefined });
