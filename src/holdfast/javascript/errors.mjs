// Errors of databases: as Python's come here, and as the page's own are sent there. Part of
// holdfast.mjs.
import { inJavaScript } from "./vocabulary.mjs";

/**
 * Every error of a database; `name` is the type that it has in Python.
 *
 * A DOMException, because of those alone a structured clone (postMessage, IndexedDB) keeps the name.
 */
export class HoldfastError extends DOMException {
  constructor(message, name = "HoldfastError", { cause, site = callSite() } = {}) {
    super(message, name);
    const own = { stack: stackOf(this, site) };
    if (cause) own.cause = cause;
    for (const [key, value] of Object.entries(own)) {
      Object.defineProperty(this, key, { value, configurable: true, writable: true });
    }
  }
}

export const named = (name, message, options) => new HoldfastError(message, name, options);

/** From where this module is called: its text is asked for only when something goes wrong. */
export function callSite() {
  const limit = Error.stackTraceLimit;
  // A dozen frames are this module's.
  if (typeof limit === "number") Error.stackTraceLimit = limit + 12;
  const site = new Error();
  if (typeof limit === "number") Error.stackTraceLimit = limit;
  return site;
}

/** What `stack` says of an error that is told to who called there. */
function stackOf(error, site) {
  const frames = (site.stack ?? "")
    .split("\n")
    .filter((line) => /^\s*at |@/.test(line) && !line.includes(import.meta.url));
  return [String(error), ...frames].join("\n");
}

// So many errors that were sent are kept, so that one that comes back is the very same object.
const KEPT = 100;

export class Errors {
  #sent = new Map();
  #last = 0;
  #theirs = new WeakMap();

  plain(thrown) {
    const error = thrown instanceof Error ? thrown : new Error(String(thrown));
    const number = ++this.#last;
    this.#sent.set(number, thrown);
    this.#sent.delete(number - KEPT);
    return {
      type: error.name,
      module: "",
      message: error.message,
      args: [error.message],
      traceback: error.stack ?? "",
      number,
      yours: this.#theirs.get(error),
    };
  }

  /** site: what callSite() gave where it was called. */
  read({ type, module, message, traceback, cause, number, yours }, site) {
    if (this.#sent.has(yours)) return this.#sent.get(yours);
    // SQLite speaks of the application's names only.
    const said = module === "apsw" ? message : inJavaScript(message);
    const error = named(type, said, { cause: cause && this.read(cause, site), site });
    error.traceback = traceback;
    this.#theirs.set(error, number);
    return error;
  }
}

/** The error for a worker, `what`, that is gone. */
export const died = (what) =>
  named(
    "DatabaseClosedError",
    `${what} died. What was committed is there; whether a commit that was under way is, is seen ` +
      "when the database is opened again, with open()",
  );

/** The error for a worker, `what`, that did not start; why, and what it was started with. */
export const notStarted = (what, why, { script, pyodide: { indexURL } }) =>
  named(
    "StorageUnavailableError",
    `${what} could not be started (${why}). Its script is ${script}, which has to be of the ` +
      `page's own origin, and Pyodide is looked for in ${indexURL}; other places are named by ` +
      'open("notes.db", { worker: "/holdfast.mjs", pyodide: "/pyodide/" })',
  );

/** The error for a call, `what`, that the browser refused with a DOMException. */
export const refused = (what, { name, message }) =>
  named(
    "StorageUnavailableError",
    `${what} was refused: ${name}: ${message.replace(/\.$/, "")}. ` +
      (["SecurityError", "NotAllowedError"].includes(name)
        ? "Private windows and blocked site data do that"
        : "Load the page again, and try again"),
  );
