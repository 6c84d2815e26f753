// Checks what several tabs did to one database: a history of operations against what is left.
//
// Every write adds 1 to a version that it read and appends a row of the log with the new version, so
// the committed writes form one chain; with it goes a transfer between accounts, whose sum is fixed.
//
//   event    { tab, id, what, at, … }, `at` in milliseconds on one clock
//   what     "write" (invoked) · "written" { version } · "refused": certainly not done ·
//            "read" (invoked) · "seen" { first, second }, two looks in one read transaction
//   look     { version, sum, rows }
//   id       "tab.number", the numbers of a tab in the order of its operations
//   left     { log: [[version, id], …], sum, integrity }
//   died     the tabs that ended without warning: their last events may not have reached us, so that
//            they may have written what comes after everything that we heard of them

// Clocks of different processes agree to within this, in milliseconds.
const CLOCK = 5;

const numbers = (id) => id.split(".").map(Number);

/** Everything that no correct database could have done, as texts; [] for nothing. */
export function violations({ events, left, sum, died }) {
  const found = [];
  const invoked = new Map();
  const written = [];
  const refused = new Set();
  const heard = new Map();
  for (const event of events) {
    if (event.what === "write" || event.what === "read") {
      invoked.set(event.id, event);
      heard.set(event.tab, Math.max(heard.get(event.tab) ?? 0, numbers(event.id)[1]));
    }
    if (event.what === "written") written.push(event);
    if (event.what === "refused") refused.add(event.id);
  }

  const unheard = (id) => {
    const [tab, number] = numbers(id);
    return died.includes(tab) && number > (heard.get(tab) ?? 0);
  };

  // The chain: versions 1, 2, 3, … each by one write.
  const versions = new Map();
  left.log.forEach(([version, id], i) => {
    if (version !== i + 1) found.push(`version ${i + 1} of the log is ${version}: an update was lost`);
    if (versions.has(id)) found.push(`${id} is in the log twice`);
    versions.set(id, version);
    if (!invoked.has(id) && !unheard(id)) {
      found.push(`${id} is in the log, and nobody wrote it`);
    }
    if (refused.has(id)) found.push(`${id} was refused, and is in the log`);
  });
  for (const { id, version } of written) {
    if (versions.get(id) !== version) {
      found.push(`${id} was acknowledged as version ${version}; the log has ${versions.get(id)}`);
    }
  }
  if (left.sum !== sum) found.push(`the accounts end with ${left.sum} instead of ${sum}`);
  if (left.integrity !== "ok") found.push(`integrity_check: ${left.integrity}`);

  // Reads: whole states only, the same one throughout, and none older than what was acknowledged.
  const acknowledged = [...written].sort((one, other) => one.at - other.at);
  const newest = (at) => {
    let version = 0;
    for (const event of acknowledged) {
      if (event.at + CLOCK >= at) break;
      version = Math.max(version, event.version);
    }
    return version;
  };
  for (const { id, what, first, second } of events) {
    if (what !== "seen") continue;
    for (const look of [first, second]) {
      if (look.sum !== sum) found.push(`${id} saw accounts with ${look.sum}: a dirty read`);
      if (look.rows !== look.version) {
        found.push(`${id} saw ${look.rows} rows at version ${look.version}: half a transaction`);
      }
    }
    if (first.version !== second.version || first.sum !== second.sum) {
      found.push(`${id} saw versions ${first.version} and ${second.version} in one transaction`);
    }
    const least = newest(invoked.get(id).at);
    if (first.version < least) {
      found.push(`${id} saw version ${first.version}, after ${least} was acknowledged`);
    }
    if (first.version > left.log.length) {
      found.push(`${id} saw version ${first.version}, which is gone`);
    }
  }
  // A write that began after another was acknowledged comes later in the chain.
  for (const { id, version } of written) {
    const least = newest(invoked.get(id).at);
    if (version <= least) found.push(`${id} is version ${version}, after ${least} was acknowledged`);
  }
  return found;
}
