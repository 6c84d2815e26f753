// The rows of the table as elements of the page. A tr has its film in `tr.film`.
import { COLUMNS, brief, format } from "./columns.mjs";
import { element, flash } from "./dom.mjs";

/** The column after the film's own: the button that deletes it. */
export const REMOVE = COLUMNS.length;

export function makeRow(id, remove) {
  const tr = element("tr");
  COLUMNS.forEach((column, i) => tr.append(makeCell(id, column.name, i)));
  const td = makeCell(id, "remove", REMOVE);
  const button = element("button", { type: "button", tabIndex: -1, title: "Delete" });
  button.innerHTML =
    `<svg viewBox="0 0 16 16" aria-hidden="true">` +
    `<path d="m4 4 8 8m0-8-8 8" stroke="currentColor" stroke-width="1.5"/></svg>`;
  button.addEventListener("click", remove);
  td.append(button);
  tr.append(td);
  return tr;
}

function makeCell(id, name, i) {
  const td = element("td", { id: `film-${id}-${name}`, className: name });
  td.setAttribute("role", "gridcell");
  td.setAttribute("aria-colindex", String(i + 1));
  td.dataset.column = i;
  return td;
}

/** Show a film as it is now, and mark what changed; the cell that is being edited stays. */
export function fillRow(tr, film, edited) {
  const before = tr.film;
  tr.film = film;
  COLUMNS.forEach((column, i) => {
    const td = tr.cells[i];
    const value = film[column.name];
    if (before && before[column.name] === value) return;
    if (td !== edited) show(td, column, value);
    if (before) flash(td);
  });
  tr.cells[REMOVE].firstChild.ariaLabel = `Delete ${film.title ?? "this film"}`;
}

export function show(td, column, value) {
  td.textContent = brief(column, value);
  td.title = format(column, value);
}

/** Stands for the rows that are not in the page, above or below those that are. */
export function spacer() {
  const tr = element("tr", { className: "spacer", ariaHidden: "true" });
  tr.insertCell().colSpan = COLUMNS.length + 1;
  return tr;
}
