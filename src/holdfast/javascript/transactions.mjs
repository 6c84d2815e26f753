// What runs statements: a database, or one of its transactions. Part of holdfast.mjs.
import { ask, withEither } from "./calls.mjs";
import { named } from "./errors.mjs";
import { checkOptions } from "./options.mjs";
import { checkSql, plain, plainMany, readResult, readRow, readRows, readValue } from "./values.mjs";

export class Statements {
  #ask;

  /** ask: an async (method, what gives its arguments, what reads the answer, options of `ask`). */
  constructor(ask) {
    this.#ask = ask;
  }

  execute(sql, params, options) {
    return this.#run("execute", sql, params, options, readResult, true);
  }

  executeMany(sql, many, options) {
    return this.#run("executeMany", sql, many, options, readResult, true);
  }

  fetchAll(sql, params, options) {
    return this.#run("fetchAll", sql, params, options, readRows);
  }

  fetchOne(sql, params, options) {
    return this.#run("fetchOne", sql, params, options, readRow);
  }

  fetchValue(sql, params, options) {
    return this.#run("fetchValue", sql, params, options, readValue);
  }

  #run(name, sql, params, options = {}, read, writes = false) {
    const [method, plainOf] = METHODS[name];
    const args = () => {
      checkOptions(`${name}()`, options, ["signal"]);
      return [checkSql(sql), plainOf(params)];
    };
    return this.#ask(method, args, read, { signal: options?.signal, writes });
  }
}

// The names of what there is at the other end, and what gives the parameters as they are sent.
const METHODS = {
  execute: ["execute", plain],
  executeMany: ["execute_many", plainMany],
  fetchAll: ["fetch_all", plain],
  fetchOne: ["fetch_one", plain],
  fetchValue: ["fetch_value", plain],
};

// What this module alone does with a transaction: other code may have it for longer than it lives.
const lives = new WeakMap();

export class Transaction extends Statements {
  /**
   * block: of calls.mjs, of a write transaction; null of another
   * signal: aborted, what is called in it is aborted as well
   */
  constructor(peer, number, block, signal) {
    const life = { ended: null, number };
    super((method, args, read, { signal: own, ...options }) =>
      inside(block, async () => {
        const plainArgs = args();
        const found = await withEither(own, signal, (either) =>
          ask(peer, liveNumber(this), method, plainArgs, { ...options, signal: either }),
        );
        return read(found);
      }),
    );
    lives.set(this, life);
  }
}

/** Run it; what awaits it is inside of that block. */
export const inside = (block, work) => (block ? block.continue(work()) : work());

/** End it: every later call throws `why`. */
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
