// A name and a signal flag for each tab, from its trigger's hold: the same in every tab that shows
// it. The flags are those of the International Code of Signals.

const WHITE = "#fbfbf8";
const RED = "#cf2e2e";
const BLUE = "#1f4e9e";
const YELLOW = "#f3c32c";
const BLACK = "#1d1f21";

// On a field of 12 by 12.
const box = (x, y, width, height, color) =>
  `<rect x="${x}" y="${y}" width="${width}" height="${height}" fill="${color}"/>`;
const shape = (points, color) => `<polygon points="${points}" fill="${color}"/>`;
const line = (path, color, width) =>
  `<path d="${path}" stroke="${color}" stroke-width="${width}" fill="none"/>`;
const field = (color) => box(0, 0, 12, 12, color);
const rows = (...colors) =>
  colors.map((color, i) => box(0, (12 / colors.length) * i, 12, 12 / colors.length, color)).join("");
const columns = (...colors) =>
  colors.map((color, i) => box((12 / colors.length) * i, 0, 12 / colors.length, 12, color)).join("");
const checks = (n, a, b) =>
  Array.from({ length: n * n }, (_, i) => {
    const [x, y] = [i % n, Math.floor(i / n)];
    return box((12 / n) * x, (12 / n) * y, 12 / n, 12 / n, (x + y) % 2 ? b : a);
  }).join("");

const FLAGS = [
  ["Alfa", box(0, 0, 6, 12, WHITE) + shape("6,0 12,0 9,6 12,12 6,12", BLUE)],
  ["Bravo", shape("0,0 12,0 9,6 12,12 0,12", RED)],
  ["Charlie", rows(BLUE, WHITE, RED, WHITE, BLUE)],
  ["Delta", field(YELLOW) + box(0, 3, 12, 6, BLUE)],
  ["Echo", rows(BLUE, RED)],
  ["Foxtrot", field(WHITE) + shape("6,0 12,6 6,12 0,6", RED)],
  ["Golf", columns(YELLOW, BLUE, YELLOW, BLUE, YELLOW, BLUE)],
  ["Hotel", columns(WHITE, RED)],
  ["India", field(YELLOW) + `<circle cx="6" cy="6" r="2.8" fill="${BLACK}"/>`],
  ["Juliett", rows(BLUE, WHITE, BLUE)],
  ["Kilo", columns(YELLOW, BLUE)],
  ["Lima", checks(2, YELLOW, BLACK)],
  ["Mike", field(BLUE) + line("M0 0 12 12M12 0 0 12", WHITE, 2)],
  ["November", checks(4, BLUE, WHITE)],
  ["Oscar", field(YELLOW) + shape("0,0 12,0 12,12", RED)],
  ["Papa", field(BLUE) + box(4, 4, 4, 4, WHITE)],
  ["Quebec", field(YELLOW)],
  ["Romeo", field(RED) + line("M6 0V12M0 6H12", YELLOW, 2.4)],
  ["Sierra", field(WHITE) + box(4, 4, 4, 4, BLUE)],
  ["Tango", columns(RED, WHITE, BLUE)],
  ["Uniform", checks(2, RED, WHITE)],
  ["Victor", field(WHITE) + line("M0 0 12 12M12 0 0 12", RED, 2)],
  ["Whiskey", field(BLUE) + box(2.2, 2.2, 7.6, 7.6, WHITE) + box(4.4, 4.4, 3.2, 3.2, RED)],
  ["X-ray", field(WHITE) + line("M6 0V12M0 6H12", BLUE, 2.4)],
  ["Yankee", field(YELLOW) + line("M-1 4 4 -1M-1 8 8 -1M-1 12 12 -1M1 14 14 1M5 14 14 5M9 14 14 9", RED, 1.5)],
  [
    "Zulu",
    shape("0,0 12,0 6,6", YELLOW) + shape("12,0 12,12 6,6", BLUE) +
      shape("0,12 12,12 6,6", RED) + shape("0,0 0,12 6,6", BLACK),
  ],
];

/** { name, svg } of the tab whose trigger has this hold. */
export function signal(holdId) {
  const digits = holdId.slice(-8);
  const [word, shapes] = FLAGS[parseInt(digits.slice(0, 6), 16) % FLAGS.length];
  const svg =
    `<svg xmlns="http://www.w3.org/2000/svg" class="flag" viewBox="0 0 12 12" ` +
    `aria-hidden="true">${shapes}</svg>`;
  return { name: `${word} ${digits.slice(-2)}`, svg };
}
