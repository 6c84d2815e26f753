// What worker.mjs can be asked to do, for a page whose Python is on its main thread.
//
// load: { packages, scripts }  loads the scripts and Pyodide, and micropip.install()s the packages
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

  return {
    async load({ packages, scripts, classic }) {
      for (const url of scripts) await loadScript(url);
      const loaded = await loadScript(`/pyodide/pyodide.${classic ? "js" : "mjs"}`);
      const { loadPyodide } = loaded ?? globalThis;
      pyodide = await loadPyodide();
      // It gives nothing back: of a promise Pyodide would keep the arguments, which are gone then.
      pyodide.globals.set("emit", (value) => void emit(toPlain(value)));
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
};
