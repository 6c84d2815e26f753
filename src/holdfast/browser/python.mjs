// The start of Python in a worker that has databases, with what these need. Part of holdfast.mjs.

/**
 * A Pyodide that has holdfast.
 *
 * options   of loadPyodide; indexURL, where Pyodide is, is needed
 * source    what to put into it, perhaps a promise: { packages }, for micropip to install, or
 *           { files }, for its site-packages: of each the name in there and the bytes
 */
export async function loadPython(options, source) {
  const pyodide = await startPython(options);
  const { packages, files } = await source;
  if (packages) {
    await pyodide.loadPackage("micropip");
    await pyodide.pyimport("micropip").install(packages);
  } else {
    putFiles(pyodide, files);
  }
  return pyodide;
}

function putFiles({ FS, pyimport }, files) {
  const packages = pyimport("sysconfig").get_path("purelib");
  for (const [name, bytes] of files) {
    const path = `${packages}/${name}`;
    FS.mkdirTree(path.slice(0, path.lastIndexOf("/")));
    FS.writeFile(path, bytes);
  }
  pyimport("importlib").invalidate_caches();
}

// -- an image of Python --------------------------------------------------------------------------
//
// Starting Python is most of what a worker does before its first row. The memory of one that has
// just started is kept, compressed, in a Cache of the origin, and the next worker begins with that.
// Nothing of a page is in it, nor of holdfast: the standard library only. Pyodide's own means
// (_makeSnapshot, _loadSnapshot) refuse an image of another build; whatever they refuse is made anew.

const IMAGES = "holdfast-python";

// What holdfast imports of the standard library, or that is under what it imports.
const IMPORTS = `
import asyncio, base64, contextlib, csv, ctypes, dataclasses, datetime, email.message, email.parser
import importlib.metadata, importlib.resources, inspect, json, logging, marshal, random, traceback
import types, typing, uuid, zipfile
import pyodide.code, pyodide.ffi, pyodide.webloop
`;

// Packing an image takes a second of this worker's time: not while its first rows are waited for.
const KEEP_AFTER = 5_000; // milliseconds

async function startPython(options) {
  const module = new URL("pyodide.mjs", options.indexURL).href;
  const [{ loadPyodide, version }, images] = await Promise.all([
    import(module),
    globalThis.caches?.open(IMAGES).catch(() => undefined), // refused where storage is blocked
  ]);
  const key = `${module}?image=${version}`;
  const kept = await images?.match(key);
  if (kept) {
    try {
      const memory = kept.body.pipeThrough(new DecompressionStream("gzip"));
      const _loadSnapshot = new Response(memory).arrayBuffer();
      const pyodide = await loadPyodide({ ...options, _loadSnapshot });
      // Else every worker would draw the same numbers from here on.
      pyodide.runPython("import random; random.seed()");
      performance.mark("holdfast: python from its image");
      return pyodide;
    } catch (error) {
      console.warn("holdfast: the image of Python is of no use, and is made anew:", error);
      await images.delete(key);
    }
  }
  const pyodide = await loadPyodide({ ...options, _makeSnapshot: Boolean(images) });
  performance.mark("holdfast: python started");
  if (images) {
    pyodide.runPython(IMPORTS);
    const memory = pyodide.makeMemorySnapshot();
    setTimeout(() => keepImage(images, key, memory), KEEP_AFTER);
  }
  return pyodide;
}

// Of all tabs that start at once one is enough; those of other versions are of no use any more.
async function keepImage(images, key, memory) {
  try {
    await navigator.locks.request(IMAGES, { ifAvailable: true }, async (lock) => {
      if (!lock || (await images.match(key))) return;
      for (const { url } of await images.keys()) await images.delete(url);
      const packed = new Blob([memory]).stream().pipeThrough(new CompressionStream("gzip"));
      await images.put(key, new Response(packed));
    });
  } catch (error) {
    console.debug("holdfast: the image of Python was not kept:", error); // no space, most likely
  }
}
