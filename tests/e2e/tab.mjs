// One tab: a page, its worker with Python, and how it ends. See tabs.mjs.
import { expect } from "@playwright/test";
import { readdirSync } from "node:fs";
import { alive, busyProcess, stopped } from "./processes.mjs";

const pyodideFolder = process.env.HOLDFAST_PYODIDE ?? ".build/pyodide";

/** The address of holdfast's wheel beside Pyodide. */
export function wheelUrl() {
  const wheels = readdirSync(pyodideFolder).filter((name) => /^holdfast-.*\.whl$/.test(name));
  if (wheels.length !== 1) {
    throw new Error(`${pyodideFolder} holds ${wheels.length} wheels of holdfast. Run \`make\`.`);
  }
  return `${process.env.HOLDFAST_ORIGIN}/pyodide/${wheels[0]}`;
}

// Closes what a test left open, and forgets its names: the tab is as it was when it was new.
const TIDY = `
async def tidy():
    import __main__, asyncio, gc, sys

    left = asyncio.all_tasks() - {asyncio.current_task()}
    if holdfast := sys.modules.get("holdfast"):
        for each in gc.get_objects():
            if issubclass(type(each), holdfast.Database) and not each.closed:
                await each.close()
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    for name in [*vars(__main__)]:
        if not name.startswith("_") and name != "emit":
            delattr(__main__, name)
    gc.collect()

await tidy()
`;

/** One page with Python, in one worker, dedicated or shared, or on its main thread. */
export class Tab {
  #events = [];
  #waiting = [];
  #dead = false;

  constructor(page, options) {
    const { folder = "e2e", classic = false, thread = "worker" } = options;
    const { scripts = [], killable = true, ignoreMode, plain } = options;
    this.options = { folder, classic, thread, scripts, killable, ignoreMode };
    /** Whether another test may have it afterwards. */
    this.plain = plain;
    this.page = page;
    /** The process of this tab's page and worker. */
    this.pid = null;
  }

  static async open(browser, known, options) {
    const page = await browser.context.newPage();
    const tab = new Tab(page, { ...options, ignoreMode: browser.ignoreMode });
    await page.exposeFunction("holdfastEvent", (event) => tab.#take(event));
    page.on("console", (message) => {
      if (message.type() === "error") console.log(`[console] ${message.text()}`);
    });
    const { folder, classic, thread } = tab.options;
    const query = `worker=${classic ? "classic" : "module"}&thread=${thread}`;
    await page.goto(`${process.env.HOLDFAST_ORIGIN}/${folder}/tab.html?${query}`);
    await page.waitForFunction(() => window.tab);
    // One that may share its process, with a shared worker's tab that is gone, is not killed alone.
    if (tab.options.killable) {
      // Its Python's start is work to be told by, mostly enough of it.
      let starting;
      tab.pid = await busyProcess(browser.profile, known, (spin) =>
        starting ? tab.#call({ spin }) : (starting = tab.#load()),
      );
    } else {
      await tab.#load();
    }
    return tab;
  }

  /** Runs Python in the worker; its last expression comes back as plain JSON-like data. */
  run(python) {
    return this.#call({ python });
  }

  /** The first event, past or future, that `matches` and was not taken before. */
  event(matches = () => true, timeout = 60_000) {
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

  /** Whether its worker lives. */
  get usable() {
    return !this.#dead && !this.page.isClosed();
  }

  /** Ends the worker at once, in whatever it is doing: Python's, or that which it started. */
  terminateWorker() {
    this.#dead = this.options.thread === "worker";
    return this.page.evaluate(() => window.tab.terminateWorker());
  }

  /** A new worker in the same page, after `terminateWorker`. */
  async restartWorker() {
    await this.page.evaluate(() => window.tab.restartWorker());
    await this.#load();
    this.#dead = false;
  }

  /** Loads the page anew, in whatever it is doing. */
  async reload() {
    await this.page.reload();
    await this.reloaded();
  }

  /** After its page was loaded anew: Python, as in one that was opened. */
  async reloaded() {
    await this.page.waitForFunction(() => window.tab);
    await this.#load();
  }

  /** kill -9 of the renderer: no handler of the page or the worker runs. */
  async killRenderer() {
    this.#dead = true;
    // Nothing tells of it in Firefox.
    const chromium = this.page.context().browser()?.browserType().name() !== "firefox";
    const crashed = chromium && this.page.waitForEvent("crash");
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

  /** The leases that tabs of this profile hold or wait for; none once all of them are idle. */
  leases() {
    return this.page.evaluate(async () => {
      const { held, pending } = await navigator.locks.query();
      return [...held, ...pending].map(({ name }) => name).filter((name) => /:(read|write)$/.test(name));
    });
  }

  /** Makes it as good as new. */
  async tidy() {
    await this.run(TIDY);
    this.#events = [];
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
    const { folder, classic, scripts, ignoreMode } = this.options;
    const image = folder === "e2e" && !classic;
    return this.#call({ load: { packages: ["holdfast"], scripts, classic, ignoreMode, image } });
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

