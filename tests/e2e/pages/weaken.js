// A worker without synchronous access to files; and one that ends, or hangs, where a test chooses:
//
//   const weaken = new BroadcastChannel("weaken");
//   weaken.postMessage(n)                           // it ends at the n-th put to IndexedDB from now on
//   weaken.postMessage({ hangs: n, at: "put" })     // it hangs there, busy, and says "hanging"
//   weaken.postMessage({ hangs: n, at: "commit" })  // it hangs when the n-th commit was asked for
delete globalThis.FileSystemFileHandle?.prototype.createSyncAccessHandle;

let left = { put: Infinity, commit: Infinity };
let hangs = false;
const weaken = new BroadcastChannel("weaken");
weaken.onmessage = ({ data }) => {
  hangs = typeof data === "object";
  left = { put: Infinity, commit: Infinity, [data.at ?? "put"]: data.hangs ?? data };
};

function weak(at) {
  left[at] -= 1;
  if (left[at] !== 0) return;
  if (!hangs) self.close();
  else weaken.postMessage("hanging");
  while (hangs);
}

const { put } = IDBObjectStore.prototype;
IDBObjectStore.prototype.put = function (...args) {
  weak("put");
  return put.apply(this, args);
};
const { commit } = IDBTransaction.prototype;
IDBTransaction.prototype.commit = function () {
  commit.call(this);
  weak("commit");
};
