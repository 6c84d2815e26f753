// A page without Python of its own.
import { wheelUrl } from "./tab.mjs";

/**
 * Opens one in which `holdfast` is the module, `options` what its worker is started with, and `db` a
 * database with a table of notes. more: options of `open`, as plain data.
 */
export async function openPage(context, name, more = {}) {
  const page = await context.newPage();
  page.on("console", (message) => process.env.HOLDFAST_CONSOLE && console.log(`[page] ${message.text()}`));
  page.on("pageerror", (error) => console.log(`[page] ${error}`));
  await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/javascript.html`);
  await page.evaluate(
    async ([wheel, name, more]) => {
      const { Worker } = window;
      window.workers = [];
      window.Worker = class extends Worker {
        constructor(...args) {
          super(...args);
          window.workers.push(this);
        }
      };
      window.holdfast = await import("/pyodide/holdfast.mjs");
      window.options = { pyodide: "/pyodide/", packages: [wheel], busyTimeout: 600, ...more };
      window.db = await holdfast.open(name, options);
      await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text, data)");
      // What went wrong, as plain data.
      window.failure = async (work) => {
        try {
          await work();
          return null;
        } catch (error) {
          const { name, message, traceback } = error;
          return { name, message, traceback, ours: error instanceof holdfast.HoldfastError };
        }
      };
    },
    [wheelUrl(), name, more],
  );
  return page;
}

/** The same, with what tests of calls use: how they ended, what there is, and what blocks them. */
export async function openCallsPage(context, name) {
  const page = await openPage(context, name);
  await page.evaluate(async () => {
    window.mine = new Error("mine");
    /** How a promise ended: its value, or what it was rejected with. */
    window.ended = (promise) =>
      promise.then(
        (value) => ["value", value],
        (error) => (error === mine ? ["aborted"] : [error.name, error.message]),
      );
    window.count = () => db.fetchValue("SELECT count(*) FROM notes");
    window.triggers = () =>
      db.fetchValue("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'");
    /** A promise that never settles by itself. */
    window.never = () => new Promise(() => {});
    /** A write transaction that is open until it is told to end. */
    window.hold = async () => {
      const begun = Promise.withResolvers();
      const end = Promise.withResolvers();
      const done = db.transaction(() => {
        begun.resolve();
        return end.promise;
      });
      await begun.promise;
      return { end: end.resolve, done };
    };
  });
  return page;
}
