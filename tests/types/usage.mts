// What a page writes in TypeScript, for `tsc` to check against holdfast.d.mts: nothing of it is run.
import {
  databases,
  deleteDatabase,
  HoldfastError,
  importDatabase,
  open,
  type Database,
  type DiffRecord,
  type Row,
} from "../../src/holdfast/browser/holdfast.mjs";

const db: Database = await open("notes.db", {
  pyodide: "/pyodide/",
  packages: ["holdfast"],
  schema: [{ name: "lists", columns: { name: "text", size: "integer" } }],
  storage: "auto",
  busyTimeout: 5,
});
const { changes } = await db.execute("INSERT INTO notes(text) VALUES(?)", ["a"]);
await db.executeMany("INSERT INTO notes(text) VALUES(:text)", [{ text: "b" }, { text: null }]);
const rows: Row[] = await db.fetchAll("SELECT * FROM notes WHERE id > :id", { id: 2n ** 60n });
const moved: number = await db.transaction(async (tx) => {
  await tx.execute("UPDATE notes SET text = upper(text)");
  return changes + rows.length;
});
for await (const found of db.watch("SELECT * FROM notes", [], { throttle: 0 })) {
  const first: Row | undefined = found[0];
  if (first) break;
}
const tracker = await db.triggers.trackTableDiff({
  source: "notes",
  when: { UPDATE: "NEW.text <> OLD.text" },
  async onChange(context) {
    const texts = await context.withExtractedDiff("SELECT text FROM DIFF");
    await context.transaction.execute("INSERT INTO log VALUES(?)", [texts.length]);
  },
});
for await (const batch of db.triggers.diffs("notes", { net: true })) {
  const records: DiffRecord[] = batch;
  const when: Date = records[0].timestamp;
  if (when > new Date()) break;
}
await tracker.stop();
const file: Uint8Array = await db.export();
await importDatabase("copy.db", new Blob([file as BlobPart]), { onProgress: (done) => done });
const there: boolean = await deleteDatabase("copy.db", { wait: 5 });
const names: string[] = await databases();
try {
  await db.close();
} catch (error) {
  if (error instanceof HoldfastError && error.name === "DatabaseBusyError") throw error;
}

// @ts-expect-error: a Date has no form in SQLite.
await db.execute("INSERT INTO notes(text) VALUES(?)", [new Date()]);
// @ts-expect-error: there is no such storage.
await open("notes.db", { storage: "cloud" });

export { moved, names, there };
