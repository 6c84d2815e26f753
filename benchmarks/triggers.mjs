// What diff triggers cost, and how soon another tab's handler runs: holdfast beside @powersync/web.
//
// Rows of a JSON view are inserted by one tab, 500 in a transaction, while there are 0, 1, 3 and 10
// trackers of that view: all of them that tab's, or as many in each of four tabs. Then one row at a
// time, and the handler of another tab notes when it is called. Last, one tab writes single rows
// without pause while others look on, each in one of the ways that there are.
const ENGINES = [
  { name: "holdfast", page: "page.html", ways: ["handlers", "read_only handlers", "diffs", "watch"] },
  { name: "@powersync/web", page: "powersync.html", ways: ["handlers"] },
];
const MANY = [1, 2, 4, 8];
/** Milliseconds that are written in one go. */
const WRITING = 1500;
const TRACKERS = [0, 1, 3, 10];
const ROWS = 500;
const COMMITS = 30;
/** Milliseconds: @powersync/web's default, and none. */
const THROTTLES = [0, 30];

const percentile = (values, share) => {
  const sorted = [...values].sort((one, other) => one - other);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))];
};

async function openTabs(context, origin, engine, n) {
  const tabs = [];
  for (let i = 0; i < n; i += 1) {
    const page = await context.newPage();
    await page.goto(`${origin}/benchmarks/${engine.page}`);
    await page.waitForFunction(() => window.ready);
    const call = (call, ...args) =>
      page.evaluate((message) => window.call(...message), [engine.name, call, args]);
    await call("prepareTracking");
    tabs.push({ call, page });
  }
  return tabs;
}

async function perRow(tabs, tracking) {
  const figures = {};
  for (const n of TRACKERS) {
    // No handler begins while a transaction is timed: each is called once, and then not for long.
    for (const tab of tracking) await tab.call("track", n, 5000);
    const samples = [];
    for (let i = 0; i < 6; i += 1) {
      samples.push(await tabs[0].call("trackedRows", ROWS));
      await tabs[0].page.waitForTimeout(300);
    }
    // The first one prepares its statements, and all handlers are called for it.
    samples.shift();
    figures[n] = percentile(samples, 0.5);
    for (const tab of tracking) await tab.call("untrack");
    await tabs[0].call("clear");
  }
  return figures;
}

async function latency(tabs, throttle) {
  await tabs[1].call("track", 1, throttle);
  const found = [];
  for (let i = 0; i < COMMITS; i += 1) {
    // Far apart and not in step with anything.
    await tabs[0].page.waitForTimeout(80 + ((i * 37) % 50));
    const written = await tabs[0].call("writeOne");
    await tabs[0].page.waitForTimeout(60);
    const [at] = await tabs[1].call("arrivals");
    if (at !== undefined && i > 4) found.push(at - written);
  }
  await tabs[1].call("untrack");
  await tabs[0].call("clear");
  return { p50: percentile(found, 0.5), p95: percentile(found, 0.95), seen: found.length };
}

/** {way: {tabs: milliseconds for a write of the first, the others looking on}}; medians of 3. */
async function lookedOn(tabs, ways) {
  const figures = {};
  for (const way of ways) {
    figures[way] = {};
    for (const n of MANY) {
      for (const tab of tabs.slice(1, n)) await tab.call("look", way);
      await tabs[0].page.waitForTimeout(500);
      const samples = [];
      for (let i = 0; i < 3; i += 1) {
        samples.push(await tabs[0].call("writeOnFor", WRITING));
        await tabs[0].page.waitForTimeout(300);
      }
      figures[way][n] = percentile(samples, 0.5);
      for (const tab of tabs.slice(1, n)) await tab.call("lookAway");
      await tabs[0].call("clear");
    }
  }
  return figures;
}

/**
 * Figures by engine: {one, four: {trackers: µs per row}, latency: {throttle: {p50, p95} in ms},
 * many: {way: {tabs: ms per write}}}.
 */
export async function measureTriggers(context, origin) {
  const found = {};
  for (const engine of ENGINES) {
    const tabs = await openTabs(context, origin, engine, 4);
    const figures = { one: await perRow(tabs, tabs.slice(0, 1)), latency: {} };
    figures.four = await perRow(tabs, tabs);
    for (const throttle of THROTTLES) figures.latency[throttle] = await latency(tabs, throttle);
    tabs.push(...(await openTabs(context, origin, engine, MANY.at(-1) - tabs.length)));
    figures.many = await lookedOn(tabs, engine.ways);
    found[engine.name] = figures;
    for (const { call, page } of tabs) {
      await call("stopTracking");
      await page.close();
    }
  }
  return found;
}

const each = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(2));

/** The section about triggers, in Markdown. */
export function triggerSection(found) {
  const names = Object.keys(found);
  const line = (cells) => `| ${cells.join(" | ")} |`;
  const table = (head, lines) => [line(head), line(head.map(() => "---")), ...lines.map(line)].join("\n");
  const rows = [];
  for (const [where, text] of [["one", "that tab's"], ["four", "as many in each of 4 tabs"]]) {
    for (const n of TRACKERS) {
      rows.push([`${n} trackers, ${text}`, ...names.map((name) => each(found[name][where][n]))]);
    }
    const slope = (name) => (found[name][where][10] - found[name][where][0]) / (where === "four" ? 40 : 10);
    rows.push([`each tracker adds, ${text}`, ...names.map((name) => each(slope(name)))]);
  }
  const delays = THROTTLES.flatMap((throttle) =>
    ["p50", "p95"].map((share) => [
      `throttle ${throttle} ms, ${share}`,
      ...names.map((name) => each(found[name].latency[throttle][share])),
    ]),
  );
  const many = names.flatMap((name) =>
    Object.entries(found[name].many).map(([way, figures]) => [
      `${name}, ${way}`,
      ...MANY.map((n) => `${each(figures[n])} (${each(figures[n] / figures[1])} ×)`),
    ]),
  );
  return [
    "\n## What diff triggers cost\n",
    `µs for each row that one tab inserts into a JSON view, ${ROWS} in a transaction:\n`,
    table(["", ...names], rows),
    "\nMilliseconds from the commit of one row in one tab to the handler in another:\n",
    table(["", ...names], delays),
    "\nMilliseconds for each single row that one tab writes without pause, the others looking on:\n",
    table(["tabs", ...MANY], many),
    "",
  ].join("\n");
}
