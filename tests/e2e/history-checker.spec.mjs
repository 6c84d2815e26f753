// The checker itself: it takes what is right, and finds each thing that can go wrong.
import { expect, test } from "@playwright/test";
import { violations } from "./history.mjs";

const look = (version) => ({ version, sum: 100, rows: version });
const write = (id, at) => ({ tab: 1, id, what: "write", at });
const written = (id, at, version) => ({ tab: 1, id, what: "written", at, version });
const read = (id, at) => ({ tab: 2, id, what: "read", at });
const seen = (id, at, first, second = first) => ({ tab: 2, id, what: "seen", at, first, second });

// Two writes of which one was never acknowledged, a read after the first, and a write that was lost
// with its tab.
const good = () => ({
  sum: 100,
  died: [1],
  left: {
    log: [
      [1, "1.1"],
      [2, "1.2"],
    ],
    sum: 100,
    integrity: "ok",
  },
  events: [
    write("1.1", 0),
    written("1.1", 10, 1),
    read("2.1", 20),
    write("1.2", 25),
    seen("2.1", 30, look(1)),
    write("1.3", 40),
  ],
});

test("a right history is taken", () => {
  expect(violations(good())).toEqual([]);
});

test("a tab that died may have written more than it could tell", () => {
  const history = good();
  history.left.log.push([3, "1.4"]);
  expect(violations(history)).toEqual([]);
});

const wrong = [
  ["a lost update", (h) => h.left.log.splice(1, 1, [1, "1.2"]), /an update was lost/],
  ["an acknowledged write that vanished", (h) => h.left.log.splice(0, 1), /1\.1 was acknowledged/],
  ["a write that is there twice", (h) => h.left.log.push([3, "1.1"]), /twice/],
  ["a write of nobody", (h) => h.left.log.push([3, "9.1"]), /nobody wrote it/],
  ["a write that a living tab never began", (h) => h.left.log.push([3, "2.2"]), /nobody wrote it/],
  [
    "a write between those of which a dead tab told",
    (h) => {
      h.events.pop();
      h.events.push(write("1.4", 40));
      h.left.log.push([3, "1.3"]);
    },
    /1\.3 is in the log, and nobody wrote it/,
  ],
  [
    "a write that was refused and done",
    (h) => h.events.push({ tab: 1, id: "1.2", what: "refused", at: 50 }),
    /was refused/,
  ],
  ["accounts that do not add up", (h) => (h.left.sum = 99), /end with 99/],
  ["a broken file", (h) => (h.left.integrity = "row 1 missing"), /row 1 missing/],
  ["a dirty read", (h) => (h.events[4].first = { ...look(1), sum: 90 }), /dirty read/],
  ["half a transaction", (h) => (h.events[4].second = { ...look(1), rows: 2 }), /half/],
  ["a read that changed", (h) => (h.events[4].second = look(2)), /in one transaction/],
  ["an old state", (h) => (h.events[4].first = h.events[4].second = look(0)), /after 1 was/],
  ["a state that is gone", (h) => (h.events[4].first = h.events[4].second = look(7)), /gone/],
  [
    "a write before an earlier one",
    (h) => {
      h.events.push(write("1.4", 60), written("1.4", 70, 3), write("1.5", 90), written("1.5", 95, 2));
      h.left.log.splice(1, 1, [2, "1.5"], [3, "1.4"]);
    },
    /is version 2, after 3/,
  ],
];
for (const [what, spoil, says] of wrong) {
  test(`${what} is found`, () => {
    const history = good();
    spoil(history);
    expect(violations(history).join("\n")).toMatch(says);
  });
}
