// How the worker of a page gets its Python: started once, and from an image of that afterwards.
import { expect, test } from "./tabs.mjs";

const open = `
import holdfast
db = await holdfast.open("start.db")
await db.execute("CREATE TABLE IF NOT EXISTS t(n)")
await db.execute("INSERT INTO t VALUES(1)")
await db.fetch_value("SELECT count(*) FROM t")`;

/** The images in the browser's cache, as [URL, bytes]. */
const images = (tab) =>
  tab.page.evaluate(async () => {
    const cache = await caches.open("holdfast-python");
    const sizes = [];
    for (const { url } of await cache.keys())
      sizes.push([url, (await (await cache.match(url)).blob()).size]);
    return sizes;
  });

/** Whether the worker of a tab began with an image; workers are not to be asked in Firefox. */
const began = async (tab) => {
  const [worker] = tab.page.workers();
  const marks = await worker.evaluate(() => performance.getEntriesByType("mark").map((m) => m.name));
  return marks.find((name) => name.startsWith("holdfast: python"));
};

test("an image of Python is kept, used, and made anew when it is of no use", async ({
  openTab,
  browserName,
}) => {
  const first = await openTab({ thread: "page" });
  await first.page.evaluate(() => caches.delete("holdfast-python"));
  const before = await first.run(open);
  if (browserName === "chromium") expect(await began(first)).toBe("holdfast: python started");
  await expect.poll(() => images(first), { timeout: 60_000 }).toHaveLength(1);
  const [[url, size]] = await images(first);

  const second = await openTab({ thread: "page" });
  expect(await second.run(open)).toBe(before + 1);
  if (browserName === "chromium")
    expect(await began(second)).toBe("holdfast: python from its image");

  // Cut off in the middle, as by a full disk.
  await second.page.evaluate(async (url) => {
    const cache = await caches.open("holdfast-python");
    const kept = await (await cache.match(url)).arrayBuffer();
    await cache.put(url, new Response(kept.slice(0, kept.byteLength / 2)));
  }, url);
  const third = await openTab({ thread: "page" });
  expect(await third.run(open)).toBe(before + 2);
  if (browserName === "chromium") expect(await began(third)).toBe("holdfast: python started");
  expect(await images(third)).not.toContainEqual([url, size >> 1]);
});
