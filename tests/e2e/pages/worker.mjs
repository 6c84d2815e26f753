// A bare Pyodide worker: it loads, installs what it is told to and runs the Python it is sent.
//
// { id, load: { packages, scripts, classic, ignoreMode } }
//                             loads the scripts and Pyodide, in the way of a classic or a module
//                             worker, and micropip.install()s the packages; `ignoreMode` makes the
//                             browser one that knows no mode of file handles
// { id, python }              runs the code (await allowed) and answers its last expression
// { id, spin: milliseconds }  keeps this thread busy, so that its process can be told by its load
//
// Python code finds `emit(value)` among its globals: the value arrives at the test at once, also
// when the run that sent it never ends.
let pyodide;

function toPlain(value) {
  if (!value?.toJs) return value;
  const plain = value.toJs({ dict_converter: Object.fromEntries, create_pyproxies: false });
  value.destroy();
  return plain;
}

// As in browsers that do not know the option: each handle is exclusive.
function ignoreModes() {
  const handle = FileSystemFileHandle.prototype;
  const create = handle.createSyncAccessHandle;
  handle.createSyncAccessHandle = function () {
    return create.call(this);
  };
}

const actions = {
  async load({ packages, scripts, classic, ignoreMode }) {
    if (ignoreMode) ignoreModes();
    const load = async (url) => (classic ? importScripts(url) : import(url));
    for (const url of scripts) await load(url);
    const { loadPyodide } = (await load(`/pyodide/pyodide.${classic ? "js" : "mjs"}`)) ?? self;
    pyodide = await loadPyodide();
    pyodide.globals.set("emit", (value) => postMessage({ event: toPlain(value) }));
    await pyodide.loadPackage("micropip");
    const micropip = pyodide.pyimport("micropip");
    for (const name of packages) await micropip.install(name);
    micropip.destroy();
  },
  async python(code) {
    return toPlain(await pyodide.runPythonAsync(code));
  },
  spin(milliseconds) {
    const end = performance.now() + milliseconds;
    while (performance.now() < end);
  },
};

self.onmessage = async ({ data: { id, ...message } }) => {
  const [[action, argument]] = Object.entries(message);
  try {
    postMessage({ id, result: await actions[action](argument) });
  } catch (error) {
    postMessage({ id, error: String(error.message ?? error) });
  }
};
