// The table. Only rows in or near sight are in the page, and only those are watched in the
// database; scrolling, sorting and searching watch others.
//
// It follows the ARIA grid pattern with one tab stop: focus stays on the table itself, and
// aria-activedescendant names the active cell, because a cell can scroll out of the page.
import { COLUMNS, fromInput, toInput } from "./columns.mjs";
import { element, flash } from "./dom.mjs";
import { REMOVE, fillRow, makeRow, show, spacer } from "./rows.mjs";

// Rows asked for beyond the visible ones, above and below, and how near the last of them may come
// before others are asked for.
const MARGIN = 40;
const RESERVE = 15;

export class Grid {
  /** Told how many rows the search finds, whenever it is known anew. */
  onTotal = () => {};
  /** Told when the search was cleared to show a new film. */
  onSearchCleared = () => {};

  #engine;
  #notify;
  #scroll = document.getElementById("scroll");
  #table = document.getElementById("table");
  #body = this.#table.tBodies[0];
  #nothing = document.getElementById("nothing");
  #above = spacer();
  #below = spacer();

  #view = { search: "", sort: "votes", descending: true };
  #asked = { view: 0, offset: 0, limit: 0 };
  #shown = { view: 0, offset: 0, total: 0, rows: [] };
  #elements = new Map(); // a film's id -> its tr
  #active = { index: 0, column: 0, id: null };
  #editor = null; // { id, column, cell, input, initial }
  #editWhenShown = null; // a film's id
  #rendering = false;
  #frame = 0;

  /** `notify(text, { error, action })` shows a message to the user. */
  constructor(engine, notify) {
    this.#engine = engine;
    this.#notify = notify;
    this.#makeHead();
    this.#body.append(this.#above, this.#below);
    engine.addEventListener("rows", ({ detail }) => this.#receive(detail));
    this.#scroll.addEventListener("scroll", () => {
      this.#frame ||= requestAnimationFrame(() => {
        this.#frame = 0;
        this.#ask();
      });
    });
    new ResizeObserver(() => this.#ask()).observe(this.#scroll);
    this.#table.addEventListener("keydown", (event) => this.#key(event));
    this.#body.addEventListener("mousedown", (event) => this.#press(event));
  }

  get searching() {
    return this.#view.search !== "";
  }

  search(text) {
    this.#change({ search: text });
  }

  /** Begin, or begin again in a new worker. */
  start() {
    this.#scroll.hidden = false;
    this.#ask(true);
  }

  focus() {
    this.#table.focus({ preventScroll: true });
  }

  /** Insert a film, scroll to it and edit its title. */
  async add() {
    try {
      const id = await this.#engine.call("add", { film: { title: "Untitled" } });
      if (this.searching) {
        this.#view.search = "";
        this.onSearchCleared();
      }
      const index = await this.#engine.call("place", { id, ...this.#view });
      this.#active = { index, column: 0, id };
      this.#editWhenShown = id;
      this.#resize(this.#shown.offset, Math.max(this.#shown.total, index + 1));
      this.#reveal(index);
      this.#ask(true);
    } catch (error) {
      this.#notify(`Not added: ${error.message}`, { error: true });
    }
  }

  // -- which rows -------------------------------------------------------------------------------

  #change(part) {
    this.#leaveEditor();
    Object.assign(this.#view, part);
    this.#active = { index: 0, column: this.#active.column, id: null };
    this.#scroll.scrollTop = 0;
    this.#markSorted();
    this.#ask(true);
  }

  /** Watch the rows around those in sight, unless the watched ones still do. */
  #ask(always = false) {
    if (this.#scroll.hidden || !this.#scroll.clientHeight) return;
    const first = Math.floor(this.#scroll.scrollTop / this.#rowHeight);
    const visible = Math.ceil(this.#scroll.clientHeight / this.#rowHeight);
    const { offset, limit } = this.#asked;
    const enough =
      offset <= Math.max(0, first - RESERVE) && offset + limit >= first + visible + RESERVE;
    if (enough && !always) return;
    this.#asked = {
      view: this.#asked.view + 1,
      offset: Math.max(0, first - MARGIN),
      limit: visible + 2 * MARGIN,
    };
    this.#engine
      .call("show", { ...this.#asked, ...this.#view })
      .catch((error) => this.#notify(`Not shown: ${error.message}`, { error: true }));
  }

  #receive({ view, offset, total, rows }) {
    if (view !== this.#asked.view) return;
    if (!rows.length && offset > 0) {
      // Others deleted so much that this part of the table is no more.
      this.#scroll.scrollTop = 0;
      this.#ask(true);
      return;
    }
    const fresh = view !== this.#shown.view;
    this.#shown = { view, offset, total, rows };
    this.#render(fresh);
    this.onTotal(total);
  }

  // -- on the screen ----------------------------------------------------------------------------

  #makeHead() {
    const head = this.#table.tHead.insertRow();
    head.setAttribute("aria-rowindex", "1");
    for (const column of COLUMNS) {
      const th = element("th", { scope: "col", className: column.name });
      th.dataset.sort = column.name;
      const button = element("button", { type: "button", textContent: column.label });
      button.addEventListener("click", () => {
        const { sort, descending } = this.#view;
        const again = sort === column.name;
        // Of numbers the large ones are wanted first.
        const next = again ? !descending : column.numeric === true;
        this.#change({ sort: column.name, descending: next });
      });
      th.append(button);
      head.append(th);
    }
    const last = element("th", { scope: "col", className: "remove" });
    last.append(element("span", { className: "hidden", textContent: "Delete" }));
    head.append(last);
    this.#table.setAttribute("aria-colcount", String(COLUMNS.length + 1));
    this.#markSorted();
  }

  #markSorted() {
    for (const th of this.#table.tHead.rows[0].cells) {
      const { sort, descending } = this.#view;
      if (th.dataset.sort === sort) th.ariaSort = descending ? "descending" : "ascending";
      else th.removeAttribute("aria-sort");
    }
  }

  /** `fresh`: other rows were asked for, so a row that was not there before is no news. */
  #render(fresh) {
    const { offset, total, rows } = this.#shown;
    this.#rendering = true;
    const wanted = new Set(rows.map((row) => row.id));
    for (const [id, tr] of this.#elements) {
      if (wanted.has(id)) continue;
      if (this.#editor?.id === id) this.#leaveEditor();
      tr.remove();
      this.#elements.delete(id);
    }
    let place = this.#above.nextSibling;
    rows.forEach((row, i) => {
      const known = this.#elements.get(row.id);
      const tr = known ?? makeRow(row.id, () => this.#remove(row.id));
      this.#elements.set(row.id, tr);
      fillRow(tr, row, this.#editor?.cell);
      if (!known && !fresh) flash(tr);
      tr.setAttribute("aria-rowindex", String(offset + i + 2));
      // A row that moved down is taken out here and put in later; the others stay untouched.
      if (place !== tr && place.nextSibling === tr) {
        const moved = place;
        place = tr;
        moved.remove();
      }
      if (place === tr) place = tr.nextSibling;
      else this.#body.insertBefore(tr, place);
    });
    this.#resize(offset, total);
    this.#nothing.hidden = total > 0;
    this.#follow();
    this.#rendering = false;
    if (this.#editor && document.activeElement !== this.#editor.input) this.#editor.input.focus();
    if (wanted.has(this.#editWhenShown)) {
      this.#editWhenShown = null;
      this.focus();
      this.#edit();
    }
  }

  #resize(offset, total) {
    this.#above.firstChild.style.height = `${offset * this.#rowHeight}px`;
    const below = Math.max(0, total - offset - this.#shown.rows.length);
    this.#below.firstChild.style.height = `${below * this.#rowHeight}px`;
    this.#table.setAttribute("aria-rowcount", String(total + 1));
  }

  get #rowHeight() {
    return parseFloat(getComputedStyle(this.#table).getPropertyValue("--row"));
  }

  // -- the active cell --------------------------------------------------------------------------

  /** The active cell stays with its film while that is in sight, else with its place. */
  #follow() {
    const { offset, total, rows } = this.#shown;
    const at = rows.findIndex((row) => row.id === this.#active.id);
    if (at >= 0) this.#active.index = offset + at;
    else this.#active.index = Math.max(0, Math.min(this.#active.index, total - 1));
    this.#active.id = rows[this.#active.index - offset]?.id ?? this.#active.id;
    this.#markActive();
  }

  #markActive() {
    this.#body.querySelector(".active")?.classList.remove("active");
    const cell = this.#activeCell;
    cell?.classList.add("active");
    if (cell) this.#table.setAttribute("aria-activedescendant", cell.id);
    else this.#table.removeAttribute("aria-activedescendant");
  }

  get #activeCell() {
    return this.#elements.get(this.#active.id)?.cells[this.#active.column];
  }

  #activate(td) {
    const tr = td.parentElement;
    const index = Number(tr.getAttribute("aria-rowindex")) - 2;
    this.#active = { index, column: Number(td.dataset.column), id: tr.film.id };
    this.#markActive();
  }

  #move(rows, columns) {
    const { offset, total } = this.#shown;
    const index = Math.max(0, Math.min(total - 1, this.#active.index + rows));
    const column = Math.max(0, Math.min(REMOVE, this.#active.column + columns));
    this.#active = { index, column, id: this.#shown.rows[index - offset]?.id ?? null };
    this.#reveal(index);
    this.#markActive();
    this.#activeCell?.scrollIntoView({ block: "nearest", inline: "nearest" });
  }

  #reveal(index) {
    const top = index * this.#rowHeight;
    const room = this.#scroll.clientHeight - this.#table.tHead.offsetHeight - this.#rowHeight;
    if (top < this.#scroll.scrollTop) this.#scroll.scrollTop = top;
    else if (top > this.#scroll.scrollTop + room) this.#scroll.scrollTop = top - room;
  }

  // -- mouse and keyboard -----------------------------------------------------------------------

  #press(event) {
    const td = event.target.closest("td[data-column]");
    if (!td || event.button !== 0 || event.target.closest("input, button")) return;
    const again = td === this.#activeCell && document.activeElement === this.#table;
    event.preventDefault();
    this.#leaveEditor();
    this.#activate(td);
    this.focus();
    // A press on the active cell edits it, so a double click does too.
    if (again) this.#edit();
  }

  #key(event) {
    if (event.target !== this.#table) return;
    const page = Math.floor(this.#scroll.clientHeight / this.#rowHeight) - 2;
    const all = this.#shown.total;
    const far = event.ctrlKey || event.metaKey;
    const moves = {
      ArrowUp: [far ? -all : -1, 0],
      ArrowDown: [far ? all : 1, 0],
      ArrowLeft: [0, far ? -REMOVE : -1],
      ArrowRight: [0, far ? REMOVE : 1],
      Home: [far ? -all : 0, -REMOVE],
      End: [far ? all : 0, REMOVE],
      PageUp: [-page, 0],
      PageDown: [page, 0],
    };
    if (event.key in moves) {
      this.#move(...moves[event.key]);
    } else if (this.#active.column === REMOVE) {
      if (!["Enter", " ", "Delete"].includes(event.key)) return;
      this.#remove(this.#active.id);
    } else if (event.key === "Enter" || event.key === "F2") {
      this.#edit();
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.#edit("");
    } else if (event.key.length === 1 && event.key !== "/" && !far && !event.altKey) {
      this.#edit(event.key);
    } else {
      return;
    }
    event.preventDefault();
  }

  // -- editing ----------------------------------------------------------------------------------

  #edit(typed) {
    const cell = this.#activeCell;
    const column = COLUMNS[this.#active.column];
    if (!cell || !column || this.#editor) return;
    const value = cell.parentElement.film[column.name];
    const input = element("input", { value: typed ?? toInput(value), spellcheck: false });
    input.ariaLabel = column.label;
    input.inputMode = column.numeric ? "decimal" : "text";
    input.enterKeyHint = "done";
    cell.replaceChildren(input);
    cell.classList.add("editing");
    this.#editor = { id: this.#active.id, column, cell, input, initial: input.value };
    input.focus();
    if (typed === undefined) input.select();
    input.addEventListener("blur", () => this.#rendering || this.#leaveEditor());
    input.addEventListener("input", () => input.removeAttribute("aria-invalid"));
    input.addEventListener("keydown", (event) => {
      const steps = {
        Enter: [event.shiftKey ? -1 : 1, 0],
        Tab: [0, event.shiftKey ? -1 : 1],
      };
      if (event.key === "Escape") {
        this.#closeEditor(cell.parentElement.film[column.name]);
        this.focus();
      } else if (event.key in steps && !event.isComposing) {
        this.#leaveEditor({ again: true });
        this.focus();
        this.#move(...steps[event.key]);
        if (event.key === "Tab" && this.#active.column < REMOVE) this.#edit();
      } else {
        return;
      }
      event.preventDefault();
      event.stopPropagation();
    });
  }

  /**
   * Save what was typed and close, without waiting: what is typed next has its place already.
   * When the database refuses, the cell shows what is stored, and `again` opens it as it was left.
   */
  #leaveEditor({ again = false } = {}) {
    const editor = this.#editor;
    if (!editor) return;
    const { id, column, cell, input } = editor;
    const stored = () => cell.parentElement.film[column.name];
    const value = fromInput(column, input.value);
    this.#closeEditor(value);
    if (value === stored()) return;
    this.#engine.call("edit", { id, column: column.name, value }).catch((error) => {
      this.#notify(`Not saved: ${reason(error)}`, { error: true });
      const untouched = !this.#editor || this.#editor.input.value === this.#editor.initial;
      if (!again || !untouched || !cell.isConnected) {
        show(cell, column, stored());
        return;
      }
      if (this.#editor) this.#closeEditor(this.#editor.cell.parentElement.film[this.#editor.column.name]);
      this.#activate(cell);
      this.#edit(input.value);
      this.#editor.input.setAttribute("aria-invalid", "true");
    });
  }

  /** The cell shows `value` until the watched rows bring what is stored. */
  #closeEditor(value) {
    const { cell, column } = this.#editor;
    this.#editor = null;
    cell.classList.remove("editing");
    show(cell, column, value);
  }

  async #remove(id) {
    try {
      const film = await this.#engine.call("remove", { id });
      if (!film) return;
      this.#notify(`Deleted ${film.title ?? "a film"}.`, {
        action: {
          label: "Undo",
          run: () =>
            this.#engine
              .call("add", { film })
              .catch((error) => this.#notify(`Not undone: ${reason(error)}`, { error: true })),
        },
      });
    } catch (error) {
      this.#notify(`Not deleted: ${reason(error)}`, { error: true });
    }
  }
}

/** The names of demo.py's constraints are written to be read. */
function reason(error) {
  return error.message.replace(/^CHECK constraint failed: /, "");
}
