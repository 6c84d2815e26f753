// The rows of managed triggers, in a browser: the test functions of CPython, run as they are in a
// worker: on OPFS in a dedicated one, on IndexedDB in a shared one, as the one that has the databases
// of all tabs. (What takes several tabs, and their deaths: triggers.spec.mjs, indexeddb.spec.mjs.)
import { readFileSync, readdirSync } from "node:fs";
import { expect, test } from "./tabs.mjs";

const folder = "tests/unit/triggers";
// What is not run here, and why.
const leftOut = JSON.parse(readFileSync("tests/e2e/left_out.json", "utf8"));
const modules = readdirSync(folder)
  .filter((name) => /^test_\w+\.py$/.test(name))
  .filter((name) => !(name.slice(0, -3) in leftOut.modules));
const files = Object.fromEntries(
  [...modules, "conftest.py"].map((name) => [
    `triggers/${name}`,
    readFileSync(`${folder}/${name}`, "utf8"),
  ]),
);
for (const name of ["across.py", "patience.py"]) {
  files[name] = readFileSync(`tests/unit/${name}`, "utf8");
}
const runner = readFileSync("tests/e2e/pages/run_tests.py", "utf8");

// JSON that is a literal of Python's too.
const literal = (value) => JSON.stringify(JSON.stringify(value));

for (const [storage, options, names] of [
  ["OPFS", { own: true }, {}],
  ["IndexedDB", { own: true, thread: "holdfast", killable: false }, leftOut.on_indexeddb],
]) {
  test(`the rows of triggers hold on ${storage}`, async ({ openTab }) => {
    test.setTimeout(1_800_000);
    const tab = await openTab(options);
    await tab.run(`
import json, pyodide_js, sys, types
await pyodide_js.loadPackage("pytest")
run_tests = types.ModuleType("run_tests")
sys.modules["run_tests"] = run_tests
exec(json.loads(${literal(runner)}), vars(run_tests))
files, fixtures, names = json.loads(${literal([files, leftOut.fixtures, names])})
`);
    for (const module of modules) {
      await test.step(module, async () => {
        const [code, results] = await tab.run(`
results = []
code = run_tests.main(files, ["triggers/${module}"], results.append, fixtures, names)
[code, results]
`);
        const failed = results.filter(({ outcome }) => outcome !== "passed");
        console.log(`${module} on ${storage}: ${results.length - failed.length} passed`);
        const told = failed.map(({ test, why }) => `${test}\n${why.slice(-2000)}`);
        expect.soft(told.join("\n\n")).toBe("");
        expect.soft(code).toBe(0);
        expect.soft(results.length).toBeGreaterThan(5);
        const on = results.filter(({ test }) => test.includes(`[${storage.toLowerCase()}`));
        expect.soft(on.length).toBeGreaterThan(5);
      });
    }
  });
}
