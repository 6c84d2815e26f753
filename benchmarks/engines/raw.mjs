// The limit: what one append of a page and one read cost, with nothing above them.
const PAGE = 4096;

const each = (n, f) => {
  const start = performance.now();
  for (let i = 0; i < n; i += 1) f(i);
  return ((performance.now() - start) / n) * 1000;
};

export default {
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
};
