// This browser, asked what the suite in tests/conformance asks; see the README there.
//
// Browsers change every week. One of another version than was recorded that does something else is
// no failure here: what it does is told, and `make conformance` records it for the simulation.
import { Recording, scenarios } from "./conformance.mjs";
import { expect, test } from "./tabs.mjs";

const record = process.env.CONFORMANCE === "record";

for (const [subject, texts] of Object.entries(scenarios)) {
  test(`${subject} behave as they were recorded`, async ({ tabBrowser, browserName }, testInfo) => {
    const page = await tabBrowser.context.newPage();
    await page.goto(`${process.env.HOLDFAST_ORIGIN}/e2e/conformance.html`);
    const found = await page.evaluate(
      async ([subject, texts]) => (await import("./conformance.mjs")).run(subject, texts),
      [subject, texts],
    );
    const version = tabBrowser.version();
    const recording = new Recording(browserName);
    if (record) recording.write(version, subject, found);
    const { version: recorded, differences } = recording.compare(subject, found);
    if (recorded === version) {
      expect(differences, `of ${browserName} ${version}, which was recorded`).toEqual([]);
    } else if (differences.length > 0) {
      const told = `${browserName} ${version} differs from ${recorded}:\n${differences.join("\n")}`;
      testInfo.annotations.push({ type: "new behaviour", description: told });
      console.log(told);
    }
  });
}
