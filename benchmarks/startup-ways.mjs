// The ways from a navigation to the first row; runs in the page and, for "worker", in its worker.
const now = () => performance.timeOrigin + performance.now();

async function python(marks, wheel) {
  const { loadPyodide } = await import("/pyodide/pyodide.mjs");
  const pyodide = await loadPyodide();
  marks.push(["Pyodide", now()]);
  await pyodide.loadPackage("micropip", { messageCallback() {} });
  await pyodide.pyimport("micropip").install(wheel);
  marks.push(["micropip: apsw, holdfast", now()]);
  pyodide.runPython("import holdfast");
  marks.push(["import holdfast", now()]);
  await pyodide.runPythonAsync('db = await holdfast.open("startup.db")');
  marks.push(["open", now()]);
  await pyodide.runPythonAsync('await db.fetch_value("SELECT count(*) FROM sqlite_master")');
  marks.push(["first row", now()]);
  return marks;
}

async function javascript(marks, wheel) {
  const { open } = await import("/pyodide/holdfast.mjs");
  marks.push(["holdfast.mjs", now()]);
  const db = await open("startup.db", { pyodide: "/pyodide/", packages: [wheel] });
  marks.push(["open", now()]);
  await db.fetchValue("SELECT count(*) FROM sqlite_master");
  marks.push(["first row", now()]);
  return marks;
}

const ways = {
  page: python,
  javascript,
  worker(marks, wheel) {
    const worker = new Worker(import.meta.url, { type: "module", name: "startup" });
    worker.postMessage(wheel);
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve([...marks, ...data]);
      worker.onerror = ({ message }) => reject(new Error(message));
    });
  },
};

if (globalThis.name === "startup" && globalThis.WorkerGlobalScope) {
  onmessage = async ({ data: wheel }) => postMessage(await python([["worker", now()]], wheel));
}

export async function times(way, wheel) {
  const marks = await ways[way]([["page", now()]], wheel);
  return marks.map(([what, at]) => [what, at - performance.timeOrigin]);
}
