// Playwright drives whole browsers here: tabs of one profile that see each other, die and freeze.
// Browsers come from the system (PATH, or CHROMIUM=…, FIREFOX=…): nothing is downloaded.
import { defineConfig } from "@playwright/test";

const python = process.env.PYTHON ?? ".build/venv/bin/python";
// Another folder made by scripts/pyodide_dist.py, to test a wheel that was built another way.
const pyodide = process.env.HOLDFAST_PYODIDE ?? ".build/pyodide";

// What each browser of the specs begins with is made first.
const profileOf = (browserName) => ({
  name: `${browserName}-profile`,
  testMatch: "profile.setup.mjs",
  use: { browserName },
});

// One project is enough for these.
const NO_BROWSER = "**/history-checker.spec.mjs";

export default defineConfig({
  testDir: "tests/e2e",
  testMatch: "*.spec.mjs",
  outputDir: ".build/e2e",
  // No test measures time, so that tabs of two may share the cores.
  workers: 2,
  fullyParallel: false,
  // A test that passes at the second try has failed.
  retries: 0,
  forbidOnly: Boolean(process.env.CI),
  // Bounds that tell what hangs: nothing that goes on, however slowly, meets them.
  timeout: 180_000,
  expect: { timeout: 30_000 },
  reporter: process.env.PLAYWRIGHT_JUNIT_OUTPUT_FILE ? [["list"], ["junit"]] : [["list"]],
  projects: [
    profileOf("chromium"),
    profileOf("firefox"),
    {
      name: "chromium",
      use: { browserName: "chromium" },
      dependencies: ["chromium-profile"],
    },
    {
      // The same browser, made one that knows no shared file handles. Firefox is one by itself; here
      // is what only Chromium lets a test do, and what the mode of the handles changes most.
      name: "chromium-exclusive",
      use: { browserName: "chromium", handles: "exclusive" },
      dependencies: ["chromium-profile"],
      testMatch: "{crash,failures,fairness,history,leases,waiting}.spec.mjs",
      grepInvert: /on IndexedDB/,
    },
    {
      name: "firefox",
      use: { browserName: "firefox" },
      dependencies: ["firefox-profile"],
      testIgnore: NO_BROWSER,
      // SQLite works in memory there: what it does is the same in every browser.
      grepInvert: /the rows of triggers hold on IndexedDB/,
    },
  ],
  webServer: {
    command: `${python} scripts/serve.py --pyodide ${pyodide}`,
    // The server takes a free port and says which; the group's name becomes $HOLDFAST_ORIGIN.
    timeout: 180_000,
    wait: { stdout: /Serving on (?<holdfast_origin>http:\S+?)\/\s/ },
    gracefulShutdown: { signal: "SIGINT", timeout: 5_000 },
  },
});
