// A bare Pyodide worker, in module or classic form (its name): it does what python.js can, as
// { id, [action]: argument } and { id, result } or { id, error }; { event } comes from emit().
// { id, load: { …, ignoreMode } } makes the browser one that knows no mode of file handles. A shared
// worker belongs to one tab all the same.

// As in browsers that do not know the option: each handle is exclusive.
function ignoreModes() {
  const handle = FileSystemFileHandle.prototype;
  const create = handle.createSyncAccessHandle;
  handle.createSyncAccessHandle = function () {
    return create.call(this);
  };
}

const loadScript = async (url) => (self.name === "classic" ? importScripts(url) : import(url));

const started = loadScript(new URL("python.js", location).href).then(() =>
  globalThis.python(loadScript, (event) => tab.postMessage({ event })),
);

async function answer({ data: { id, ...message } }) {
  const [[action, argument]] = Object.entries(message);
  try {
    if (argument.ignoreMode) ignoreModes();
    tab.postMessage({ id, result: await (await started)[action](argument) });
  } catch (error) {
    tab.postMessage({ id, error: String(error.message ?? error) });
  }
}

let tab = self;
if (globalThis.SharedWorkerGlobalScope) {
  self.onconnect = ({ ports: [port] }) => {
    tab = port;
    tab.onmessage = answer;
  };
} else {
  tab.onmessage = answer;
}
