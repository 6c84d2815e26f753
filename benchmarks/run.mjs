// `make bench`: holdfast beside its rivals and beside the raw OPFS, in one run of one browser.
//
//   node benchmarks/run.mjs [--rounds 5] [--only commit,alternate2,speedtest] [--engines holdfast,raw]
//
// A persistent profile (in a private one each OPFS call crosses processes). Every round measures
// every engine, one after the other; the table has medians. Writes results/latest.{md,json,svg}.
import { createServer } from "node:http";
import { createReadStream, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { spawnSync } from "node:child_process";
import { extname, join, normalize } from "node:path";
import { parseArgs } from "node:util";
import { chromium } from "@playwright/test";
import { report } from "./report.mjs";
import { section, speedtest } from "./speedtest.mjs";
import { startup, startupSection } from "./startup.mjs";
import { measureTriggers, triggerSection } from "./triggers.mjs";

const here = import.meta.dirname;
const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    only: { type: "string", default: "" },
    engines: { type: "string", default: "" },
  },
});
const rounds = Number(options.rounds);

// durability: what an acknowledged commit survives, at `settings` and relaxed.
export const engines = [
  { name: "holdfast", tabs: 4, settings: [], durable: "power loss", relaxed: "browser death" },
  {
    name: "wa-sqlite OPFSCoopSyncVFS",
    tabs: 4,
    settings: ["PRAGMA synchronous = FULL"],
    durable: "power loss (rollback journal)",
    relaxed: "the same: its journal is flushed at NORMAL too",
  },
  {
    name: "wa-sqlite OPFSWriteAheadVFS",
    tabs: 4,
    settings: ["PRAGMA synchronous = FULL"],
    durable: "power loss (its own write-ahead log)",
    relaxed: "browser death",
  },
  {
    name: "sqlite-wasm opfs-sahpool",
    tabs: 1,
    settings: ["PRAGMA synchronous = FULL"],
    durable: "power loss (rollback journal)",
    relaxed: "the same: its journal is flushed at NORMAL too",
  },
  {
    name: "sqlite-wasm opfs",
    tabs: 4,
    settings: ["PRAGMA synchronous = FULL"],
    durable: "power loss (rollback journal)",
    relaxed: "the same: its journal is flushed at NORMAL too",
  },
];

const types = {
  ".html": "text/html",
  ".js": "text/javascript",
  ".mjs": "text/javascript",
  ".json": "application/json",
  ".wasm": "application/wasm",
  ".py": "text/plain",
};

/** Serves benchmark, rivals and Pyodide, cross-origin isolated as sqlite-wasm's opfs needs it. */
async function serve() {
  const folders = {
    benchmarks: here,
    rivals: join(here, "node_modules"),
    pyodide: ".build/pyodide",
  };
  const wheel = readdirSync(".build/pyodide").find((name) => /^holdfast-.*\.whl$/.test(name));
  const server = createServer((request, response) => {
    const path = new URL(request.url, "http://localhost").pathname;
    const headers = {
      "Cross-Origin-Opener-Policy": "same-origin",
      "Cross-Origin-Embedder-Policy": "require-corp",
    };
    if (path === "/wheel.json") {
      response.writeHead(200, { ...headers, "Content-Type": "application/json" });
      response.end(JSON.stringify({ wheel: `/pyodide/${wheel}` }));
      return;
    }
    const [, top, ...rest] = normalize(path).split("/");
    const file = folders[top] && join(folders[top], ...rest);
    if (!file || !existsSync(file) || !statSync(file).isFile()) {
      response.writeHead(404, headers);
      response.end();
      return;
    }
    const type = types[extname(file)] ?? "application/octet-stream";
    response.writeHead(200, { ...headers, "Content-Type": type });
    createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { server, origin: `http://localhost:${server.address().port}` };
}

function chromiumPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const { stdout } = spawnSync("sh", ["-c", "command -v chromium || command -v google-chrome"], {
    encoding: "utf8",
  });
  if (!stdout.trim()) throw new Error("No Chromium on PATH. Run `make setup`, or set CHROMIUM.");
  return stdout.trim();
}

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** The tabs of one engine, opened as they are needed. */
class Tabs {
  #pages = [];

  constructor(context, origin, engine) {
    this.context = context;
    this.origin = origin;
    this.engine = engine;
    /** Writes that the counter has to show. */
    this.counted = 0;
  }

  async call(tab, call, ...args) {
    while (this.#pages.length <= tab) {
      const page = await this.context.newPage();
      await page.goto(`${this.origin}/benchmarks/page.html`);
      await page.waitForFunction(() => window.ready);
      this.#pages.push(page);
      await this.call(this.#pages.length - 1, "prepare", this.engine.settings);
    }
    const message = [this.engine.name, call, args];
    return this.#pages[tab].evaluate((message) => window.call(...message), message);
  }

  async close() {
    for (const [tab] of this.#pages.entries()) await this.call(tab, "close");
    for (const page of this.#pages) await page.close();
    this.#pages = [];
  }
}

// Each gives one figure of one engine. `tabs`: how many it takes.
const measurements = {
  open: { tabs: 1, run: (on) => on.call(0, "reopen", on.engine.settings) },
  commit: { tabs: 1, run: (on) => on.call(0, "commit", 100) },
  relaxed: { tabs: 1, run: (on) => on.call(0, "relaxed", 100) },
  bulk: { tabs: 1, run: (on) => on.call(0, "bulk") },
  point: { tabs: 1, run: (on) => on.call(0, "point", 1000) },
  scan: {
    tabs: 1,
    async run(on) {
      await on.call(0, "fill");
      return on.call(0, "scan", on.engine.settings);
    },
  },
  alternate2: { tabs: 2, run: (on) => alternate(on, 2) },
  alternate4: { tabs: 4, run: (on) => alternate(on, 4) },
  beside: {
    tabs: 2,
    async run(on) {
      await on.call(1, "counter");
      const [each, writes] = await Promise.all([
        on.call(0, "readFor", 400),
        on.call(1, "writeFor", 400),
      ]);
      on.counted += writes;
      return each;
    },
  },
};

async function alternate(on, tabs) {
  const n = 40;
  const all = Array.from({ length: tabs }, (_, me) => me);
  for (const me of all) await on.call(me, "counter");
  // The first tab begins when the others listen.
  const others = all.slice(1).map((me) => on.call(me, "alternate", me, tabs, n));
  await on.context.pages()[0].waitForTimeout(100);
  const each = await Promise.all([on.call(0, "alternate", 0, tabs, n), ...others]);
  on.counted += n * tabs;
  return median(each);
}

const chosen = (list, all) => (list ? list.split(",") : all);
const names = chosen(options.only, [...Object.keys(measurements), "speedtest", "triggers", "startup"]);
const rowNames = names.filter((name) => name in measurements);
const taking = engines.filter(({ name }) =>
  chosen(options.engines, [name]).some((part) => name.includes(part)),
);

const profile = mkdtempSync(join(tmpdir(), "holdfast-bench-"));
const { server, origin } = await serve();
const launch = (profile) =>
  chromium.launchPersistentContext(profile, { executablePath: chromiumPath() });
const context = await launch(profile);
const found = Object.fromEntries(taking.map(({ name }) => [name, {}]));
const limits = [];
const floors = {};
const failures = [];
try {
  const raw = new Tabs(context, origin, { name: "raw OPFS" });
  raw.page = await context.newPage();
  await raw.page.goto(`${origin}/benchmarks/page.html`);
  await raw.page.waitForFunction(() => window.ready);
  for (let round = 0; rowNames.length && round < rounds; round += 1) {
    for (const engine of taking) {
      limits.push(await raw.page.evaluate(() => window.call("raw OPFS", "limits", [200])));
      const on = new Tabs(context, origin, engine);
      const before = await on.call(0, "counter");
      for (const name of rowNames) {
        const { tabs, run } = measurements[name];
        if (tabs > engine.tabs) continue;
        try {
          (found[engine.name][name] ??= []).push(await run(on));
        } catch (error) {
          failures.push(`${engine.name}, ${name}: ${error.message.split("\n")[0]}`);
          break;
        }
      }
      const counted = await on.call(0, "counter").catch(() => undefined);
      if (counted !== undefined && counted !== before + on.counted) {
        failures.push(`${engine.name} lost ${before + on.counted - counted} updates`);
      }
      await on.close().catch((error) => failures.push(`${engine.name}: ${error.message}`));
    }
    const floor = new Tabs(context, origin, { name: "raw OPFS", settings: [] });
    for (const name of rowNames.filter((name) => name === "open" || name.startsWith("alternate"))) {
      (floors[name] ??= []).push(await measurements[name].run(floor));
    }
    await floor.close();
    process.stderr.write(`round ${round + 1} of ${rounds}\n`);
  }
  const triggers = names.includes("triggers") && (await measureTriggers(context, origin));
  const speed = names.includes("speedtest") && (await speedtest(context, origin, rounds));
  const starts = names.includes("startup") && (await startup(launch, origin, Math.min(rounds, 3)));
  const version = await raw.page.evaluate(() => /Chrome\/(\d+)/.exec(navigator.userAgent)[1]);
  const day = new Date().toISOString().slice(0, 10);
  const about = `Chromium ${version}, ${cpus().length} cores, ${rounds} round${rounds > 1 ? "s" : ""}, ${day}`;
  const table = rowNames.length
    ? report({ about, engines: taking, found, limits, floors, failures })
    : { markdown: "", svg: "" };
  const markdown =
    table.markdown +
    (starts ? startupSection(starts) : "") +
    (triggers ? triggerSection(triggers) : "") +
    (speed ? section(speed) : "");
  console.log(markdown);
  if (!options.only && !options.engines) {
    mkdirSync(join(here, "results"), { recursive: true });
    writeFileSync(join(here, "results", "latest.md"), markdown);
    writeFileSync(join(here, "results", "latest.svg"), table.svg);
    const data = JSON.stringify({ about, found, limits, floors, failures, starts, triggers, speed }, null, 1);
    writeFileSync(join(here, "results", "latest.json"), data);
  }
} finally {
  await context.close();
  server.close();
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
