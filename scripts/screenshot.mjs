// Makes docs/demo.png: two tabs of the demo side by side, and in the right one what the left one
// changed. `make screenshot` runs it; the names of the tabs and the times are others each time.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { statSync } from "node:fs";
import { Browser } from "../tests/e2e/browser.mjs";

const OUTPUT = "docs/demo.png";
// A README shows it about as wide as it is, so that text stays legible; PyPI and GitHub fetch it.
const TAB = { width: 590, height: 512 };
const LARGEST = 150_000;
const READY = { timeout: 120_000 };

const python = process.env.PYTHON ?? ".build/venv/bin/python";
const server = spawn(python, ["scripts/serve.py"], { stdio: ["ignore", "pipe", "inherit"] });
try {
  const [line] = await once(server.stdout, "data");
  const [origin] = /http:\S+(?=\/)/.exec(line);
  const browser = await Browser.launch("chromium", { fresh: true });
  try {
    await take(browser.context, origin);
  } finally {
    await browser.close();
  }
} finally {
  server.kill("SIGINT");
}

async function take(context, origin) {
  // A change lights up and fades; here it stays as it is at first.
  await context.addInitScript(() => {
    const { animate } = Element.prototype;
    Element.prototype.animate = function (...how) {
      const animation = animate.apply(this, how);
      animation.pause();
      return animation;
    };
  });
  const open = async () => {
    const page = await context.newPage();
    await page.emulateMedia({ colorScheme: "light" });
    await page.setViewportSize(TAB);
    await page.goto(origin);
    await page.locator("body[data-state=ready]").waitFor(READY);
    return page;
  };
  const [left, right] = [await open(), await open()];
  for (const page of [left, right]) {
    await page.locator("#trackers li").nth(1).waitFor({ state: "attached" });
  }
  const film = left.locator("#table tr", { hasText: "The Godfather" }).first();
  await left.bringToFront();
  await film.locator("td.genre").click();
  await left.keyboard.type("Crime");
  await left.keyboard.press("Enter");
  await right.locator("td.genre", { hasText: "Crime" }).first().waitFor();
  await right.locator("#unseen", { hasText: "1" }).waitFor();

  const pictures = [];
  for (const page of [left, right]) {
    await page.bringToFront();
    pictures.push({ title: await page.title(), data: await page.screenshot() });
  }
  const both = await context.newPage();
  await both.setViewportSize({ width: 2 * TAB.width + 50, height: TAB.height + 100 });
  await both.setContent(sideBySide(pictures));
  await both.locator("main").screenshot({ path: OUTPUT });

  const { size } = statSync(OUTPUT);
  console.log(`${OUTPUT}: ${size.toLocaleString("en")} bytes`);
  if (size > LARGEST) throw new Error(`${OUTPUT} is larger than ${LARGEST} bytes; make TAB smaller`);
}

function sideBySide(pictures) {
  const tabs = pictures.map(
    ({ title, data }) => `<figure>
      <figcaption><span>${title}</span></figcaption>
      <img src="data:image/png;base64,${data.toString("base64")}" />
    </figure>`,
  );
  return `<!doctype html>
    <style>
      body { margin: 0; background: #fff; font: 13px system-ui, sans-serif; }
      main { display: inline-flex; gap: 14px; padding: 8px; }
      figure { margin: 0; border: 1px solid #b9c0be; border-radius: 10px; overflow: hidden; }
      figcaption { display: flex; padding: 7px 12px 0; background: #cbd3d1; color: #2b3534; }
      span { padding: 6px 18px; border-radius: 8px 8px 0 0; background: #ebedec; }
      img { display: block; width: ${TAB.width}px; }
    </style>
    <main>${tabs.join("")}</main>`;
}
