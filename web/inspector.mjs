// The database of the demo from plain JavaScript: a query that is watched, and what changes.
// holdfast.mjs comes from the wheel; the worker that it starts is the one that Python pages start.
import { open } from "/pyodide/holdfast.mjs";
import { element } from "./dom.mjs";

const DATABASE = "films.db";
const FIRST = "SELECT id, title, director, rating, votes FROM films ORDER BY votes DESC LIMIT 100";
// Changes that are listed at most.
const KEPT = 100;

const by = (id) => document.getElementById(id);

function say(text, trouble = false) {
  by("message").textContent = text;
  by("message").classList.toggle("trouble", trouble);
}

function show(rows) {
  const columns = rows.length ? Object.keys(rows[0]) : [];
  const line = (values, kind) => {
    const made = element("tr");
    made.append(...values.map((value) => element(kind, { textContent: text(value) })));
    return made;
  };
  by("rows").tHead.replaceChildren(...(rows.length ? [line(columns, "th")] : []));
  by("rows").tBodies[0].replaceChildren(...rows.map((row) => line(Object.values(row), "td")));
  say(`${rows.length} ${rows.length === 1 ? "row" : "rows"}, as they are now`);
}

const text = (value) =>
  value === null ? "NULL" : value instanceof Uint8Array ? `${value.length} bytes` : String(value);

// One query is watched at a time; another ends it.
let watching = 0;

async function watch(db, sql) {
  const mine = (watching += 1);
  try {
    for await (const rows of db.watch(sql)) {
      if (mine !== watching) return;
      show(rows);
    }
  } catch (error) {
    if (mine === watching) say(`${error.name}: ${error.message}`, true);
  }
}

async function listChanges(db) {
  for await (const records of db.triggers.diffs("films", { onlyChanged: true })) {
    for (const { operation, id, values, remote } of records.slice(-KEPT)) {
      const who = remote ? "another tab" : "this tab";
      const what = `${operation} ${values?.title ?? `film ${id}`}, by ${who}`;
      by("changes").prepend(element("li", { textContent: what }));
    }
    while (by("changes").childElementCount > KEPT) by("changes").lastElementChild.remove();
  }
}

async function start() {
  const { packages } = await (await fetch("/pyodide/pyodide-lock.json")).json();
  const wheel = new URL(`/pyodide/${packages.holdfast.file_name}`, location.href).href;
  // On a page of your own `packages` can be left out: micropip finds holdfast by its name.
  const db = await open(DATABASE, { pyodide: "/pyodide/", packages: [wheel] });

  const { storage, handleMode, tabs } = await db.status();
  by("status").textContent = `${storage}, ${handleMode} handles, ${tabs} tabs`;
  by("sql").value = FIRST;
  by("query").addEventListener("submit", (event) => {
    event.preventDefault();
    watch(db, by("sql").value);
  });
  for (const control of by("query").elements) control.disabled = false;
  if (!(await db.fetchValue("SELECT 1 FROM sqlite_master WHERE name = 'films'"))) {
    say("There are no films yet: open the demo first, which loads them.", true);
    return;
  }
  await Promise.all([watch(db, FIRST), listChanges(db)]);
}

start().catch((error) => say(`${error.name}: ${error.message}`, true));
