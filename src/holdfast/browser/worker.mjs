// The worker that has the databases of a page, or of all pages: Python, and what serves a client.
// Part of holdfast.mjs, which makes itself this by its name.
//
// A page's own worker: it is sent what boot() takes, and perhaps { files }; it answers { alive } or
// { failed }, and { opfs }: why there is no OPFS, "" for nothing.
//
// One for all pages, a shared worker: see browser/shared.py. Each page's port is sent the same; it
// is answered { life, wanted }: the worker's lock, whether to send the files; or { failed }.
//
// From then on all goes over the port that came along, in the protocol of remote/peer.py.

if (globalThis.DedicatedWorkerGlobalScope && self.name === "holdfast") runWorker();
if (globalThis.SharedWorkerGlobalScope && self.name.startsWith("holdfast-")) runSharedWorker();

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
async function boot({ lock, port, python, ...load }, files) {
  await hold(lock);
  postMessage({ alive: true });
  globalThis.holdfastHost.tryOpfs().then((opfs) => postMessage({ opfs }));
  const pyodide = await loadPython(load, files);
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

async function loadPython({ pyodide: options, packages }, files) {
  const pyodide = await startPython(options);
  if (packages) {
    await pyodide.loadPackage("micropip");
    await pyodide.pyimport("micropip").install(packages);
  } else {
    putFiles(pyodide, await files);
  }
  return pyodide;
}

// The lock that is held for as long as it lives tells its version, name and address, by which other
// tabs find it. `lock` in what a tab sends is the tab's own, which it holds for as long as it lives.
function runSharedWorker() {
  const life = `holdfast:shared:${globalThis.holdfastHost.version}:${self.name}:${location.href}`;
  const alive = hold(life);
  let arrive;
  let wanted = true;
  let python;
  const files = new Promise((resolve) => (arrive = resolve));
  self.onconnect = ({ ports: [tab] }) => {
    tab.onmessage = async ({ data }) => {
      if (data.files) {
        wanted = false;
        arrive(data.files);
        return;
      }
      const { lock, port, python: isPython, ...load } = data;
      try {
        await alive;
        tab.postMessage({ life, wanted });
        python ??= loadPython(load, files);
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

function putFiles({ FS, pyimport }, files) {
  const packages = pyimport("sysconfig").get_path("purelib");
  for (const [name, bytes] of files) {
    const path = `${packages}/${name}`;
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    FS.writeFile(path, bytes);
  }
  pyimport("importlib").invalidate_caches();
}

// -- Python's start -------------------------------------------------------------------------------
//
// Starting Python is most of what a worker does before its first row. The memory of one that has
// just started is kept, compressed, in a Cache of the origin, and the next worker begins with that.
// Nothing of a page is in it, nor of holdfast: the standard library only. Pyodide's own means
// (_makeSnapshot, _loadSnapshot) refuse an image of another build; whatever they refuse is made anew.

const IMAGES = "holdfast-python";

// What holdfast imports of the standard library, or that is under what it imports.
const IMPORTS = `
import asyncio, base64, contextlib, csv, ctypes, dataclasses, datetime, email.message, email.parser
import importlib.metadata, importlib.resources, inspect, json, logging, marshal, random, traceback
import types, typing, uuid, zipfile
import pyodide.code, pyodide.ffi, pyodide.webloop
`;

// Packing an image takes a second of this worker's time: not while its first rows are waited for.
const KEEP_AFTER = 5_000; // milliseconds

async function startPython(options) {
  const module = new URL("pyodide.mjs", options.indexURL).href;
  const [{ loadPyodide, version }, images] = await Promise.all([
    import(module),
    globalThis.caches?.open(IMAGES).catch(() => undefined), // refused where storage is blocked
  ]);
  const key = `${module}?image=${version}`;
  const kept = await images?.match(key);
  if (kept) {
    try {
      const memory = kept.body.pipeThrough(new DecompressionStream("gzip"));
      const _loadSnapshot = new Response(memory).arrayBuffer();
      const pyodide = await loadPyodide({ ...options, _loadSnapshot });
      // Else every worker would draw the same numbers from here on.
      pyodide.runPython("import random; random.seed()");
      performance.mark("holdfast: python from its image");
      return pyodide;
    } catch (error) {
      console.warn("holdfast: the image of Python is of no use, and is made anew:", error);
      await images.delete(key);
    }
  }
  const pyodide = await loadPyodide({ ...options, _makeSnapshot: Boolean(images) });
  performance.mark("holdfast: python started");
  if (images) {
    pyodide.runPython(IMPORTS);
    const memory = pyodide.makeMemorySnapshot();
    setTimeout(() => keepImage(images, key, memory), KEEP_AFTER);
  }
  return pyodide;
}

// Of all tabs that start at once one is enough; those of other versions are of no use any more.
async function keepImage(images, key, memory) {
  try {
    await navigator.locks.request(IMAGES, { ifAvailable: true }, async (lock) => {
      if (!lock || (await images.match(key))) return;
      for (const { url } of await images.keys()) await images.delete(url);
      const packed = new Blob([memory]).stream().pipeThrough(new CompressionStream("gzip"));
      await images.put(key, new Response(packed));
    });
  } catch (error) {
    console.debug("holdfast: the image of Python was not kept:", error); // no space, most likely
  }
}
