// From navigation to the first row, in each way that a page can have: the first visit of a profile
// (nothing in a cache), and later ones.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const WAYS = {
  worker: "Python in a worker of the page's own",
  page: "Python in the page",
  javascript: "JavaScript in the page",
};
const LATER = 3; // visits of each way after the first

// The Caches that a first visit leaves for the later ones.
const KEPT = {
  worker: [],
  page: ["holdfast-python"],
  javascript: ["holdfast-python", "holdfast-packages"],
};

const median = (values) => [...values].sort((one, other) => one - other)[values.length >> 1];

/** {way: {first: parts, later: parts}}; a part is [what, milliseconds], medians over `rounds`. */
export async function startup(launch, origin, rounds) {
  const found = {};
  for (const way of Object.keys(WAYS)) {
    const first = [];
    const later = [];
    for (let round = 0; round < rounds; round += 1) {
      const profile = mkdtempSync(join(tmpdir(), "holdfast-startup-"));
      const context = await launch(profile);
      try {
        first.push(await visit(context, origin, way, true));
        for (let n = 0; n < LATER; n += 1) later.push(await visit(context, origin, way, false));
      } finally {
        await context.close();
        rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
      }
    }
    found[way] = { first: parts(first), later: parts(later) };
  }
  return found;
}

async function visit(context, origin, way, first) {
  const page = await context.newPage();
  await page.goto(`${origin}/benchmarks/startup.html?way=${way}`);
  await page.waitForFunction(() => window.times);
  const marks = await page.evaluate(() => window.times);
  // What the first visit keeps for the later ones, it keeps a while after it has begun.
  for (const name of first ? KEPT[way] : []) {
    await page.evaluate(async (name) => {
      const kept = await caches.open(name);
      while (!(await kept.keys()).length) await new Promise((again) => setTimeout(again, 200));
    }, name);
  }
  await page.close();
  return marks;
}

/** The median of each part's own time, and of the whole. */
function parts(visits) {
  const own = visits[0].map(([what], i) => [
    what,
    median(visits.map((marks) => marks[i][1] - (i ? marks[i - 1][1] : 0))),
  ]);
  return [...own, ["all", median(visits.map((marks) => marks.at(-1)[1]))]];
}

export function startupSection(found) {
  const lines = ["\n## From navigation to the first row\n"];
  lines.push("|     | visit | ms  | of which |", "| --- | --- | --- | --- |");
  for (const [way, text] of Object.entries(WAYS)) {
    for (const visit of ["first", "later"]) {
      const all = found[way][visit];
      const list = all.slice(0, -1).map(([what, ms]) => `${what} ${ms.toFixed(0)}`);
      lines.push(`| ${text} | ${visit} | ${all.at(-1)[1].toFixed(0)} | ${list.join(", ")} |`);
    }
  }
  lines.push(
    "\nEverything comes from a server on the same machine, so this is what the browser does, not " +
      "the network. A worker that holdfast starts begins, from the second visit on, with an image " +
      "of Python that the first has kept and, for JavaScript, with the packages.",
  );
  return lines.join("\n") + "\n";
}
