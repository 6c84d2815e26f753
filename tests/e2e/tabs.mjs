// Tabs for the specs, in Chromium and in Firefox: `import { test, expect } from "./tabs.mjs"`, then
//
//   test("…", async ({ openTab }) => {
//     const a = await openTab();                     // Pyodide and holdfast's wheel, one profile
//     const n = await a.run(`1 + 1`);                // Python, await allowed; last expression
//     await a.event((e) => e === "ready");           // what Python sent with emit(value)
//     await a.terminateWorker(); await a.killRenderer(); a.stop(); a.resume(); await a.close();
//   });
//
// Starting Python takes longer than most tests. So one browser serves all tests of a project, and
// a tab that a test leaves behind is tidied up and used again: its databases are closed, its tasks
// cancelled, its globals deleted; then all files are removed, and no lock may be left.
import { expect, test as base } from "@playwright/test";
import { Browser } from "./browser.mjs";

export const test = base.extend({
  /** Of a project: "exclusive" for a browser that ignores how a file handle is asked for. */
  handles: ["", { option: true, scope: "worker" }],

  /** `test.use({ ownBrowser: true })`: for tests that leave a browser unfit for others. */
  ownBrowser: [false, { option: true }],

  commonBrowser: [
    async ({ browserName, handles }, use) => {
      let browser;
      await use(async () => {
        browser ??= await Browser.launch(browserName, { ignoreMode: handles === "exclusive" });
        return browser;
      });
      await browser?.close();
    },
    { scope: "worker" },
  ],

  /** The browser of the test. */
  tabBrowser: async ({ browserName, handles, ownBrowser, commonBrowser }, use, testInfo) => {
    if (ownBrowser) {
      const ignoreMode = handles === "exclusive";
      const browser = await Browser.launch(browserName, { ignoreMode });
      await use(browser);
      await browser.close();
      return;
    }
    const browser = await commonBrowser();
    await use(browser);
    // After a failed one the runner starts anew, with another browser.
    if (testInfo.status === testInfo.expectedStatus) await browser.tidy();
  },

  context: ({ tabBrowser }, use) => use(tabBrowser.context),

  /** The mode that `(await db.status()).handle_mode` has to have. */
  handleMode: async ({ tabBrowser }, use) => {
    await use(await tabBrowser.handleMode());
  },

  /**
   * Options of a tab with Python on its page's main thread. Nobody reaches into the worker that it
   * starts, to make that ignore modes: where the others do, it is a tab like them.
   */
  onPage: async ({ handles }, use) => {
    await use(handles ? {} : { thread: "page" });
  },

  /**
   * Opens a tab of the test's browser, ready to import holdfast. Options: `own` for one that no
   * other test uses, before or after; `folder` "strict" for a page under a strict policy,
   * `classic` for a classic worker, `scripts` that it loads first; `thread` "page" for Python on
   * the page's main thread, "shared" for Python in a shared worker that no other tab knows; both
   * in a tab of the test's own.
   */
  openTab: async ({ tabBrowser }, use) => {
    await use((options) => tabBrowser.openTab(options));
  },
});

/** For tests of what holds on either: options of `openTab`, and an argument of `holdfast.open`. */
export const storages = [
  { on: "OPFS", options: {}, storage: `` },
  { on: "IndexedDB", options: { thread: "page" }, storage: `, storage="indexeddb"` },
];

export { expect };
