// Renderer processes of a browser, told apart by the work they do (Linux: /proc).
import { readdirSync, readFileSync } from "node:fs";

// Fields of /proc/PID/stat after the command's closing parenthesis, which may hold spaces
// (proc_pid_stat(5)): 0 state, 1 ppid, 11 utime, 12 stime, both in clock ticks of 10 ms.
function stat(pid) {
  try {
    const text = readFileSync(`/proc/${pid}/stat`, "latin1");
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0], cpu: 10 * (Number(fields[11]) + Number(fields[12])) };
  } catch (error) {
    // A process may end between the listing and this read.
    if (error.code === "ENOENT" || error.code === "ESRCH") return null;
    throw error;
  }
}

function arguments_(pid) {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "latin1").split("\0").join(" ");
  } catch (error) {
    if (error.code === "ENOENT" || error.code === "ESRCH") return "";
    throw error;
  }
}

/** CPU milliseconds used so far by each renderer of the browser with this profile folder. */
function renderers(profile) {
  const used = new Map();
  for (const name of readdirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    const line = arguments_(name);
    if (!line.includes("--type=renderer") || !line.includes(profile)) continue;
    // The browser's own surfaces (its address bar's popup) are renderers too, busy at its start.
    if (line.includes("--top-chrome-webui")) continue;
    const now = stat(name);
    if (now && now.state !== "Z") used.set(Number(name), now.cpu);
  }
  return used;
}

/**
 * The pid of the renderer that `spin(milliseconds)` keeps busy, the `known` ones aside.
 * Throws unless exactly one stands out: a wrong guess would kill another tab.
 */
export async function busyRenderer(profile, known, spin) {
  const length = 300;
  const before = renderers(profile);
  await spin(length);
  const after = renderers(profile);
  const busy = [...after].filter(
    ([pid, cpu]) => !known.has(pid) && cpu - (before.get(pid) ?? 0) >= 0.6 * length,
  );
  if (busy.length !== 1) {
    throw new Error(
      `${busy.length} renderers were busy, not one: ${JSON.stringify(busy)}. ` +
        "Tabs that share a process, or other work at the same time, make a tab's pid unknowable.",
    );
  }
  return busy[0][0];
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
