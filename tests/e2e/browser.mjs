// One browser with one profile, and the tabs of it that are open. See tabs.mjs.
import { chromium, expect, firefox } from "@playwright/test";
import { spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { launchPlain } from "./plain-chromium.mjs";
import { alive, browserProcess, busyProcess, tabProcesses } from "./processes.mjs";
import { Tab } from "./tab.mjs";

const kinds = {
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
    wrapper: fileURLToPath(new URL("firefox.sh", import.meta.url)),
    options: {
      // The system's own Firefox, over WebDriver BiDi.
      channel: "moz-firefox",
      // A process for each tab, as in Chromium, where it would have four for all tabs of a site.
      firefoxUserPrefs: { "dom.ipc.processCount.webIsolated": 50 },
    },
  },
};

// Idle tabs that wait for the next test: most tests have two or three.
const KEPT = 4;

// What the browsers of the specs begin with: see profile.setup.mjs.
const keptProfile = (name) => join(".build", "e2e-profiles", name);
// Files that say which process has a profile.
const isLock = (path) => /^(Singleton\w+|lock|\.parentlock)$/.test(basename(path));

function executablePath({ variable, names }) {
  if (process.env[variable]) return process.env[variable];
  const search = 'for name; do command -v "$name" && break; done';
  const { stdout } = spawnSync("sh", ["-c", search, "sh", ...names], { encoding: "utf8" });
  const found = stdout.trim();
  if (found) return found;
  throw new Error(`No ${names[0]} on PATH. Install it, or set ${variable} to its path.`);
}

/** A browser whose tabs share OPFS and Web Locks, and nothing with other browsers. */
export class Browser {
  #kind;
  #open = []; // tabs of the test that runs
  #idle = []; // tabs of earlier tests, tidied up

  #plain;
  #handleMode;

  // plain: where a page can be hidden, frozen and gone back to; see plain-chromium.mjs.
  // fresh: with an empty profile, and not the one that profile.setup.mjs made.
  constructor(name, { ignoreMode = false, plain = false, fresh = false } = {}) {
    this.#kind = kinds[name];
    this.#plain = plain && name === "chromium";
    this.ignoreMode = ignoreMode;
    this.profile = mkdtempSync(join(tmpdir(), "holdfast-e2e-"));
    if (!fresh) cpSync(keptProfile(name), this.profile, { recursive: true });
  }

  static async launch(name, options) {
    const browser = new Browser(name, options);
    await browser.#launch();
    return browser;
  }

  // Persistent: in a private profile each OPFS call crosses processes, 100 times slower.
  async #launch() {
    const executable = executablePath(this.#kind);
    if (this.#plain) {
      this.#plain = await launchPlain(executable, this.profile);
      this.context = this.#plain.context;
      return;
    }
    this.context = await this.#kind.type.launchPersistentContext(this.profile, {
      executablePath: this.#kind.wrapper ?? executable,
      env: { ...process.env, HOLDFAST_FIREFOX: executable },
      ...this.#kind.options,
    });
  }

  /** A tab ready to import holdfast; see `openTab` in tabs.mjs. */
  async openTab({ own = false, ...options } = {}) {
    const plain = !own && Object.keys(options).length === 0;
    const tab = (plain && this.#idle.shift()) || (await this.#newTab({ ...options, plain }));
    this.#open.push(tab);
    return tab;
  }

  /** How its workers have file handles beside each other: "shared" or "exclusive". */
  async handleMode() {
    if (this.ignoreMode) return "exclusive";
    if (!this.#handleMode) {
      const page = await this.context.newPage();
      await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/empty.html`);
      this.#handleMode = await page.evaluate(handleMode);
      await page.close();
    }
    return this.#handleMode;
  }

  #newTab(options) {
    const known = [...this.#open, ...this.#idle].map((tab) => tab.pid).filter(alive);
    return Tab.open(this, new Set(known), options);
  }

  /** The process of its pages that `work(milliseconds)` keeps busy, as that of a shared worker. */
  processOf(work) {
    return busyProcess(this.profile, new Set(), work);
  }

  /** kill -9 of that process; gives the tab that was in it, if there was one. */
  async kill(pid) {
    const tab = this.#open.find((tab) => tab.pid === pid);
    if (tab) {
      await tab.killRenderer();
    } else {
      process.kill(pid, "SIGKILL");
      await expect.poll(() => alive(pid), { intervals: [5] }).toBe(false);
    }
    return tab;
  }

  /** kill -9 of the browser with all of its tabs, and a new one with the same profile. */
  async restart() {
    const pid = browserProcess(this.profile);
    // Those of its tabs end when they notice; one that did not would write on.
    const pids = [pid, ...tabProcesses(this.profile).keys()];
    // Playwright tells when it has noticed; closing a context that is going would be an error.
    const closed = this.context.waitForEvent("close");
    process.kill(pid, "SIGKILL");
    await closed;
    await expect.poll(() => pids.filter(alive), { intervals: [5] }).toEqual([]);
    this.#open = [];
    this.#idle = [];
    await this.#launch();
  }

  /**
   * After a test: what it opened is closed, and what it stored is gone. Fails where a closed
   * database, or a tab that died, leaves a lock or a file that somebody has open.
   */
  async tidy() {
    const tabs = this.#open.splice(0);
    for (const tab of tabs) tab.resume();
    for (const tab of tabs) {
      if (tab.plain && tab.usable && this.#idle.length < KEPT) {
        await tab.tidy();
        this.#idle.push(tab);
      }
    }
    await this.context.unrouteAll();
    const kept = new Set(this.#idle.map((tab) => tab.page));
    const page = this.#idle[0]?.page ?? (await this.context.newPage());
    if (!kept.has(page)) await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/empty.html`);
    for (const other of this.context.pages()) {
      if (other !== page && !kept.has(other)) await other.close();
    }
    await expect
      .poll(() => page.evaluate(leftovers), { intervals: [5, 20, 50], message: "what a test left" })
      .toEqual([]);
    if (!kept.has(page)) await page.goto("about:blank");
  }

  /** As the program itself tells it: "156.0.8078.108". */
  version() {
    const { stdout } = spawnSync(executablePath(this.#kind), ["--version"], { encoding: "utf8" });
    return /[\d.]+\d\w*/.exec(stdout)[0];
  }

  /** A stopped renderer would keep the browser from closing. keepAs: others begin with its profile. */
  async close({ keepAs } = {}) {
    for (const tab of this.#open) tab.resume();
    await (this.#plain || this.context).close();
    if (keepAs) {
      const kept = keptProfile(keepAs);
      rmSync(kept, { recursive: true, force: true });
      cpSync(this.profile, kept, { recursive: true, filter: (path) => !isLock(path) });
    }
    rmSync(this.profile, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** In a page: what a worker gets that asks for a handle to share. */
function handleMode() {
  const ask = async () => {
    const root = await navigator.storage.getDirectory();
    const file = await root.getFileHandle("handle-mode", { create: true });
    const handle = await file.createSyncAccessHandle({ mode: "readwrite-unsafe" });
    postMessage(handle.mode === "readwrite-unsafe" ? "shared" : "exclusive");
    handle.close();
  };
  const script = new Blob([`(${ask})()`], { type: "text/javascript" });
  const worker = new Worker(URL.createObjectURL(script));
  return new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = ({ message }) => reject(new Error(message));
  });
}

/** In a page: removes all files and databases, and tells what is left of them, and of locks. */
async function leftovers() {
  const { held, pending } = await navigator.locks.query();
  const left = [...held, ...pending].map((lock) => `the lock ${lock.name}`);
  if (left.length > 0) return left;
  const root = await navigator.storage.getDirectory();
  for await (const name of root.keys()) {
    try {
      await root.removeEntry(name, { recursive: true });
    } catch (error) {
      left.push(`${name} in OPFS: ${error}`);
    }
  }
  for (const { name } of await indexedDB.databases()) indexedDB.deleteDatabase(name);
  return left;
}
