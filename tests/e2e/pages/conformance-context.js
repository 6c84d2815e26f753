// One context of a scenario, in a worker: does its steps and tells what came of them.
// See tests/conformance/README.md.

"use strict";

const ends = {}; // verbs of each subject: (actor's own state, ...arguments) -> answer

// -- Web Locks -------------------------------------------------------------------------------------

const requests = new Map(); // actor -> { state, end, settled }

function ask(mode, ifAvailable) {
  return (actor, name) => {
    const withdraw = new AbortController();
    const request = { state: "waits", end: () => withdraw.abort() };
    const options = ifAvailable ? { mode, ifAvailable } : { mode, signal: withdraw.signal };
    request.settled = navigator.locks
      .request(name, options, (lock) => {
        request.state = lock ? "held" : "refused";
        return lock && new Promise((release) => (request.end = release));
      })
      .catch((error) => {
        if (error.name !== "AbortError") request.state = error.name;
      });
    requests.set(actor, request);
  };
}

ends.locks = {
  sh: ask("shared", false),
  ex: ask("exclusive", false),
  "sh?": ask("shared", true),
  "ex?": ask("exclusive", true),
  async off(actor) {
    const request = requests.get(actor);
    requests.delete(actor);
    request.end();
    // A lock is given back before its request's promise is settled.
    await request.settled;
  },
};

/** What the requests of this context have come to. Whatever was asked before has arrived. */
async function lockStates() {
  await navigator.locks.query();
  const states = [];
  for (const [actor, { state }] of requests) {
    states.push([actor, state]);
    if (state !== "held" && state !== "waits") requests.delete(actor);
  }
  return states;
}

// -- Files -----------------------------------------------------------------------------------------

const files = new Map(); // actor -> FileSystemFileHandle
const handles = new Map(); // actor -> FileSystemSyncAccessHandle

function handle(actor) {
  if (!handles.has(actor)) throw new DOMException("its opening failed", "NoHandle");
  return handles.get(actor);
}

// A name as scenarios write it: escaped as in an address, x*300 for 300 times x, '' for none.
function unescape(name) {
  const [letter, times] = name.split("*");
  return name === "''" ? "" : decodeURIComponent(times ? letter.repeat(Number(times)) : name);
}

/** The folder that a path ends in, and the last name. */
async function place(folder, path, create = true) {
  let within = await navigator.storage.getDirectory();
  const names = [folder, ...path.split("/")].map(unescape);
  const name = names.pop();
  for (const each of names) within = await within.getDirectoryHandle(each, { create });
  return [within, name];
}

function open(options) {
  return async (actor, folder, path) => {
    const [within, name] = await place(folder, path);
    const file = await within.getFileHandle(name, { create: true });
    files.set(actor, file);
    return openHandle(actor, options);
  };
}

async function openHandle(actor, options) {
  const handle = await files.get(actor).createSyncAccessHandle(options);
  handles.set(actor, handle);
  return `open ${handle.mode ?? "exclusive"}`.replace(/ readwrite$/, " exclusive");
}

const exclusive = open({});

const text = (bytes) => [...bytes].map((byte) => (byte ? String.fromCharCode(byte) : ".")).join("");
const bytes = (text) => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

ends.files = {
  ex: exclusive,
  sh: open({ mode: "readwrite-unsafe" }),
  ro: open({ mode: "read-only" }),
  // As soon as it can be had.
  async "ex!"(actor, ...path) {
    for (;;) {
      try {
        return await exclusive(actor, ...path);
      } catch (error) {
        if (error.name !== "NoModificationAllowedError") throw error;
        await navigator.locks.query();
      }
    }
  },
  // By the FileSystemFileHandle of before.
  "sh-again": (actor) => openHandle(actor, { mode: "readwrite-unsafe" }),
  close: (actor) => handle(actor).close(),
  read(actor, folder, at, n) {
    const found = new Uint8Array(Number(n));
    const read = handle(actor).read(found, { at: Number(at) });
    return `${read}:${text(found)}`;
  },
  write: (actor, folder, at, data) => handle(actor).write(bytes(data), { at: Number(at) }),
  truncate: (actor, folder, size) => handle(actor).truncate(Number(size)),
  size: (actor) => handle(actor).getSize(),
  flush: (actor) => handle(actor).flush(),
  async remove(actor, folder, path) {
    const [within, name] = await place(folder, path, false);
    await within.removeEntry(name);
  },
  async removeall(actor, folder, path) {
    const [within, name] = await place(folder, path, false);
    await within.removeEntry(name, { recursive: true });
  },
  async file(actor, folder, path) {
    const [within, name] = await place(folder, path);
    await within.getFileHandle(name, { create: true });
  },
  async folder(actor, folder, path) {
    const [within, name] = await place(folder, path);
    await within.getDirectoryHandle(name, { create: true });
  },
  async list(actor, folder, path) {
    const [within] = await place(folder, path ? `${path}/-` : "-", false);
    const names = [];
    for await (const name of within.keys()) names.push(encodeURIComponent(name));
    return names.sort().join(" ") || "nothing";
  },
};

// -- BroadcastChannel ------------------------------------------------------------------------------

const channels = new Map(); // actor -> { channel, heard, pings }

ends.channels = {
  join(actor, name) {
    const channel = new BroadcastChannel(name);
    const end = { channel, heard: [], pings: new Map() };
    channel.onmessage = ({ data }) => {
      if (typeof data === "string") end.heard.push(data);
      else end.pings.set(data.from, data.ping);
    };
    channels.set(actor, end);
  },
  post(actor, name, ...messages) {
    for (const message of messages) channels.get(actor).channel.postMessage(message);
  },
  leave(actor) {
    channels.get(actor).channel.close();
  },
};
const { post, leave } = ends.channels;
// The page ends this context as soon as it hears that this is done.
ends.channels["dies-after"] = post;
ends.channels["post-leave"] = (...all) => [post(...all), leave(...all)].pop();

// -- IndexedDB, as the package uses it -------------------------------------------------------------

const BLOCK = 4096;
const databases = new Map(); // actor -> IDBDatabase

// Once asked, by the first who needs it: it is the package's, and not there where nothing else is.
const host = () => {
  if (!globalThis.holdfastHost) importScripts("/pyodide/host.js");
  return globalThis.holdfastHost;
};

async function openBlocks(actor, name, create) {
  const database = await host().openBlocks(name, create);
  databases.set(actor, database);
  return database ? "ok" : "none";
}

/** Blocks of these letters from number `from` on; the database ends behind block number `size`. */
function writeBlocks(actor, from, letters, size, durability) {
  const content = new Uint8Array(letters.length * BLOCK);
  [...letters].forEach((letter, i) => {
    content.fill(letter.charCodeAt(0), i * BLOCK, (i + 1) * BLOCK);
  });
  const parts = [[Float64Array.from(letters, (_, i) => from + i), content]];
  const next = () => parts.shift();
  return host().writeBlocks(databases.get(actor), size * BLOCK, size, next, durability);
}

ends.blocks = {
  open: (actor, name) => openBlocks(actor, name, true),
  find: (actor, name) => openBlocks(actor, name, false),
  close: (actor) => databases.get(actor).close(),
  write: (actor, name, letters, durability = "relaxed") =>
    writeBlocks(actor, 0, letters, letters.length, durability),
  put: (actor, name, from, letters, size) =>
    writeBlocks(actor, Number(from), letters, Number(size), "relaxed"),
  // Both are begun before either is done.
  async "write-write"(actor, name, one, other) {
    await Promise.all([one, other].map((letters) => writeBlocks(actor, 0, letters, letters.length, "relaxed")));
  },
  // What is to be written fails when it is asked for.
  async fail(actor, name) {
    const fails = () => {
      throw new RangeError("asked for");
    };
    await host().writeBlocks(databases.get(actor), BLOCK, 0, fails, "relaxed");
  },
  // Begun and closed at once.
  async "write-close"(actor, name, letters) {
    const writing = writeBlocks(actor, 0, letters, letters.length, "relaxed");
    databases.get(actor).close();
    await writing;
  },
  async read(actor) {
    const size = await host().sizeOf(databases.get(actor));
    const content = await host().readBlocks(databases.get(actor), 0);
    const letters = [];
    for (let at = 0; at < content.length; at += BLOCK) letters.push(content[at]);
    return `${size / BLOCK}:${String.fromCharCode(...letters)}`;
  },
  delete: (actor, name) => host().deleteBlocks(name),
  async names(actor, name) {
    return (await host().namesOfBlocks()).includes(name);
  },
};
// Whether the event that tells of its end has come. The events of before have, after a request.
ends.blocks["is-open"] = async (actor) => {
  await indexedDB.databases();
  return host().blocksAreOpen(databases.get(actor));
};
// Of what a dying context was writing, all is there or nothing.
ends.blocks["either"] = async (actor, name, ...these) => {
  const found = await ends.blocks.read(actor);
  return these.some((letters) => found === `${letters.length}:${letters}`) ? "ok" : found;
};
ends.blocks["dies-in-write"] = (...all) => {
  ends.blocks.write(...all).catch(() => {});
};

// -- Site data that is cleared ---------------------------------------------------------------------

let clearing = null; // one for all scenarios of a round

ends.cleared = {
  ...ends.files,
  async clear() {
    clearing ??= fetch("cleared.html");
    await clearing;
    clearing = null;
  },
};
// Whether it can be had; and it is kept.
ends.cleared["lock?"] = async (actor, name) => {
  await navigator.locks.query();
  return new Promise((answer) => {
    navigator.locks.request(name, { ifAvailable: true }, (lock) => {
      answer(lock ? "held" : "refused");
      return lock && new Promise(() => {});
    });
  });
};
for (const [verb, act] of Object.entries(ends.blocks)) ends.cleared[`db-${verb}`] = act;

// -- What the page asks ----------------------------------------------------------------------------

async function perform({ subject, steps }) {
  const answers = steps.map(async ([id, actor, verb, ...rest]) => {
    try {
      return [id, String((await ends[subject][verb](actor, ...rest)) ?? "ok")];
    } catch (error) {
      return [id, error.name];
    }
  });
  return Promise.all(answers);
}

const tasks = {
  async live(name) {
    await new Promise((held) => {
      navigator.locks.request(name, () => new Promise(() => held()));
    });
  },
  perform,
  lockStates,
  ping(actors, ping) {
    for (const actor of actors) channels.get(actor)?.channel.postMessage({ from: actor, ping });
    return [...channels].map(([actor, { pings }]) => [actor, new Map(pings)]);
  },
  heard: () => [...channels].map(([actor, { heard }]) => [actor, heard.splice(0)]),
};

self.onmessage = async ({ data: [number, task, ...rest] }) => {
  try {
    self.postMessage([number, await tasks[task](...rest)]);
  } catch (error) {
    self.postMessage([number, null, `${task}: ${error.stack ?? error}`]);
  }
};
