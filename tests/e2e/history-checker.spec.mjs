// The checker itself: it takes what is right, and finds each thing that can go wrong.
import { expect, test } from "@playwright/test";
import { violations } from "./history.mjs";

const look = (version) => ({ version, sum: 100, rows: version });
const write = (id, at) => ({ tab: 0, id, what: "write", at });
const written = (id, at, version) => ({ tab: 0, id, what: "written", at, version });
const read = (id, at) => ({ tab: 1, id, what: "read", at });
const seen = (id, at, first, second = first) => ({ tab: 1, id, what: "seen", at, first, second });

// Two writes, one of them by a tab that died before it could say so, and a read after the first.
const good = () => ({
  sum: 100,
  left: {
    log: [
      [1, "a"],
      [2, "b"],
    ],
    sum: 100,
    integrity: "ok",
  },
  events: [
    write("a", 0),
    written("a", 10, 1),
    read("r", 20),
    write("b", 25),
    seen("r", 30, look(1)),
    write("never", 40),
  ],
});

test("a right history is taken", () => {
  expect(violations(good())).toEqual([]);
});

const wrong = [
  ["a lost update", (h) => h.left.log.splice(1, 1, [1, "b"]), /an update was lost/],
  ["an acknowledged write that vanished", (h) => h.left.log.splice(0, 1), /"?a"? was acknowledged/],
  ["a write that is there twice", (h) => h.left.log.push([3, "a"]), /twice/],
  ["a write of nobody", (h) => h.left.log.push([3, "z"]), /nobody wrote it/],
  [
    "a write that was refused and done",
    (h) => h.events.push({ tab: 0, id: "b", what: "refused", at: 50 }),
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
      h.events.push(write("c", 60), written("c", 70, 3), write("d", 90), written("d", 95, 2));
      h.left.log.splice(1, 1, [2, "d"], [3, "c"]);
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
