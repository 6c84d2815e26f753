// The worker that has the databases of a page, or of all pages: Python, and what serves a client.
// Part of holdfast.mjs, which makes itself this by its name, one that no application has.
//
// A page's own worker: it is sent what boot() takes, and perhaps { files }; it answers { alive } or
// { failed }, and { opfs }: why there is no OPFS, "" for nothing.
//
// One for all pages, a shared worker: see browser/shared.py. Each page's port is sent the same; it
// is answered { life, wanted }: the worker's lock, whether to send the files; or { failed }.
//
// From then on all goes over the port that came along, in the protocol of remote/peer.py.
import { loadPython } from "./python.mjs";

if (globalThis.DedicatedWorkerGlobalScope && self.name === "holdfast:worker") runWorker();
if (globalThis.SharedWorkerGlobalScope && /^holdfast-[0-9a-f]{32}$/.test(self.name)) runSharedWorker();

function runWorker() {
  let arrive;
  const files = new Promise((resolve) => (arrive = resolve));
  const failed = (error) =>
    postMessage({ failed: { name: error.name ?? "Error", message: error.message ?? `${error}` } });
  self.onmessage = ({ data }) => {
    if (data.files) arrive(data.files);
    else boot(data, files).catch(failed);
  };
}

// lock      the Web Lock that is held for as long as this worker lives
// port      where the databases are served, python: to a Python
// pyodide   options of loadPyodide; indexURL, where Pyodide is, is needed
// packages  what micropip is to install; left out: `files` are put into site-packages instead,
//           each a name in there and its bytes
async function boot({ lock, port, python, pyodide: options, packages }, files) {
  await hold(lock);
  postMessage({ alive: true });
  globalThis.holdfastHost.tryOpfs().then((opfs) => postMessage({ opfs }));
  const source = packages ? { packages } : files.then((files) => ({ files }));
  const pyodide = await loadPython(options, source);
  pyodide.pyimport("holdfast.remote.worker").serve(port, python);
}

// For as long as this worker lives.
function hold(lock) {
  return new Promise((taken) => {
    navigator.locks.request(lock, () => {
      taken();
      return new Promise(() => {});
    });
  });
}

// The lock that is held for as long as it lives tells its version, name and address, by which other
// tabs find it. `lock` in what a tab sends is the tab's own, which it holds for as long as it lives.
function runSharedWorker() {
  const life = `holdfast:shared:${globalThis.holdfastHost.version}:${self.name}:${location.href}`;
  const alive = hold(life);
  let arrive;
  let wanted = true;
  let python;
  // Of the first page that has something: a page that is to send its files may die before.
  const source = new Promise((resolve) => (arrive = resolve));
  self.onconnect = ({ ports: [tab] }) => {
    tab.onmessage = async ({ data }) => {
      const { files, packages } = data;
      if (files || packages) {
        wanted = false;
        arrive(files ? { files } : { packages });
      }
      if (files) return;
      const { lock, port, python: isPython, pyodide: options } = data;
      try {
        await alive;
        tab.postMessage({ life, wanted });
        python ??= loadPython(options, source);
        const pyodide = await python;
        pyodide.pyimport("holdfast.remote.worker").serve_tab(port, isPython, lock);
      } catch (error) {
        const { name = "Error", message = `${error}` } = error;
        tab.postMessage({ failed: { name, message } });
        // Whoever comes next begins anew.
        self.close();
      }
    };
  };
}
