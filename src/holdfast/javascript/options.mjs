// Whether options are ones that there are, of the right type and in range. Part of holdfast.mjs.
import { articleOf } from "./vocabulary.mjs";

/** The options of everything that may start the worker. */
export const WORKER_OPTIONS = ["pyodide", "packages", "worker"];

const isA =
  (...types) =>
  (value) =>
    types.includes(typeof value);
const isIterable = (value) => typeof value === "object" && Symbol.iterator in value;
const isAddress = (value) => typeof value === "string" || value instanceof URL;
const isObject = (value) => typeof value === "object" && !(Symbol.iterator in value);
const isSignal = (value) => value instanceof AbortSignal;

const text = ["a string", isA("string")];
const yesOrNo = ["true or false", isA("boolean")];
const callback = ["a function", isA("function")];
const seconds = ["a number of seconds, 0 or more", isA("number"), "0 or more seconds", 0];
const list = ["an array or another iterable", isIterable];
const address = ["a string or a URL", isAddress];

// An option means the same wherever it is taken: what it must be, whether a value is such, and of a
// number what range it must be in, and the least of it.
const KINDS = {
  beforeCreate: callback,
  busyTimeout: seconds,
  columns: list,
  destination: text,
  distinct: yesOrNo,
  ignoreCheckConstraints: yesOrNo,
  insertOnly: yesOrNo,
  localOnly: yesOrNo,
  maxBacklog: ["a number of records", isA("number"), "1 or more records", 1],
  name: text,
  net: yesOrNo,
  onChange: callback,
  onError: callback,
  onProgress: callback,
  onlyChanged: yesOrNo,
  packages: list,
  persist: yesOrNo,
  persistTriggers: yesOrNo,
  pyodide: address,
  readOnly: yesOrNo,
  schema: list,
  signal: ["an AbortSignal", isSignal],
  source: text,
  storage: text,
  synchronous: text,
  tables: list,
  throttle: seconds,
  transaction: ["a transaction", isObject],
  viewName: text,
  wait: seconds,
  when: ["an object of SQL expressions by operation", isObject],
  worker: address,
};

/** Of a table of the schema. */
export const TABLE_KINDS = { ...KINDS, columns: ["an object of types by name", isObject] };

/**
 * The options, of which null is the same as leaving it out. what: takes them.
 *
 * TypeError: one is not of `names`, or of another type, which `kinds` may say differently.
 * RangeError: a number is out of its range.
 */
export function checkOptions(what, options, names, kinds = KINDS) {
  if (options === undefined) return {};
  if (options === null || typeof options !== "object") {
    throw new TypeError(`the options of ${what} must be an object, not ${kindOf(options)}`);
  }
  const found = {};
  for (const [name, value] of Object.entries(options)) {
    if (!names.includes(name)) {
      throw new TypeError(`${what} has no option ${name}; it has ${names.join(", ")}`);
    }
    if (value === undefined || value === null) continue;
    checkValue(name, value, kinds);
    found[name] = value;
  }
  return found;
}

/** TypeError: what is called `name` is of another type. RangeError: it is out of its range. */
export function checkValue(name, value, kinds = KINDS) {
  const [kind, isKind, range, least] = kinds[name];
  if (value === undefined || value === null || !isKind(value)) {
    throw new TypeError(`${name} must be ${kind}, not ${kindOf(value)}`);
  }
  if (range && !(value >= least)) throw new RangeError(`${name} must be ${range}, not ${value}`);
}

/** What a value is, for an error. */
export function kindOf(value) {
  if (value === null || value === undefined) return String(value);
  if (typeof value === "function") return "a function";
  if (typeof value !== "object") {
    const shown = typeof value === "string" ? JSON.stringify(value) : String(value);
    return `the ${typeof value} ${shown.length > 80 ? `${shown.slice(0, 80)}…` : shown}`;
  }
  if (Array.isArray(value)) return "an array";
  const name = Object.prototype.toString.call(value).slice(8, -1);
  return name === "Object" ? "an object" : `${articleOf(name)} ${name}`;
}
