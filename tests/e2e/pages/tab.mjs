// The page's side of a tab: one dedicated worker with Pyodide, and calls into it.
// It knows nothing of holdfast, so that what passes here passes on anybody's page.

let worker;
let calls = new Map();
let lastCall = 0;

function startWorker() {
  calls = new Map();
  const type = new URLSearchParams(location.search).get("worker") ?? "module";
  worker = new Worker(new URL("worker.mjs", import.meta.url), { type });
  worker.onmessage = ({ data }) => {
    if ("event" in data) {
      window.holdfastEvent?.(data.event);
      return;
    }
    const call = calls.get(data.id);
    calls.delete(data.id);
    if ("error" in data) call.reject(new Error(data.error));
    else call.resolve(data.result);
  };
  worker.onerror = (event) => failAll(`the worker failed: ${event.message}`);
}

function failAll(why) {
  for (const call of calls.values()) call.reject(new Error(why));
  calls.clear();
}

function call(message) {
  const id = ++lastCall;
  return new Promise((resolve, reject) => {
    calls.set(id, { resolve, reject });
    worker.postMessage({ ...message, id });
  });
}

window.tab = {
  call,
  terminateWorker() {
    worker.terminate();
    failAll("the worker was terminated");
  },
  restartWorker: startWorker,
};

startWorker();
