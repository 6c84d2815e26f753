// The worker that has the databases of a page, or of all pages: Python, and what serves a client.
// Part of holdfast.mjs, which makes itself this by its name, one that no application has.
//
// A page's own worker: it is sent what boot() takes, and perhaps { files }; it answers { alive,
// watched }: whether it holds its lock, or { failed }; and { opfs }: why this browser has no OPFS,
// "" for nothing.
//
// One for all pages, a shared worker: see browser/shared.py. Each page's port is sent the same; it
// is answered { life, wanted }: the worker's lock, whether to send the files; or { other }: another
// worker has the databases; or { failed }.
//
// From then on all goes over the port that came along, in the protocol of remote/peer.py.
//
// An error that nobody caught ends nothing but what it was raised in. A Python that failed as a
// whole ends the worker, and its clients hear of it by the lock.
import { loadPython } from "./python.mjs";

if (globalThis.DedicatedWorkerGlobalScope && self.name === "holdfast:worker") runWorker();
if (globalThis.SharedWorkerGlobalScope && /^holdfast-[0-9a-f]{32}$/.test(self.name)) runSharedWorker();

function runWorker() {
  let arrive;
  const files = new Promise((resolve) => (arrive = resolve));
  self.onmessage = ({ data }) => {
    if (data.files) arrive(data.files);
    else boot(data, files).catch((error) => postMessage({ failed: plainError(error) }));
  };
}

// lock      the Web Lock that is held for as long as this worker lives
// port      where the databases are served, python: to a Python
// pyodide   options of loadPyodide; indexURL, where Pyodide is, is needed
// packages  what micropip is to install; left out: `files` are put into site-packages instead,
//           each a name in there and its bytes
async function boot({ lock, port, python, pyodide: options, packages }, files) {
  const noLock = navigator.locks ? await blocked(hold(lock)) : "navigator.locks does not exist";
  postMessage({ alive: true, watched: !noLock });
  whyNoOpfs(noLock).then((opfs) => postMessage({ opfs }));
  const source = packages ? { packages } : files.then((files) => ({ files }));
  const { serve } = await startHoldfast(options, source);
  serve(port, python);
}

// Why this browser has no OPFS for a worker; "" if it has. Only what does not change counts: an API
// that is missing, or site data that is blocked. Whatever else is refused may be had a moment later,
// and nobody may look for the database elsewhere meanwhile: opening it tells.
async function whyNoOpfs(noLock) {
  const why = globalThis.holdfastHost.missing() || noLock;
  return why || blocked(navigator.storage.getDirectory()).catch(() => "");
}

// How the browser says that it blocks the site's data; "" if it does not. Other errors are raised.
async function blocked(asked) {
  try {
    await asked;
    return "";
  } catch (error) {
    if (error.name !== "SecurityError") throw error;
    return `${error.name}: ${error.message}`;
  }
}

// For as long as this worker lives, or until what this gives is called; null: it was not available.
function hold(lock, options = {}) {
  return new Promise((taken, refused) => {
    const have = (lock) => (lock ? new Promise(taken) : taken(null));
    navigator.locks.request(lock, options, have).catch(refused);
  });
}

async function startHoldfast(options, source) {
  const pyodide = await loadPython(options, source);
  // Nothing of it can be called from then on. Those that wait for it see that the lock is free.
  pyodide._api.on_fatal = () => self.close();
  return pyodide.pyimport("holdfast.remote.worker");
}

const plainError = (error) => ({ name: error.name ?? "Error", message: error.message ?? `${error}` });

// `only` is held by the one worker that has the databases. Its `life` tells its version, name and
// address, by which other tabs find it; it is taken first, so that whoever is told of another worker
// finds that. `lock` in what a tab sends is the tab's own, which it holds for as long as it lives.
function runSharedWorker() {
  const only = `holdfast:shared:${globalThis.holdfastHost.version}`;
  const life = `${only}:${self.name}:${location.href}`;
  const isOnly = (async () => {
    const release = await hold(life);
    if (await hold(only, { ifAvailable: true })) return true;
    release();
    return false;
  })();
  let arrive;
  let wanted = true;
  let holdfast;
  // Of the first page that has something: a page that is to send its files may die before.
  const source = new Promise((resolve) => (arrive = resolve));

  async function start(tab, options) {
    try {
      if (await isOnly) {
        tab.postMessage({ life, wanted });
        return await (holdfast ??= startHoldfast(options, source));
      }
      tab.postMessage({ other: true });
    } catch (error) {
      tab.postMessage({ failed: plainError(error) });
    }
    // The next page begins anew.
    self.close();
    return null;
  }

  self.onconnect = ({ ports: [tab] }) => {
    tab.onmessage = async ({ data }) => {
      const { files, packages } = data;
      if (files || packages) {
        wanted = false;
        arrive(files ? { files } : { packages });
      }
      if (files) return;
      const { lock, port, python, pyodide: options } = data;
      const started = await start(tab, options);
      // What fails here is this tab's alone.
      started?.serve_tab(port, python, lock).catch((error) => {
        console.error("holdfast: a tab cannot be served:", error);
        tab.postMessage({ failed: plainError(error) });
      });
    };
  };
}
