// `make bench`: what the engine costs, beside the raw OPFS limit, in one run of one browser.
//
// A persistent profile (in a private one each OPFS call crosses processes), the rows of each round
// side by side, medians over the rounds: machines are shared, so ratios say more than figures.
// Prints a table, and writes it with every round to benchmarks/results/.
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { once } from "node:events";
import { cpus, tmpdir } from "node:os";
import { spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { chromium } from "@playwright/test";

const rounds = Number(process.argv[2] ?? 7);
const here = import.meta.dirname;
const python = process.env.PYTHON ?? ".build/venv/bin/python";

function chromiumPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const { stdout } = spawnSync("sh", ["-c", "command -v chromium || command -v google-chrome"], {
    encoding: "utf8",
  });
  if (!stdout.trim()) throw new Error("No Chromium on PATH. Run `make setup`, or set CHROMIUM.");
  return stdout.trim();
}

async function serve() {
  const server = spawn(python, ["scripts/serve.py"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(server.stdout, "data");
  return { server, origin: /http:\S+?(?=\/\s)/.exec(line)[0] };
}

async function openTab(context, origin) {
  const page = await context.newPage();
  await page.goto(`${origin}/e2e/tab.html`);
  await page.waitForFunction(() => window.tab);
  const call = (message) => page.evaluate((message) => window.tab.call(message), message);
  const wheel = readdirSync(".build/pyodide").find((name) => /^holdfast-.*\.whl$/.test(name));
  await call({ load: { packages: [`${origin}/pyodide/${wheel}`] } });
  const run = (python) => call({ python });
  await run(readFileSync(join(here, "workload.py"), "utf8"));
  return run;
}

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// name of the row, unit, what it is compared with
const rows = [
  ["raw: append 4 KiB + flush", "µs"],
  ["durable one-row transaction", "µs", "raw: append 4 KiB + flush"],
  ["one-row transaction, synchronous=normal", "µs", "raw: append 4 KiB + flush"],
  ["25,000 rows in one transaction", "ms"],
  ["raw: read 4 KiB", "µs"],
  ["point read, fetch_one by primary key", "µs"],
  ["two tabs, alternating writes: each", "ms"],
  ["share of them that followed the other tab", "%"],
  ["two tabs, each write on a message: each", "ms"],
  ["two tabs, writing at once: each", "ms"],
];

async function measure(context, origin) {
  const a = await openTab(context, origin);
  const b = await openTab(context, origin);
  await a("await prepare()");
  await b("await prepare()");
  const found = Object.fromEntries(rows.map(([name]) => [name, []]));
  for (let round = 0; round < rounds; round += 1) {
    const one = await a("await alone()");
    const both = (call) => Promise.all([a(call(0)), b(call(1))]);
    const alternating = await both((me) => `await alternate(${me})`);
    const onMessage = await both((me) => `await ping_pong(${me})`);
    const atOnce = await both(() => "await at_once()");
    const two = {
      "two tabs, alternating writes: each": median(alternating.map(([each]) => each)),
      "share of them that followed the other tab": 100 * median(alternating.map(([, share]) => share)),
      "two tabs, each write on a message: each": median(onMessage),
      "two tabs, writing at once: each": median(atOnce),
    };
    for (const [name, value] of Object.entries({ ...one, ...two })) found[name].push(value);
    process.stderr.write(`round ${round + 1} of ${rounds}\n`);
  }
  await a("await check(total=True)");
  return { found, browser: context.browser()?.version() ?? (await a("version()")) };
}

function table(found) {
  const cell = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2));
  const lines = [["", "median", "min – max", "ratio to raw"]];
  for (const [name, unit, base] of rows) {
    const values = found[name];
    const ratio = base ? median(values.map((value, i) => value / found[base][i])).toFixed(2) : "";
    lines.push([
      name,
      `${cell(median(values))} ${unit}`,
      `${cell(Math.min(...values))} – ${cell(Math.max(...values))}`,
      ratio,
    ]);
  }
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const format = (line) => `| ${line.map((text, i) => text.padEnd(widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [format(lines[0]), rule, ...lines.slice(1).map(format)].join("\n");
}

const profile = mkdtempSync(join(tmpdir(), "holdfast-bench-"));
const { server, origin } = await serve();
const context = await chromium.launchPersistentContext(profile, { executablePath: chromiumPath() });
try {
  const { found, browser } = await measure(context, origin);
  const text = table(found);
  console.log(text);
  mkdirSync(join(here, "results"), { recursive: true });
  const about = `${browser}, ${cpus().length} cores, ${rounds} rounds, ${new Date().toISOString().slice(0, 10)}`;
  writeFileSync(join(here, "results", "latest.md"), `# Engine\n\n${about}\n\n${text}\n`);
  writeFileSync(join(here, "results", "latest.json"), JSON.stringify({ about, found }, null, 1));
} finally {
  await context.close();
  server.kill("SIGINT");
  rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
}
