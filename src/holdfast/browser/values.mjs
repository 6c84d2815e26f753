// Values as they are sent to Python, and what comes back. Part of holdfast.mjs.

// Parts in which data is sent, in bytes.
const CHUNK = 1 << 20;

// Parameters as they are sent; Python's None is undefined there.
export function plain(params) {
  if (Array.isArray(params)) return params.map(plainValue);
  if (params === null || typeof params !== "object" || isBytes(params)) {
    throw new TypeError("params must be an array or an object; for one value write [value]");
  }
  return Object.fromEntries(Object.entries(params).map(([key, value]) => [key, plainValue(value)]));
}

const isBytes = (value) => value instanceof ArrayBuffer || ArrayBuffer.isView(value);

function plainValue(value) {
  if (value === null || value === undefined) return undefined;
  if (["number", "bigint", "string", "boolean"].includes(typeof value) || isBytes(value)) {
    return value;
  }
  throw new TypeError(
    `a parameter is ${Object.prototype.toString.call(value)}; SQLite stores null, numbers, ` +
      "BigInts, strings and Uint8Arrays",
  );
}

export function readRows([columns, rows]) {
  return rows.map((values) => rowOf(columns, values));
}

export const readRow = (found) => (found ? rowOf(...found) : null);

function rowOf(columns, values) {
  const row = {};
  // Of two columns of one name the first is found, as in Python.
  columns.forEach((column, i) => {
    if (!Object.hasOwn(row, column)) row[column] = values[i] ?? null;
  });
  return row;
}

export const readResult = ([changes, lastInsertRowid]) => ({ changes, lastInsertRowid });

const camel = (name) => name.replace(/_(\w)/g, (_, letter) => letter.toUpperCase());
export const renamed = (object) =>
  Object.fromEntries(Object.entries(object).map(([key, value]) => [camel(key), value ?? null]));

const withNulls = (object) =>
  object
    ? Object.fromEntries(Object.entries(object).map(([key, value]) => [key, value ?? null]))
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

export const plainSchema = (schema) =>
  schema &&
  Array.from(schema, ({ name, columns, localOnly, insertOnly, viewName }) => ({
    name,
    columns: Object.entries(columns).map(([name, type]) => ({ name, type: type.toUpperCase() })),
    local_only: localOnly ?? false,
    insert_only: insertOnly ?? false,
    view_name: viewName,
  }));

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
    "data must be a Uint8Array, ArrayBuffer, Blob, ReadableStream or async iterable of Uint8Arrays",
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
