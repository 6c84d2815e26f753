// holdfast.mjs in workers of an application's own.
import { wheelUrl } from "./tab.mjs";
import { expect, test } from "./tabs.mjs";

const options = () => ({ pyodide: "/pyodide/", packages: [wheelUrl()], busyTimeout: 600 });

/** A page that sends functions to workers of its own: `run(name of the worker, source, argument)`. */
async function openPage(context) {
  const page = await context.newPage();
  await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/javascript.html`);
  await page.evaluate(() => {
    window.own = {};
    window.run = (target, source, argument) =>
      new Promise((resolve) => {
        const { port1, port2 } = new MessageChannel();
        port1.onmessage = ({ data }) => resolve(data);
        target.postMessage({ source, argument }, [port2]);
      });
  });
  return page;
}

/** Runs a function in the page's worker, of that name. */
async function run(page, name, work, argument) {
  const { result, error } = await page.evaluate(
    ([name, source, argument]) => {
      own[name] ??= new Worker("/e2e/own-worker.mjs", { type: "module", name });
      return run(own[name], source, argument);
    },
    [name, String(work), argument],
  );
  if (error) throw new Error(error);
  return result;
}

const open = async ({ open }, options) => {
  self.db = await open("own.db", options);
  await db.execute("CREATE TABLE IF NOT EXISTS notes(id INTEGER PRIMARY KEY, text)");
  return db.storage;
};
const insert = (_, text) =>
  db.execute("INSERT INTO notes(text) VALUES(?)", [text]).then(({ changes }) => changes);
const texts = () =>
  db.fetchAll("SELECT text FROM notes ORDER BY id").then((rows) => rows.map(({ text }) => text));

test("a page's own worker has databases, as its page does", async ({ context }) => {
  const a = await openPage(context);
  const b = await openPage(context);
  // One has a name that Holdfast might have given it.
  const names = new Map([
    [a, "holdfast"],
    [b, ""],
  ]);
  for (const [page, name] of names) expect(await run(page, name, open, options())).toBe("opfs");
  await run(b, "", async () => {
    self.seen = [];
    self.following = (async () => {
      for await (const rows of db.watch("SELECT text FROM notes ORDER BY id")) {
        seen.push(rows.map(({ text }) => text).join());
        if (rows.length === 2) return;
      }
    })();
    while (seen.length === 0) await db.status();
  });
  expect(await run(a, "holdfast", insert, "from a")).toBe(1);
  expect(await run(b, "", insert, "from b")).toBe(1);
  const seen = await run(b, "", () => following.then(() => seen.at(-1)));
  expect(seen).toBe("from a,from b");
  for (const [page, name] of names) {
    expect(await run(page, name, texts)).toEqual(["from a", "from b"]);
  }

  // When it ends, in the middle of a transaction, so does all that it had.
  await run(a, "holdfast", async () => {
    const begun = Promise.withResolvers();
    db.transaction(async (tx) => {
      await tx.execute("INSERT INTO notes(text) VALUES('lost')");
      begun.resolve();
      await new Promise(() => {});
    });
    await begun.promise;
  });
  await a.evaluate(() => own.holdfast.terminate());
  expect(await run(b, "", insert, "after it")).toBe(1);
  expect(await run(b, "", texts)).toEqual(["from a", "from b", "after it"]);

  // The page has it as well; a worker made of a blob: URL names what it needs in full, or from "/".
  const page = await a.evaluate(async (options) => {
    const { open } = await import("/pyodide/holdfast.mjs");
    const db = await open("own.db", options);
    const count = await db.fetchValue("SELECT count(*) FROM notes");
    await db.close();
    const script = `import "${location.origin}/e2e/own-worker.mjs";`;
    const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
    own.blob = new Worker(url, { type: "module", name: "blob" });
    return count;
  }, options());
  expect(page).toBe(3);
  expect(await run(a, "blob", open, options())).toBe("opfs");
  expect(await run(a, "blob", texts)).toEqual(["from a", "from b", "after it"]);
});

test("a service worker, which can start no worker, is told where to open databases", async ({
  context,
}) => {
  const page = await openPage(context);
  const answers = await page.evaluate(
    async ([source, options]) => {
      const registered = await navigator.serviceWorker.register("/e2e/own-worker.mjs", {
        type: "module",
      });
      const worker = registered.installing ?? registered.waiting ?? registered.active;
      const answers = [];
      for (const storage of ["auto", "opfs", "indexeddb", "memory"]) {
        answers.push(await run(worker, source, { ...options, storage }));
      }
      await registered.unregister();
      return answers;
    },
    [String(({ open }, options) => open("own.db", options)), options()],
  );
  for (const { error } of answers) {
    expect(error).toMatch(/^StorageUnavailableError: .*a service worker cannot start .*in a page/);
  }
});
