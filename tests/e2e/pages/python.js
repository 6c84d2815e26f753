// Python for a page's main thread or for a worker, which loads, installs what it is told to and runs
// the Python it is sent.
//
// load: { packages, scripts, classic, image }
//                              loads the scripts and Pyodide, in the way of a classic script or of a
//                              module, and the packages, which its lock file names: micropip, as on
//                              the README's pages, would take longer than the start of Python;
//                              `image`: lets Python begin from a copy of one that was started
//                              before, which is made where there is none
// python: "code"               runs it (await allowed); gives its last expression
// spin: milliseconds           keeps this thread busy, so that its process can be told by its load
//
// Python code finds `emit(value)` among its globals: the value arrives at the test at once, also
// when the run that sent it never ends.
globalThis.python = (loadScript, emit) => {
  let pyodide;

  function toPlain(value) {
    if (!value?.toJs) return value;
    const plain = value.toJs({ dict_converter: Object.fromEntries, create_pyproxies: false });
    value.destroy();
    return plain;
  }

  // Most of a test's time would be the start of its Pythons. Sound for tests: holdfast's own worker
  // begins like this too (see javascript/worker.mjs).
  async function start(loadPyodide) {
    const images = await caches.open("tests");
    // A worker's globals are not those of a page: what a worker started is of no use there.
    const key = `/python?${globalThis.constructor.name}`;
    if (!(await images.match(key))) {
      // The one that is copied goes: its `js` is a stand-in, whose accessors fail.
      const copied = await loadPyodide({ _makeSnapshot: true });
      await images.put(key, new Response(copied.makeMemorySnapshot()));
    }
    const kept = await images.match(key);
    return loadPyodide({ _loadSnapshot: await kept.arrayBuffer() });
  }

  return {
    async load({ packages, scripts, classic, image }) {
      for (const url of scripts) await loadScript(url);
      const loaded = await loadScript(`/pyodide/pyodide.${classic ? "js" : "mjs"}`);
      const { loadPyodide } = loaded ?? globalThis;
      pyodide = await (image ? start(loadPyodide) : loadPyodide());
      // It gives nothing back: of a promise Pyodide would keep the arguments, which are gone then.
      pyodide.globals.set("emit", (value) => void emit(toPlain(value)));
      await pyodide.loadPackage(packages, { messageCallback() {} });
    },
    async python(code) {
      return toPlain(await pyodide.runPythonAsync(code));
    },
    spin(milliseconds) {
      const end = performance.now() + milliseconds;
      while (performance.now() < end);
    },
  };
};
