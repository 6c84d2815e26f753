// The start of Python in a worker that has databases, with what these need. Part of holdfast.mjs.
import { KEEP_AFTER, keepOne } from "./keeping.mjs";
import { findKept, install, putFiles } from "./packages.mjs";

/**
 * A Pyodide that has holdfast.
 *
 * options   of loadPyodide; indexURL, where Pyodide is, is needed
 * source    what to put into it, perhaps a promise: { packages }, for micropip to install, or
 *           { files }, for its site-packages: of each the name in there and the bytes
 */
export async function loadPython(options, source) {
  const find = async ({ packages, files }) => ({
    packages,
    ...(packages ? await findKept(options, packages) : { files }),
  });
  const [pyodide, { packages, files, key }] = await Promise.all([
    startPython(options),
    Promise.resolve(source).then(find),
  ]);
  if (files) putFiles(pyodide, files);
  else await install(pyodide, packages, key);
  performance.mark(`holdfast: packages ${files ? "put" : "installed"}`);
  return pyodide;
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
      _loadSnapshot.catch(() => {}); // Pyodide tells, which asks for it later than it may fail
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
    setTimeout(() => keepOne(IMAGES, key, () => zipped(memory)), KEEP_AFTER);
  }
  return pyodide;
}

// In one piece: of a stream whose worker ends a Cache may keep what came until then.
async function zipped(memory) {
  const stream = new Blob([memory]).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(await new Response(stream).arrayBuffer());
}
