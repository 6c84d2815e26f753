// Tabs transfer between accounts and look at them, while others die, stop and come back; then the
// history is checked. HISTORY_SECONDS says for how long, HISTORY_SEED repeats a choice of deaths.
import { expect, test } from "./tabs.mjs";
import { violations } from "./history.mjs";

const ACCOUNTS = 10;
const SUM = ACCOUNTS * 100;

const open = `
import asyncio, random, time, holdfast
db = await holdfast.open("history.db", busy_timeout=60)
async with db.write_transaction() as tx:
    await tx.execute("CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, n INTEGER)")
    await tx.execute("CREATE TABLE IF NOT EXISTS log(version INTEGER, id TEXT)")
    for id in range(${ACCOUNTS}):
        await tx.execute("INSERT OR IGNORE INTO account VALUES(?, 100)", (id,))
`;

const LOOK = "SELECT (SELECT max(version) FROM log), (SELECT sum(n) FROM account), (SELECT count(*) FROM log)";

const work = (tab, seed) => `
chance = random.Random(${seed})
running = True

# Together, some times in a second: one by one they would pile up where the test is slow to take them,
# and everything else would wait behind them.
untold = []

def tell(id, what, **more):
    if not untold:
        asyncio.get_running_loop().call_later(0.03, tell_all)
    untold.append({"tab": ${tab}, "id": id, "what": what, "at": time.time() * 1e3, **more})

def tell_all():
    if untold:
        emit(untold)
        untold.clear()

async def look(tx):
    version, total, rows = await tx.fetch_one("${LOOK}")
    return {"version": version or 0, "sum": total, "rows": rows}

async def write(id):
    tell(id, "write")
    try:
        async with db.write_transaction() as tx:
            version = (await tx.fetch_value("SELECT max(version) FROM log") or 0) + 1
            one, other = chance.sample(range(${ACCOUNTS}), 2)
            amount = chance.randrange(50)
            n = await tx.fetch_value("SELECT n FROM account WHERE id = ?", (one,))
            await tx.execute("UPDATE account SET n = ? WHERE id = ?", (n - amount, one))
            if chance.random() < 0.3:
                await asyncio.sleep(chance.random() * 0.005)
            await tx.execute("UPDATE account SET n = n + ? WHERE id = ?", (amount, other))
            await tx.execute("INSERT INTO log VALUES(?, ?)", (version, id))
    except holdfast.DatabaseBusyError:
        tell(id, "refused")
    else:
        tell(id, "written", version=version)

async def read(id):
    tell(id, "read")
    async with db.read_transaction() as tx:
        first = await look(tx)
        await asyncio.sleep(chance.random() * 0.005)
        second = await look(tx)
    tell(id, "seen", first=first, second=second)

async def work():
    number = 0
    while running:
        number += 1
        await (write if chance.random() < 0.6 else read)(f"${tab}.{number}")
        if chance.random() < 0.2:
            await asyncio.sleep(chance.random() * 0.02)

working = asyncio.ensure_future(work())
`;

/** Numbers in [0, 1) that a seed decides: mulberry32, a well-known small generator. */
function random(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

test("nothing is lost or torn, whoever dies or stops", async ({ openTab }) => {
  const seconds = Number(process.env.HISTORY_SECONDS ?? 15);
  const seed = Number(process.env.HISTORY_SEED ?? Math.floor(Math.random() * 1e9));
  test.setTimeout(180_000 + seconds * 3_000);
  console.log(`HISTORY_SEED=${seed}`);
  const chance = random(seed);
  const all = [];
  const tabs = [];
  const died = [];
  let count = 0;
  const start = async () => {
    const tab = await openTab();
    tab.number = count += 1;
    await tab.run(open);
    await tab.run(work(tab.number, Math.floor(chance() * 1e9)));
    tabs.push(tab);
    all.push(tab);
  };

  for (let n = 0; n < 3; n += 1) await start();
  const deaths = {
    close: (tab) => tab.close(),
    terminate: (tab) => tab.terminateWorker(),
    kill: (tab) => tab.killRenderer(),
    async stop(tab) {
      await tab.stop();
      await new Promise((resolve) => setTimeout(resolve, 200 + chance() * 600));
      tab.resume();
      return "lives";
    },
  };
  const done = [];
  const heard = () => all.flatMap((tab) => tab.events.flat());
  const told = (kind) => heard().filter(({ what }) => what === kind).length;
  // And until so much was done that something could have gone wrong.
  const enough = () => done.length >= 3 && told("written") > 50 && told("seen") > 50;
  for (const until = Date.now() + seconds * 1000; Date.now() < until || !enough(); ) {
    // The others go on meanwhile: this is the time that they have for it.
    await new Promise((resolve) => setTimeout(resolve, 200 + chance() * 800));
    const names = Object.keys(deaths);
    const how = names[Math.floor(chance() * names.length)];
    const tab = tabs[Math.floor(chance() * tabs.length)];
    done.push(how);
    if ((await deaths[how](tab)) === "lives") continue;
    tabs.splice(tabs.indexOf(tab), 1);
    died.push(tab.number);
    await start();
  }

  for (const tab of tabs) await tab.run(`running = False\nawait working\ntell_all()\nawait db.close()`);
  const last = await openTab();
  await last.run(open);
  const left = {
    log: await last.run(`[list(row) for row in await db.fetch_all("SELECT * FROM log ORDER BY version")]`),
    sum: await last.run(`await db.fetch_value("SELECT sum(n) FROM account")`),
    integrity: await last.run(`await db.fetch_value("PRAGMA integrity_check")`),
  };
  // Only now: what a tab said before it died may have come after its death.
  const events = heard();
  console.log(`${told("written")} writes and ${told("seen")} reads acknowledged, ${left.log.length} in the log; ${done.join(", ")}`);
  expect(violations({ events, left, sum: SUM, died })).toEqual([]);
});
