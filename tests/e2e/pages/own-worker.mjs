// A worker of an application's own that uses holdfast.mjs: dedicated, or a service worker. It runs
// the function whose source it is sent, with `holdfast` and an argument, and answers over the port
// that came along.
import * as holdfast from "/pyodide/holdfast.mjs";

self.addEventListener("message", async ({ data: { source, argument }, ports: [port] }) => {
  try {
    const work = (0, eval)(`(${source})`);
    port.postMessage({ result: await work(holdfast, argument) });
  } catch ({ name, message }) {
    port.postMessage({ error: `${name}: ${message}` });
  }
});
