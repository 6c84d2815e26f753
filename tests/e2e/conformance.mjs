// The scenarios of tests/conformance, and what browsers did with them when they were recorded.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = new URL("../conformance/", import.meta.url);

/** subject -> its scenarios, from all files whose names begin with it. */
export const scenarios = {};
for (const file of readdirSync(folder).sort()) {
  const [, subject] = /^([a-z]+)(?:-[a-z]+)?\.txt$/.exec(file) ?? [];
  if (!subject) continue;
  const lines = readFileSync(new URL(file, folder), "utf8").split("\n");
  (scenarios[subject] ??= []).push(...lines.filter((line) => line && !line.startsWith("#")));
}

/** What was recorded of a browser: its version, and for each subject what came of each scenario. */
export class Recording {
  #file;

  constructor(browser) {
    this.#file = fileURLToPath(new URL(`recorded/${browser}.json`, folder));
  }

  get #content() {
    try {
      return JSON.parse(readFileSync(this.#file, "utf8"));
    } catch (error) {
      if (error.code !== "ENOENT") throw error;
      return {};
    }
  }

  /** Subjects that were recorded of another version go. */
  write(version, subject, found) {
    const content = this.#content;
    const kept = content.version === version ? content : {};
    writeFileSync(this.#file, `${JSON.stringify({ ...kept, version, [subject]: found }, null, 1)}\n`);
  }

  /** {version, differences}: of which version it is, and what of `found` was otherwise in it. */
  compare(subject, found) {
    const { version = "none", [subject]: recorded = {} } = this.#content;
    const differences = [];
    for (const scenario of new Set([...Object.keys(recorded), ...Object.keys(found)])) {
      const [before, now] = [recorded[scenario], found[scenario]];
      if (before !== now) differences.push(`${scenario}\n  recorded: ${before}\n  now:      ${now}`);
    }
    return { version, differences };
  }
}
