// Chromium as its users have it. Of what Playwright starts, every page believes to be in front, is
// never hidden or frozen, and never kept to be gone back to.
import { chromium } from "@playwright/test";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** { context, close() } of a Chromium with this profile. */
export async function launchPlain(executable, profile) {
  const child = spawn(
    executable,
    ["--headless", "--no-sandbox", "--remote-debugging-port=0", `--user-data-dir=${profile}`],
    { stdio: ["ignore", "ignore", "pipe"] },
  );
  // A bound that tells what hangs: it answers when it has begun, however slowly.
  const options = { noDefaults: true, timeout: 180_000 };
  const browser = await chromium.connectOverCDP(await address(child), options);
  const [context] = browser.contexts();
  return {
    context,
    async close() {
      const session = await browser.newBrowserCDPSession();
      const ended = once(child, "exit");
      await Promise.all([ended, session.send("Browser.close").catch(() => {})]);
    },
  };
}

async function address({ stderr }) {
  const said = [];
  for await (const line of createInterface({ input: stderr })) {
    const [, found] = /^DevTools listening on (ws:\S+)/.exec(line) ?? [];
    if (found) {
      stderr.resume(); // or it would wait for somebody to read what it says next
      return found;
    }
    said.push(line);
  }
  throw new Error(`Chromium ended: ${said.join("\n")}`);
}
