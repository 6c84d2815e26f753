// A worker without synchronous access to files; and one that ends at the put that a test chooses:
//
//   new BroadcastChannel("weaken").postMessage(n)   // at the n-th put to IndexedDB from now on
delete globalThis.FileSystemFileHandle?.prototype.createSyncAccessHandle;

let left = Infinity;
new BroadcastChannel("weaken").onmessage = ({ data }) => (left = data);
const { put } = IDBObjectStore.prototype;
IDBObjectStore.prototype.put = function (...args) {
  left -= 1;
  if (left === 0) self.close();
  return put.apply(this, args);
};
