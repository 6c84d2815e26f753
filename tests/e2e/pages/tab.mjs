// The page's side of a tab: Python in one dedicated worker, or (?thread=shared) in a shared worker
// of its own, or (?thread=holdfast) in one that is named as those that holdfast starts, or
// (?thread=page) in the page itself.
// It knows nothing of holdfast, so that what passes here passes on anybody's page.

const options = new URLSearchParams(location.search);
const thread = options.get("thread") ?? "worker";
const inPage = thread === "page";

let worker;
let port; // by which messages go
let calls = new Map();
let lastCall = 0;

function startWorker() {
  calls = new Map();
  const type = options.get("worker") ?? "module";
  const url = new URL("worker.mjs", import.meta.url);
  if (["shared", "holdfast"].includes(thread)) {
    worker = new SharedWorker(url, { type, name: `${thread}-${crypto.randomUUID()}` });
    port = worker.port;
  } else {
    worker = port = new Worker(url, { type, name: type });
  }
  port.onmessage = ({ data }) => {
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

function callWorker(message) {
  const id = ++lastCall;
  return new Promise((resolve, reject) => {
    calls.set(id, { resolve, reject });
    port.postMessage({ ...message, id });
  });
}

let actions;
// The workers that the page's Python starts; the first is terminated in place of the tab's own.
const started = [];

async function startPage() {
  await import("/e2e/python.js");
  actions = globalThis.python(
    (url) => import(url),
    (event) => window.holdfastEvent?.(event),
  );
  const { Worker } = globalThis;
  globalThis.Worker = class extends Worker {
    constructor(...args) {
      super(...args);
      started.push(this);
    }
  };
}

async function callPage(message) {
  const [[action, argument]] = Object.entries(message);
  return actions[action](argument);
}

if (inPage) await startPage();
else startWorker();

window.tab = {
  call: inPage ? callPage : callWorker,
  terminateWorker() {
    if (inPage) started.pop().terminate();
    else worker.terminate();
    failAll("the worker was terminated");
  },
  restartWorker: startWorker,
};
