// The harness itself: what the other specs rely on when they kill and stop tabs.
import { expect, test } from "./tabs.mjs";
import { alive } from "./processes.mjs";

// A Web Lock of the worker: taken at once or not at all, released when its holder dies.
const take = (name) => `
from pyodide.code import run_js
await run_js("""(name) => new Promise((taken) => {
  navigator.locks.request(name, { ifAvailable: true }, (lock) => {
    taken(lock !== null);
    return lock && new Promise(() => {});
  });
})""")(${JSON.stringify(name)})
`;

// Waits until a holder lets go, in the worker, so that nothing has to poll.
const wait = (name) => `
from pyodide.code import run_js
await run_js("(name) => navigator.locks.request(name, () => true)")(${JSON.stringify(name)})
`;

test("a tab has the wheel, runs Python and sends events", async ({ openTab }) => {
  const tab = await openTab();
  expect(await tab.run(`import holdfast; holdfast.__name__`)).toBe("holdfast");
  expect(await tab.run(`{"a": [1, None, "ü"]}`)).toEqual({ a: [1, undefined, "ü"] });
  await expect(tab.run(`raise LookupError("gone")`)).rejects.toThrow("LookupError: gone");
  const event = tab.event((value) => value.n === 2);
  await tab.run(`emit({"n": 1}); emit({"n": 2})`);
  expect(await event).toEqual({ n: 2 });
  expect(tab.events).toEqual([{ n: 1 }]);
});

test("tabs are processes of one profile; a killed one frees its locks", async ({ openTab }) => {
  const a = await openTab({ own: true });
  const b = await openTab({ own: true });
  expect(a.pid).not.toBe(b.pid);

  expect(await b.run(take("lock"))).toBe(true);
  expect(await a.run(take("lock"))).toBe(false);
  await b.killRenderer();
  expect(alive(a.pid)).toBe(true);
  expect(await a.run(wait("lock"))).toBe(true);
});

test("a terminated worker frees its locks, and another can be started", async ({ openTab }) => {
  const a = await openTab({ own: true });
  const b = await openTab({ own: true });
  expect(await b.run(take("lock"))).toBe(true);
  const hanging = b.run(`import asyncio; await asyncio.Future()`);
  const ended = expect(hanging).rejects.toThrow("the worker was terminated");
  await b.terminateWorker();
  await ended;
  expect(await a.run(wait("lock"))).toBe(true);
  await b.restartWorker();
  expect(await b.run(`1 + 1`)).toBe(2);
});

test("a stopped tab keeps its locks, and goes on when resumed", async ({ openTab }) => {
  const a = await openTab({ own: true });
  const b = await openTab({ own: true });
  expect(await b.run(take("lock"))).toBe(true);
  await b.stop();
  expect(await a.run(take("lock"))).toBe(false);
  const answer = b.run(`"awake"`);
  b.resume();
  expect(await answer).toBe("awake");
});
