// The processes of a browser's tabs, told apart by the work they do (Linux: /proc).
import { readdirSync, readFileSync } from "node:fs";

function read(pid, file) {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch (error) {
    // A process may end between the listing and this read.
    if (error.code === "ENOENT" || error.code === "ESRCH") return null;
    throw error;
  }
}

// Fields of /proc/PID/stat after the command's closing parenthesis, which may hold spaces
// (proc_pid_stat(5)): 0 state, 1 parent, 11 utime, 12 stime, both in clock ticks of 10 ms.
function stat(pid) {
  const text = read(pid, "stat");
  if (text === null) return null;
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return {
    state: fields[0],
    parent: Number(fields[1]),
    cpu: 10 * (Number(fields[11]) + Number(fields[12])),
  };
}

// The browser's own surfaces (Chromium's address bar has one) are renderers too, busy at its start.
const isTab = (line) =>
  (line.includes(" --type=renderer ") && !line.includes(" --top-chrome-webui ")) ||
  (line.includes(" -contentproc ") && line.endsWith(" tab"));

/** All processes that have not ended: pid -> { state, parent, cpu, line }. */
function processes() {
  const all = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const now = stat(name);
    const line = read(name, "cmdline")?.split("\0").join(" ").trim();
    if (now && line && now.state !== "Z") all.set(Number(name), { ...now, line });
  }
  return all;
}

/** The first process of the browser with this profile folder. */
export function browserProcess(profile) {
  const all = processes();
  const named = [...all].filter(([, { line }]) => line.includes(profile));
  const [first, ...others] = named.filter(([, { parent }]) => !all.get(parent)?.line.includes(profile));
  if (first && others.length === 0) return first[0];
  throw new Error(`${named.length} processes name ${profile}, and none is their first`);
}

/** CPU milliseconds used so far by each tab process of the browser with this profile folder. */
export function tabProcesses(profile) {
  const all = processes();
  // Only the browser's first process is sure to name the profile; the others descend from it.
  const ofBrowser = (pid) => {
    const process = all.get(pid);
    return Boolean(process) && (process.line.includes(profile) || ofBrowser(process.parent));
  };
  const tabs = [...all].filter(([pid, { line }]) => isTab(line) && ofBrowser(pid));
  return new Map(tabs.map(([pid, { cpu }]) => [pid, cpu]));
}

/**
 * The pid of the tab process that `spin(milliseconds)` keeps busy, the `known` ones aside.
 *
 * It spins until one stands out, however little of the processor it gets beside other work. Throws
 * if none does: a wrong guess would kill another tab.
 */
export async function busyProcess(profile, known, spin) {
  const before = tabProcesses(profile);
  let used = [];
  for (let round = 0; round < 400; round += 1) {
    await spin(150);
    used = [...tabProcesses(profile)]
      .filter(([pid]) => !known.has(pid))
      .map(([pid, cpu]) => ({ pid, cpu: cpu - (before.get(pid) ?? 0) }))
      .sort((one, other) => other.cpu - one.cpu);
    const [most, second = { cpu: 0 }] = used;
    if (most && most.cpu >= 150 && most.cpu >= 3 * second.cpu) return most.pid;
  }
  throw new Error(
    `No process stood out by its work: ${JSON.stringify(used)}. ` +
      "Tabs that share a process make a tab's pid unknowable.",
  );
}

/** Whether the process is there and has not ended (a zombie has). */
export function alive(pid) {
  const now = stat(pid);
  return now !== null && now.state !== "Z";
}

/** Whether the process is stopped (SIGSTOP). */
export function stopped(pid) {
  return stat(pid)?.state === "T";
}
