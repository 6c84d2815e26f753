// Does scenarios in this browser, and tells what came of each step. See tests/conformance/README.md.
//
// Scenarios do not touch each other (each has a name of its own), so all of them go on together: in
// each round everyone does one step. Only those whose contexts die in the same round can share them.

// Chromium never answers the close of a handle whose file was cleared away: whoever closes one has
// his contexts for himself.
const UNANSWERED = 5000;

async function bounded(doing, steps) {
  const never = steps.map(([id]) => [id, "no answer"]);
  return Promise.race([
    doing,
    new Promise((resolve) => setTimeout(() => resolve(never), UNANSWERED)),
  ]);
}

/** A worker that does steps, until it is ended. */
class Context {
  #worker = new Worker("conformance-context.js");
  #asked = new Map();
  #n = 0;

  constructor() {
    this.#worker.onmessage = ({ data: [number, result, error] }) => {
      const { resolve, reject } = this.#asked.get(number);
      this.#asked.delete(number);
      if (error) reject(new Error(error));
      else resolve(result);
    };
  }

  static async start() {
    const context = new Context();
    const life = `life ${crypto.randomUUID()}`;
    await context.ask("live", life);
    const { held } = await navigator.locks.query();
    // After site data was cleared Chromium gives new contexts another lock manager than the page's.
    context.client = held.find(({ name }) => name === life)?.clientId;
    return context;
  }

  ask(task, ...rest) {
    return new Promise((resolve, reject) => {
      this.#asked.set(++this.#n, { resolve, reject });
      this.#worker.postMessage([this.#n, task, ...rest]);
    });
  }

  terminate() {
    this.#worker.terminate();
  }

  /** Nothing of it is left in the browser's lock manager. */
  async die() {
    this.terminate();
    for (;;) {
      const { held, pending } = await navigator.locks.query();
      if (![...held, ...pending].some(({ clientId }) => clientId === this.client)) return;
    }
  }
}

class Scenario {
  constructor(text, id) {
    this.text = text;
    this.id = id;
    this.steps = text.split(", ").map((step) => step.split(" "));
    this.seen = [];
    this.ends = new Set(); // of channels, open ones
  }

  /** Scenarios that have this in common can share their contexts. */
  get group() {
    const shared = this.steps.map(([actor, verb], i) => {
      if (verb.startsWith("dies")) return `${actor[0]} dies in ${i}`;
      // The data of all is cleared.
      return verb === "clear" ? `cleared in ${i}` : "";
    });
    const clearing = this.steps.findIndex(([, verb]) => verb === "clear");
    const closes = this.steps.some(([, verb], i) => verb === "close" && clearing >= 0 && i > clearing);
    return closes ? this.text : shared.join("");
  }
}

class Group {
  contexts = new Map(); // letter -> Context
  pings = 0;

  constructor(subject, scenarios) {
    this.subject = subject;
    this.scenarios = scenarios;
    this.byId = new Map(scenarios.map((scenario) => [scenario.id, scenario]));
  }

  async run() {
    for (let round = 0; ; round++) {
      const due = this.scenarios.filter(({ steps }) => steps.length > round);
      if (due.length === 0) break;
      await this.#round(due.map((scenario) => [scenario, scenario.steps[round]]));
    }
    await Promise.all([...this.contexts.values()].map((context) => this.#end(context)));
  }

  #end(context) {
    // One that waits for an answer for ever keeps its locks for ever.
    return this.subject === "cleared" ? context.terminate() : context.die();
  }

  /** Everyone's step; what came of it is written down. */
  async #round(due) {
    const dying = new Set();
    const work = new Map(); // letter -> steps
    for (const [scenario, [actor, verb, ...rest]] of due) {
      const letter = actor[0];
      scenario.answer = "";
      if (verb.startsWith("dies")) dying.add(letter);
      if (verb === "dies") continue;
      if (!work.has(letter)) work.set(letter, []);
      work.get(letter).push([scenario.id, `${scenario.id}:${actor}`, verb, scenario.id, ...rest]);
    }
    for (const letter of work.keys()) {
      if (!this.contexts.has(letter)) this.contexts.set(letter, await Context.start());
    }
    const all = [...work].map(async ([letter, steps]) => {
      const doing = this.contexts.get(letter).ask("perform", { subject: this.subject, steps });
      const answers = await (this.subject === "cleared" ? bounded(doing, steps) : doing);
      for (const [id, answer] of answers) this.byId.get(id).answer = answer;
    });
    await Promise.all(all);
    for (const letter of dying) {
      await this.#end(this.contexts.get(letter));
      this.contexts.delete(letter);
    }
    await observe[this.subject](
      this,
      due.map(([scenario]) => scenario),
    );
  }

  /** What each context answers. */
  async each(task, ...rest) {
    return Promise.all([...this.contexts.values()].map((context) => context.ask(task, ...rest)));
  }

}

const observe = {
  /** Who holds, then who waits, in order: in capitals what is exclusive. */
  async locks(group, due) {
    const letters = new Map([...group.contexts].map(([letter, { client }]) => [client, letter]));
    const show = ({ clientId, mode }) => {
      const letter = letters.get(clientId) ?? "?";
      return mode === "exclusive" ? letter.toUpperCase() : letter;
    };
    for (;;) {
      const holding = new Map(due.map(({ id }) => [id, []])); // who knows that they do
      for (const [actor, state] of (await group.each("lockStates")).flat()) {
        const [id, name] = actor.split(":");
        if (state === "held") holding.get(id)?.push(name);
        else if (state !== "waits") group.byId.get(id).refused = ` ${state}`;
      }
      // Whatever they asked has arrived; a grant may be on its way to its context.
      const { held, pending } = await navigator.locks.query();
      const of = (id, locks) => locks.filter(({ name }) => name === id).map(show);
      if (due.some(({ id }) => of(id, held).length !== holding.get(id).length)) continue;
      for (const scenario of due) {
        const { id, refused = "" } = scenario;
        scenario.refused = "";
        const waiting = of(id, pending).join("");
        scenario.seen.push(of(id, held).sort().join("") + (waiting && `|${waiting}`) + refused);
        // In the end all holders give it back, one after the other.
        const [first] = holding.get(id).sort();
        if (first && scenario.seen.length >= scenario.steps.length) scenario.steps.push([first, "off"]);
      }
      return;
    }
  },

  /** What each end has heard. */
  async channels(group, due) {
    for (const { id, ends, steps, seen } of due) {
      const [actor, verb] = steps[seen.length];
      if (verb === "join") ends.add(`${id}:${actor}`);
      if (verb.endsWith("leave")) ends.delete(`${id}:${actor}`);
      for (const end of ends) if (!group.contexts.has(end.split(":")[1][0])) ends.delete(end);
    }
    // What an end heard of another since, it heard before that one's newest ping.
    const ends = group.scenarios.flatMap(({ ends }) => [...ends]);
    const ping = ++group.pings;
    for (let all = false; !all; ) {
      const found = new Map((await group.each("ping", ends, ping)).flat());
      all = group.scenarios.every(({ ends }) =>
        [...ends].every((one) =>
          [...ends].every((other) => one === other || found.get(one).get(other) === ping),
        ),
      );
    }
    const heard = new Map((await group.each("heard")).flat());
    for (const scenario of due) {
      const told = [...scenario.ends].sort().filter((end) => heard.get(end).length > 0);
      const texts = told.map((end) => `${end.split(":")[1]}:${heard.get(end).join("")}`);
      scenario.seen.push(texts.join(" "));
    }
  },
  files: answers,
  blocks: answers,
  cleared: answers,
};

function answers(group, due) {
  for (const { seen, answer } of due) seen.push(answer);
}

// Groups at once: each has workers of its own.
const AT_ONCE = 4;

/** What comes of each step of each scenario: text -> answers, joined by "; ". */
export async function run(subject, texts) {
  const groups = new Map();
  texts.forEach((text, i) => {
    const scenario = new Scenario(text, `s${i}`);
    if (!groups.has(scenario.group)) groups.set(scenario.group, []);
    groups.get(scenario.group).push(scenario);
  });
  const left = [...groups.values()];
  const results = {};
  async function next() {
    for (let scenarios; (scenarios = left.pop()); ) {
      await new Group(subject, scenarios).run();
      for (const { text, seen } of scenarios) results[text] = seen.join("; ");
    }
  }
  const atOnce = subject === "cleared" ? 1 : AT_ONCE;
  await Promise.all(Array.from({ length: atOnce }, next));
  return Object.fromEntries(texts.map((text) => [text, results[text]]));
}
