// Values as they are sent to Python, and what comes back. Part of holdfast.mjs.
import { TABLE_KINDS, checkOptions, checkValue, kindOf } from "./options.mjs";

// Parts in which data is sent, in bytes.
const CHUNK = 1 << 20;

// -- parameters -----------------------------------------------------------------------------------

export function checkSql(sql) {
  if (typeof sql !== "string") throw new TypeError(`sql must be a string, not ${kindOf(sql)}`);
  return sent(sql, "sql");
}

// Parameters as they are sent; Python's None is undefined there.
export function plain(params = []) {
  if (params instanceof Map) return byName(params);
  if (isBytes(params) || typeof params !== "object" || params === null) throw noParams(params);
  if (params instanceof Set) {
    throw new TypeError("params is a Set, which has each value once; write [...set] if that is meant");
  }
  if (Symbol.iterator in params) {
    return Array.from(params, (value, i) => plainValue(value, `parameter ${i + 1}`));
  }
  if (Object.prototype.toString.call(params) !== "[object Object]") throw noParams(params);
  return byName(Object.entries(params));
}

/** Those of executeMany(). */
export function plainMany(many) {
  if (isBytes(many) || typeof many !== "object" || many === null || !(Symbol.iterator in many)) {
    throw new TypeError(
      "many must be an array or another iterable of parameters, each an array or an object, not " +
        kindOf(many),
    );
  }
  return Array.from(many, plain);
}

const noParams = (params) =>
  new TypeError(
    "params must be an array or another iterable (for ?), or an object or a Map (for :name), not " +
      `${kindOf(params)}; for one value write [value]`,
  );

/** The name as in the SQL, ":name", does as well. */
function byName(entries) {
  const found = new Map();
  for (const [key, value] of entries) {
    if (typeof key !== "string") {
      throw new TypeError(`the name of a parameter must be a string, not ${kindOf(key)}`);
    }
    const name = key.replace(/^[:@$]/, "");
    if (found.has(name)) throw new TypeError(`params has two values for the parameter ${name}`);
    found.set(name, plainValue(value, `parameter ${name}`));
  }
  return Object.fromEntries(found);
}

const isBytes = (value) => value instanceof ArrayBuffer || ArrayBuffer.isView(value);

function plainValue(value, what) {
  switch (typeof value) {
    case "undefined":
    case "boolean":
      return value;
    case "number":
      return Number.isSafeInteger(value) ? value : plainNumber(value);
    case "bigint":
      if (!is64Bits(value)) {
        throw new RangeError(`${what} is ${value}n; SQLite's integers have 64 bits`);
      }
      return value;
    case "string":
      return sent(value, what);
  }
  if (value === null) return undefined;
  if (isBytes(value)) return value;
  throw new TypeError(
    `${what} is ${kindOf(value)}; SQLite stores null, numbers, BigInts, strings and Uint8Arrays`,
  );
}

/** Whole numbers are INTEGER as long as there are such, all others REAL; NaN is NULL, as in SQLite. */
function plainNumber(value) {
  if (Number.isNaN(value)) return undefined;
  return Number.isInteger(value) && is64Bits(BigInt(value)) ? BigInt(value) : value;
}

const is64Bits = (value) => BigInt.asIntN(64, value) === value;

/** A string that can be sent: UTF-8 has no form for one half of a surrogate pair. */
function sent(text, what) {
  if (/\p{Surrogate}/u.test(text)) {
    throw new TypeError(
      `${what} is a string with half of a surrogate pair, which is no text; toWellFormed() mends it`,
    );
  }
  return text;
}

// -- results --------------------------------------------------------------------------------------

/**
 * Python's ints come as BigInts, all but the smaller ones; bytes of a TEXT that are no UTF-8 as lone
 * surrogates.
 */
export function readValue(value) {
  if (typeof value === "string") return value.toWellFormed();
  if (typeof value !== "bigint") return value ?? null;
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

export function readRows([columns, rows]) {
  return rows.map((values) => rowOf(columns, values));
}

export const readRow = (found) => (found ? rowOf(...found) : null);

function rowOf(columns, values) {
  const row = {};
  columns.forEach((column, i) => {
    // Of two columns of one name the first is found, as in Python.
    if (Object.hasOwn(row, column)) return;
    const value = readValue(values[i]);
    if (column === "__proto__") setOwn(row, column, value);
    else row[column] = value;
  });
  return row;
}

/** A property like any other, whatever its name. */
const setOwn = (object, key, value) =>
  Object.defineProperty(object, key, {
    value,
    configurable: true,
    enumerable: true,
    writable: true,
  });

export const readResult = ([changes, lastInsertRowid]) => ({
  changes,
  lastInsertRowid: readValue(lastInsertRowid),
});

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
export const renamed = (object) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [camel(key), readValue(value)]));

const withNulls = (object) =>
  object
    ? Object.fromEntries(Object.entries(object).map(([key, value]) => [key, readValue(value)]))
    : null;

export function readRecord(record) {
  return {
    ...renamed(record),
    timestamp: new Date(record.timestamp),
    values: withNulls(record.values),
    previous: withNulls(record.previous),
  };
}

export const readTracked = (tracked) => ({
  ...renamed(tracked),
  createdAt: new Date(tracked.created_at),
});

export const plainSchema = (schema) => schema && Array.from(schema, plainTable);

function plainTable(table) {
  const options = checkOptions("a table of the schema", table, TABLE, TABLE_KINDS);
  for (const name of ["name", "columns"]) checkValue(name, options[name], TABLE_KINDS);
  return {
    name: options.name,
    columns: Object.entries(options.columns).map(([name, type]) => ({
      name,
      type: String(type).toUpperCase(),
    })),
    local_only: options.localOnly ?? false,
    insert_only: options.insertOnly ?? false,
    view_name: options.viewName,
  };
}

const TABLE = ["name", "columns", "localOnly", "insertOnly", "viewName"];

// The data of an import in parts, and its size where that is known.
export function chunksOf(data) {
  if (data instanceof Blob) return [chunksOfBlob(data), data.size];
  if (data instanceof ArrayBuffer) return chunksOf(new Uint8Array(data));
  if (ArrayBuffer.isView(data)) {
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    return [chunksOfBytes(bytes), bytes.length];
  }
  if (data?.getReader) return [chunksOfStream(data), undefined];
  if (data?.[Symbol.asyncIterator]) return [data[Symbol.asyncIterator](), undefined];
  throw new TypeError(
    "data must be a Uint8Array, ArrayBuffer, Blob, ReadableStream or async iterable of Uint8Arrays, " +
      `not ${kindOf(data)}`,
  );
}

async function* chunksOfBlob(blob) {
  for (let at = 0; at < blob.size; at += CHUNK) {
    yield new Uint8Array(await blob.slice(at, at + CHUNK).arrayBuffer());
  }
}

async function* chunksOfBytes(bytes) {
  for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK);
}

async function* chunksOfStream(stream) {
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      yield value;
    }
  } finally {
    reader.releaseLock();
  }
}

/** For `await using`, where the browser knows it: at the end of its block that method is called. */
export function disposedBy({ prototype }, method) {
  if (!Symbol.asyncDispose) return;
  prototype[Symbol.asyncDispose] = async function () {
    await this[method]();
  };
}
