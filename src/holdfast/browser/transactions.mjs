// What runs statements: a database, or one of its transactions. Part of holdfast.mjs.
import { ask } from "./calls.mjs";
import { named } from "./peer.mjs";
import { plain, readResult, readRow, readRows } from "./values.mjs";

export class Statements {
  #ask;

  /** ask: an async (method, what gives its arguments, what reads the answer, options of `ask`). */
  constructor(ask) {
    this.#ask = ask;
  }

  execute(sql, params = [], { signal } = {}) {
    const args = () => [sql, plain(params)];
    return this.#ask("execute", args, readResult, { signal, writes: true });
  }

  executeMany(sql, many, { signal } = {}) {
    const args = () => [sql, Array.from(many, plain)];
    return this.#ask("execute_many", args, readResult, { signal, writes: true });
  }

  fetchAll(sql, params = [], { signal } = {}) {
    return this.#ask("fetch_all", () => [sql, plain(params)], readRows, { signal });
  }

  fetchOne(sql, params = [], { signal } = {}) {
    return this.#ask("fetch_one", () => [sql, plain(params)], readRow, { signal });
  }

  fetchValue(sql, params = [], { signal } = {}) {
    const read = (value) => value ?? null;
    return this.#ask("fetch_value", () => [sql, plain(params)], read, { signal });
  }
}

// What this module alone does with a transaction: other code may have it for longer than it lives.
const lives = new WeakMap();

export class Transaction extends Statements {
  /** block: of calls.mjs, of a write transaction; null of another. */
  constructor(peer, number, block) {
    const life = { ended: null, number };
    super((method, args, read, options) =>
      inside(block, async () => read(await ask(peer, liveNumber(this), method, args(), options))),
    );
    lives.set(this, life);
  }
}

/** Run it; what awaits it is inside of that block. */
export const inside = (block, work) => (block ? block.continue(work()) : work());

/** No more of it; `why` is thrown by whoever tries. */
export function end(transaction, why) {
  lives.get(transaction).ended = {
    why:
      why ??
      named(
        "DatabaseClosedError",
        "the transaction has ended; use it inside of its function only, and await all that is " +
          "called",
      ),
  };
}

/** What the other end knows it by. DatabaseClosedError: it has ended. */
export function liveNumber(transaction) {
  const life = lives.get(transaction);
  if (!life) throw new TypeError("transaction must be one that db.transaction() gave");
  if (life.ended) throw life.ended.why;
  return life.number;
}
