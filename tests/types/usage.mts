// What a page writes in TypeScript, for `tsc` to check against holdfast.d.mts: nothing of it is run.
import {
  databases,
  deleteDatabase,
  HoldfastError,
  importDatabase,
  open,
  type Database,
  type DiffRecord,
  type DiffTracker,
  type ErrorName,
  type ExecuteResult,
  type Row,
  type Statements,
  type Status,
  type Stream,
  type TableChange,
  type TrackedTrigger,
  type Value,
} from "../../src/holdfast/javascript/holdfast.mjs";

/** Fails to compile unless the two are the very same type. */
type Same<A, B> =
  (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
function same<A, B>(..._proof: Same<A, B> extends true ? [] : ["these differ", A, B]): void {}

type Note = { id: number; text: string };
interface NamedNote {
  id: number;
  text: string;
}
const controller = new AbortController();
const { signal } = controller;

const db: Database = await open("notes.db", {
  pyodide: new URL("/pyodide/", location.href),
  packages: ["holdfast"],
  schema: [{ name: "lists", columns: { name: "text", size: "integer" } }],
  storage: "indexeddb",
  busyTimeout: 5,
  signal,
});
same<typeof db.storage, "opfs" | "indexeddb" | "memory">();

// Statements: of a database, and of a transaction.
async function add(to: Statements, text: string): Promise<number | bigint> {
  const result = await to.execute("INSERT INTO notes(text) VALUES(?)", [text], { signal });
  same<typeof result, ExecuteResult>();
  return result.lastInsertRowid;
}
await add(db, "a");
await db.executeMany("INSERT INTO notes(text) VALUES(:text)", [{ text: "b" }, { text: null }]);
const rows = await db.fetchAll("SELECT * FROM notes WHERE id > :id", { id: 2n ** 60n });
same<typeof rows, Row[]>();
const notes = await db.fetchAll<Note>("SELECT id, text FROM notes");
same<typeof notes, Note[]>();
const note = await db.fetchOne<NamedNote>("SELECT id, text FROM notes", [], { signal });
same<typeof note, NamedNote | null>();
const value = await db.fetchValue("SELECT max(id) FROM notes");
same<typeof value, Value>();
const count = await db.fetchValue<number>("SELECT count(*) FROM notes");
same<typeof count, number | null>();
const moved = await db.transaction(
  async (tx) => {
    await add(tx, "c");
    return notes.length;
  },
  { signal },
);
same<typeof moved, number>();
const read = await db.readTransaction((tx) => tx.fetchOne<Note>("SELECT id, text FROM notes"));
same<typeof read, Note | null>();

// Parameters: whatever has an order, or names; never one value alone.
function* texts(): Generator<string> {
  yield "d";
}
await db.execute("INSERT INTO notes(text) VALUES(?)", texts());
await db.execute("INSERT INTO notes(text) VALUES(:text)", new Map([["text", "e"]]));
await db.executeMany("INSERT INTO notes(text) VALUES(?)", new Set([["f"], ["g"]]));
// @ts-expect-error: a string is no list of its letters
await db.execute("INSERT INTO notes(text) VALUES(?)", "h");
// @ts-expect-error: a Set has each value once
await db.execute("INSERT INTO notes(text) VALUES(?)", new Set(["h"]));
// @ts-expect-error: Python's name
await open("notes.db", { busy_timeout: 5 });

// Streams.
const watching = db.watch<Note>("SELECT * FROM notes", [], { throttle: 0, distinct: false, signal });
same<typeof watching, Stream<Note[]>>();
for await (const found of watching) {
  same<typeof found, Note[]>();
  const first: Note | undefined = found[0];
  if (first) break;
}
const item = await watching.next();
if (!item.done) same<typeof item.value, Note[]>();
await watching.return();
for await (const change of db.changes(["notes"], { signal })) same<typeof change, TableChange>();
for await (const batch of db.triggers.diffs("notes", { net: true, signal })) {
  same<typeof batch, DiffRecord[]>();
  const when: Date = batch[0]!.timestamp;
  if (when > new Date()) break;
}
for await (const [record] of db.triggers.diffs<Note>("notes")) {
  const text: string | undefined = record?.values?.text;
  if (text) break;
}

// Triggers.
const tracker = await db.triggers.trackTableDiff({
  source: "notes",
  when: { UPDATE: "NEW.text <> OLD.text" },
  signal,
  async onChange(context) {
    const texts = await context.withExtractedDiff<{ text: string }>("SELECT text FROM DIFF");
    await context.transaction.execute("INSERT INTO log VALUES(?)", [texts[0]?.text]);
  },
  onError(error) {
    same<typeof error, unknown>();
  },
});
same<typeof tracker, DiffTracker>();
await tracker.stop();
const trigger = await db.triggers.createDiffTrigger({ source: "notes", destination: "d", signal });
await db.transaction((transaction) => trigger.dispose({ transaction }));
same<Awaited<ReturnType<typeof db.triggers.tracked>>, TrackedTrigger[]>();
same<Awaited<ReturnType<typeof db.status>>, Status>();

// At the end of a block.
{
  await using other = await open("other.db");
  await using stopped = await other.triggers.trackTableDiff({ source: "notes", onChange() {} });
  await using changes = other.changes();
  if (stopped.gone) await changes.next();
}

// Files.
const file = await db.export({ onProgress: (done, total) => done / (total ?? 1) });
await importDatabase("copy.db", new Blob([file]), {
  onProgress: (done) => done,
  ignoreCheckConstraints: true,
  signal,
});
same<Awaited<ReturnType<typeof deleteDatabase>>, boolean>();
await deleteDatabase("copy.db", { wait: 5, storage: "opfs" });
same<Awaited<ReturnType<typeof databases>>, string[]>();

// Errors.
try {
  await db.close();
} catch (error) {
  if (error instanceof HoldfastError && error.name === "DatabaseBusyError") throw error;
  const known: ErrorName = "NestedTransactionError";
  if (error instanceof HoldfastError && error.name === known) console.log(error.traceback?.length);
}

// @ts-expect-error: a Date has no form in SQLite.
await db.execute("INSERT INTO notes(text) VALUES(?)", [new Date()]);
// @ts-expect-error: one value is not a list of them.
await db.fetchAll("SELECT * FROM notes WHERE id = ?", 1);
// @ts-expect-error: there is no such storage.
await open("notes.db", { storage: "cloud" });
// @ts-expect-error: a row is an object.
await db.fetchAll<number>("SELECT 1");
// @ts-expect-error: no value of SQLite's is a Date.
await db.fetchValue<Date>("SELECT 1");
// @ts-expect-error: a controller is not its signal.
await db.fetchAll("SELECT 1", [], { signal: controller });
// @ts-expect-error: rows may be none.
const length: number = (await db.fetchOne<Note>("SELECT 1")).text.length;
// @ts-expect-error: a handler is needed.
await db.triggers.trackTableDiff({ source: "notes" });
// @ts-expect-error: there are three operations.
db.triggers.diffs("notes", { when: { REPLACE: "TRUE" } });
// @ts-expect-error: a stream of changes has no throttle.
db.changes(["notes"], { throttle: 1 });
// @ts-expect-error: its name is read only.
db.name = "other.db";
// @ts-expect-error: there is no such error.
const unknown: ErrorName = "BusyError";

export { length, unknown };
