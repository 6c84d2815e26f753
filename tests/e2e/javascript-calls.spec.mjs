// Calls from JavaScript that end early: aborted, or told at once that they would wait for themselves.
import { openCallsPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

let page;

test.beforeEach(async ({ context }) => {
  page = await openCallsPage(context, "calls.db");
});

test("a call that would wait for its own transaction is told at once", async () => {
  const found = await page.evaluate(async () => {
    const write = () => db.execute("INSERT INTO notes(text) VALUES('nested')");
    const nested = {
      first: () => db.transaction(() => write()),
      later: () =>
        db.transaction(async (tx) => {
          await tx.execute("INSERT INTO notes(text) VALUES('lost')");
          await tx.fetchAll("SELECT 1");
          await write();
        }),
      after_an_error: () =>
        db.transaction(async (tx) => {
          await tx.execute("SELEKT").catch(() => {});
          await tx.execute("SELEKT").catch(() => write());
        }),
      transaction: () => db.transaction(() => db.transaction(() => 1)),
      read: () => db.transaction(async (tx) => [await tx.fetchAll("SELECT 1"), await db.fetchAll("SELECT 1")]),
      stream: () =>
        db.transaction(async () => {
          for await (const rows of db.watch("SELECT 1")) return rows;
        }),
      tracker: () =>
        db.transaction(() => db.triggers.trackTableDiff({ source: "notes", onChange() {} })),
    };
    const errors = {};
    for (const [what, work] of Object.entries(nested)) errors[what] = (await failure(work))?.name;

    // What is begun outside of it waits its turn, whenever that is.
    const order = [];
    const other = Promise.withResolvers();
    const waiting = other.promise.then(() =>
      db.transaction(async (tx) => {
        order.push("other");
        await tx.execute("INSERT INTO notes(text) VALUES('other')");
      }),
    );
    let queued;
    await db.transaction(async (tx) => {
      other.resolve();
      await tx.execute("INSERT INTO notes(text) VALUES('one')");
      queueMicrotask(() => (queued = write()));
      await tx.execute("INSERT INTO notes(text) VALUES('two')");
      await new Promise((resolve) => setTimeout(resolve));
      await tx.execute("INSERT INTO notes(text) VALUES('three')");
      order.push("first");
    });
    await Promise.all([waiting, queued]);
    // Neither is what comes after its end, although it was begun inside.
    let after;
    await db.transaction((tx) => {
      after = tx.fetchAll("SELECT 1").then(write);
    });
    await after;
    // A second database of the same page has transactions of its own.
    const second = await holdfast.open("second.db", options);
    await db.transaction(async (tx) => {
      await tx.fetchAll("SELECT 1");
      await second.execute("CREATE TABLE IF NOT EXISTS t(x)");
    });
    await second.close();
    const texts = await db.fetchAll("SELECT text FROM notes ORDER BY id");
    return [errors, order, texts.map(({ text }) => text).sort()];
  });
  const names = ["first", "later", "after_an_error", "transaction", "read", "stream", "tracker"];
  expect(found).toEqual([
    Object.fromEntries(names.map((name) => [name, "NestedTransactionError"])),
    ["first", "other"],
    ["nested", "nested", "one", "other", "three", "two"],
  ]);

  // Where it is not known it is told as soon as waiting has taken its time.
  const late = await page.evaluate(async () => {
    // Where the browser is slow, a lease that nobody has is not granted in so short a time, either.
    const patiently = async (work) => {
      for (;;) {
        const busy = await failure(work);
        if (busy?.name !== "DatabaseBusyError") return busy;
      }
    };
    let short;
    await patiently(async () => {
      short = await holdfast.open("calls.db", { ...options, busyTimeout: 0.2 });
    });
    const error = await patiently(() =>
      short.transaction(async () => {
        await new Promise((resolve) => setTimeout(resolve));
        await short.execute("INSERT INTO notes(text) VALUES('never')");
      }),
    );
    await short.close();
    return error;
  });
  expect(late.name).toBe("NestedTransactionError");
});

test("stop() in its own handler or onError", async () => {
  const found = await page.evaluate(async () => {
    const track = async (onChange, more) => {
      const over = Promise.withResolvers();
      const tracker = await db.triggers.trackTableDiff({
        source: "notes",
        throttle: 0,
        onChange: (context) => onChange(context, tracker, over.resolve),
        onError: (error) => over.resolve(error.name),
        ...more?.(over.resolve, () => tracker),
      });
      await db.execute("INSERT INTO notes(text) VALUES('a')");
      const told = await over.promise;
      return [tracker, told];
    };
    const results = [];
    const atOnce = await track((context, tracker) => tracker.stop());
    const afterAwait = await track(async (context, tracker) => {
      await context.withDiff("SELECT * FROM DIFF");
      await context.transaction.fetchAll("SELECT 1");
      await tracker.stop();
    });
    for (const [tracker, told] of [atOnce, afterAwait]) {
      // It goes on, and can be stopped from outside.
      results.push([told, tracker.gone]);
      await tracker.stop();
      results.push(tracker.gone);
    }
    // In onError there is no transaction to wait for.
    const [failing, stopped] = await track(
      () => {
        throw mine;
      },
      (over, tracker) => ({
        async onError() {
          await tracker().stop();
          over("stopped");
        },
      }),
    );
    results.push(stopped);
    while (!failing.gone) await db.status();
    // The signal ends it from anywhere; what the handler did is committed.
    const controller = new AbortController();
    const [aborted, handled] = await track(
      async (context, tracker, over) => {
        controller.abort();
        await context.transaction.execute("DELETE FROM notes");
        over("handled");
      },
      () => ({ signal: controller.signal }),
    );
    results.push(handled);
    while (!aborted.gone) await db.status();
    return [...results, await count(), await triggers()];
  });
  const nested = ["NestedTransactionError", false];
  expect(found).toEqual([nested, true, nested, true, "stopped", "handled", 0, 0]);
});

test("what is aborted is undone before its promise is rejected with the signal's reason", async () => {
  test.slow();
  await test.step("before anything is sent", async () => {
    const found = await page.evaluate(async () => {
      const signal = AbortSignal.abort(mine);
      const posted = [];
      const { postMessage } = MessagePort.prototype;
      MessagePort.prototype.postMessage = function (...args) {
        posted.push(args[0]);
        return postMessage.apply(this, args);
      };
      let ran = false;
      const all = [
        holdfast.open("never.db", { ...options, signal }),
        holdfast.importDatabase("never.db", new Uint8Array(1), { signal }),
        holdfast.deleteDatabase("calls.db", { signal }),
        holdfast.databases({ signal }),
        db.execute("INSERT INTO notes(text) VALUES('never')", [], { signal }),
        db.executeMany("INSERT INTO notes(text) VALUES(?)", [["never"]], { signal }),
        db.fetchAll("SELECT 1", [], { signal }),
        db.fetchOne("SELECT 1", [], { signal }),
        db.fetchValue("SELECT 1", [], { signal }),
        db.transaction(() => (ran = true), { signal }),
        db.readTransaction(() => (ran = true), { signal }),
        db.watch("SELECT 1", [], { signal }).next(),
        db.changes(undefined, { signal }).next(),
        db.export({ signal }),
        db.status({ signal }),
        db.triggers.diffs("notes", { signal }).next(),
        db.triggers.tracked({ signal }),
        db.triggers.createDiffTrigger({ source: "notes", destination: "d", signal }),
        db.triggers.trackTableDiff({ source: "notes", onChange() {}, signal }),
      ];
      const ends = await Promise.all(all.map(ended));
      MessagePort.prototype.postMessage = postMessage;
      const wrong = await failure(() => db.fetchAll("SELECT 1", [], { signal: "now" }));
      return [ends.filter(([how]) => how !== "aborted"), posted, ran, wrong.name];
    });
    expect(found).toEqual([[], [], false, "TypeError"]);
  });

  await test.step("while it waits for another's transaction", async () => {
    const found = await page.evaluate(async () => {
      const { end, done } = await hold();
      const controller = new AbortController();
      const { signal } = controller;
      let ran = false;
      const all = [
        db.execute("INSERT INTO notes(text) VALUES('never')", [], { signal }),
        db.executeMany("INSERT INTO notes(text) VALUES(?)", [["never"]], { signal }),
        db.transaction(() => (ran = true), { signal }),
        db.triggers.createDiffTrigger({ source: "notes", destination: "d", signal }),
        db.triggers.trackTableDiff({ source: "notes", onChange() {}, signal }),
      ];
      await db.status();
      controller.abort(mine);
      // All of it is known while the other goes on.
      const ends = await Promise.all(all.map(ended));
      end();
      await done;
      return [ends, ran, await count(), await triggers()];
    });
    expect(found).toEqual([Array(5).fill(["aborted"]), false, 0, 0]);
  });

  await test.step("while its function runs, whatever that waits for", async () => {
    const found = await page.evaluate(async () => {
      const controller = new AbortController();
      const left = Promise.withResolvers();
      let tx;
      const aborted = db.transaction(
        async (transaction) => {
          tx = transaction;
          await tx.execute("INSERT INTO notes(text) VALUES('lost')");
          left.resolve();
          await never();
        },
        { signal: controller.signal },
      );
      await left.promise;
      controller.abort(mine);
      const how = await ended(aborted);
      // It was rolled back, nobody waits for it, and its methods say why.
      const { changes } = await db.execute("INSERT INTO notes(text) VALUES('next')");
      return [how, changes, await ended(tx.execute("SELECT 1")), await count()];
    });
    expect(found).toEqual([["aborted"], 1, ["aborted"], 1]);
  });

  await test.step("rejected is not written, written is not rejected", async () => {
    // Aborted at each moment that there is, from before the first message to after the last.
    const moments = async (storage) => {
      const db = await holdfast.open("moments.db", { ...options, storage });
      await db.execute("CREATE TABLE moments(way, n)");
      // Some microtasks more, or one task.
      const moment = async (n) => {
        if (n % 3) return null;
        const { port1, port2 } = new MessageChannel();
        await new Promise((resolve) => {
          port1.onmessage = resolve;
          port2.postMessage(null);
        });
        port1.close();
      };
      const sql = "INSERT INTO moments VALUES(?, ?)";
      const ways = {
        execute: (n, signal) => db.execute(sql, ["execute", n], { signal }),
        many: (n, signal) => db.executeMany(sql, [["many", n]], { signal }),
        transaction: (n, signal) =>
          db.transaction((tx) => tx.execute(sql, ["transaction", n]), { signal }),
      };
      const wrong = [];
      const seen = {};
      for (const [way, call] of Object.entries(ways)) {
        // Each moment at first; with ever more of them between where the worker is slow.
        for (let n = 0, over = false; !over; n += 1 + (n >> 4)) {
          const controller = new AbortController();
          const calling = ended(call(n, controller.signal)).finally(() => (over = true));
          for (let i = 0; i < n && !over; i += 1) await moment(i);
          const inTime = !over;
          controller.abort(mine);
          const [how] = await calling;
          over = !inTime;
          seen[`${way}: ${how}`] = true;
          const where = "WHERE way = ? AND n = ?";
          const rows = await db.fetchValue(`SELECT count(*) FROM moments ${where}`, [way, n]);
          if (rows !== (how === "value" ? 1 : 0)) wrong.push([way, n, how, rows]);
        }
      }
      await db.close();
      return [wrong, Object.keys(seen)];
    };
    for (const storage of ["opfs", "indexeddb"]) {
      const [wrong, seen] = await page.evaluate(moments, storage);
      expect(wrong).toEqual([]);
      // Else the moments were all on one side.
      for (const how of ["aborted", "value"]) expect(seen).toContain(`transaction: ${how}`);
    }
  });

  await test.step("what is read is not waited for", async () => {
    const found = await page.evaluate(async () => {
      const long =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000000) " +
        "SELECT count(*) FROM n";
      const order = [];
      // In a transaction, where the worker does one after the other at once.
      await db.readTransaction(async (tx) => {
        const first = tx.fetchValue(long).then(() => order.push("answered"));
        const controller = new AbortController();
        const reading = ended(tx.fetchValue(long, [], { signal: controller.signal }));
        controller.abort(mine);
        order.push(...(await reading));
        await first;
      });
      return order;
    });
    expect(found).toEqual(["aborted", "answered"]);
  });

  await test.step("open", async () => {
    const found = await page.evaluate(async () => {
      const results = [];
      for (let n = 0; n < 6; n += 1) {
        const controller = new AbortController();
        const opening = ended(holdfast.open("opened.db", { ...options, signal: controller.signal }));
        for (let i = 0; i < n; i += 1) await db.status();
        controller.abort(mine);
        const [how, value] = await opening;
        results.push(how === "value" ? await value.close().then(() => "aborted") : how);
      }
      // Nobody has it open.
      return [new Set(results).size, results[0], await holdfast.deleteDatabase("opened.db")];
    });
    expect(found).toEqual([1, "aborted", expect.any(Boolean)]);
  });
});

test("a handler that only reads is given a transaction that does", async () => {
  const [seen, left] = await page.evaluate(async () => {
    const seen = [];
    let done;
    const handled = new Promise((resolve) => (done = resolve));
    const tracker = await db.triggers.trackTableDiff({
      source: "notes",
      readOnly: true,
      throttle: 0,
      async onChange(context) {
        seen.push(await context.transaction.execute("DELETE FROM notes").catch(({ message }) => message));
        const rows = await context.withExtractedDiff("SELECT text FROM DIFF");
        seen.push(...rows.map(({ text }) => text));
        done();
      },
    });
    await db.execute("INSERT INTO notes(text) VALUES('looked on')");
    await handled;
    await tracker.stop();
    return [seen, await db.fetchValue("SELECT count(*) FROM notes WHERE text = 'looked on'")];
  });
  expect(seen).toEqual([expect.stringContaining("read transaction"), "looked on"]);
  expect(left).toBe(1);
});
