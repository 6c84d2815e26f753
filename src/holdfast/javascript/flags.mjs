// What tells the worker that a call was cancelled while a statement runs there, when no message
// reaches it: see browser/flags.py. Part of holdfast.mjs.

// So many calls at once have a flag; the other calls have none.
const MOST = 32;

export class Flags {
  #idle = [];
  #used = 0;

  /** A flag for one call; undefined: there is none for it. */
  take() {
    if (this.#used === MOST) return undefined;
    this.#used += 1;
    return this.#idle.pop() ?? URL.createObjectURL(new Blob());
  }

  /** Its call was answered, and it was not raised. */
  giveBack(flag) {
    if (flag === undefined) return;
    this.#used -= 1;
    this.#idle.push(flag);
  }

  /** Its call was cancelled. */
  raise(flag) {
    if (flag === undefined) return;
    this.#used -= 1;
    URL.revokeObjectURL(flag);
  }
}
