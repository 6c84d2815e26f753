// What ends in JavaScript by itself: iterators whose loop is left, and what a block disposes of.
import { openCallsPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

let page;

test.beforeEach(async ({ context }) => {
  page = await openCallsPage(context, "calls.db");
});

test("an iterator ends while its next item is awaited, by return() or its signal", async () => {
  const found = await page.evaluate(async () => {
    const kinds = {
      watch: (options) => db.watch("SELECT * FROM notes", [], options),
      changes: (options) => db.changes(["notes"], options),
      diffs: (options) => db.triggers.diffs("notes", { columns: ["text"], ...options }),
    };
    const results = {};
    for (const [kind, make] of Object.entries(kinds)) {
      const write = () => db.execute("INSERT INTO notes(text) VALUES(?)", [kind]);
      const one = async (options) => {
        // Else that of an iterator that is ending would be taken for its own.
        while (await triggers()) await db.status();
        const iterator = make(options);
        const first = iterator.next();
        if (kind === "watch") await first;
        await db.status();
        if (kind === "diffs") while (!(await triggers())) await db.status();
        if (kind !== "watch") await write().then(() => first);
        return iterator;
      };
      const returned = await one();
      const pending = [returned.next(), returned.next()];
      await db.status(); // by now the first of them is waited for
      const given = await returned.return("given");
      const ends = [await Promise.all(pending), given, await returned.next()].flat();
      const controller = new AbortController();
      const aborted = await one({ signal: controller.signal });
      const waiting = ended(aborted.next());
      await db.status();
      controller.abort(mine);
      ends.push(await waiting, await aborted.next());
      // It is told also to who asks later, once; and a loop that is left ends it.
      const late = new AbortController();
      const asked = await one({ signal: late.signal });
      late.abort(mine);
      ends.push(await ended(asked.next()), await asked.next());
      if (Symbol.asyncDispose) await (await one())[Symbol.asyncDispose]();
      else await (await one()).return();
      // Never begun, it has nothing to end.
      ends.push(await make().return());
      while (await triggers()) await db.status();
      results[kind] = ends;
    }
    return results;
  });
  const done = { done: true };
  const ends = [done, done, { done: true, value: "given" }, done];
  const expected = [...ends, ["aborted"], done, ["aborted"], done, done];
  const plain = JSON.parse(JSON.stringify(found));
  expect(plain).toEqual({ watch: expected, changes: expected, diffs: expected });
});

test("`await using` closes, stops and disposes", async () => {
  const [known, ...found] = await page.evaluate(async () => {
    if (!Symbol.asyncDispose) return [false];
    const other = await holdfast.open("calls.db", options);
    const tracker = await other.triggers.trackTableDiff({ source: "notes", onChange() {} });
    const trigger = await other.triggers.createDiffTrigger({ source: "notes", destination: "d" });
    const results = [await triggers()];
    for (const each of [tracker, trigger, other]) {
      await each[Symbol.asyncDispose]();
      results.push(each.gone ?? each.closed);
    }
    return [true, ...results, await triggers()];
  });
  if (known) expect(found).toEqual([6, true, true, true, 0]);
});
