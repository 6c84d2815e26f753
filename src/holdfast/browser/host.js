// The JavaScript under holdfast: file handles for the VFS, IndexedDB, locks, channels.
//
// Python loads this file from its package data. Under a Content-Security-Policy without
// 'unsafe-eval' a page serves it itself and loads it in the worker before Python imports holdfast
// (importScripts or a module import); it defines globalThis.holdfastHost, once.
//
// A handle is named by a small number, its "file", which the VFS passes back at each call.

globalThis.holdfastHost ??= (() => {
  // The package's: Python and a host.js that a page serves itself have to be of one version.
  const version = "0.1.0";
  const ERROR = -1;
  const FULL = -2;

  const entries = []; // file -> FileSystemFileHandle
  const handles = []; // file -> FileSystemSyncAccessHandle, or null while it is not open
  const unused = []; // numbers of files that were forgotten
  const at = { at: 0 }; // reused: one object less for each call

  function failed(error) {
    return error.name === "QuotaExceededError" ? FULL : ERROR;
  }

  let module; // Pyodide's Emscripten module

  const useModule = (pyodides) => {
    module = pyodides;
  };

  // The five functions that the VFS calls, as indexes of the module's function table: read, write,
  // truncate, size, flush.
  function install() {
    const view = (pointer, n) => module.HEAPU8.subarray(pointer >>> 0, (pointer >>> 0) + n);
    const functions = [
      [
        "iiiid",
        (file, pointer, n, offset) => {
          try {
            at.at = offset;
            return handles[file].read(view(pointer, n), at);
          } catch (error) {
            return failed(error);
          }
        },
      ],
      [
        "iiiid",
        (file, pointer, n, offset) => {
          try {
            at.at = offset;
            const written = handles[file].write(view(pointer, n), at);
            // At its quota Chromium does not throw: it writes less, or answers 4294967288.
            return written === n ? n : FULL;
          } catch (error) {
            return failed(error);
          }
        },
      ],
      [
        "iid",
        (file, size) => {
          try {
            handles[file].truncate(size);
            return 0;
          } catch (error) {
            return failed(error);
          }
        },
      ],
      [
        "di",
        (file) => {
          try {
            return handles[file].getSize();
          } catch (error) {
            return failed(error);
          }
        },
      ],
      [
        "ii",
        (file) => {
          try {
            handles[file].flush();
            return 0;
          } catch (error) {
            return failed(error);
          }
        },
      ],
    ];
    return functions.map(([signature, f]) => module.addFunction(f, signature));
  }

  async function folder(path, create) {
    let at = await navigator.storage.getDirectory();
    for (const segment of path) at = await at.getDirectoryHandle(segment, { create });
    return at;
  }

  // Whether tabs can have a file open at the same time: the answer is in the handle's mode, which
  // browsers that do not know "readwrite-unsafe" leave undefined.
  async function canShareHandles(within) {
    const name = `probe-${crypto.randomUUID()}`;
    const file = await within.getFileHandle(name, { create: true });
    try {
      const handle = await file.createSyncAccessHandle({ mode: "readwrite-unsafe" });
      handle.close();
      return handle.mode === "readwrite-unsafe";
    } finally {
      await within.removeEntry(name);
    }
  }

  // Begins to look for the folder `path` (an array), made where missing; a function that gives the
  // promise, for Python would make its error one of its own. If nobody asks, no error matters.
  function look(path) {
    const looking = folder(path, true);
    looking.catch(() => {});
    return () => looking;
  }

  // Numbers for `names` in a folder that `look` looks for; no handle is open yet.
  async function nameFiles(looking, names) {
    const within = await looking();
    const create = (name) => within.getFileHandle(name, { create: true });
    const made = await Promise.all(names.map(create));
    return made.map((file) => {
      const number = unused.pop() ?? entries.length;
      entries[number] = file;
      handles[number] = null;
      return number;
    });
  }

  // The same, opened if the handles can be shared: [numbers, whether they can, whether they are
  // open]. It is found out once in a worker, by opening some.
  let sharing;
  async function findFiles(looking, names) {
    const files = await nameFiles(looking, names);
    if (sharing === false) return [files, false, false];
    try {
      await openFiles(files, true);
    } catch (error) {
      if (error.name !== "NoModificationAllowedError") throw error;
      // Another worker has them exclusively, or had until a moment ago.
      sharing ??= await canShareHandles(await looking());
      return [files, sharing, false];
    }
    sharing ??= files.every((file) => handles[file].mode === "readwrite-unsafe");
    if (!sharing) closeFiles(files);
    return [files, sharing, sharing];
  }

  // Opens the handles of `files`; all of them or none.
  async function openFiles(files, shared) {
    if (files.every((file) => handles[file])) return;
    const options = shared ? { mode: "readwrite-unsafe" } : {};
    const opening = files.map((file) => entries[file].createSyncAccessHandle(options));
    const settled = await Promise.allSettled(opening);
    const failure = settled.find((result) => result.status === "rejected");
    if (failure) {
      for (const result of settled) result.value?.close();
      throw failure.reason;
    }
    settled.forEach((result, i) => {
      handles[files[i]] = result.value;
    });
  }

  function closeFiles(files) {
    for (const file of files) {
      handles[file]?.close();
      handles[file] = null;
    }
  }

  // Nobody uses them any more: their numbers may stand for other files. Not so of a handle that
  // could not be closed.
  function forgetFiles(files) {
    for (const file of files) {
      if (handles[file] || !entries[file]) continue;
      entries[file] = null;
      unused.push(file);
    }
  }

  // The first `n` bytes of a file, fewer if it has fewer.
  function peek(file, n) {
    const bytes = new Uint8Array(Math.min(n, handles[file].getSize()));
    handles[file].read(bytes, { at: 0 });
    return bytes;
  }

  const size = (file) => handles[file].getSize();

  // Whether the open `files` are what their folder has under their names. After the site's data
  // was cleared handles work on, into files that nobody else will ever see.
  async function stillThere(files) {
    for (const file of files) {
      let named;
      try {
        named = await entries[file].createSyncAccessHandle({ mode: "readwrite-unsafe" });
      } catch (error) {
        if (["NotFoundError", "InvalidStateError"].includes(error.name)) return false;
        throw error;
      }
      try {
        if (!handles[file]) return true; // closed meanwhile: nothing can be lost any more
        if (!sameStart(named, handles[file]) && !sameStart(named, handles[file])) return false;
      } finally {
        named.close();
      }
    }
    return true;
  }

  // Chromium never answers the close of a handle whose file was cleared away, and the worker would
  // wait for it for ever: such handles are left to end with the worker.
  async function closePresent(files) {
    // Where the browser refuses to tell, they are closed: left open they would keep others out.
    if (await stillThere(files.slice(0, 2)).catch(() => true)) closeFiles(files);
  }

  // Twice asked, for another tab may write between the two reads.
  function sameStart(one, other) {
    const [left, right] = [one, other].map((handle) => {
      const bytes = new Uint8Array(100); // a database's header; a WAL's is 32 bytes
      const n = handle.read(bytes.subarray(0, Math.min(100, handle.getSize())), { at: 0 });
      return bytes.subarray(0, n);
    });
    return left.length === right.length && left.every((byte, i) => byte === right[i]);
  }

  // At most `n` bytes from `offset` on.
  function read(file, offset, n) {
    const bytes = new Uint8Array(Math.max(0, Math.min(n, size(file) - offset)));
    handles[file].read(bytes, { at: offset });
    return bytes;
  }

  // Whether there was space for all of `bytes`; see the VFS's write.
  function write(file, bytes, offset) {
    try {
      return handles[file].write(bytes, { at: offset }) === bytes.length;
    } catch (error) {
      if (failed(error) === FULL) return false;
      throw error;
    }
  }

  // Makes a file empty, durably.
  function empty(file) {
    handles[file].truncate(0);
    handles[file].flush();
  }

  // The files below the folder `path` that hold something: [names joined by "/", first `n` bytes].
  async function list(path, n) {
    const found = [];
    async function visit(within, prefix) {
      for await (const [name, entry] of within.entries()) {
        if (entry.kind === "directory") {
          await visit(entry, `${prefix}${name}/`);
          continue;
        }
        const file = await entry.getFile();
        if (file.size === 0) continue;
        const bytes = new Uint8Array(await file.slice(0, n).arrayBuffer());
        found.push([prefix + name, bytes]);
      }
    }
    const top = await existing(path);
    if (top) await visit(top, "");
    return found;
  }

  // The folder, or null where there is none.
  async function existing(path) {
    try {
      return await folder(path, false);
    } catch (error) {
      if (error.name === "NotFoundError") return null;
      throw error;
    }
  }

  // The names in the folder `path`.
  async function entriesOf(path) {
    const within = await existing(path);
    const names = [];
    if (within) for await (const name of within.keys()) names.push(name);
    return names;
  }

  // Removes files, in this order; whether all are gone, and none is open somewhere.
  async function removeFiles(path, names) {
    const within = await existing(path);
    if (!within) return true;
    let gone = true;
    for (const name of names) {
      try {
        await within.removeEntry(name);
      } catch (error) {
        if (error.name === "NoModificationAllowedError") gone = false;
        else if (error.name !== "NotFoundError") throw error;
      }
    }
    return gone;
  }

  // -- flags: see browser/flags.py ---------------------------------------------------------------

  // Whether one that was not raised could be read here: else none can be.
  let flagsAreRead = false;

  function noticeFlag(flag) {
    fetch(flag).then(
      () => (flagsAreRead = true),
      (error) => console.debug("holdfast: calls cannot be cancelled while they run:", error),
    );
  }

  function isRaised(flag) {
    if (!flagsAreRead) return false;
    const request = new XMLHttpRequest();
    request.open("GET", flag, false);
    try {
      request.send();
      return false;
    } catch {
      return true;
    }
  }

  // -- IndexedDB ---------------------------------------------------------------------------------
  //
  // One IndexedDB database for each of SQLite's, named PREFIX and its name:
  //
  //     blocks   block number, from 0 without gaps -> ArrayBuffer of BLOCK bytes
  //     about    "size" -> the size of the SQLite database in bytes
  //
  // The number of the format is the version of the IndexedDB database.

  const PREFIX = "holdfast/";
  const FORMAT = 1;
  const BLOCK = 4096;
  const AT_ONCE = 1024; // blocks that are read in one request

  function done(request) {
    return new Promise((resolve, reject) => {
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  }

  const closedBlocks = new WeakSet(); // that the browser has closed, as it does to clear site data

  // An IDBDatabase; null where there is none and `create` is false.
  function openBlocks(name, create) {
    const request = indexedDB.open(PREFIX + name, FORMAT);
    let missing = false;
    request.onupgradeneeded = () => {
      missing = !create;
      if (missing) return request.transaction.abort();
      request.result.createObjectStore("blocks");
      request.result.createObjectStore("about");
    };
    return done(request).then(
      (database) => {
        // The deleter found by its lock that the file is unused.
        database.onversionchange = () => database.close();
        database.onclose = () => closedBlocks.add(database);
        return database;
      },
      (error) => {
        if (missing) return null;
        throw error;
      },
    );
  }

  const blocksAreOpen = (database) => !closedBlocks.has(database);

  // What `work` comes to, unless the browser closes `database` before: it does when it clears the
  // site's data, and may then tell a transaction that was being committed nothing at all.
  function whileOpen(database, work) {
    return new Promise((resolve, reject) => {
      const closed = () =>
        reject(new DOMException("the browser has closed the database", "InvalidStateError"));
      database.addEventListener("close", closed);
      work.then(resolve, reject).finally(() => database.removeEventListener("close", closed));
    });
  }

  const sizeOf = async (database) => {
    const about = database.transaction("about").objectStore("about");
    return (await whileOpen(database, done(about.get("size")))) ?? 0;
  };

  // The blocks from number `from` on, as one Uint8Array; empty at the end.
  async function readBlocks(database, from) {
    const range = IDBKeyRange.bound(from, from + AT_ONCE - 1);
    const blocks = database.transaction("blocks").objectStore("blocks");
    const found = await whileOpen(database, done(blocks.getAll(range)));
    const bytes = new Uint8Array(found.length * BLOCK);
    found.forEach((block, i) => bytes.set(new Uint8Array(block), i * BLOCK));
    return bytes;
  }

  // One transaction: the database gets `size`, loses the blocks from number `keep` on, and gets
  // what `next()` gives, [Float64Array of numbers, Uint8Array of their blocks], until it gives
  // undefined. Resolves when the transaction is complete; rejects when nothing of it remains.
  function writeBlocks(database, size, keep, next, durability) {
    const writing = new Promise((resolve, reject) => {
      const transaction = database.transaction(["blocks", "about"], "readwrite", { durability });
      const blocks = transaction.objectStore("blocks");
      let failure = null;
      transaction.oncomplete = () => resolve();
      transaction.onabort = () => reject(failure ?? transaction.error ?? new Error("aborted"));
      transaction.objectStore("about").put(size, "size");
      let last = blocks.delete(IDBKeyRange.lowerBound(keep));
      const more = () => {
        try {
          const part = next();
          if (!part) return transaction.commit?.();
          const [numbers, bytes] = part;
          numbers.forEach((number, i) => {
            last = blocks.put(bytes.slice(i * BLOCK, (i + 1) * BLOCK).buffer, number);
          });
          last.onsuccess = more;
        } catch (error) {
          failure = error;
          transaction.abort();
        }
      };
      more();
    });
    return whileOpen(database, writing);
  }

  async function namesOfBlocks() {
    const names = [];
    for (const { name } of await indexedDB.databases()) {
      if (!name.startsWith(PREFIX)) continue;
      const database = await openBlocks(name.slice(PREFIX.length), false);
      if (!database) continue;
      try {
        if (await sizeOf(database)) names.push(name.slice(PREFIX.length));
      } finally {
        database.close();
      }
    }
    return names;
  }

  // Whether there was one, with something in it.
  async function deleteBlocks(name) {
    const database = await openBlocks(name, false);
    if (!database) return false;
    let size;
    try {
      size = await sizeOf(database);
    } finally {
      database.close();
    }
    await done(indexedDB.deleteDatabase(PREFIX + name));
    return size > 0;
  }

  // What is missing here for IndexedDB; "" for nothing.
  function missingForBlocks() {
    if (!globalThis.isSecureContext) return "the page is not served by https or from localhost";
    if (!globalThis.indexedDB) return "indexedDB does not exist";
    if (!navigator.locks) return "navigator.locks does not exist";
    return "";
  }

  // Whether the site's data is never evicted; only a page may ask for that.
  async function persist() {
    return navigator.storage.persist ? navigator.storage.persist() : navigator.storage.persisted();
  }

  // Each undefined where the browser does not tell (WebKitGTK has no estimate).
  async function estimate() {
    const { usage, quota } = (await navigator.storage?.estimate?.()) ?? {};
    return [await navigator.storage?.persisted?.(), usage, quota];
  }

  // Calls a function of Python in a task of the browser, in which it may switch stacks where that
  // is possible at all.
  const { port1, port2 } = new MessageChannel();
  const due = [];
  port1.onmessage = () => due.shift()();

  // It answers nothing: a promise would cost Python more than the call.
  function nextTask(callback) {
    if (module.jspiSupported) {
      callback.callPromising();
      return;
    }
    due.push(callback);
    port2.postMessage(0);
  }

  // Calls `callback(true, value)`, or `callback(false)`.
  function settle(promise, callback) {
    const say = module.jspiSupported ? (...answer) => callback.callPromising(...answer) : callback;
    promise.then(
      (value) => say(true, value),
      () => say(false, undefined),
    );
  }

  // Calls it when Python has returned.
  const soon = (callback) => queueMicrotask(callback);

  // Calls back `onAnswer(id, granted, error)`, once. A request lives under its id until it is
  // released, which also withdraws one that still waits.
  const requests = new Map(); // id -> {end(): gives back or withdraws, ended: a promise}
  const ending = new Set(); // promises of those that were released
  let onAnswer = null;

  function request(id, name, exclusive, ifAvailable) {
    const withdraw = new AbortController();
    const answer = (granted, error) => {
      if (!requests.has(id)) return;
      if (!granted) requests.delete(id);
      onAnswer(id, granted, error);
    };
    const options = { mode: exclusive ? "exclusive" : "shared" };
    if (ifAvailable) options.ifAvailable = true;
    else options.signal = withdraw.signal;
    const request = { end: () => withdraw.abort() };
    requests.set(id, request);
    request.ended = navigator.locks
      .request(name, options, (lock) => {
        if (!lock || !requests.has(id)) return answer(false, "");
        return new Promise((release) => {
          request.end = release;
          answer(true, "");
        });
      })
      .catch((error) => answer(false, String(error)));
  }

  function release(id) {
    const request = requests.get(id);
    if (!request) return;
    requests.delete(id);
    request.end();
    ending.add(request.ended);
    request.ended.then(() => ending.delete(request.ended));
  }

  // Resolves when what was released before is free for everybody. A request's promise is settled
  // when this end has let the lock go. The browser hears of that in order: when it answers what was
  // asked afterwards, it has.
  async function releasesArrived() {
    await Promise.all(ending);
    // A browser that does not answer has been told all the same.
    await navigator.locks.query().catch(() => {});
  }

  const setOnAnswer = (callback) => {
    onAnswer = module.jspiSupported ? (...answer) => callback.callPromising(...answer) : callback;
  };

  async function heldLocks(prefix) {
    const { held } = await navigator.locks.query();
    return held.map((lock) => lock.name).filter((name) => name.startsWith(prefix));
  }

  // {post(text), close()}: text messages to the other tabs (and workers) of this origin.
  function channel(name, onMessage) {
    const channel = new BroadcastChannel(name);
    channel.onmessage = (event) => onMessage(event.data);
    return {
      // A message that is lost costs time and nothing else; an error here would cost what it was
      // about.
      post(text) {
        try {
          channel.postMessage(text);
        } catch (error) {
          console.debug("holdfast: a message to other tabs was refused:", error);
        }
      },
      close() {
        channel.onmessage = null;
        channel.close();
      },
    };
  }

  // What is missing here for OPFS sync access handles; "" for nothing.
  function missing() {
    if (!globalThis.isSecureContext) return "the page is not served by https or from localhost";
    if (!navigator.storage?.getDirectory) return "navigator.storage.getDirectory does not exist";
    if (!navigator.locks) return "navigator.locks does not exist";
    if (!globalThis.BroadcastChannel) return "BroadcastChannel does not exist";
    if (!globalThis.FileSystemFileHandle?.prototype.createSyncAccessHandle)
      return "createSyncAccessHandle does not exist (it is for dedicated workers only)";
    return "";
  }

  // What Pyodide can raise: something that has a stack, or is a DOMException itself. What newer
  // browsers derive from that, as QuotaExceededError, it would not raise, and who awaits it waits
  // for ever.
  const plain = (error) =>
    error instanceof DOMException ? new DOMException(error.message, error.name) : error;

  const answering = (ask) => (...args) => {
    const answer = (async () => ask(...args))().catch((error) => {
      throw plain(error);
    });
    answer.catch(() => {}); // who waited for it may have been cancelled
    return answer;
  };

  const raising = (call) => (...args) => {
    try {
      return call(...args);
    } catch (error) {
      throw plain(error);
    }
  };

  return {
    version,
    useModule,
    install,
    look,
    nameFiles: answering(nameFiles),
    findFiles: answering(findFiles),
    openFiles: answering(openFiles),
    closeFiles,
    closePresent: answering(closePresent),
    forgetFiles,
    peek: raising(peek),
    size: raising(size),
    stillThere: answering(stillThere),
    read: raising(read),
    write: raising(write),
    empty: raising(empty),
    list: answering(list),
    entriesOf: answering(entriesOf),
    removeFiles: answering(removeFiles),
    noticeFlag,
    isRaised,
    openBlocks: answering(openBlocks),
    blocksAreOpen,
    sizeOf: answering(sizeOf),
    readBlocks: answering(readBlocks),
    writeBlocks: answering(writeBlocks),
    namesOfBlocks: answering(namesOfBlocks),
    deleteBlocks: answering(deleteBlocks),
    missingForBlocks,
    persist: answering(persist),
    estimate: answering(estimate),
    request,
    release,
    setOnAnswer,
    nextTask,
    settle,
    soon,
    heldLocks: answering(heldLocks),
    releasesArrived: answering(releasesArrived),
    channel: raising(channel),
    missing,
  };
})();
