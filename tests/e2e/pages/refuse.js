// A worker whose browser refuses. By the query of the worker's address, from the start:
//
//   locks=<name>      every Web Lock, with a DOMException of that name
//   opfs=<name>       OPFS
//
// and by what is posted to new BroadcastChannel("refuse"):
//
//   "a tab"           the next lock of a tab that the worker asks for
//   "nothing caught"  an error and a rejection that nobody catches
const asked = new URLSearchParams(location.search);
const reject = (name) => Promise.reject(new DOMException("refused by the test", name));

let tab = false;
const { request } = LockManager.prototype;
navigator.locks.request = function (name, ...rest) {
  if (asked.has("locks")) return reject(asked.get("locks"));
  if (!tab || !name.startsWith("holdfast:tab:")) return request.call(this, name, ...rest);
  tab = false;
  return reject("UnknownError");
};
if (asked.has("opfs")) navigator.storage.getDirectory = () => reject(asked.get("opfs"));

const told = new BroadcastChannel("refuse");
told.onmessage = ({ data }) => {
  if (data === "a tab") tab = true;
  if (data === "nothing caught") {
    Promise.reject(new Error("a rejection of nobody's"));
    setTimeout(() => told.postMessage("thrown"));
    throw new Error("an error of nobody's");
  }
};
