// A new version of an application migrates the database in one tab, while the old one goes on in
// another: no statement and no write fails for the triggers of any of them.
import { expect, storages, test } from "./tabs.mjs";

const open = (storage, columns) => `
import asyncio, holdfast
from holdfast import Column, Schema, Table
db = await holdfast.open("app.db", schema=Schema([
    Table("lists", [${columns.map((name) => `Column.text("${name}")`)}]),
])${storage}, busy_timeout=60)
`;

const track = (source, options = "") => `
async def report(ctx):
    for row in await ctx.with_diff("SELECT * FROM DIFF"):
        emit({"operation": row["operation"], "id": row["id"], "value": row["value"]})
async def failed(error):
    emit({"error": type(error).__name__, "says": str(error)})
await db.triggers.track_table_diff("${source}", report, throttle=0, on_error=failed${options})
None
`;

const execute = (sql) => `(await db.execute(${JSON.stringify(sql)})).changes`;

for (const { on, options, storage } of storages) {
  test(`a migration in one tab beside trackers in another, on ${on}`, async ({ openTab }) => {
    const old = await openTab(options);
    const fresh = await openTab(options);
    await old.run(open(storage, ["name"]));
    await old.run(execute("CREATE TABLE t(id INTEGER PRIMARY KEY, a, b)"));
    await old.run(execute("CREATE TABLE looked_at(x)"));
    await old.run(track("t", ", only_changed=True"));
    await old.run(track("lists"));

    await test.step("a newer schema", async () => {
      await fresh.run(open(storage, ["name", "more"]));
      expect(
        await fresh.run(execute("INSERT INTO lists(id, name, more) VALUES ('1', 'one', 'm')")),
      ).toBe(1);
      const { value } = await old.event();
      expect(JSON.parse(value)).toEqual({ name: "one", more: "m" });
      expect(await old.run(execute("UPDATE lists SET name = 'uno'"))).toBe(1);
      expect(JSON.parse((await old.event()).value)).toEqual({ name: "uno", more: "m" });
      expect(
        await fresh.run(`await db.fetch_value("SELECT data FROM ps_data__lists")`),
      ).toContain(`"more":"m"`);
    });

    await test.step("columns come and go", async () => {
      await fresh.run(execute("ALTER TABLE t ADD COLUMN c"));
      await fresh.run(execute("ALTER TABLE t DROP COLUMN b"));
      await fresh.run(execute("INSERT INTO t VALUES (1, 1, 1)"));
      expect(JSON.parse((await old.event()).value)).toEqual({ id: 1, a: 1, c: 1 });
      await fresh.run(execute("UPDATE t SET c = 2"));
      expect(JSON.parse((await old.event()).value)).toEqual({ id: 1, a: 1, c: 2 });
    });

    await test.step("a condition's table goes, then a column, then the source", async () => {
      const when = `, when={"INSERT": "NOT EXISTS (SELECT 1 FROM looked_at)"}`;
      await old.run(track("t", when));
      await old.run(track("t", `, columns=["a"]`));
      await fresh.run(execute("DROP TABLE looked_at"));
      expect(await old.event()).toMatchObject({ error: "InvalidWhenError" });
      await fresh.run(execute("ALTER TABLE t RENAME COLUMN a TO z"));
      expect(await old.event()).toMatchObject({ error: "SourceDroppedError" });
      for (const tab of [fresh, old]) {
        await tab.run(execute("INSERT INTO t(z) VALUES (5)"));
        expect(JSON.parse((await old.event()).value)).toMatchObject({ z: 5, c: null });
      }
      await fresh.run(`
async with db.write_transaction() as tx:
    await tx.execute("INSERT INTO t(z) VALUES ('last words')")
    await tx.execute("ALTER TABLE t RENAME TO u")
`);
      expect(JSON.parse((await old.event()).value)).toMatchObject({ z: "last words" });
      const { error, says } = await old.event();
      expect(error).toBe("SourceDroppedError");
      expect(says).not.toContain("holdfast_");
      for (const tab of [fresh, old]) await tab.run(execute("INSERT INTO u(z) VALUES (6)"));
      expect(old.events).toEqual([]);
    });
  });
}
