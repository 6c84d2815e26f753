import { expect, test } from "./tabs.mjs";
test.use({ ownBrowser: true });
test("x", async ({ openTab, context }) => {
    const a = await openTab({ own: true });
    const devtools = await context.newCDPSession(a.page);
    const origin = process.env.HOLDFAST_ORIGIN;
    await devtools.send("Storage.overrideQuotaForOrigin", { origin, quotaSize: 20_000_000 });
    console.log(await a.run(`
from pyodide.code import run_js
import asyncio
out = []
for src in ["Promise.reject(new DOMException('x', 'QuotaExceededError'))", "Promise.reject(new QuotaExceededError('x'))"]:
    try:
        await asyncio.wait_for(run_js(src), 2)
    except BaseException as e:
        out.append(repr(e))
import holdfast
from holdfast.browser.host import host
host()
run_js("""
globalThis.said = [];
const d = holdfastHost.openBlocks("dd", true).then(async (db) => {
  for (let i = 0; i < 40; i++) {
    let n = 0;
    try {
      await Promise.race([holdfastHost.writeBlocks(db, 4096 * 244 * (i + 1), 244 * (i + 1), () => {
        if (n++) return undefined;
        const f = new Float64Array(244); for (let k = 0; k < 244; k++) f[k] = i * 244 + k;
        return [f, new Uint8Array(4096 * 244).map((_, i) => Math.random() * 256)];
      }, "strict"), new Promise((r, j) => setTimeout(j, 4000, new Error("nothing")))]);
    } catch (e) { said.push(i + String(e)); break; }
  }
  return said;
});
d
""")
import js
await asyncio.sleep(9)
out.append(str(js.said.to_py()))
out`));
});
