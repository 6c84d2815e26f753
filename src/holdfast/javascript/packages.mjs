// What a worker's Python has beside its standard library. Part of holdfast.mjs.
//
// Of a page without Python micropip installs it, which takes longer than Python's start. So what it
// has installed is kept in a Cache of the origin, under a digest of all that decided it: Pyodide's
// lock file, and each package that was asked for, the bytes of a wheel or an exact version. The next
// worker begins with that, if it is asked for the same. Whatever else is asked for ("holdfast>=1",
// "mine") micropip decides anew each time.
import { KEEP_AFTER, keepOne } from "./keeping.mjs";

const PACKAGES = "holdfast-packages";

// A name with an exact version, perhaps with extras.
const EXACT = /^[\w.-]+(\[[\w.,-]+\])?==[\w.!+-]+$/;

// Never imported, and half of what apsw brings.
const LEFT_OUT = ["apsw/tests/", "apsw/sqlite_extra_binaries/", "/__pycache__/"];

/** Put `files` into site-packages: of each the name in there and the bytes. */
export function putFiles(pyodide, files) {
  const { FS } = pyodide;
  const folder = sitePackages(pyodide);
  for (const [name, bytes] of files) {
    const path = `${folder}/${name}`;
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    FS.writeFile(path, bytes);
  }
  pyodide.pyimport("importlib").invalidate_caches();
}

/** What was kept of these packages, looked for while Python starts. */
export async function findKept(options, packages) {
  try {
    const cache = await caches.open(PACKAGES);
    const key = await keyOf(options, packages);
    const kept = key && (await cache.match(key));
    if (!kept) return { key };
    const data = new Uint8Array(await kept.arrayBuffer());
    if ((await digestOf(data)) === kept.headers.get("digest")) return { key, files: unpack(data) };
    console.warn("holdfast: the packages that were kept are of no use, and are installed anew");
    await cache.delete(key);
    return { key };
  } catch (error) {
    console.debug("holdfast: no packages can be kept:", error); // refused where storage is blocked
    return {};
  }
}

/** Install them; if there is a `key`, what is there then is kept under it. */
export async function install(pyodide, packages, key) {
  await pyodide.loadPackage("micropip", { messageCallback() {} });
  await pyodide.pyimport("micropip").install(packages);
  if (key) setTimeout(() => keepOne(PACKAGES, key, () => packed(pyodide)), KEEP_AFTER);
}

/** Undefined: what they are may be another thing the next time. */
async function keyOf({ indexURL }, packages) {
  const lock = new URL("pyodide-lock.json", indexURL).href;
  const isWheel = (name) => name.endsWith(".whl");
  if (!packages.every((name) => isWheel(name) || EXACT.test(name))) return undefined;
  const digests = await Promise.all([lock, ...packages.filter(isWheel)].map(digestAt));
  if (digests.includes(undefined)) return undefined;
  const recipe = new TextEncoder().encode(JSON.stringify([packages, digests]));
  return `${lock}?packages=${await digestOf(recipe)}`;
}

/** Undefined: it is not there, which micropip can tell better. */
async function digestAt(url) {
  const answer = await fetch(url);
  return answer.ok ? digestOf(await answer.arrayBuffer()) : undefined;
}

async function digestOf(data) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", data));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const sitePackages = ({ pyimport }) => pyimport("sysconfig").get_path("purelib");

// Compiled once for all, without a look at the source's time, which is that of the worker's start.
const COMPILE = `
def compile_imported(folder):
    import importlib, py_compile, sys
    unchecked = py_compile.PycInvalidationMode.UNCHECKED_HASH
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None) or ""
        if file.startswith(folder) and file.endswith(".py"):
            yield py_compile.compile(file, doraise=True, invalidation_mode=unchecked)
`;

async function packed(pyodide) {
  const { FS } = pyodide;
  const folder = sitePackages(pyodide);
  const globals = pyodide.toPy({});
  pyodide.runPython(COMPILE, { globals });
  const compiled = [...globals.get("compile_imported")(folder).toJs()];
  const names = [];
  const walk = (path) => {
    for (const name of FS.readdir(path)) {
      if (name === "." || name === "..") continue;
      const inside = `${path}/${name}`;
      if (FS.isDir(FS.stat(inside).mode)) walk(inside);
      else names.push(inside);
    }
  };
  walk(folder);
  const kept = names.filter((name) => !LEFT_OUT.some((part) => name.includes(part)));
  const files = [...kept, ...compiled].map((path) => [path.slice(folder.length + 1), FS.readFile(path)]);
  const list = JSON.stringify(files.map(([name, bytes]) => [name, bytes.length]));
  const data = await new Blob([`${list}\n`, ...files.map(([, bytes]) => bytes)]).arrayBuffer();
  return new Response(data, { headers: { digest: await digestOf(data) } });
}

function unpack(data) {
  let at = data.indexOf(10) + 1;
  const list = JSON.parse(new TextDecoder().decode(data.subarray(0, at)));
  return list.map(([name, size]) => [name, data.subarray(at, (at += size))]);
}
