// apsw.speedtest in a worker of its own: see speedtest.py.
import { loadPyodide } from "/pyodide/pyodide.mjs";

let loading;

async function load() {
  const pyodide = await loadPyodide();
  await pyodide.loadPackage("micropip");
  const [{ wheel }, program] = await Promise.all([
    fetch("/wheel.json").then((answer) => answer.json()),
    fetch("/benchmarks/speedtest.py").then((answer) => answer.text()),
  ]);
  const micropip = pyodide.pyimport("micropip");
  await micropip.install(new URL(wheel, location.href).href);
  pyodide.runPython(program);
  return pyodide;
}

export default {
  async run(where, scale) {
    loading ??= load();
    const pyodide = await loading;
    return (await pyodide.globals.get("run")(where, scale)).toJs();
  },
};
