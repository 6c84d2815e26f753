// The tab's dedicated worker: boots Python, installs holdfast's wheel, and then only passes
// messages. What is done with the database is in demo.py.
//
//   page -> worker   { id, call, args }        a method of demo.py's Demo, with its arguments
//   worker -> page   { id, result } | { id, error: { type, message } }
//                    { event, ...data }        whenever something happens
import { loadPyodide } from "/pyodide/pyodide.mjs";

const emit = (event, data) => postMessage({ event, ...data });

async function boot() {
  emit("step", { step: "python" });
  const pyodide = await loadPyodide();

  emit("step", { step: "packages" });
  // On a page of your own this is `await micropip.install("holdfast")`, and PyPI has everything.
  // The demo does without the network: its server holds the wheels, and a lock file their names.
  const [lock, source] = await Promise.all([
    text("/pyodide/pyodide-lock.json").then(JSON.parse),
    text(new URL("demo.py", import.meta.url)),
    pyodide.loadPackage(["micropip", "apsw"], { messageCallback() {} }),
  ]);
  const wheel = new URL(`/pyodide/${lock.packages.holdfast.file_name}`, self.location);
  await pyodide.pyimport("micropip").install(wheel.href);

  pyodide.FS.writeFile("demo.py", source);
  // JSON crosses the border between Python and JavaScript faster than a proxy of each row does.
  const demo = pyodide.pyimport("demo").Demo((event, json) => emit(event, JSON.parse(json)));
  await demo.start();
  return demo;
}

async function text(url) {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url} could not be loaded: HTTP ${response.status}`);
  return response.text();
}

const failure = (error) => ({ type: error.type ?? error.name, message: error.message });

const booted = boot();
booted.catch((error) => emit("failed", failure(error)));

self.onmessage = async ({ data: { id, call, args } }) => {
  try {
    const demo = await booted;
    postMessage({ id, ...JSON.parse(await demo.call(call, JSON.stringify(args))) });
  } catch (error) {
    postMessage({ id, error: failure(error) });
  }
};
