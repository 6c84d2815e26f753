// How the worker of a page gets its Python: started once, and from an image of that afterwards.
import { readFileSync } from "node:fs";
import { openPage } from "./javascript.mjs";
import { wheelUrl } from "./tab.mjs";
import { expect, test } from "./tabs.mjs";

const open = `
import holdfast
db = await holdfast.open("start.db", busy_timeout=60)
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

/** What the worker of a page says of its start; workers are not to be asked in Firefox. */
const marks = async (page) => {
  const [worker] = page.workers();
  return worker.evaluate(() => performance.getEntriesByType("mark").map((m) => m.name));
};
const began = async (tab) =>
  (await marks(tab.page)).find((name) => name.startsWith("holdfast: python"));

test("an image of Python is kept, used, and made anew when it is of no use", async ({
  openTab,
  browserName,
}) => {
  const first = await openTab({ thread: "page" });
  await first.page.evaluate(() => caches.delete("holdfast-python"));
  const before = await first.run(open);
  if (browserName === "chromium") expect(await began(first)).toBe("holdfast: python started");
  await expect.poll(() => images(first), { timeout: 120_000 }).toHaveLength(1);
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

test("packages are kept for pages without Python, and installed anew when they are others", async ({
  context,
  browserName,
}) => {
  test.slow(); // many starts of Python
  // As [URL, digest]: what is there changes, at a time of each worker's own.
  const kept = (page) =>
    page.evaluate(async () => {
      const cache = await caches.open("holdfast-packages");
      const found = [];
      for (const { url } of await cache.keys()) {
        const data = await (await cache.match(url))?.arrayBuffer();
        if (data) found.push([url, String(new Uint8Array(await crypto.subtle.digest("SHA-256", data)))]);
      }
      return found;
    });
  /** A page that has written a row; whether its packages were put there, or installed. */
  const visit = async (how, more) => {
    const page = await openPage(context, "packages.db", more);
    await page.evaluate(() => db.execute("INSERT INTO notes(text) VALUES('a visit')"));
    if (browserName === "chromium") expect(await marks(page)).toContain(`holdfast: packages ${how}`);
    return page;
  };
  const empty = await context.newPage();
  await empty.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/empty.html`);
  await empty.evaluate(() => caches.delete("holdfast-packages"));
  const installing = await visit("installed");
  await expect.poll(() => kept(installing), { timeout: 120_000 }).toHaveLength(1);
  const [[url, digest]] = await kept(installing);
  const put = await visit("put");
  // Whole, with the sources: a traceback has their lines.
  const error = await put.evaluate(() => failure(() => db.execute("SELEKT")));
  expect(error.traceback).toContain("await function(*args)");

  const workers = () =>
    put.evaluate(async () => {
      const { held } = await navigator.locks.query();
      return held.filter(({ name }) => name.startsWith("holdfast:worker:")).length;
    });
  const before = await workers();

  // Cut off, or no longer what it was.
  for (const damage of ["half", "a bit"]) {
    await put.evaluate(
      async ([url, damage]) => {
        const cache = await caches.open("holdfast-packages");
        window.good ??= await cache.match(url);
        const data = new Uint8Array(await good.clone().arrayBuffer());
        data[data.length >> 2] ^= 1;
        const worse = damage === "half" ? data.slice(0, data.length / 2) : data;
        await cache.put(url, new Response(worse, { headers: good.headers }));
      },
      [url, damage],
    );
    const [[, damaged]] = await kept(put);
    expect(damaged).not.toBe(digest);
    const page = await visit("installed");
    expect(await kept(page)).not.toContainEqual([url, damaged]);
    await page.close();
    // Which keeps nothing any more, either.
    await expect.poll(workers, { intervals: [20] }).toBe(before);
  }
  await put.evaluate(async (url) => (await caches.open("holdfast-packages")).put(url, good), url);

  // Another wheel at the same address: one byte of comment more.
  const folder = process.env.HOLDFAST_PYODIDE ?? ".build/pyodide";
  const wheel = readFileSync(`${folder}/${wheelUrl().split("/").at(-1)}`);
  wheel.writeUInt16LE(1, wheel.length - 2);
  await context.route(wheelUrl(), (route) =>
    route.fulfill({ body: Buffer.concat([wheel, Buffer.from("!")]), contentType: "application/zip" }),
  );
  if (browserName === "chromium") {
    await (await visit("installed")).close();
    await expect.poll(workers, { intervals: [20] }).toBe(before);
    // If it took its time, it has kept that wheel.
    await put.evaluate(() => caches.delete("holdfast-packages"));
  }
  await context.unroute(wheelUrl());

  // A name alone may be something else each time, and is not kept; a version is as good as a wheel.
  await visit("installed", { packages: ["holdfast"] });
  const exact = { packages: undefined };
  const page = await visit("installed", exact);
  const isAnother = async () => (await kept(page)).map(([other]) => other !== url);
  await expect.poll(isAnother, { timeout: 120_000 }).toEqual([true]);
  await visit("put", exact);
});
