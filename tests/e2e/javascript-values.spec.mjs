// What JavaScript gives and gets: values as SQLite stores them, arguments that are wrong, and errors
// in its own terms.
import { inJavaScript } from "../../src/holdfast/javascript/vocabulary.mjs";
import { openPage } from "./javascript.mjs";
import { expect, test } from "./tabs.mjs";

let page;

test.beforeEach(async ({ context }) => {
  page = await openPage(context, "values.db");
});

test("values keep what they are; texts that are none are mended", async () => {
  const found = await page.evaluate(async () => {
    const stored = async (value) => {
      const row = await db.fetchOne("SELECT ? AS value, typeof(?1) AS type", [value]);
      // A BigInt and -0 have no form in JSON.
      const { value: got, type } = row;
      return [typeof got === "bigint" ? `${got}n` : Object.is(got, -0) ? "-0" : got, type];
    };
    const given = {
      safest: Number.MAX_SAFE_INTEGER,
      least: Number.MIN_SAFE_INTEGER,
      beyond: 2 ** 53,
      below: -(2 ** 53),
      largest: 2 ** 63 - 1024,
      smallest: -(2 ** 63),
      tooLarge: 2 ** 63,
      half: 0.5,
      whole: 3.0,
      minusZero: -0,
      nothing: NaN,
      endless: -Infinity,
      small: 7n,
      big: 2n ** 53n,
      biggest: 2n ** 63n - 1n,
      yes: true,
      missing: undefined,
    };
    const found = {};
    for (const [name, value] of Object.entries(given)) found[name] = await stored(value);
    found.endless[0] = String(found.endless[0]);
    // The same in what comes by other ways.
    await db.execute("INSERT INTO notes(id, text) VALUES(?, 1)", [Number.MAX_SAFE_INTEGER]);
    const { lastInsertRowid } = await db.execute("UPDATE notes SET data = ?", [
      Number.MIN_SAFE_INTEGER,
    ]);
    const rows = await db.fetchAll("SELECT id, data FROM notes");
    const next = db.triggers.diffs("notes", { columns: ["data"] });
    const records = next.next();
    while (!(await db.fetchValue("SELECT count(*) FROM sqlite_master WHERE type = 'trigger'")));
    await db.execute("UPDATE notes SET data = data + 1");
    const { values, previous } = (await records).value[0];
    await next.return();
    found.ways = [lastInsertRowid, rows, values, previous];
    // Not even a column of this name is lost.
    const odd = await db.fetchOne(`SELECT 1 AS "__proto__", 2 AS "constructor", 3 AS "a", 4 AS "a"`);
    found.odd = [Object.entries(odd), Object.getPrototypeOf(odd) === Object.prototype];
    found.utf8 = await db.fetchAll("SELECT CAST(x'41ff' AS TEXT) AS a, x'ff' AS b, 'ü' AS c");
    found.utf8 = found.utf8.map(({ a, b, c }) => [a, [...b], c]);
    return found;
  });
  const safe = Number.MAX_SAFE_INTEGER;
  expect(found).toEqual({
    safest: [safe, "integer"],
    least: [-safe, "integer"],
    beyond: ["9007199254740992n", "integer"],
    below: ["-9007199254740992n", "integer"],
    largest: ["9223372036854774784n", "integer"],
    smallest: ["-9223372036854775808n", "integer"],
    tooLarge: [2 ** 63, "real"],
    half: [0.5, "real"],
    whole: [3, "integer"],
    minusZero: [0, "integer"],
    nothing: [null, "null"],
    endless: ["-Infinity", "real"],
    small: [7, "integer"],
    big: ["9007199254740992n", "integer"],
    biggest: ["9223372036854775807n", "integer"],
    yes: [1, "integer"],
    missing: [null, "null"],
    ways: [safe, [{ id: safe, data: -safe }], { data: 1 - safe }, { data: -safe }],
    odd: [
      [
        ["__proto__", 1],
        ["constructor", 2],
        ["a", 3],
      ],
      true,
    ],
    utf8: [["A\ufffd", [255], "ü"]],
  });
});

test("parameters may be whatever has an order or names", async () => {
  const found = await page.evaluate(async () => {
    function* two() {
      yield 1;
      yield "b";
    }
    const byOrder = [[1, "b"], two(), [1, "b"].values(), new Map([[1, "b"]]).entries().next().value];
    const byName = [
      { a: 1, b: "b" },
      { ":a": 1, "@b": "b" },
      new Map([
        ["a", 1],
        [":b", "b"],
      ]),
      Object.assign(Object.create(null), { a: 1, b: "b" }),
      new (class {
        a = 1;
        b = "b";
      })(),
    ];
    const rows = [];
    for (const params of byOrder) rows.push(await db.fetchOne("SELECT ? AS a, ? AS b", params));
    for (const params of byName) rows.push(await db.fetchOne("SELECT :a AS a, :b AS b", params));
    rows.push(await db.fetchOne('SELECT $__proto__ AS a, "b" AS b', { ["__proto__"]: 1 }));
    const { changes } = await db.executeMany("INSERT INTO notes(id, text) VALUES(?, ?)", new Set([two()]));
    return [rows, changes];
  });
  expect(found).toEqual([Array(10).fill({ a: 1, b: "b" }), 1]);
});

test("what is wrong with an argument is told in JavaScript's words, and nothing is run", async () => {
  const found = await page.evaluate(async () => {
    const insert = "INSERT INTO notes(text) VALUES(?)";
    const handler = { source: "notes", onChange() {} };
    const wrong = {
      number: () => db.executeMany(insert, 5),
      text: () => db.executeMany(insert, "abc"),
      inMany: () => db.executeMany(insert, [["a"], 5]),
      value: () => db.execute(insert, "a"),
      bytes: () => db.execute(insert, new Uint8Array(2)),
      set: () => db.execute(insert, new Set(["a"])),
      date: () => db.execute(insert, new Date(0)),
      promise: () => db.execute(insert, Promise.resolve(["a"])),
      inside: () => db.execute(insert, [new Date(0)]),
      call: () => db.execute(insert, [() => 1]),
      symbol: () => db.execute(insert, [Symbol("s")]),
      twice: () => db.execute(insert, { a: 1, ":a": 2 }),
      names: () => db.execute(insert, new Map([[1, 2]])),
      large: () => db.execute(insert, [2n ** 63n]),
      surrogate: () => db.execute(insert, ["a\ud800b"]),
      sql: () => db.execute(new URL("sql:x")),
      noSql: () => db.fetchAll(),
      name: () => holdfast.open(new URL(location), options),
      noName: () => holdfast.deleteDatabase(),
      option: () => holdfast.open("x.db", { ...options, busy_timeout: 5 }),
      timeout: () => holdfast.open("x.db", { ...options, busyTimeout: "5" }),
      storage: () => holdfast.open("x.db", { ...options, storage: 5 }),
      noStorage: () => holdfast.open("x.db", { ...options, storage: "cloud" }),
      schema: () => holdfast.open("x.db", { ...options, schema: [{ name: "t", colums: {} }] }),
      noObject: () => db.fetchAll("SELECT 1", [], null),
      signals: () => db.fetchAll("SELECT 1", [], { signals: 1 }),
      work: () => db.transaction("work"),
      watch: () => db.watch("SELECT 1", [], { throttle: "slow" }).next(),
      changes: () => db.changes("notes").next(),
      diffs: () => db.triggers.diffs("notes", { column: ["text"] }).next(),
      columns: () => db.triggers.trackTableDiff({ ...handler, columns: "text" }),
      handler: () => db.triggers.trackTableDiff({ source: "notes" }),
      trigger: () => db.triggers.createDiffTrigger({ source: "notes" }),
      noOptions: () => db.triggers.trackTableDiff(),
      // What cannot be sent: its call is forgotten.
      unsent: () => db.triggers.trackTableDiff({ ...handler, when: { INSERT: () => 1 } }),
      data: () => holdfast.importDatabase("x.db", "data"),
      range: () => holdfast.open("x.db", { ...options, busyTimeout: -3 }),
      noNumber: () => holdfast.deleteDatabase("x.db", { wait: NaN }),
      backlog: () => db.triggers.trackTableDiff({ ...handler, maxBacklog: 0 }),
      missing: () => db.fetchAll("SELECT :v", { w: 1 }),
      noName1: () => db.fetchValue("SELECT ?1", { w: 1 }),
      unnamed: () => db.execute(insert, { a: 1 }),
      many: () => db.executeMany(insert, [["a"], ["b", 2]]),
      transaction: () => db.transaction((tx) => tx.fetchOne("SELECT @v", {})),
    };
    const found = {};
    for (const [what, work] of Object.entries(wrong)) {
      const error = await failure(work);
      found[what] = error && `${error.name}: ${error.message}`;
    }
    return [found, await db.fetchValue("SELECT count(*) FROM notes"), await holdfast.databases()];
  });
  const [errors, count, names] = found;
  expect([count, names]).toEqual([0, ["values.db"]]);
  const expected = {
    number: /^TypeError: many must be an array or another iterable .* the number 5$/,
    text: /^TypeError: many must be an array .* the string "abc"$/,
    inMany: /^TypeError: params must be an array or another iterable .* a Map .* the number 5;/,
    value: /^TypeError: params must be .* the string "a"; for one value write \[value\]$/,
    bytes: /^TypeError: params must be .* a Uint8Array/,
    set: /^TypeError: params is a Set/,
    date: /^TypeError: params must be .* a Date/,
    promise: /^TypeError: params must be .* a Promise/,
    inside: /^TypeError: parameter 1 is a Date; SQLite stores null, numbers, BigInts/,
    call: /^TypeError: parameter 1 is a function/,
    symbol: /^TypeError: parameter 1 is the symbol Symbol\(s\)/,
    twice: /^TypeError: params has two values for the parameter a$/,
    names: /^TypeError: the name of a parameter must be a string, not the number 1$/,
    large: /^RangeError: parameter 1 is 9223372036854775808n; SQLite's integers have 64 bits$/,
    surrogate: /^TypeError: parameter 1 is a string with half of a surrogate pair/,
    sql: /^TypeError: sql must be a string, not a URL$/,
    noSql: /^TypeError: sql must be a string, not undefined$/,
    name: /^TypeError: name must be a string, not a URL$/,
    noName: /^TypeError: name must be a string, not undefined$/,
    option: /^TypeError: open\(\) has no option busy_timeout; it has storage, .*busyTimeout/,
    timeout: /^TypeError: busyTimeout must be a number of seconds, 0 or more, not the string "5"$/,
    storage: /^TypeError: storage must be a string/,
    noStorage: /^ValueError: .*cloud/,
    schema: /^TypeError: a table of the schema has no option colums; it has name, columns,/,
    noObject: /^TypeError: the options of fetchAll\(\) must be an object, not null$/,
    signals: /^TypeError: fetchAll\(\) has no option signals; it has signal$/,
    work: /^TypeError: transaction\(\) is given a function, not the string "work"$/,
    watch: /^TypeError: throttle must be a number of seconds/,
    changes: /^TypeError: tables must be an array or another iterable, not the string "notes"$/,
    diffs: /^TypeError: diffs\(\) has no option column; it has .*columns/,
    columns: /^TypeError: columns must be an array/,
    handler: /^TypeError: onChange must be a function, not undefined$/,
    trigger: /^TypeError: destination must be a string, not undefined$/,
    noOptions: /^TypeError: source must be a string, not undefined$/,
    unsent: /^TypeError: an argument cannot be sent to the worker that has the database: /,
    data: /^TypeError: data must be a Uint8Array, .* the string "data"$/,
    range: /^RangeError: busyTimeout must be 0 or more seconds, not -3$/,
    noNumber: /^RangeError: wait must be 0 or more seconds, not NaN$/,
    backlog: /^RangeError: maxBacklog must be 1 or more records, not 0$/,
    missing:
      /^ValueError: params has no value for the parameter 'v'; it has values for 'w'; the statement is 'SELECT :v'$/,
    noName1: /^ValueError: params has no value for the parameter '1'; it has values for 'w'; /,
    unnamed: /^ValueError: params gives values by name, and parameter 1 of the statement has no name; /,
    many: /^BindingsError: the statement has 1 parameter and params number 2 has 2 values; /,
    transaction: /^ValueError: params has no value for the parameter 'v'; it has none; /,
  };
  expect(Object.keys(errors)).toEqual(Object.keys(expected));
  for (const [what, pattern] of Object.entries(expected)) expect(errors[what], what).toMatch(pattern);
});

test("an article follows the word that stands for Python's, and what is quoted stays", () => {
  expect(inJavaScript("parameter 1 is a dict; 'a dict'")).toBe("parameter 1 is an object; 'a dict'");
  expect(inJavaScript("a sequence or a mapping, not an int, of data dict")).toBe(
    "an array or an object, not a number, of data object",
  );
});

test("an error says where it was called from, and keeps its name when it is cloned", async () => {
  const found = await page.evaluate(async () => {
    const caught = async (work) => {
      try {
        await work();
      } catch (error) {
        return error;
      }
    };
    const elsewhere = await holdfast.open("elsewhere.db", options);
    await elsewhere.close();
    const tried = {
      thisStatement: async function thisStatement() {
        await db.execute("SELEKT");
      },
      thisFetch: async function thisFetch() {
        await null;
        await db.fetchAll("SELECT * FROM missing");
      },
      thisTransaction: async function thisTransaction() {
        await db.transaction(async (tx) => {
          await tx.execute("INSERT INTO notes(id) VALUES(1)");
          await tx.execute("INSERT INTO notes(id) VALUES(1)");
        });
      },
      thisOpen: async function thisOpen() {
        await holdfast.open("a//b", options);
      },
      thisStream: async function thisStream() {
        for await (const rows of db.watch("SELECT * FROM missing")) return rows;
      },
      thisTracker: async function thisTracker() {
        await db.triggers.trackTableDiff({ source: "missing", onChange() {} });
      },
      thisClosed: async function thisClosed() {
        await elsewhere.fetchAll("SELECT 1");
      },
    };
    const found = {};
    for (const [name, work] of Object.entries(tried)) {
      const error = await caught(work);
      const { port1, port2 } = new MessageChannel();
      const sent = await new Promise((resolve) => {
        port2.onmessage = ({ data }) => resolve(data);
        port1.postMessage(error);
      });
      found[name] = {
        ours: error instanceof holdfast.HoldfastError && error instanceof Error,
        name: error.name,
        first: error.stack.split("\n")[0] === `${error.name}: ${error.message}`,
        frames: error.stack.includes(name),
        module: error.stack.includes("holdfast.mjs"),
        text: String(error) === `${error.name}: ${error.message}`,
        sent: [sent.name === error.name, sent.message === error.message, sent instanceof Error],
      };
    }
    return found;
  });
  const names = {
    thisStatement: "SQLError",
    thisFetch: "SQLError",
    thisTransaction: "ConstraintError",
    thisOpen: "ValueError",
    thisStream: "SQLError",
    thisTracker: "UnknownSourceError",
    thisClosed: "DatabaseClosedError",
  };
  const well = { ours: true, first: true, frames: true, module: false, text: true };
  for (const [what, name] of Object.entries(names)) {
    expect(found[what], what).toEqual({ ...well, name, sent: [true, true, true] });
  }
});

test("errors of the worker name JavaScript's methods and types", async () => {
  const messages = await page.evaluate(async () => {
    const message = async (work) => (await failure(work)).message;
    const closed = await holdfast.open("closed.db", options);
    await closed.close();
    return {
      several: await message(() => db.execute("SELECT 1; SELECT 2")),
      begin: await message(() => db.execute("BEGIN")),
      vacuum: await message(() => db.transaction((tx) => tx.execute("VACUUM"))),
      writes: await message(() => db.readTransaction((tx) => tx.execute("DELETE FROM notes"))),
      closed: await message(() => closed.execute("SELECT 1")),
      attach: await message(() => db.execute("ATTACH 'holdfast.open' AS str")),
      // SQLite's own, of the application's names.
      column: await message(() => db.execute("SELECT fetch_all FROM notes")),
    };
  });
  expect(messages.several).toContain("inside transaction() if");
  expect(messages.begin).toContain("use transaction() or readTransaction()");
  expect(messages.closed).toContain("open it again with open()");
  expect(messages.attach).toContain("'holdfast.open' AS str");
  expect(messages.attach).toContain("the other with open()");
  expect(messages.column).toContain("fetch_all");
  for (const [what, message] of Object.entries(messages)) {
    const said = message.replace(/"[^"]*"|'[^']*'/g, "");
    if (what !== "column") expect(said, what).not.toMatch(/[a-z]_[a-z]|holdfast\.|\bNone\b|\bstr\b/);
  }
});
