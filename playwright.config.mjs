// Playwright drives whole browsers here: tabs of one profile that see each other, die and freeze.
// Browsers come from the system (PATH, or CHROMIUM=…, FIREFOX=…): nothing is downloaded.
import { defineConfig } from "@playwright/test";

const python = process.env.PYTHON ?? ".build/venv/bin/python";
// Another folder made by scripts/pyodide_dist.py, to test a wheel that was built another way.
const pyodide = process.env.HOLDFAST_PYODIDE ?? ".build/pyodide";

// One project is enough for these.
const NO_BROWSER = "**/history-checker.spec.mjs";

export default defineConfig({
  testDir: "tests/e2e",
  testMatch: "*.spec.mjs",
  outputDir: ".build/e2e",
  // Tabs of several tests at once would fight for the cores and make timings meaningless.
  workers: 1,
  fullyParallel: false,
  // A test that passes at the second try has failed.
  retries: 0,
  forbidOnly: Boolean(process.env.CI),
  // Bounds that tell what hangs: nothing that goes on, however slowly, meets them.
  timeout: 180_000,
  expect: { timeout: 30_000 },
  reporter: process.env.PLAYWRIGHT_JUNIT_OUTPUT_FILE ? [["list"], ["junit"]] : [["list"]],
  projects: [
    { name: "chromium", use: { browserName: "chromium" } },
    // The same browser, made one that knows no shared file handles.
    {
      name: "chromium-exclusive",
      use: { browserName: "chromium", handles: "exclusive" },
      // Without those that the mode of the handles makes no difference to.
      grepInvert: /on IndexedDB/,
      testIgnore: [
        NO_BROWSER,
        "**/{conformance,demo,harness,indexeddb,indexeddb-deaths,indexeddb-failures,interrupts,javascript,javascript-calls,javascript-streams,javascript-values,javascript-workers,lifecycle,page,policy,readme,rows,start}.spec.mjs",
      ],
    },
    { name: "firefox", use: { browserName: "firefox" }, testIgnore: NO_BROWSER },
  ],
  webServer: {
    command: `${python} scripts/serve.py --pyodide ${pyodide}`,
    // The server takes a free port and says which; the group's name becomes $HOLDFAST_ORIGIN.
    timeout: 180_000,
    wait: { stdout: /Serving on (?<holdfast_origin>http:\S+?)\/\s/ },
    gracefulShutdown: { signal: "SIGINT", timeout: 5_000 },
  },
});
