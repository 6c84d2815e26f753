// Holdfast for JavaScript: SQLite databases that every tab of a site has open at once, in a worker.
//
// It works in pages and in their dedicated workers. (A service worker can start no worker, and gets a
// "StorageUnavailableError".)
//
// Times are in seconds, as everywhere in Holdfast. Errors are HoldfastErrors, whose `name` is the type
// that they have in Python; but an argument or option of a wrong type, or one that does not exist, is
// a TypeError, and nothing is sent; an abort is the signal's reason, and what a function of the page's
// throws comes back as it was.
/// <reference lib="esnext.disposable" />

/**
 * What SQLite stores: INTEGER is a number, or a BigInt where a number would not be exact (beyond
 * ±Number.MAX_SAFE_INTEGER); BLOB is a Uint8Array. A TEXT that is not UTF-8 has U+FFFD in place of
 * what is wrong.
 */
export type Value = null | number | bigint | string | Uint8Array;

/**
 * A parameter; `undefined` and NaN are NULL, a boolean is 0 or 1.
 *
 * A whole number that fits 64 bits is an INTEGER (3.0, -0 and 2**53 as well), any other number a REAL.
 */
export type Parameter = Value | undefined | boolean | ArrayBuffer | ArrayBufferView;

/** For `?` in order, or for `:name` by name, with or without the colon. */
export type Parameters =
  | readonly Parameter[]
  | IterableIterator<Parameter>
  | Readonly<Record<string, Parameter>>
  | ReadonlyMap<string, Parameter>;

/** A row by the names of its columns; of two columns of one name it has the first. */
export type Row = Record<string, Value>;

/** What a statement did. */
export interface ExecuteResult {
  /** Rows that the statement changed. */
  changes: number;
  /** The rowid of the row that was inserted last on this connection. */
  lastInsertRowid: number | bigint;
}

/**
 * With a signal that is aborted a call is cancelled, and rejects with the signal's reason.
 *
 * What is read rejects at once. What writes, opens or creates rejects when the worker has undone it:
 * rejected with the reason, nothing of it was written. If the abort comes too late, because it is
 * committed already, the call ends as if there were no signal.
 *
 * A statement that is running ends within some ten milliseconds. (Where the connect-src of a
 * Content-Security-Policy leaves out blob:, it runs to its end, and the abort may come too late.) One
 * that writes inside of a transaction takes the whole transaction with it.
 */
export interface Abortable {
  signal?: AbortSignal;
}

/** How the worker is started that the whole page shares: only the first call that needs it counts. */
export interface WorkerOptions {
  /** The folder that Pyodide is served from, with its pyodide.mjs; left out: this module's own. */
  pyodide?: string | URL;
  /** What micropip is to install; left out: the holdfast of this module's version. */
  packages?: Iterable<string>;
  /** Where this module is served as the worker's script, if not where it was imported from. */
  worker?: string | URL;
}

/**
 * Where a database is.
 *
 * - `"auto"`: the first of the next two that can be had, which is found out by trying
 * - `"opfs"`: a file in the origin private file system; each page has a connection of its own
 * - `"indexeddb"`: one connection for all pages, in a shared worker that has all of it in memory
 * - `"memory"`: the opener's own, and gone with the page; never chosen by "auto"
 */
export type Storage = "auto" | "opfs" | "indexeddb" | "memory";

/** Where a database is looked for. */
export interface StorageOptions extends WorkerOptions, Abortable {
  /** "auto" if it is left out. */
  storage?: Storage;
}

/**
 * A JSON-backed view: `id`, a string that the inserter supplies and that never changes, and typed
 * columns over rows that are stored as JSON. Each write is queued in `ps_crud`, to be sent to a
 * server of yours. A column stays in the view as long as the view does, for another version of your
 * application may use it.
 */
export interface Table {
  /** What the application calls it. */
  name: string;
  /** Its columns beside `id`, by name. */
  columns: Record<string, "text" | "integer" | "real">;
  /** Whether its writes are left out of the queue for a server. */
  localOnly?: boolean;
  /** Whether nothing is kept of it but its writes, in that queue. */
  insertOnly?: boolean;
  /** The view's name, if that is another. */
  viewName?: string;
}

/** How a database is opened. */
export interface OpenOptions extends StorageOptions {
  /** JSON-backed views, made or brought up to date. */
  schema?: Iterable<Table>;
  /** Whether triggers are stored in the database; left out: as the storage does it. */
  persistTriggers?: boolean;
  /** "full", the default: an acknowledged commit survives a power cut. */
  synchronous?: "full" | "normal";
  /** How long to wait for other tabs, in seconds; 10 if it is left out. */
  busyTimeout?: number;
}

/**
 * Open a database, which is made if there is none; what dead tabs left behind is removed first.
 *
 * `name`: one or more segments parted by "/", none of them empty, "." or "..".
 *
 * @throws {HoldfastError} "StorageUnavailableError": nothing durable can be had here, or the worker
 *   cannot be started; it says what was tried. "DatabaseBusyError", "NotADatabaseError",
 *   "ValueError".
 */
export function open(name: string, options?: OpenOptions): Promise<Database>;

/** Hears of the bytes done and in all (null while that is unknown). */
export type Progress = (done: number, total: number | null) => unknown;

/** How a database is imported. */
export interface ImportOptions extends StorageOptions {
  /** How long to wait until nobody has it open, in seconds; 0 if it is left out. */
  wait?: number;
  /** Hears of what is done. */
  onProgress?: Progress;
  /** Whether rows that violate a CHECK of their table are accepted; false if it is left out. */
  ignoreCheckConstraints?: boolean;
}

/**
 * Put a SQLite database in the place of another; it is checked before anything is replaced.
 *
 * @throws {HoldfastError} "NotADatabaseError": it is not sound. "DatabaseBusyError": somebody has
 *   the other one open.
 */
export function importDatabase(
  name: string,
  data: Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
  options?: ImportOptions,
): Promise<void>;

/**
 * Delete a database; whether there was one.
 *
 * @throws {HoldfastError} "DatabaseBusyError": somebody has it open.
 */
export function deleteDatabase(
  name: string,
  options?: Omit<ImportOptions, "onProgress" | "ignoreCheckConstraints">,
): Promise<boolean>;

/** The names of the databases there are, in order. */
export function databases(options?: StorageOptions): Promise<string[]>;

/**
 * What runs statements: a database, or one of its transactions.
 *
 * `params` are for the placeholders, and never become a part of the SQL. The type of a row is the
 * caller's to say: `db.fetchAll<{ id: number; text: string }>("SELECT id, text FROM notes")`.
 *
 * All reject with a HoldfastError: SQLite's own, such as "SQLError" and "ConstraintError";
 * "ValueError" for several statements, or for one that writes where only reading is done;
 * "NestedTransactionError" for a database's method that is called inside of its transaction;
 * "QuotaExceededError", "DatabaseBusyError", "DatabaseClosedError".
 */
export interface Statements {
  /** Run one statement; a database does so in a transaction of its own. */
  execute(sql: string, params?: Parameters, options?: Abortable): Promise<ExecuteResult>;
  /** Run one statement for each of `many`, in one transaction. */
  executeMany(
    sql: string,
    many: Iterable<Parameters>,
    options?: Abortable,
  ): Promise<ExecuteResult>;
  /** Every row. */
  fetchAll<T extends object = Row>(
    sql: string,
    params?: Parameters,
    options?: Abortable,
  ): Promise<T[]>;
  /** The first row, or null. */
  fetchOne<T extends object = Row>(
    sql: string,
    params?: Parameters,
    options?: Abortable,
  ): Promise<T | null>;
  /** The first column of the first row, or null. */
  fetchValue<T extends Value = Value>(
    sql: string,
    params?: Parameters,
    options?: Abortable,
  ): Promise<T | null>;
}

/** To be used inside of its function only, with everything awaited. */
export interface Transaction extends Statements {}

/** Which tables a commit changed. */
export interface TableChange {
  /** Their names, as the application uses them. */
  tables: Set<string>;
  /** Whether another tab, or another connection, wrote it. */
  remote: boolean;
}

/** What is known of a database; null is unknown. */
export interface Status {
  /** What "auto" has become. */
  storage: Exclude<Storage, "auto">;
  /** Whether tabs share the handles of the file, or take turns; null without OPFS. */
  handleMode: "shared" | "exclusive" | null;
  /** Whether the browser has promised to keep the data. */
  persisted: boolean | null;
  /** Of the whole site, in bytes. */
  usage: number | null;
  /** What the site may use, in bytes. */
  quota: number | null;
  /**
   * The length of the write-ahead log, in pages. A long reader makes it grow; its space is used
   * again afterwards, and given back when the last tab closes the database.
   */
  walFrames: number | null;
  /** How many have it open. */
  tabs: number | null;
}

/**
 * What comes item by item, for `for await`: it begins with the first, and ends when the loop is
 * left, with `return()`, also while an item is awaited, or with its signal, whose reason it throws.
 */
export interface Stream<T> extends AsyncIterableIterator<T, undefined, undefined>, AsyncDisposable {
  /** The next item, when there is one. */
  next(): Promise<IteratorResult<T, undefined>>;
  /** End it; what is awaited of it is done. */
  return(): Promise<IteratorReturnResult<undefined>>;
  /** End it, and throw that. */
  throw(error: unknown): Promise<IteratorReturnResult<undefined>>;
  [Symbol.asyncIterator](): this;
}

/** How a stream is read. */
export interface StreamOptions extends Abortable {
  /** At most one item in so many seconds; 0.03 if it is left out. */
  throttle?: number;
}

/** How a query is watched. */
export interface WatchOptions extends StreamOptions {
  /** Whether rows are left out that are as they were the last time; true if it is left out. */
  distinct?: boolean;
}

/** How a database is exported. */
export interface ExportOptions extends Abortable {
  /** Hears of what is done. */
  onProgress?: Progress;
}

/** An open database. `await using` closes it at the end of its block. */
export interface Database extends Statements, AsyncDisposable {
  /** What it was opened by. */
  readonly name: string;
  /** What "auto" has become. */
  readonly storage: Exclude<Storage, "auto">;
  /** Whether its triggers are stored in it, unless one says otherwise. */
  readonly persistsTriggers: boolean;
  /** Whether it was closed, or its worker is gone. */
  readonly closed: boolean;
  /** Diff triggers. */
  readonly triggers: Triggers;
  /**
   * Commits when `work` is done, rolls back when it fails; gives what `work` gives.
   *
   * Inside of it only the methods of its transaction are called. The database's own are a
   * "NestedTransactionError": at once where the browser lets that be known, which is before the
   * first await and right after one of the transaction's own methods; else, such as after the await
   * of a fetch, after `busyTimeout` seconds of waiting. What does not belong to the transaction can
   * be begun with `queueMicrotask(() => …)`; it waits its turn.
   *
   * Aborted, it is rolled back and rejects without waiting for `work`, whose transaction then
   * rejects with the reason as well.
   */
  transaction<T>(work: (transaction: Transaction) => T | Promise<T>, options?: Abortable): Promise<T>;
  /** One snapshot, while writers go on beside it. */
  readTransaction<T>(
    work: (transaction: Transaction) => T | Promise<T>,
    options?: Abortable,
  ): Promise<T>;
  /** The rows now, and after each change to what the query reads, from any tab. */
  watch<T extends object = Row>(
    sql: string,
    params?: Parameters,
    options?: WatchOptions,
  ): Stream<T[]>;
  /** What is committed, by this tab or another; of all tables, or of some. */
  changes(tables?: Iterable<string>, options?: Abortable): Stream<TableChange>;
  /** One snapshot as a standard SQLite file. */
  export(options?: ExportOptions): Promise<Uint8Array<ArrayBuffer>>;
  /** The same in parts, for what is large. */
  exportChunks(options?: ExportOptions): Stream<Uint8Array<ArrayBuffer>>;
  /** What is known of it now. */
  status(options?: Abortable): Promise<Status>;
  /** Disposes of its triggers, waits for handlers, rolls back what is open; idempotent. */
  close(): Promise<void>;
}

/** What is done to a row. */
export type Operation = "INSERT" | "UPDATE" | "DELETE";

/** What is recorded. */
export interface RecordOptions {
  /** For each operation an SQL expression over NEW and OLD; left out: every one, always. */
  when?: Partial<Record<Operation, string>>;
  /** What is recorded; left out: all columns, []: the key only. */
  columns?: Iterable<string>;
  /** Whether the writes of every tab count, or those of this connection only. */
  persist?: boolean;
  /** Runs in the transaction that makes the trigger, before that is made. */
  beforeCreate?: (transaction: Transaction) => unknown;
  /** Whether updates are left out that leave every tracked column as it was. */
  onlyChanged?: boolean;
}

/** How a trigger is made. */
export interface TriggerOptions extends RecordOptions {
  /** A view of the schema, or any ordinary table. */
  source: string;
  /** Made inside of this one, which is then the one that beforeCreate gets. */
  transaction?: Transaction;
}

/** What a handler works with, until it is done. */
export interface DiffContext {
  /** What is written in it is committed together with the removal of the records. */
  readonly transaction: Transaction;
  /** The table that the records are in. */
  readonly destination: string;
  /** Whether records were discarded before: read the source anew. */
  readonly reset: boolean;
  /** A query in which DIFF names the records, in order. */
  withDiff<T extends object = Row>(sql: string, params?: Parameters): Promise<T[]>;
  /** The same, with the recorded columns in place of the JSON. */
  withExtractedDiff<T extends object = Row>(sql: string, params?: Parameters): Promise<T[]>;
}

/** How a table is tracked. */
export interface TrackOptions extends TriggerOptions {
  /**
   * Runs in a write transaction; what it throws keeps the records for the next call. As in
   * `transaction`, calling the database's own methods inside of it is a "NestedTransactionError".
   */
  onChange: (context: DiffContext) => unknown;
  /** Hears of what onChange throws, once for each time; left out: the console does. */
  onError?: (error: unknown) => unknown;
  /** At most one call in so many seconds; 0.03 if it is left out. */
  throttle?: number;
  /** Of how many records the older ones are discarded, which onError is told. */
  maxBacklog?: number;
  /**
   * onChange gets a transaction that only reads, and nothing is written when it is done: a tab that
   * looks on keeps no other from writing.
   */
  readOnly?: boolean;
  /** Aborted, the tracker is not made, or ends, after a handler in flight; also from in there. */
  signal?: AbortSignal;
}

/** One change of one row. */
export interface DiffRecord<T extends object = Row> {
  /** Rises with each record of its trigger. */
  operationId: number;
  operation: Operation;
  /** The key as text; of several columns a JSON array of them, of none the rowid. */
  id: string | null;
  timestamp: Date;
  /** The columns as they are now, of a DELETE as they were; null: none were recorded. */
  values: T | null;
  /** Of an UPDATE the columns as they were. */
  previous: T | null;
  /** The same for all that one transaction did. */
  transactionId: string | null;
  /** Whether another tab, or another connection, wrote it. */
  remote: boolean;
  /** What the key was, where an UPDATE has changed it. */
  previousId: string | null;
}

/** How changes are read. */
export interface DiffsOptions extends RecordOptions, StreamOptions {
  /** Of how many records the older ones are discarded, which ends the stream with an error. */
  maxBacklog?: number;
  /** Fold each batch to one record for each key. */
  net?: boolean;
}

/** A persisted trigger, of any tab. */
export interface TrackedTrigger {
  /** Of its hold. */
  id: string;
  /** The view or table that is tracked. */
  source: string;
  /** The table that the records go to. */
  destination: string;
  operations: Operation[];
  /** Whether a tab that lives has it. */
  held: boolean;
  createdAt: Date;
}

/** A trigger that records changes in a table. `await using` disposes of it. */
export interface DiffTrigger extends AsyncDisposable {
  /** Of its hold. */
  readonly id: string;
  /** The view or table that is tracked. */
  readonly source: string;
  /** The table that the records go to. */
  readonly destination: string;
  readonly operations: Operation[];
  /** Whether it is stored in the database. */
  readonly persisted: boolean;
  /** Whether it was disposed of. */
  readonly gone: boolean;
  /** Drop it and its table; idempotent. In a transaction of the caller's, if one is given. */
  dispose(options?: { transaction?: Transaction }): Promise<void>;
}

/** A trigger with a handler. `await using` stops it. */
export interface DiffTracker extends DiffTrigger {
  /**
   * Waits for a handler in flight, then disposes of the trigger; idempotent.
   *
   * Inside of its own handler it would wait for itself, which is a "NestedTransactionError", at once
   * where that can be known, as of `Database.transaction`; else after `busyTimeout` seconds. The
   * signal that the tracker was made with ends it from anywhere.
   */
  stop(): Promise<void>;
}

/**
 * The diff triggers of a database.
 *
 * Making one rejects with a HoldfastError: "UnknownSourceError", "InvalidWhenError",
 * "DestinationInUseError", "ValueError". Whatever is refused has created nothing.
 */
export interface Triggers {
  /** Record changes in a table of your own, until the trigger is disposed of. */
  createDiffTrigger(
    options: TriggerOptions & Abortable & { destination: string },
  ): Promise<DiffTrigger>;
  /**
   * Call a handler with what has changed, one call at a time. Each tab that tracks a table hears of
   * every change to it, whoever made it: what is to be done once is done by one of them.
   */
  trackTableDiff(options: TrackOptions): Promise<DiffTracker>;
  /** What changes, in batches; asking for the next one acknowledges the last. */
  diffs<T extends object = Row>(source: string, options?: DiffsOptions): Stream<DiffRecord<T>[]>;
  /** The persisted triggers of every tab. */
  tracked(options?: Abortable): Promise<TrackedTrigger[]>;
  /** Remove what dead tabs left behind, which happens now and then by itself; what that was. */
  sweep(): Promise<TrackedTrigger[]>;
}

/** The types of Holdfast's own errors. */
export type ErrorName =
  | "StorageUnavailableError"
  | "DatabaseClosedError"
  | "DatabaseBusyError"
  | "NestedTransactionError"
  | "QuotaExceededError"
  | "UnknownSourceError"
  | "InvalidWhenError"
  | "DestinationInUseError"
  | "SourceDroppedError"
  | "BacklogExceededError"
  | "HoldAlreadyTakenError"
  | "NotADatabaseError";

/** The types of SQLite's errors that are met most, as apsw names them. */
export type SqliteErrorName = "SQLError" | "ConstraintError" | "MismatchError" | "TooBigError";

/**
 * `name` is the type that the error has in Python. `stack` says where the call was made.
 *
 * A DOMException, so that `structuredClone` and `postMessage` keep its name and message. The clone is
 * a plain DOMException, without `traceback` and `cause`.
 */
export class HoldfastError extends DOMException {
  /** One of these, or another type of Python's or of apsw's. */
  readonly name: ErrorName | SqliteErrorName | "ValueError" | "TypeError" | (string & {});
  /** Where it was raised in Python, as Python prints it. */
  traceback?: string;
}
