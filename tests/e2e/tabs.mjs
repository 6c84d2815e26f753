// Tabs for the specs, in Chromium and in Firefox: `import { test, expect } from "./tabs.mjs"`, then
//
//   test("…", async ({ openTab }) => {
//     const a = await openTab();                     // Pyodide and holdfast's wheel, one profile
//     const n = await a.run(`1 + 1`);                // Python, await allowed; last expression
//     await a.event((e) => e === "ready");           // what Python sent with emit(value)
//     await a.terminateWorker(); await a.killRenderer(); a.stop(); a.resume(); await a.close();
//   });
import { chromium, expect, firefox, test as base } from "@playwright/test";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { alive, busyProcess, stopped } from "./processes.mjs";

const pyodideFolder = process.env.HOLDFAST_PYODIDE ?? ".build/pyodide";

const browsers = {
  chromium: {
    type: chromium,
    variable: "CHROMIUM",
    names: ["chromium", "chromium-browser", "google-chrome"],
    options: {},
  },
  firefox: {
    type: firefox,
    variable: "FIREFOX",
    names: ["firefox-esr", "firefox"],
    // The system's own Firefox, over WebDriver BiDi.
    options: { channel: "moz-firefox" },
  },
};

function executablePath({ variable, names }) {
  if (process.env[variable]) return process.env[variable];
  const search = 'for name; do command -v "$name" && break; done';
  const { stdout } = spawnSync("sh", ["-c", search, "sh", ...names], { encoding: "utf8" });
  const found = stdout.trim();
  if (found) return found;
  throw new Error(`No ${names[0]} on PATH. Install it, or set ${variable} to its path.`);
}

/** The address of holdfast's wheel beside Pyodide. */
export function wheelUrl() {
  const wheels = readdirSync(pyodideFolder).filter((name) => /^holdfast-.*\.whl$/.test(name));
  if (wheels.length !== 1) {
    throw new Error(`${pyodideFolder} holds ${wheels.length} wheels of holdfast. Run \`make\`.`);
  }
  return `${process.env.HOLDFAST_ORIGIN}/pyodide/${wheels[0]}`;
}

/** One page with one dedicated worker that runs Python. */
export class Tab {
  #events = [];
  #waiting = [];

  constructor(page, pid, options) {
    const { folder = "e2e", classic = false, scripts = [], killable = true } = options;
    this.options = { folder, classic, scripts, killable };
    this.page = page;
    /** The process of this tab's page and worker. */
    this.pid = pid;
  }

  static async open(context, profile, known, options) {
    const page = await context.newPage();
    const tab = new Tab(page, null, options);
    await page.exposeFunction("holdfastEvent", (event) => tab.#take(event));
    page.on("console", (message) => {
      if (message.type() === "error") console.log(`[console] ${message.text()}`);
    });
    const { folder, classic } = tab.options;
    const query = classic ? "?worker=classic" : "";
    await page.goto(`${process.env.HOLDFAST_ORIGIN}/${folder}/tab.html${query}`);
    await page.waitForFunction(() => window.tab);
    // A tab that shares its process with others has no pid of its own, and cannot be killed alone.
    if (tab.options.killable) {
      tab.pid = await busyProcess(profile, known, (spin) => tab.#call({ spin }));
    }
    await tab.#load();
    return tab;
  }

  /** Runs Python in the worker; its last expression comes back as plain JSON-like data. */
  run(python) {
    return this.#call({ python });
  }

  /** The first event, past or future, that `matches` and was not taken before. */
  event(matches = () => true, timeout = 15_000) {
    const at = this.#events.findIndex(matches);
    if (at >= 0) return Promise.resolve(this.#events.splice(at, 1)[0]);
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting = this.#waiting.filter((other) => other !== waiter);
        reject(new Error(`no such event within ${timeout} ms; untaken: ${this.#describe()}`));
      }, timeout);
      const waiter = { matches, resolve, timer };
      this.#waiting.push(waiter);
    });
  }

  /** Events that arrived and were not taken. They stay readable when the tab is dead. */
  get events() {
    return [...this.#events];
  }

  /** Ends the worker at once, in whatever it is doing. */
  terminateWorker() {
    return this.page.evaluate(() => window.tab.terminateWorker());
  }

  /** A new worker in the same page, after `terminateWorker`. */
  async restartWorker() {
    await this.page.evaluate(() => window.tab.restartWorker());
    await this.#load();
  }

  /**
   * kill -9 of the renderer: no handler of the page or the worker runs.
   * Not in Firefox, where the first dead process ends Playwright's whole session.
   */
  async killRenderer() {
    const crashed = this.page.waitForEvent("crash");
    process.kill(this.pid, "SIGKILL");
    await crashed;
    await expect.poll(() => alive(this.pid), { intervals: [5] }).toBe(false);
  }

  /** Stops the renderer: hung, but alive, with all that it holds. */
  async stop() {
    process.kill(this.pid, "SIGSTOP");
    await expect.poll(() => stopped(this.pid), { intervals: [5] }).toBe(true);
  }

  /** Lets a stopped renderer go on. */
  resume() {
    if (alive(this.pid)) process.kill(this.pid, "SIGCONT");
  }

  close() {
    return this.page.close();
  }

  async #call(message) {
    // An error travels as text: a traceback of Python's is more than some protocols carry.
    const { result, error } = await this.page.evaluate(
      (message) =>
        window.tab.call(message).then(
          (result) => ({ result }),
          (error) => ({ error: error.message }),
        ),
      message,
    );
    if (error !== undefined) throw new Error(error);
    return result;
  }

  #load() {
    const { classic, scripts } = this.options;
    return this.#call({ load: { packages: [wheelUrl()], scripts, classic } });
  }

  #take(event) {
    const at = this.#waiting.findIndex((waiter) => waiter.matches(event));
    if (at < 0) {
      this.#events.push(event);
      return;
    }
    const [waiter] = this.#waiting.splice(at, 1);
    clearTimeout(waiter.timer);
    waiter.resolve(event);
  }

  #describe() {
    return JSON.stringify(this.#events).slice(0, 500);
  }
}

export const test = base.extend({
  /** A folder for this test's browser profile: tabs of one profile share OPFS and Web Locks. */
  profile: async ({}, use) => {
    const folder = mkdtempSync(join(tmpdir(), "holdfast-e2e-"));
    await use(folder);
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  },

  // Persistent: in a private profile each OPFS call crosses processes, 100 times slower.
  context: async ({ browserName, profile }, use) => {
    const browser = browsers[browserName];
    const context = await browser.type.launchPersistentContext(profile, {
      executablePath: executablePath(browser),
      ...browser.options,
    });
    await use(context);
    await context.close();
  },

  /**
   * Opens a tab of the test's profile, ready to import holdfast. Options: `folder` "strict" for a
   * page under a strict policy, `classic` for a classic worker, `scripts` that it loads first.
   */
  openTab: async ({ context, profile }, use) => {
    const tabs = [];
    await use(async (options = {}) => {
      const known = new Set(tabs.map((tab) => tab.pid).filter(alive));
      const tab = await Tab.open(context, profile, known, options);
      tabs.push(tab);
      return tab;
    });
    // A stopped renderer would keep the browser from closing.
    for (const tab of tabs) tab.resume();
  },
});

export { expect };
