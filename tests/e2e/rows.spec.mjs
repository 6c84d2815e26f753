// The rows of managed triggers on OPFS: the test functions of CPython, run as they are in a worker.
// (What takes several tabs, and their deaths: triggers.spec.mjs.)
import { readFileSync, readdirSync } from "node:fs";
import { expect, test } from "./tabs.mjs";

const folder = "tests/unit/triggers";
// Those of several processes have no meaning here, and random ones no need of a browser.
const modules = readdirSync(folder)
  .filter((name) => /^test_\w+\.py$/.test(name))
  .filter((name) => !["test_processes.py", "test_fidelity.py"].includes(name));
const files = Object.fromEntries(
  [...modules, "conftest.py"].map((name) => [
    `triggers/${name}`,
    readFileSync(`${folder}/${name}`, "utf8"),
  ]),
);
files["across.py"] = readFileSync("tests/unit/across.py", "utf8");
const runner = readFileSync("tests/e2e/pages/run_tests.py", "utf8");

// JSON that is a literal of Python's too.
const literal = (value) => JSON.stringify(JSON.stringify(value));

test("the rows of triggers hold on OPFS", async ({ openTab }) => {
  test.setTimeout(600_000);
  const tab = await openTab({ own: true });
  await tab.run(`
import json, micropip, sys, types
await micropip.install("pytest")
run_tests = types.ModuleType("run_tests")
sys.modules["run_tests"] = run_tests
exec(json.loads(${literal(runner)}), vars(run_tests))
files = json.loads(${literal(files)})
`);
  for (const module of modules) {
    await test.step(module, async () => {
      const [code, results] = await tab.run(`
results = []
code = run_tests.main(files, ["triggers/${module}"], results.append)
[code, results]
`);
      const failed = results.filter(({ outcome }) => outcome !== "passed");
      console.log(`${module} on OPFS: ${results.length - failed.length} passed`);
      const told = failed.map(({ test, why }) => `${test}\n${why.slice(-2000)}`);
      expect.soft(told.join("\n\n")).toBe("");
      expect.soft(code).toBe(0);
      expect.soft(results.length).toBeGreaterThan(5);
    });
  }
});
