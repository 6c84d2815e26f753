// The pages in the README, exactly as printed, each in two tabs: Python on the main thread, Python
// in a worker, PyScript, JavaScript.
import { readFileSync } from "node:fs";
import { expect, test } from "./tabs.mjs";

const pages = [...readFileSync("README.md", "utf8").matchAll(/^```html\n(.*?)^```$/gms)];
const [onMainThread, inWorker, pyScript, javaScript] = pages.map(([, html]) => html);

test("the first page is short enough to be copied", () => {
  expect(pages).toHaveLength(4);
  expect(onMainThread.trimEnd().split("\n").length).toBeLessThan(40);
});

for (const [what, html] of Object.entries({ onMainThread, inWorker, pyScript, javaScript })) {
  test(`the README's page shows the notes of both tabs: ${what}`, async ({ context }) => {
    const url = `${process.env.HOLDFAST_ORIGIN}/notes.html`;
    await context.route(url, (route) => route.fulfill({ contentType: "text/html", body: html }));
    const [a, b] = [await context.newPage(), await context.newPage()];
    for (const page of [a, b]) {
      page.on("pageerror", (error) => console.log(`[page] ${error}`));
      page.on("console", (message) => {
        if (message.type() === "error") console.log(`[console] ${message.text()}`);
      });
      await page.goto(url);
    }
    const add = async (page, text) => {
      await page.getByLabel("Note").fill(text);
      await page.getByRole("button", { name: "Add" }).click(); // waits until it is enabled
    };

    await add(a, "from the first tab");
    await expect(a.getByRole("listitem")).toHaveText(["from the first tab"], { timeout: 120_000 });
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
    await expect(a.getByRole("listitem")).toHaveCount(2, { timeout: 120_000 });
  });
}
