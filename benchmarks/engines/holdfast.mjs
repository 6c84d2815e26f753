// holdfast, as its users have it: Python in a worker. The rows are in workload.py.
import { loadPyodide } from "/pyodide/pyodide.mjs";
import { turns } from "../workload.mjs";

let loading;

async function load() {
  const pyodide = await loadPyodide();
  await pyodide.loadPackage("micropip");
  const [{ wheel }, workload] = await Promise.all([
    fetch("/wheel.json").then((answer) => answer.json()),
    fetch("/benchmarks/workload.py").then((answer) => answer.text()),
  ]);
  const micropip = pyodide.pyimport("micropip");
  await micropip.install(new URL(wheel, location.href).href);
  pyodide.registerJsModule("workload", { turns });
  pyodide.runPython(workload);
  return pyodide;
}

// Any row: a Python function of that name.
export default new Proxy(
  {},
  {
    get(_, row) {
      if (row === "then") return undefined;
      return async (...args) => {
        loading ??= load();
        const pyodide = await loading;
        const call = pyodide.globals.get(row);
        try {
          const result = await call(...args.map((arg) => pyodide.toPy(arg)));
          return result?.toJs ? result.toJs({ dict_converter: Object.fromEntries }) : result;
        } finally {
          call.destroy();
        }
      };
    },
  },
);
