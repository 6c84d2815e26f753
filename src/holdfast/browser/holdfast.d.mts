// Holdfast for JavaScript: one SQLite database for every tab of a page, in a worker.
//
// Times are in seconds, as everywhere in Holdfast. Every error is a HoldfastError, whose `name` is
// the type that it has in Python: "DatabaseBusyError", "ConstraintError" (SQLite's), "ValueError".

/** What SQLite stores: INTEGER is a number, or a BigInt beyond 2**53; BLOB is a Uint8Array. */
export type Value = null | number | bigint | string | Uint8Array;
/** A parameter; `undefined` is NULL, a boolean is 0 or 1. */
export type Parameter = Value | undefined | boolean | ArrayBuffer | ArrayBufferView;
/** For `?` in order, or for `:name` by name. */
export type Parameters = readonly Parameter[] | Readonly<Record<string, Parameter>>;
export type Row = Record<string, Value>;

export interface ExecuteResult {
  /** Rows that the statement changed. */
  changes: number;
  lastInsertRowid: number | bigint;
}

/** Where the worker comes from: said by whoever asks first, and shared by the whole page. */
export interface WorkerOptions {
  /** The folder that Pyodide is served from, with its pyodide.mjs. */
  pyodide?: string;
  /** What micropip is to install; ["holdfast"] if it is left out. */
  packages?: string[];
  /** Where this module is served as the worker's script, if not where it was imported from. */
  worker?: string | URL;
}

export type Storage = "auto" | "opfs" | "memory";

/** A JSON-backed view; see Schema in the README. */
export interface Table {
  name: string;
  columns: Record<string, "text" | "integer" | "real">;
  localOnly?: boolean;
  insertOnly?: boolean;
  viewName?: string;
}

export interface OpenOptions extends WorkerOptions {
  schema?: Table[];
  storage?: Storage;
  /** Whether triggers are stored in the database; left out: as the storage does it. */
  persistTriggers?: boolean;
  /** "full", the default: an acknowledged commit survives a power cut. */
  synchronous?: "full" | "normal";
  /** How long to wait for other tabs, in seconds; 10 if it is left out. */
  busyTimeout?: number;
}

export function open(name: string, options?: OpenOptions): Promise<Database>;

export type Progress = (done: number, total: number | null) => unknown;

export interface ImportOptions extends WorkerOptions {
  storage?: Storage;
  /** How long to wait until nobody has it open, in seconds. */
  wait?: number;
  /** Hears of the bytes done and in all (null while that is unknown). */
  onProgress?: Progress;
}

/** Put a SQLite database in the place of another; it is checked before anything is replaced. */
export function importDatabase(
  name: string,
  data: Uint8Array | ArrayBuffer | Blob | ReadableStream<Uint8Array> | AsyncIterable<Uint8Array>,
  options?: ImportOptions,
): Promise<void>;

/** Whether there was one. */
export function deleteDatabase(
  name: string,
  options?: Omit<ImportOptions, "onProgress">,
): Promise<boolean>;

/** The names of the databases there are. */
export function databases(options?: WorkerOptions & { storage?: Storage }): Promise<string[]>;

/** What runs statements: a database, or one of its transactions. */
export interface Statements {
  /** Run one statement. */
  execute(sql: string, params?: Parameters): Promise<ExecuteResult>;
  /** Run one statement for each of `many`, in one transaction. */
  executeMany(sql: string, many: Iterable<Parameters>): Promise<ExecuteResult>;
  fetchAll(sql: string, params?: Parameters): Promise<Row[]>;
  fetchOne(sql: string, params?: Parameters): Promise<Row | null>;
  /** The first column of the first row, or null. */
  fetchValue(sql: string, params?: Parameters): Promise<Value>;
}

/** To be used inside of its function only, with everything awaited. */
export interface Transaction extends Statements {}

export interface TableChange {
  tables: Set<string>;
  /** Whether another tab, or another connection, wrote it. */
  remote: boolean;
}

export interface Status {
  storage: string;
  handleMode: "shared" | "exclusive" | null;
  persisted: boolean | null;
  usage: number | null;
  quota: number | null;
  walFrames: number | null;
  tabs: number | null;
}

export interface Database extends Statements {
  readonly name: string;
  readonly storage: string;
  readonly persistsTriggers: boolean;
  readonly closed: boolean;
  readonly triggers: Triggers;
  /**
   * Commits when `work` is done, rolls back when it fails; gives what `work` gives.
   *
   * Inside of it only the methods of its transaction work: the database's own would wait for it,
   * and end in a NestedTransactionError after `busyTimeout` seconds.
   */
  transaction<T>(work: (transaction: Transaction) => T | Promise<T>): Promise<T>;
  /** One snapshot, while writers go on beside it. */
  readTransaction<T>(work: (transaction: Transaction) => T | Promise<T>): Promise<T>;
  /** The rows now, and after each change to what the query reads, from any tab. */
  watch(sql: string, params?: Parameters, options?: { throttle?: number }): AsyncGenerator<Row[]>;
  /** What is committed, by this tab or another; all tables, or some. */
  changes(tables?: Iterable<string>): AsyncGenerator<TableChange>;
  /** One snapshot as a standard SQLite file. */
  export(options?: { onProgress?: Progress }): Promise<Uint8Array>;
  exportChunks(options?: { onProgress?: Progress }): AsyncGenerator<Uint8Array>;
  status(): Promise<Status>;
  /** Disposes of the triggers, releases what is held; idempotent. */
  close(): Promise<void>;
}

export type Operation = "INSERT" | "UPDATE" | "DELETE";

export interface TriggerOptions {
  /** A view of the schema, or any ordinary table. */
  source: string;
  /** For each operation an SQL expression over NEW and OLD; left out: every one, always. */
  when?: Partial<Record<Operation, string>>;
  /** What is recorded; left out: all columns, []: the key only. */
  columns?: Iterable<string>;
  /** Whether the writes of every tab count, or those of this connection only. */
  persist?: boolean;
  beforeCreate?: (transaction: Transaction) => unknown;
  /** Set up inside of this one. */
  transaction?: Transaction;
  onlyChanged?: boolean;
}

export interface DiffContext {
  /** What is written in it is committed together with the removal of the records. */
  readonly transaction: Transaction;
  readonly destination: string;
  /** Whether records were discarded before: read the source anew. */
  readonly reset: boolean;
  /** A query in which DIFF names the records, in order. */
  withDiff(sql: string, params?: Parameters): Promise<Row[]>;
  /** The same, with the recorded columns in place of the JSON. */
  withExtractedDiff(sql: string, params?: Parameters): Promise<Row[]>;
}

export interface TrackOptions extends TriggerOptions {
  /** Runs in a write transaction; what it throws keeps the records for the next call. */
  onChange: (context: DiffContext) => unknown;
  onError?: (error: Error) => unknown;
  throttle?: number;
  maxBacklog?: number;
}

export interface DiffRecord {
  operationId: number;
  operation: Operation;
  id: string | null;
  timestamp: Date;
  values: Row | null;
  previous: Row | null;
  transactionId: string | null;
  remote: boolean;
  previousId: string | null;
}

export interface DiffsOptions
  extends Omit<TriggerOptions, "source" | "transaction">, Pick<TrackOptions, "throttle" | "maxBacklog"> {
  /** Fold each batch to one record for each key. */
  net?: boolean;
}

export interface TrackedTrigger {
  id: string;
  source: string;
  destination: string;
  operations: Operation[];
  held: boolean;
  createdAt: Date;
}

export interface DiffTrigger {
  readonly id: string;
  readonly source: string;
  readonly destination: string;
  readonly operations: Operation[];
  readonly persisted: boolean;
  readonly gone: boolean;
  dispose(options?: { transaction?: Transaction }): Promise<void>;
}

export interface DiffTracker extends DiffTrigger {
  /** Waits for a handler in flight, so not to be awaited inside of that. */
  stop(): Promise<void>;
}

export interface Triggers {
  createDiffTrigger(options: TriggerOptions & { destination: string }): Promise<DiffTrigger>;
  trackTableDiff(options: TrackOptions): Promise<DiffTracker>;
  /** What changes, in batches; asking for the next one acknowledges the last. */
  diffs(source: string, options?: DiffsOptions): AsyncGenerator<DiffRecord[]>;
  tracked(): Promise<TrackedTrigger[]>;
  sweep(): Promise<TrackedTrigger[]>;
}

/** `name` is the type that the error has in Python. */
export class HoldfastError extends Error {
  /** Where it was raised in Python, as Python prints it. */
  traceback?: string;
}
