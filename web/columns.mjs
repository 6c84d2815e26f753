// The columns of the films table: how their values are shown and read.

const plain = new Intl.NumberFormat("en");
const rating = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 2 });
const money = new Intl.NumberFormat("en", { style: "currency", currency: "USD", maximumFractionDigits: 0 });
const roughly = new Intl.NumberFormat("en", {
  style: "currency",
  currency: "USD",
  notation: "compact",
  maximumSignificantDigits: 3,
});

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

function day(date) {
  const [year, month, dayOfMonth] = date.split("-").map(Number);
  return `${dayOfMonth} ${MONTHS[month - 1]} ${year}`;
}

// `format` shows all of a value; `brief` is for the table, where there is less room.
export const COLUMNS = [
  { name: "title", label: "Title", format: String },
  { name: "released", label: "Released", format: day },
  { name: "genre", label: "Genre", format: String },
  { name: "director", label: "Director", format: String },
  { name: "rating", label: "IMDb", numeric: true, format: (value) => rating.format(value) },
  { name: "votes", label: "Votes", numeric: true, format: (value) => plain.format(value) },
  {
    name: "gross",
    label: "Gross",
    numeric: true,
    format: (value) => money.format(value),
    brief: (value) => roughly.format(value),
  },
];

/** A value as it is shown; "" for NULL. */
export function format(column, value) {
  return value === null ? "" : column.format(value);
}

/** A value as it is shown in the table. */
export function brief(column, value) {
  return value === null ? "" : (column.brief ?? column.format)(value);
}

/** A value as it is typed. */
export function toInput(value) {
  return value === null ? "" : String(value);
}

/** What was typed, as a value. What is no number goes on as text, for the database to refuse. */
export function fromInput(column, typed) {
  const trimmed = typed.trim();
  if (trimmed === "") return null;
  if (!column.numeric) return trimmed;
  const value = Number(trimmed.replaceAll(",", ""));
  return Number.isFinite(value) ? value : trimmed;
}
