// The limits: what the browser's own calls cost that an engine of this kind has to make, with nothing
// above them.
import { turns } from "../workload.mjs";

const PAGE = 4096;
const FRAME = PAGE + 24; // a page in SQLite's WAL

const now = () => performance.now();

async function openThree() {
  const root = await navigator.storage.getDirectory();
  const folder = await root.getDirectoryHandle("raw-files", { create: true });
  const names = ["db", "db-wal", "db-journal"];
  const files = await Promise.all(names.map((name) => folder.getFileHandle(name, { create: true })));
  const open = (file) => file.createSyncAccessHandle({ mode: "readwrite-unsafe" });
  return Promise.all(files.map(open));
}

const each = (n, f) => {
  const start = now();
  for (let i = 0; i < n; i += 1) f(i);
  return ((now() - start) / n) * 1000;
};

export default {
  prepare() {},
  counter() {},
  close() {},

  /** Microseconds: an append of 4 KiB with a flush, one without, a read of 4 KiB. */
  async limits(n) {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle("raw", { create: true });
    const handle = await file.createSyncAccessHandle({ mode: "readwrite-unsafe" });
    const page = new Uint8Array(PAGE).fill(7);
    handle.truncate(0);
    const durable = each(n, (i) => {
      handle.write(page, { at: i * PAGE });
      handle.flush();
    });
    const relaxed = each(n, (i) => handle.write(page, { at: (n + i) * PAGE }));
    const read = each(n * 5, (i) => handle.read(page, { at: (i % n) * PAGE }));
    handle.close();
    return { durable, relaxed, read };
  },

  /** Milliseconds to open three files in a folder, one lock, and one look at who has which. */
  async reopen() {
    const start = now();
    const handles = openThree();
    const [files] = await navigator.locks.request("raw", { mode: "shared" }, () =>
      Promise.all([handles, navigator.locks.query()]),
    );
    const elapsed = now() - start;
    for (const handle of files) handle.close();
    return elapsed;
  },

  /** As `alternate` of the engines: a message, a lock, a frame read and one written, a flush. */
  async alternate(me, tabs, n) {
    const turn = turns();
    const handles = await openThree();
    const [, wal] = handles;
    const frame = new Uint8Array(FRAME).fill(7);
    let start = now();
    for (let i = 0; i < n; i += 1) {
      const k = i * tabs + me;
      if (k > 0) await turn.wait(k);
      if (i === 0) start = now();
      await navigator.locks.request("raw", () => {
        wal.read(frame, { at: Math.max(0, k - 1) * FRAME });
        wal.write(frame, { at: k * FRAME });
        wal.flush();
      });
      turn.next(k + 1);
    }
    const elapsed = now() - start;
    // The last message goes out before its channel ends.
    await new Promise((resolve) => setTimeout(resolve, 50));
    turn.close();
    for (const handle of handles) handle.close();
    return elapsed / ((n - 1) * tabs + 1);
  },
};
