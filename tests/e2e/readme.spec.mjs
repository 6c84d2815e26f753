// The pages and the JavaScript of README.md and docs/, exactly as printed: each page in two tabs,
// each block of JavaScript as the module of a page, which prints what the documentation says.
import { readdirSync, readFileSync } from "node:fs";
import { expect, test } from "./tabs.mjs";

const READY = { timeout: 120_000 };
const documents = ["README.md", ...readdirSync("docs").map((name) => `docs/${name}`)];

/** [name for a test, code, output that follows it] of each block of that kind. */
const blocks = (kind) =>
  documents
    .filter((name) => name.endsWith(".md"))
    .flatMap((name) => {
      const block = RegExp(`^\`\`\`${kind}\\n(.*?)^\`\`\`$(?:\\s+^\`\`\`text\\n(.*?)^\`\`\`$)?`, "gms");
      const found = [...readFileSync(name, "utf8").matchAll(block)];
      return found.map(([, code, output], i) => [`${name}, ${kind} ${i + 1}`, code, output]);
    });

const pages = blocks("html");
const scripts = blocks("js");

test("there are four pages, each short enough to be copied", () => {
  expect(pages).toHaveLength(4);
  for (const [, html] of pages) expect(html.trimEnd().split("\n").length).toBeLessThan(50);
  expect(scripts.length).toBeGreaterThan(0);
});

/** Opens that HTML as a page of the site; errors go to the log of the test. */
async function show(context, html) {
  const url = `${process.env.HOLDFAST_ORIGIN}/notes.html`;
  await context.route(url, (route) => route.fulfill({ contentType: "text/html", body: html }));
  const page = await context.newPage();
  page.on("pageerror", (error) => console.log(`[page] ${error}`));
  page.on("console", (message) => {
    if (message.type() === "error") console.log(`[console] ${message.text()}`);
  });
  return [page, () => page.goto(url)];
}

for (const [name, html] of pages) {
  test(`a page shows the notes of both tabs: ${name}`, async ({ context }) => {
    const tabs = [await show(context, html), await show(context, html)];
    for (const [, load] of tabs) await load();
    const [[a], [b]] = tabs;
    const add = async (page, text) => {
      await page.getByLabel("Note").fill(text);
      await page.getByRole("button", { name: "Add" }).click(); // waits until it is enabled
    };

    await add(a, "from the first tab");
    await expect(a.getByRole("listitem")).toHaveText(["from the first tab"], READY);
    await expect(a.getByRole("status")).toHaveText("INSERT by this tab");
    await add(b, "from the second");
    for (const page of [a, b]) {
      await expect(page.getByRole("listitem")).toHaveText([
        "from the first tab",
        "from the second",
      ]);
    }
    await expect(a.getByRole("status")).toHaveText("INSERT by another tab");
    await expect(b.getByRole("status")).toHaveText("INSERT by this tab");

    await a.reload();
    await expect(a.getByRole("listitem")).toHaveCount(2, READY);
  });
}

for (const [name, code, output] of scripts) {
  test(`a script prints what it says: ${name}`, async ({ context }) => {
    // What the page prints, and not what its worker says while it starts.
    const collect = `globalThis.printed = "";
      console.log = (...words) => (printed += words.join(" ") + "\\n");`;
    const [page, load] = await show(
      context,
      `<script>${collect}</script><script type="module">${code}document.title = "done"</script>`,
    );
    await load();
    await expect(page).toHaveTitle("done", READY);
    expect(await page.evaluate(() => printed)).toBe(output ?? "");
  });
}
