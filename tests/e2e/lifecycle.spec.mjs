// A page that is hidden, frozen, left and come back to: what becomes of its leases, and that it
// misses nothing. Firefox freezes no page.
import { Browser } from "./browser.mjs";
import { noLookOut } from "./idle.mjs";
import { wheelUrl } from "./tab.mjs";
import { expect, test as base } from "./tabs.mjs";

const test = base.extend({
  tabBrowser: async ({ browserName }, use) => {
    const browser = await Browser.launch(browserName, { plain: true });
    await use(browser);
    await browser.close();
  },
});

// In this page's worker, which gets this page's holdfast, a lease is kept until somebody says that
// the page rests.
const KEEP = `
from importlib.resources import files
def replace(name, old, new):
    file = files("holdfast").joinpath(name)
    text = file.read_text()
    assert text.count(old) == 1, name
    file.write_text(text.replace(old, new))
replace("storage/opfs/leases.py", "IDLE = 0.1", "IDLE = 3600.0")
replace("storage/opfs/leases.py", "SLICE = 0.02", "SLICE = 3600.0")
replace("session/lookout.py", "LOOKOUT = 2.0", "LOOKOUT = 3600.0")
`;

// Longer than anybody is kept waiting by more than a computer that is slow.
const PATIENCE = 60;

const open = `
import asyncio, holdfast
db = await holdfast.open("life.db", busy_timeout=${PATIENCE})
await db.execute("CREATE TABLE IF NOT EXISTS t(x)")
await db.execute("CREATE TABLE IF NOT EXISTS unwatched(x)")
async def outcome(awaitable):
    try:
        await awaitable
    except holdfast.DatabaseBusyError:
        return "busy"
    return "done"
`;

const follow = `
async def on_change(ctx):
    for row in await ctx.with_extracted_diff("SELECT x FROM DIFF"):
        emit(row["x"])
tracker = await db.triggers.track_table_diff("t", on_change, throttle=0)
`;

const insert = (x) => `await outcome(db.execute("INSERT INTO t VALUES(?)", ("${x}",)))`;
const rows = `[row["x"] for row in await db.fetch_all("SELECT x FROM t ORDER BY rowid")]`;

// By one that was told soon that it is busy.
const refused = (x) => `
db._session.storage.busy_timeout = 0.2
found = ${insert(x)}
db._session.storage.busy_timeout = ${PATIENCE}
found
`;

// So many transactions of others, none of which waits.
const insertMany = `[await outcome(db.execute("INSERT INTO t VALUES(?)", (f"b{n}",))) for n in range(5)]`;
const many = [0, 1, 2, 3, 4].map((n) => `b${n}`);

/** Freezes a page that is hidden, or lets it go on. */
async function setLife(page, state) {
  const session = await page.context().newCDPSession(page);
  await session.send("Page.setWebLifecycleState", { state });
  await session.detach();
}

const isNow = (page, state) =>
  page.waitForFunction((state) => document.visibilityState === state, state, { polling: 20 });

/** In front of all others. */
async function show(page) {
  await page.bringToFront();
  await isNow(page, "visible");
}

/** Another page in front of this one, in the same window; a stranger, or both pause while it starts. */
async function hide(page) {
  await isNow(page, "visible");
  const other = page.context().waitForEvent("page");
  await page.evaluate(() => void window.open("empty.html", "_blank", "noopener"));
  await isNow(page, "hidden");
  return other;
}

// The lease that would keep others from writing: where handles are exclusive, that to read. (The one
// to read beside others is taken for a moment after each commit, to see that the files are there.)
const blocking = (handleMode) => `holdfast:life.db:${handleMode === "shared" ? "write" : "read"}`;
const expectKept = (tab, lease) =>
  expect.poll(async () => (await tab.leases()).filter((name) => name === lease), { intervals: [20] });
// After this no handler runs that would take leases of its own.
// More than once: tabs that write in turn keep nothing.
const write = `[await outcome(db.execute("INSERT INTO unwatched VALUES(1)")) for _ in range(3)][-1]`;
/** Writes until the lease is kept: the other tab may have wished for it, and be heard late. */
const writeAndKeep = (tab, other, lease) =>
  expect
    .poll(
      async () => {
        expect(await tab.run(write)).toBe("done");
        return (await other.leases()).filter((name) => name === lease);
      },
      { intervals: [20] },
    )
    .toEqual([lease]);

test("a page that is hidden or frozen keeps no lease, and misses nothing", async ({
  openTab,
  browserName,
  handleMode,
}) => {
  const freezes = browserName === "chromium";
  const lease = blocking(handleMode);
  const a = await openTab({ thread: "page" });
  await a.run(KEEP + open);
  const b = await openTab();
  // It does not ask for the lease, either.
  await b.run(open + noLookOut);
  await show(a.page);
  await a.run(follow);

  await test.step("hidden", async () => {
    await writeAndKeep(a, b, lease);
    const other = await hide(a.page);
    await expectKept(b, lease).toEqual([]);
    expect(await b.run(insertMany)).toEqual(many.map(() => "done"));
    for (const x of many) expect(await a.event()).toBe(x);
    await other.close();
    await show(a.page);
  });

  await test.step("where a page that is left tells of that alone", async () => {
    await writeAndKeep(a, b, lease);
    await a.page.evaluate(() => {
      dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true }));
    });
    await expectKept(b, lease).toEqual([]);
  });

  if (freezes) {
    await test.step("frozen, after it wrote while it was hidden", async () => {
      await hide(a.page);
      await writeAndKeep(a, b, lease);
      // The event alone: its worker is frozen as well, perhaps before it hears of that.
      await a.page.evaluate(() => void document.dispatchEvent(new Event("freeze")));
      await expectKept(b, lease).toEqual([]);
      await setLife(a.page, "frozen");
      // Nothing of it runs any more, whatever the browser lets run.
      await a.stop();
      expect(await b.run(insertMany)).toEqual(many.map(() => "done"));
      expect(a.events).toEqual([]);
      a.resume();
      await setLife(a.page, "active");
      await show(a.page);
      for (const x of many) expect(await a.event()).toBe(x);
    });
  }

  expect(await a.run(insert("back"))).toBe("done");
  expect(await a.event()).toBe("back");
  expect(await b.run(rows)).toEqual(await a.run(rows));
  expect(a.events).toEqual([]);
});

test("a transaction goes on however its page is hidden or frozen meanwhile", async ({
  openTab,
  browserName,
  handleMode,
}) => {
  const freezes = browserName === "chromium";
  const lease = blocking(handleMode);
  const a = await openTab({ thread: "page" });
  await a.run(KEEP + open);
  const b = await openTab();
  // It does not ask for the lease, either.
  await b.run(open + noLookOut);
  await show(a.page);
  await a.run(`
async def write(first, second):
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES(?)", (first,))
        emit("inside")
        await go_on.wait()
        await tx.execute("INSERT INTO t VALUES(?)", (second,))
    emit("committed")
`);
  const begin = async (first, second) => {
    await a.run(`
go_on = asyncio.Event()
writing = asyncio.ensure_future(write("${first}", "${second}"))
`);
    expect(await a.event()).toBe("inside");
  };
  const end = async () => {
    await a.run(`go_on.set()`);
    expect(await a.event()).toBe("committed");
  };

  await test.step("what it took is given back when it has ended, though nobody asked", async () => {
    await begin(1, 2);
    await hide(a.page);
    await expectKept(b, lease).toEqual([lease]);
    await end();
    await expectKept(b, lease).toEqual([]);
  });

  await test.step("until then others are told that it is busy", async () => {
    await begin(3, 4);
    if (freezes) await setLife(a.page, "frozen");
    expect(await b.run(refused("never"))).toBe("busy");
    if (handleMode === "shared") expect(await b.run(rows)).toEqual(["1", "2"]);
    if (freezes) {
      await setLife(a.page, "active");
      expect(await b.run(refused("never"))).toBe("busy");
    }
    await end();
  });
  expect(await b.run(insert("b"))).toBe("done");
  for (const tab of [a, b]) expect(await tab.run(rows)).toEqual(["1", "2", "3", "4", "b"]);
});

test("a page of JavaScript tells its worker that it is hidden, frozen or left", async ({
  context,
  browserName,
}) => {
  const page = await context.newPage();
  await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/javascript.html`);
  await page.evaluate(async (wheel) => {
    window.told = [];
    const { postMessage } = MessagePort.prototype;
    MessagePort.prototype.postMessage = function (message, ...rest) {
      if (message[0] === "tell") window.told.push(message.slice(1, 3));
      return postMessage.call(this, message, ...rest);
    };
    const { open } = await import("/pyodide/holdfast.mjs");
    window.db = await open("life.db", { pyodide: "/pyodide/", packages: [wheel] });
  }, wheelUrl());
  let times = 0;
  const expectTold = async () => {
    times += 1;
    const told = Array.from({ length: times }, () => [0, "rest"]);
    await expect.poll(() => page.evaluate(() => window.told), { intervals: [20] }).toEqual(told);
  };
  const other = await hide(page);
  await expectTold();
  if (browserName === "chromium") {
    await setLife(page, "frozen");
    await expectTold();
    await setLife(page, "active");
  }
  await other.close();
  await show(page);
  await page.evaluate(() => void dispatchEvent(new PageTransitionEvent("pagehide")));
  await expectTold();
  expect(await page.evaluate(() => window.db.fetchValue("SELECT 1"))).toBe(1);
});

for (const thread of ["page", "worker"]) {
  test(`a page that is left gives up what it has, and can be come back to (Python in the ${thread})`, async ({
    openTab,
  }) => {
    const b = await openTab();
    const a = await openTab({ thread });
    for (const tab of [a, b]) await tab.run(open + follow);
    await show(a.page);
    expect(await a.run(insert("a"))).toBe("done");
    await a.run(`
async def write():
    async with db.write_transaction() as tx:
        await tx.execute("INSERT INTO t VALUES('lost')")
        emit("inside")
        await asyncio.Event().wait()
writing = asyncio.ensure_future(write())
`);
    await a.event((event) => event === "inside");
    await a.page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/empty.html`);
    expect(await b.run(insert("b"))).toBe("done");
    await expect
      .poll(() => b.run(`[each.held for each in await db.triggers.tracked()]`), { intervals: [20] })
      .toEqual([true]);
    expect([await b.event(), await b.event()]).toEqual(["a", "b"]);

    await a.page.goBack();
    await a.reloaded();
    await a.run(open + follow);
    expect(await b.run(insert("again"))).toBe("done");
    expect(await a.event((event) => event === "again")).toBeTruthy();
    for (const tab of [a, b]) expect(await tab.run(rows)).toEqual(["a", "b", "again"]);
    expect(await a.run(`await db.fetch_value("PRAGMA integrity_check")`)).toBe("ok");
  });
}
