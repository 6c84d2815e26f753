"""What tabs did and saw, and whether one order of whole transactions explains all of it.

Every transaction that writes enters itself in the table `log`, with what it read last and what it
did, so the database tells the order itself, and the states that transactions left can be computed
from it. Everything that anybody saw must be one of these states, and

    no lost update         each transaction began from the state that the one before it left
    no dirty read          what was seen is in the log for good, and in it as it was seen
    no stale read          what was acknowledged before a read began is seen by it
    repeatable read        a transaction sees the same state throughout
    durability             what was acknowledged is in the log, once
    atomicity              what was rolled back is not
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

ACCOUNTS = 8
BALANCE = 100

SETUP = (
    "CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, v INTEGER, pad)",
    "CREATE TABLE IF NOT EXISTS log(seq INTEGER PRIMARY KEY, op TEXT UNIQUE, effect TEXT)",
    f"WITH RECURSIVE i(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM i WHERE n < {ACCOUNTS}) "
    f"INSERT OR IGNORE INTO account SELECT n, {BALANCE}, '' FROM i",
)
# One row: how many transactions there were, the balances, the bytes that were written beside them.
STATE = (
    "SELECT (SELECT coalesce(max(seq), 0) FROM log), "
    "(SELECT group_concat(v) FROM (SELECT v FROM account ORDER BY id)), "
    "(SELECT group_concat(length(pad)) FROM (SELECT pad FROM account ORDER BY id))"
)
LOG = "SELECT seq, op, effect FROM log ORDER BY seq"


class Effect(NamedTuple):
    """One transaction: `amount` from one account to another, whose pad becomes that long."""

    source: int
    target: int
    amount: int
    pad: int

    def statements(self) -> list[str]:
        return [
            f"UPDATE account SET v = v - {self.amount} WHERE id = {self.source}",
            f"UPDATE account SET v = v + {self.amount}, pad = zeroblob({self.pad}) "
            f"WHERE id = {self.target}",
        ]


State = tuple[int, str, str]


class Seen(NamedTuple):
    who: str
    at_least: int
    """What was acknowledged before it began to read."""
    states: tuple[State, ...]
    """What it read in one transaction."""


@dataclass
class History:
    seen: list[Seen] = field(default_factory=list)
    acknowledged: dict[str, int] = field(default_factory=dict)
    rolled_back: set[str] = field(default_factory=set)

    @property
    def newest(self) -> int:
        """The last transaction that was acknowledged."""
        return max(self.acknowledged.values(), default=0)

    def check(self, log: Sequence[tuple[int, str, str]], found: State) -> None:
        """`log` and `found` are what is there at the end."""
        states = replay(log)
        assert found == states[-1], (found, states[-1])
        ops = {op: seq for seq, op, _ in log}
        for op, seq in self.acknowledged.items():
            assert ops.get(op) == seq, f"{op} was acknowledged as {seq} and is {ops.get(op)}"
        for op in self.rolled_back:
            assert op not in ops, f"{op} was rolled back and is there"
        for seen in self.seen:
            first = seen.states[0]
            assert all(state == first for state in seen.states), f"not repeatable: {seen}"
            assert first[0] < len(states), f"{seen} saw what is not there any more"
            assert first == states[first[0]], f"{seen} is not {states[first[0]]}"
            assert first[0] >= seen.at_least, f"{seen} is stale"


def replay(log: Sequence[tuple[int, str, str]]) -> list[State]:
    """The states that the transactions of a log left, the first one included."""
    balances, pads = [BALANCE] * ACCOUNTS, [0] * ACCOUNTS
    states = [(0, _join(balances), _join(pads))]
    for n, (seq, op, text) in enumerate(log, 1):
        assert seq == n, f"{op} is {seq} and should be {n}"
        record = json.loads(text)
        assert tuple(record["from"]) == states[-1], f"{op} began from {record['from']}"
        effect = Effect(*record["effect"])
        balances[effect.source - 1] -= effect.amount
        balances[effect.target - 1] += effect.amount
        pads[effect.target - 1] = effect.pad
        states.append((seq, _join(balances), _join(pads)))
    return states


def entry(before: State, effect: Effect) -> str:
    """What a transaction enters in the log."""
    return json.dumps({"from": before, "effect": effect})


def _join(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
