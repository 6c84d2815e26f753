// The demo as a person uses it: several tabs of one browser, the keyboard, a worker that dies.
import { expect, test as base } from "./tabs.mjs";

const READY = { timeout: 120_000 };

const test = base.extend({
  /** Opens so many tabs of the demo at once; gives their pages, not yet ready. */
  openDemo: async ({ context }, use) => {
    await use(async (n) => {
      const pages = await Promise.all(Array.from({ length: n }, () => context.newPage()));
      // A message stays until a later one: it is read, or its button clicked, however late.
      await Promise.all(pages.map((page) => page.addInitScript(keepMessages)));
      for (const page of pages) {
        page.on("pageerror", (error) => console.log(`[page] ${error.message}`));
      }
      await Promise.all(pages.map((page) => page.goto(`${process.env.HOLDFAST_ORIGIN}/`)));
      return pages;
    });
  },

  /** Two tabs that show the films and know of each other's triggers. */
  demo: async ({ openDemo }, use) => {
    const pages = await openDemo(2);
    for (const page of pages) {
      await expect(page.locator("#trackers li")).toHaveCount(2, READY);
      await expect(row(page, "Pulp Fiction")).toBeVisible();
    }
    await use(pages);
  },
});

/** In a page. */
function keepMessages() {
  const { setTimeout } = window;
  window.setTimeout = (call, time, ...args) =>
    time === 6_000 || time === 10_000 ? undefined : setTimeout(call, time, ...args);
}

const row = (page, title) =>
  page.locator("#table tr", { has: page.locator(`td.title:text-is("${title}")`) });
const cell = (page, title, column) => row(page, title).locator(`td.${column}`);
const entries = (page, kind) => page.locator(`#log .${kind}`);

/** Presses keys in this tab, one after the other, whatever has the focus. */
async function press(page, ...keys) {
  await page.bringToFront();
  for (const key of keys) await page.keyboard.press(key);
}

test.describe("two tabs", () => {
  test("tabs that open at once load the films once", async ({ openDemo }) => {
    const pages = await openDemo(2);
    const said = [];
    for (const page of pages) {
      await expect(page.locator("body")).toHaveAttribute("data-state", "ready", READY);
      await expect(page.locator("#count")).toHaveText("3,201 films");
      await expect(page.locator("#table")).toHaveAttribute("aria-rowcount", "3202");
      const progress = page.locator("#progress");
      expect(await progress.evaluate(({ value, max }) => [value, max])).toEqual([3201, 3201]);
      said.push(await page.locator("#films-step").textContent());
    }
    expect(said.sort()).toEqual(["3,201 films written", "3,201 films, already here"]);
  });

  test("sorted by any column, and scrolled to either end", async ({ demo: [a, b] }) => {
    await a.bringToFront();
    const sorted = async (label, direction) => {
      const header = a.getByRole("columnheader", { name: label });
      await header.getByRole("button").click();
      await expect(header).toHaveAttribute("aria-sort", direction);
    };
    const first = a.locator('#table tr[aria-rowindex="2"] td.title');
    await sorted("Gross", "descending");
    await expect(first).toHaveText("Avatar");
    await sorted("Title", "ascending");
    await expect(first).toHaveText("10,000 B.C.");
    await sorted("Title", "descending");
    await expect(first).toHaveText("Zwartboek");

    // Films without a value come last, either way.
    await sorted("Director", "ascending");
    await first.click();
    await press(a, "Control+End");
    await expect(a.locator('#table tr[aria-rowindex="3202"] td.director')).toHaveText("");
    await expect(first).toHaveCount(0);
    await press(a, "Control+Home");
    await expect(first).toBeVisible();
    // Each tab has its own view.
    await expect(b.locator('th[aria-sort="descending"]')).toHaveText("Votes");
  });

  test("searched and edited by keyboard, seen in both tabs", async ({ demo: [a, b] }) => {
    await press(a, "/");
    await a.keyboard.type("tarantino pulp");
    await expect(a.locator("#count")).toHaveText("1 found");
    await press(a, "Enter", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "Enter");
    await expect(cell(a, "Pulp Fiction", "rating").locator("input")).toBeFocused();
    await a.keyboard.type("9.75");
    await press(a, "Enter");

    await expect(cell(b, "Pulp Fiction", "rating")).toHaveText("9.75");
    for (const [page, who] of [[a, "this tab"], [b, "another tab"]]) {
      const entry = entries(page, "update");
      await expect(entry).toHaveCount(1);
      await expect(entry.locator(".what")).toHaveText("Pulp Fiction");
      await expect(entry.locator("dt")).toHaveText(["IMDb"]);
      await expect(entry.locator("del")).toHaveText("8.9");
      await expect(entry.locator("ins")).toHaveText("9.75");
      await expect(entry.locator(".who")).toHaveText(who);
    }

    // The other way round; Tab saves and goes on to the next cell, Escape leaves that as it was.
    await cell(b, "Pulp Fiction", "rating").click();
    await press(b, "Backspace");
    await b.keyboard.type("8.25");
    await press(b, "Tab");
    await expect(cell(b, "Pulp Fiction", "votes").locator("input")).toBeFocused();
    await b.keyboard.type("1");
    await press(b, "Escape");
    await expect(cell(b, "Pulp Fiction", "votes")).toHaveText("417,703");
    await expect(cell(a, "Pulp Fiction", "rating")).toHaveText("8.25");
    await expect(cell(a, "Pulp Fiction", "votes")).toHaveText("417,703");

    // What the database refuses is said, and the cell stays open with what was typed.
    await press(b, "ArrowLeft");
    await b.keyboard.type("11");
    await press(b, "Enter");
    await expect(b.locator("#toast")).toContainText("a rating is between 0 and 10");
    const refused = cell(b, "Pulp Fiction", "rating").locator("input");
    await expect(refused).toBeFocused();
    await expect(refused).toHaveValue("11");
    await press(b, "Escape");
    await expect(cell(b, "Pulp Fiction", "rating")).toHaveText("8.25");
    for (const page of [a, b]) await expect(entries(page, "update")).toHaveCount(2);
  });

  test("inspected from JavaScript beside Python", async ({ demo: [a], context }) => {
    const opened = context.waitForEvent("page");
    await a.getByRole("link", { name: "Inspect from JavaScript" }).click();
    const inspector = await opened;
    const rating = inspector.locator("#rows tr", { hasText: "Pulp Fiction" }).locator("td").nth(3);
    await expect(rating).toHaveText("8.9", READY);
    await expect(inspector.locator("#rows tbody tr")).toHaveCount(100);
    // Three tabs, three triggers: from here on the inspector's own records what Python writes.
    await expect(a.locator("#trackers li")).toHaveCount(3, READY);

    await a.bringToFront();
    await cell(a, "Pulp Fiction", "rating").click();
    await a.keyboard.type("7.5");
    await press(a, "Enter");
    await expect(rating).toHaveText("7.5");
    await expect(inspector.locator("#changes li")).toHaveText([
      "UPDATE Pulp Fiction, by another tab",
    ]);

    await inspector.bringToFront();
    const sql = inspector.getByLabel("SQL");
    await sql.fill("SELECT count(*) AS films FROM films");
    await press(inspector, "Enter");
    await expect(inspector.locator("#rows tbody td")).toHaveText(["3201"]);
    for (const wrong of ["SELECT", "DELETE FROM films"]) {
      await sql.fill(wrong);
      await press(inspector, "Enter");
      await expect(inspector.locator("#message.trouble")).toContainText(/SQLError|ValueError/);
    }
    await expect(a.locator("#count")).toHaveText("3,201 films");
  });

  test("films are added, deleted and brought back", async ({ demo: [a, b] }) => {
    await a.bringToFront();
    await a.getByRole("button", { name: "Add a film" }).click();
    await expect(cell(a, "", "title").locator("input")).toBeFocused();
    await a.keyboard.type("A Film of Mine");
    await press(a, "Enter");
    await expect(row(a, "A Film of Mine")).toBeVisible();
    await expect(b.locator("#count")).toHaveText("3,202 films");
    await expect(entries(b, "insert").locator(".what")).toHaveText("Untitled");
    await expect(entries(b, "update").locator("ins")).toHaveText("A Film of Mine");

    await b.bringToFront();
    await row(b, "The Godfather").hover();
    await row(b, "The Godfather").getByRole("button").click();
    await expect(row(a, "The Godfather")).toHaveCount(0);
    await expect(entries(a, "delete").locator(".what")).toHaveText("The Godfather");
    await b.getByRole("button", { name: "Undo" }).click();
    await expect(a.locator("#count")).toHaveText("3,202 films");
    await expect(entries(a, "insert").locator(".what").first()).toHaveText("The Godfather");
  });

  test("a worker that dies is reclaimed by the other tab", async ({ demo: [a, b] }) => {
    test.slow(); // Python starts three times.
    const own = a.locator("#trackers .mine:not(.gone)");
    const dead = await own.getAttribute("data-id");
    const inOther = b.locator(`#trackers [data-id="${dead}"]`);
    await expect(inOther).not.toHaveClass(/mine/);
    await expect(inOther.locator(".hold")).toHaveText("held");

    await a.bringToFront();
    await a.getByRole("button", { name: "Crash this tab’s worker" }).click();
    await expect(a.getByRole("alert")).toContainText("This tab’s worker is dead");
    await expect(inOther).toHaveCount(0);
    await expect(b.locator("#trackers li")).toHaveCount(1);
    await expect(entries(b, "reclaimed")).toHaveCount(1);
    await expect(b.locator("#status")).toContainText("Tabs1");

    // The survivor goes on, and the dead one comes back as another.
    await cell(b, "Pulp Fiction", "rating").click();
    await b.keyboard.type("7.5");
    await press(b, "Enter");
    await expect(entries(b, "update").locator("ins")).toHaveText("7.5");
    await a.bringToFront();
    await a.getByRole("button", { name: "Start the worker again" }).click();
    await expect(entries(a, "reclaimed")).toHaveCount(1, READY);
    await expect(a.locator("#trackers li:not(.gone)")).toHaveCount(2);
    await expect(cell(a, "Pulp Fiction", "rating")).toHaveText("7.5");
    expect(await own.getAttribute("data-id")).not.toBe(dead);
  });
});

test("without a durable storage the demo says so", async ({ context, openDemo }) => {
  await context.route("**/worker.mjs", async (route) => {
    const response = await route.fetch();
    const refuse = `navigator.storage.getDirectory = async () => {
      throw new DOMException("refused", "SecurityError");
    };`;
    await route.fulfill({ response, body: refuse + (await response.text()) });
  });
  const [page] = await openDemo(1);
  await expect(page.getByRole("alert")).toContainText("No durable storage here", READY);
});
