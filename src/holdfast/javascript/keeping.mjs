// What one worker keeps for the next, in Caches of the origin. Part of holdfast.mjs.

// Packing it takes a second of this worker's time: not while its first rows are waited for.
export const KEEP_AFTER = 5_000; // milliseconds

/**
 * Keep what `pack` gives, a Response, under `key`, and nothing else in that Cache: what is of other
 * versions is of no use any more. Of all workers that start at once one is enough.
 */
export async function keepOne(name, key, pack) {
  try {
    await navigator.locks.request(name, { ifAvailable: true }, async (lock) => {
      const cache = await caches.open(name);
      if (!lock || (await cache.match(key))) return;
      const response = await pack();
      for (const { url } of await cache.keys()) await cache.delete(url);
      await cache.put(key, response);
    });
  } catch (error) {
    console.debug(`holdfast: ${name} was not kept:`, error); // no space, most likely
  }
}
