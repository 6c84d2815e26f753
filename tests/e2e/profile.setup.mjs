// Makes the profile that the browsers of the specs begin with: in it Python was started once, so
// that its image and the compiled code of its packages are there.
import { Browser } from "./browser.mjs";
import { test } from "./tabs.mjs";

test("a profile in which Python has been started", async ({ browserName }) => {
  const browser = await Browser.launch(browserName, { fresh: true });
  for (const thread of ["worker", "page"]) {
    const tab = await browser.openTab({ own: true, thread, killable: false });
    await tab.run(`import holdfast`);
    await tab.close();
  }
  await browser.close({ keepAs: browserName });
});
