// The section on apsw.speedtest: SQLite's own speed test, on OPFS beside a database in memory.
const SCALE = 2; // of the program: 20,000 rows in each of two tables

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

/** Seconds of each run, by where the database is. */
export async function speedtest(context, origin, rounds) {
  const page = await context.newPage();
  await page.goto(`${origin}/benchmarks/page.html`);
  await page.waitForFunction(() => window.ready);
  const found = { memory: [], opfs: [] };
  const run = (where) =>
    page.evaluate((args) => window.call("apsw.speedtest", "run", args), [where, SCALE]);
  for (let round = 0; round < rounds; round += 1) {
    for (const where of Object.keys(found)) found[where].push(...(await run(where)));
  }
  await page.close();
  return found;
}

export function section(found) {
  const [memory, opfs] = [median(found.memory), median(found.opfs)];
  return [
    "\n## apsw.speedtest\n",
    `On the VFS over OPFS, durable: ${opfs.toFixed(2)} s; the same in memory: ` +
      `${memory.toFixed(2)} s; that is ${(opfs / memory).toFixed(2)} × (medians of ` +
      `${found.opfs.length} runs, scale ${SCALE}, "statements"). On OPFS it vacuums too, which ` +
      "the program leaves out in memory.\n",
  ].join("\n");
}
