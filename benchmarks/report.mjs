// The table and the plot of one run.
const rows = [
  ["open", "open, to the first row", "ms"],
  ["commit", "one-row commit, durable", "µs"],
  ["relaxed", "one-row commit, relaxed", "µs"],
  ["bulk", "25,000 rows in one transaction", "ms"],
  ["point", "read one row by its key", "µs"],
  ["scan", "read 50 MB, nothing cached", "ms"],
  ["alternate2", "2 tabs write in turn: each", "ms"],
  ["alternate4", "4 tabs write in turn: each", "ms"],
  ["beside", "read one row, beside a writer", "µs"],
];
// What holdfast aims at, as a share of the best rival's figure (and of the raw limit).
const aims = { commit: 1, alternate2: 0.5, alternate4: 0.5 };
const AIM = 1;

const median = (values) => {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};
const digits = (value) => (value >= 100 ? value.toFixed(0) : value.toFixed(value >= 10 ? 1 : 2));

function tableOf(lines) {
  const widths = lines[0].map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const format = (line) => `| ${line.map((text, i) => text.padEnd(widths[i])).join(" | ")} |`;
  const rule = `| ${widths.map((width) => "-".repeat(width)).join(" | ")} |`;
  return [format(lines[0]), rule, ...lines.slice(1).map(format)].join("\n");
}

export function report({ about, engines, found, limits, floors, failures }) {
  const raw = Object.fromEntries(
    ["durable", "relaxed", "read"].map((key) => [key, median(limits.map((limit) => limit[key]))]),
  );
  const names = engines.map(({ name }) => name);
  const shown = rows.filter(([row]) => names.some((name) => found[name][row]?.length));
  const value = (name, row) => (found[name][row]?.length ? median(found[name][row]) : undefined);

  const floor = {
    commit: raw.durable,
    relaxed: raw.relaxed,
    ...Object.fromEntries(Object.entries(floors).map(([row, each]) => [row, median(each)])),
  };

  const lines = [["", ...names, "holdfast to the best rival", "aim", "the browser's calls alone"]];
  for (const [row, text, unit] of shown) {
    const rivals = names.filter((name) => name !== "holdfast").map((name) => value(name, row));
    const best = Math.min(...rivals.filter((each) => each !== undefined));
    const own = found.holdfast && value("holdfast", row);
    const comparable = own !== undefined && Number.isFinite(best);
    lines.push([
      `${text} (${unit})`,
      ...engines.map(({ name, tabs }) => {
        const each = value(name, row);
        return each === undefined ? (tabs === 1 ? "one tab only" : "failed") : digits(each);
      }),
      comparable ? (own / best).toFixed(2) : "",
      `≤ ${aims[row] ?? AIM}`,
      row in floor ? digits(floor[row]) : "",
    ]);
  }
  const commit = found.holdfast && value("holdfast", "commit");
  const parts = [
    "# holdfast beside its rivals\n",
    `${about}; medians. Raw OPFS in the same run: append 4 KiB and flush ${digits(raw.durable)} µs, ` +
      `append ${digits(raw.relaxed)} µs, read 4 KiB ${digits(raw.read)} µs.` +
      (commit ? ` A durable commit is ${(commit / raw.durable).toFixed(2)} × the first (aim: ≤ 1.3).` : ""),
    "\n" + tableOf(lines),
    "\nholdfast is called from Python, the others from JavaScript, each in its own worker with " +
      "the clock beside it. The last column has what a row takes at least: the same calls of the " +
      "browser with nothing above them (engines/raw.mjs).\n\n## What an acknowledged commit survives\n",
    tableOf([
      ["", "durable", "relaxed"],
      ...engines.map(({ name, durable, relaxed }) => [name, durable, relaxed]),
    ]),
  ];
  if (failures.length) {
    const counts = new Map();
    for (const failure of failures) counts.set(failure, (counts.get(failure) ?? 0) + 1);
    const list = [...counts].map(([failure, n]) => `* ${failure}${n > 1 ? ` (${n} times)` : ""}`);
    parts.push(`\n## What failed\n\n${list.join("\n")}`);
  }
  return { markdown: parts.join("\n") + "\n", svg: plot(shown, names, value, about) };
}

/** One group of bars for each row, each bar relative to the slowest of its row, on a log scale. */
function plot(shown, names, value, about) {
  const colors = ["#0b6e4f", "#8d99ae", "#5c7cfa", "#e8a33d", "#c1554e"];
  const [left, bar, gap, width] = [230, 13, 16, 560];
  const group = names.length * bar + gap;
  const height = 70 + shown.length * group;
  const text = (x, y, content, extra = "") => `<text x="${x}" y="${y}"${extra}>${content}</text>`;
  const body = shown.map(([row, label, unit], i) => {
    const figures = names.map((name) => value(name, row));
    const present = figures.filter((each) => each !== undefined);
    const [low, high] = [Math.min(...present) / 2, Math.max(...present)];
    const scale = (each) => (Math.log(each / low) / Math.log(high / low)) * width;
    const y = 60 + i * group;
    const bars = figures.map((each, k) => {
      if (each === undefined) return "";
      const long = Math.max(2, scale(each));
      return (
        `<rect x="${left}" y="${y + k * bar}" width="${long.toFixed(1)}" height="${bar - 3}" ` +
        `fill="${colors[k % colors.length]}"/>` +
        text((left + long + 5).toFixed(1), y + k * bar + bar - 4, `${digits(each)} ${unit}`, ' class="figure"')
      );
    });
    const middle = y + (names.length * bar) / 2;
    return text(left - 10, middle, label, ' text-anchor="end"') + bars.join("");
  });
  const legend = names.map(
    (name, k) =>
      `<rect x="${20 + k * 178}" y="14" width="10" height="10" fill="${colors[k % colors.length]}"/>` +
      text(35 + k * 178, 23, name, ' class="figure"'),
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${left + width + 110} ${height}" \
font-family="system-ui, sans-serif" font-size="12">
<title>holdfast beside its rivals (${about}): shorter is better</title>
<style>.figure { font-size: 10.5px; fill: #444 }</style>
<rect width="100%" height="100%" fill="#fff"/>
${legend.join("\n")}
${text(left, 46, `${about}: shorter is better, each row on its own logarithmic scale`, ' class="figure"')}
${body.join("\n")}
</svg>
`;
}
