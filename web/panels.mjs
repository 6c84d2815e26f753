// Beside the table: what changes, who tracks it, and how the storage is.
import { COLUMNS, format } from "./columns.mjs";
import { element, flash } from "./dom.mjs";
import { signal } from "./flags.mjs";

// Entries of the log that are kept.
const KEPT = 200;

// How long a reclaimed trigger stays in sight, crossed out, in milliseconds.
const FAREWELL = 2500;

const clock = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
  fractionalSecondDigits: 3,
});
const hour = new Intl.DateTimeFormat("en-GB", {
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit",
});

/** The log of changes, newest first. */
export class Changes {
  /** Told for each change of another tab. */
  onRemote = () => {};

  #log = document.getElementById("log");
  #empty = document.getElementById("log-empty");
  #clear = document.getElementById("clear");

  constructor(engine) {
    engine.addEventListener("diff", ({ detail }) => this.#diff(detail));
    this.#clear.addEventListener("click", () => {
      this.#log.replaceChildren();
      this.#shown();
    });
  }

  /** A line about a tab itself. */
  note(kind, tab, text) {
    const entry = item("li", `entry ${kind}`);
    const head = item("p", "head");
    head.append(item("span", "op", kind), mark(tab));
    entry.append(head, item("p", "", text), foot(new Date()));
    this.#add(entry);
  }

  #diff({ remote, records, more }) {
    const now = Date.now();
    for (const record of records) {
      const entry = item("li", `entry ${record.operation.toLowerCase()}`);
      entry.dataset.remote = remote;
      const head = item("p", "head");
      head.append(
        item("span", "op", record.operation.toLowerCase()),
        item("span", "what", record.title ?? `film ${record.id}`),
      );
      entry.append(head, fields(record));
      const written = new Date(record.time);
      const who = item("span", remote ? "who other" : "who", remote ? "another tab" : "this tab");
      const lag = item("span", "lag", `seen after ${Math.max(0, now - written)} ms`);
      entry.append(foot(written, who, lag));
      this.#add(entry);
    }
    if (more) this.#add(item("li", "entry more", `and ${more} more in the same transaction`));
    if (remote) this.onRemote(records.length + more);
  }

  #add(entry) {
    this.#log.prepend(entry);
    flash(entry);
    while (this.#log.childElementCount > KEPT) this.#log.lastElementChild.remove();
    this.#shown();
  }

  #shown() {
    const any = this.#log.childElementCount > 0;
    this.#empty.hidden = any;
    this.#clear.disabled = !any;
  }
}

function fields({ operation, changes }) {
  const list = item("dl", "fields");
  for (const [name, before, after] of changes) {
    // Of a whole film the title is in the line above already.
    if (name === "title" && operation !== "UPDATE") continue;
    const column = COLUMNS.find((each) => each.name === name);
    const value = item("dd");
    if (operation !== "INSERT") value.append(shown("del", column, before));
    if (operation === "UPDATE") value.append(item("span", "arrow", " → "));
    if (operation !== "DELETE") value.append(shown("ins", column, after));
    list.append(item("dt", "", column.label), value);
  }
  return list;
}

function shown(tag, column, value) {
  return value === null ? item(tag, "null", "empty") : item(tag, "", format(column, value));
}

function foot(time, ...rest) {
  const line = item("p", "foot");
  const stamp = item("time", "", clock.format(time));
  stamp.dateTime = time.toISOString();
  line.append(stamp, ...rest);
  return line;
}

/** The triggers of all tabs. */
export class Triggers {
  /** Told this tab's name and flag once they are known. */
  onIdentity = () => {};

  #changes;
  #list = document.getElementById("trackers");
  #empty = document.getElementById("trackers-empty");
  #count = document.getElementById("trigger-count");
  #known = null; // id -> trigger; null before the first list

  constructor(engine, changes) {
    this.#changes = changes;
    engine.addEventListener("triggers", ({ detail }) => this.#show(detail.triggers));
  }

  #show(triggers) {
    const before = this.#known;
    this.#known = new Map(triggers.map((trigger) => [trigger.id, trigger]));
    for (const trigger of triggers) {
      const tab = signal(trigger.id);
      if (trigger.mine) this.onIdentity(tab);
      else if (before && !before.has(trigger.id)) {
        this.#changes.note("joined", tab, "A tab opened, with a trigger of its own.");
      }
      const at = this.#list.querySelector(`[data-id="${CSS.escape(trigger.id)}"]`);
      const card = describe(trigger, tab);
      if (at) at.replaceWith(card);
      else this.#list.append(card);
    }
    for (const trigger of before?.values() ?? []) {
      // No tab of this demo ends its trigger while it lives, so one that is gone was reclaimed.
      if (!this.#known.has(trigger.id)) this.#reclaimed(trigger);
    }
    this.#count.textContent = triggers.length;
    this.#count.hidden = triggers.length === 0;
    this.#empty.hidden = this.#list.childElementCount > 0;
  }

  #reclaimed({ id, mine }) {
    const who = mine ? "This tab’s worker before" : "A tab";
    const text = `${who} died. Nobody held its trigger, so that was removed.`;
    this.#changes.note("reclaimed", signal(id), text);
    const card = this.#list.querySelector(`[data-id="${CSS.escape(id)}"]`);
    card.classList.add("gone");
    card.querySelector(".hold").textContent = "reclaimed";
    setTimeout(() => {
      card.remove();
      this.#empty.hidden = this.#list.childElementCount > 0;
    }, FAREWELL);
  }
}

function describe(trigger, tab) {
  const card = item("li", "tracker");
  card.dataset.id = trigger.id;
  card.classList.toggle("mine", trigger.mine);
  card.classList.toggle("orphan", !trigger.held);
  const head = item("p", "head");
  head.append(mark(tab));
  if (trigger.mine) head.append(item("span", "who", "this tab"));
  head.append(item("span", "hold", trigger.held ? "held" : "not held"));
  const table = item("p", "path");
  table.append(
    item("span", "", trigger.source),
    item("span", "arrow", " → "),
    Object.assign(item("span", "destination", trigger.destination), { title: trigger.destination }),
  );
  const since = new Date(trigger.created);
  const rest = item("p", "foot");
  rest.append(item("span", "", trigger.operations.join(", ").toLowerCase()));
  rest.append(item("span", "", `since ${hour.format(since)}`));
  card.append(head, table, rest);
  return card;
}

/** A tab's flag and name. */
export function mark({ name, svg }) {
  const found = item("span", "tab");
  found.innerHTML = svg;
  found.append(item("b", "", name));
  return found;
}

/** The line at the bottom. */
export class Status {
  #line = document.getElementById("status");

  constructor(engine) {
    engine.addEventListener("status", ({ detail }) => this.#show(detail));
  }

  #show({ storage, handle_mode: mode, persisted, usage, quota, wal_frames: frames, tabs }) {
    const parts = [
      ["Storage", mode ? `${storage}, ${mode} handles` : storage],
      ["Tabs", tabs],
      ["WAL", frames === null ? null : `${frames} ${frames === 1 ? "page" : "pages"}`],
      ["Space", usage === null ? null : `${bytes(usage)} of ${bytes(quota)}`],
      ["Eviction", persisted === null ? null : persisted ? "never" : "if the disk runs full"],
    ];
    this.#line.replaceChildren(
      ...parts
        .filter(([, value]) => value !== null)
        .map(([name, value]) => {
          const part = item("p");
          part.append(item("span", "label", name), item("span", "value", String(value)));
          return part;
        }),
    );
  }
}

function bytes(n) {
  if (n === null) return "?";
  const units = ["B", "kB", "MB", "GB", "TB"];
  const power = n < 1 ? 0 : Math.min(units.length - 1, Math.floor(Math.log10(n) / 3));
  return `${(n / 1000 ** power).toFixed(power > 1 ? 1 : 0)} ${units[power]}`;
}

function item(tag, className = "", text = "") {
  return element(tag, className ? { className, textContent: text } : { textContent: text });
}
