// The page: boots the worker, wires the parts together, and says what goes on.
import { Engine } from "./engine.mjs";
import { Grid } from "./grid.mjs";
import { Changes, Status, Triggers, mark } from "./panels.mjs";

const $ = (id) => document.getElementById(id);
const engine = new Engine();
const grid = new Grid(engine, notify);
const changes = new Changes(engine);
const triggers = new Triggers(engine, changes);
new Status(engine);

// -- starting, and what can go wrong --------------------------------------------------------------

let began = 0; // when the step that is under way began

function start() {
  for (const step of document.querySelectorAll("[data-step]")) {
    step.className = "";
    delete step.dataset.took;
  }
  $("films-step").textContent = "Films";
  $("progress").value = 0;
  $("trouble").hidden = true;
  $("boot").hidden = false;
  engine.start();
}

function endStep() {
  const step = document.querySelector("[data-step].running");
  if (!step) return;
  step.className = "done";
  step.dataset.took = `${((performance.now() - began) / 1000).toFixed(1)} s`;
}

engine.addEventListener("step", ({ detail: { step } }) => {
  endStep();
  began = performance.now();
  document.querySelector(`[data-step="${step}"]`).className = "running";
});

engine.addEventListener("progress", ({ detail: { done, total, loaded } }) => {
  $("progress").max = total;
  $("progress").value = done;
  const films = `${total.toLocaleString("en")} films`;
  if (done < total) $("films-step").textContent = `Writing ${films}, in one transaction`;
  else $("films-step").textContent = loaded ? `${films} written` : `${films}, already here`;
});

engine.addEventListener("ready", () => {
  endStep();
  $("boot").hidden = true;
  ready(true);
  grid.start();
  grid.focus();
});

engine.addEventListener("crashed", () => {
  trouble({
    title: "This tab’s worker is dead",
    message:
      "It was ended in mid-air and said no goodbye, as in a crash. Its trigger is still in the " +
      "database, but nobody holds it now.",
    advice:
      "Every other tab notices by itself and takes the trigger away: look at one. If there is " +
      "none, the next tab to open does it.",
  });
});

const advice = {
  StorageUnavailableError: {
    title: "No durable storage here",
    advice:
      "The demo keeps its database in the browser’s own file system. Private windows of some " +
      "browsers have none, nor do old versions: use an ordinary window of a current browser.",
  },
  DatabaseBusyError: {
    title: "Another tab keeps the database",
    advice:
      "Some browsers open a file for one tab at a time. Close the other tab of this demo and " +
      "start again, or use a browser built on Chromium.",
  },
};

engine.addEventListener("failed", ({ detail: { type, message } }) => {
  trouble({
    title: "Something went wrong",
    advice: `${type}. What was saved is safe; starting again may be all that is needed.`,
    ...advice[type],
    message,
  });
});

function trouble({ title, message, advice }) {
  ready(false);
  $("boot").hidden = true;
  const card = $("trouble");
  card.querySelector("h3").textContent = title;
  card.querySelector(".message").textContent = message;
  card.querySelector(".advice").textContent = advice;
  card.hidden = false;
  showView("films");
  $("restart").focus();
}

function ready(is) {
  document.body.dataset.state = is ? "ready" : "down";
  for (const id of ["search", "add", "crash"]) $(id).disabled = !is;
  $("scroll").inert = !is;
}

$("restart").addEventListener("click", start);
$("crash").addEventListener("click", () => engine.crash());

// -- the tools of the table -----------------------------------------------------------------------

$("search").addEventListener("input", () => grid.search($("search").value.trim()));
$("search").addEventListener("keydown", (event) => {
  if (event.key === "Enter" || event.key === "ArrowDown") {
    event.preventDefault();
    grid.focus();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.closest("input")) return;
  event.preventDefault();
  $("search").focus();
});
$("add").addEventListener("click", () => grid.add());

grid.onTotal = (total) => {
  const films = total.toLocaleString("en");
  $("count").textContent = grid.searching ? `${films} found` : `${films} films`;
  $("nothing").textContent = grid.searching
    ? `No film matches “${$("search").value.trim()}”.`
    : "There are no films. Add one.";
};
grid.onSearchCleared = () => {
  $("search").value = "";
};

// -- who this tab is ------------------------------------------------------------------------------

triggers.onIdentity = (tab) => {
  const me = $("me");
  if (me.dataset.name === tab.name) return;
  me.dataset.name = tab.name;
  me.replaceChildren("This tab is ", mark(tab));
  me.hidden = false;
  document.title = `${tab.name} · Holdfast`;
  $("icon").href = `data:image/svg+xml,${encodeURIComponent(tab.svg)}`;
};

// -- messages -------------------------------------------------------------------------------------

let messageEnds;

function notify(text, { error = false, action } = {}) {
  const toast = $("toast");
  clearTimeout(messageEnds);
  toast.className = error ? "toast shown error" : "toast shown";
  toast.replaceChildren(text);
  if (action) {
    const button = Object.assign(document.createElement("button"), {
      type: "button",
      textContent: action.label,
    });
    button.addEventListener("click", () => {
      toast.classList.remove("shown");
      action.run();
      grid.focus();
    });
    toast.append(button);
  }
  messageEnds = setTimeout(() => toast.classList.remove("shown"), action ? 10_000 : 6_000);
}

// -- views of a narrow window ---------------------------------------------------------------------

let unseen = 0;

function showView(view) {
  document.querySelector("main").dataset.view = view;
  for (const button of document.querySelectorAll("[data-view][aria-pressed]")) {
    button.ariaPressed = String(button.dataset.view === view);
  }
  if (view === "changes") count(0);
}

function count(n) {
  unseen = n;
  $("unseen").textContent = n;
  $("unseen").hidden = n === 0;
}

for (const button of document.querySelectorAll("[data-view][aria-pressed]")) {
  button.addEventListener("click", () => showView(button.dataset.view));
}
changes.onRemote = (n) => {
  if (document.querySelector("main").dataset.view !== "changes") count(unseen + n);
};

// -- dark and light -------------------------------------------------------------------------------

const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function paint() {
  const chosen = document.documentElement.dataset.theme;
  const dark = chosen ? chosen === "dark" : prefersDark.matches;
  $("theme").ariaLabel = dark ? "Light theme" : "Dark theme";
  $("theme").title = $("theme").ariaLabel;
  return dark;
}

$("theme").addEventListener("click", () => {
  const theme = paint() ? "light" : "dark";
  localStorage.setItem("theme", theme);
  document.documentElement.dataset.theme = theme;
  paint();
});
// Another tab changed it.
addEventListener("storage", ({ key, newValue }) => {
  if (key !== "theme") return;
  document.documentElement.dataset.theme = newValue ?? "";
  paint();
});
prefersDark.addEventListener("change", paint);

paint();
start();
