"""A disk that knows what is durable, and what of the rest a crash may take.

Everything that changes a file is written down in a journal, so that one run of a workload serves
every crash: `crashes()` goes through the journal and makes, for each entry, the disks that could be
found after a crash just before it.

    a kill        the process dies, the system goes on: all that was written stays; of a write in
                  progress any part may be there
    a power cut   what was flushed stays; every later write and truncation may be kept or lost by
                  itself, in whole or in part, in any order; sizes too

Every choice comes from a seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

SECTOR = 512


class Change(NamedTuple):
    """One entry of the journal. what: "write", "truncate", "flush" or "mark"."""

    what: str
    name: str = ""
    at: int = 0
    """The offset of a write, the size of a truncation."""
    data: bytes = b""
    note: object = None
    """Of a mark: what the workload wanted to remember at this place."""


@dataclass
class Content:
    """A file: what is in it, and since the last flush, what it was then and what was done."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    unflushed: list[Change] = field(default_factory=list)

    def apply(self, change: Change) -> None:
        if change.what == "flush":
            self.unflushed.clear()
            self.durable = bytes(self.now)
        else:
            self.unflushed.append(change)
            _apply(self.now, change)


def _apply(content: bytearray, change: Change) -> None:
    if change.what == "truncate":
        del content[change.at :]
        content.extend(bytes(change.at - len(content)))
        return
    if change.at > len(content):
        content.extend(bytes(change.at - len(content)))
    content[change.at : change.at + len(change.data)] = change.data


class Dead(Exception):
    """The tab that called is dead; it reaches nothing any more."""


# What is done instead of a call: an answer of the host (an error), or a shorter write.
ERROR, FULL = -1, -2
Fault = Callable[[str, str, int], "int | None"]


def fail_next(what: str, answer: int = ERROR) -> Fault:
    """The next call of that kind fails, once."""
    left = [what]

    def fault(called: str, name: str, n: int) -> int | None:
        if called not in left:
            return None
        left.remove(called)
        return answer

    return fault


class Disk:
    """The origin's files, by name; made empty where they are asked for.

    log: every call, as (what, name, …); `journal` has those that changed something, in full.
    room: bytes left of the quota; None for any number.
    fault(what, name, n): asked before each call of a tab ("read", "write", "truncate", "size" or
    "flush"); what it answers is what the tab gets, and None lets the call through. For a write,
    a number of 0 or more is how many bytes are written before it fails.
    """

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.content: dict[str, bytearray] = {}
        self.start = {name: bytes(data) for name, data in (files or {}).items()}
        for name, data in self.start.items():
            self.content[name] = bytearray(data)
        self.log: list[tuple[object, ...]] = []
        self.journal: list[Change] = []
        self.room: int | None = None
        self.fault: Fault = lambda what, name, n: None

    @classmethod
    def resumed(cls, disk: Disk, before: int) -> Disk:
        """The disk as it was before that entry of its journal; what was unflushed then still is."""
        resumed = cls(disk.start)
        for change in disk.journal[:before]:
            resumed.journal.append(change)
            if change.what in ("write", "truncate"):
                _apply(resumed.content.setdefault(change.name, bytearray()), change)
        return resumed

    def add(self, name: str) -> None:
        self.content.setdefault(name, bytearray())

    def files(self) -> dict[str, bytes]:
        return {name: bytes(content) for name, content in self.content.items()}

    def mark(self, note: object) -> None:
        """Remember in the journal that this happened here."""
        self.journal.append(Change("mark", note=note))

    # -- what the host does: bytes moved, 0 or an error --------------------------------------------

    def read(self, name: str, at: int, n: int) -> bytes | int:
        self.log.append(("read", name, at, n))
        answer = self.fault("read", name, n)
        return bytes(self.content[name][at : at + n]) if answer is None else answer

    def write(self, name: str, at: int, data: bytes) -> int:
        self.log.append(("write", name, at, len(data)))
        grown = max(0, at + len(data) - len(self.content[name]))
        answer = self.fault("write", name, len(data))
        if answer is None and self.room is not None and grown > self.room:
            answer = FULL
        if answer is not None:
            if answer > 0:
                self._change(Change("write", name, at, data[:answer]))
            # A short count and Chromium's 4294967288 are the same to the VFS: see host.js.
            return FULL if answer >= 0 else answer
        if self.room is not None:
            self.room -= grown
        self._change(Change("write", name, at, data))
        return len(data)

    def truncate(self, name: str, size: int) -> int:
        self.log.append(("truncate", name, size))
        answer = self.fault("truncate", name, size)
        if answer is None:
            self._change(Change("truncate", name, size))
        return answer or 0

    def size(self, name: str) -> int:
        answer = self.fault("size", name, 0)
        return len(self.content[name]) if answer is None else answer

    def flush(self, name: str) -> int:
        self.log.append(("flush", name))
        answer = self.fault("flush", name, 0)
        if answer is None:
            self.journal.append(Change("flush", name))
        return answer or 0

    def remove(self, name: str) -> None:
        """Nobody has it open. To a crash it is as if it had been emptied."""
        self.truncate(name, 0)
        self.flush(name)
        del self.content[name]

    def _change(self, change: Change) -> None:
        self.journal.append(change)
        _apply(self.content[change.name], change)


class Crash(NamedTuple):
    """A disk as it was found after a crash."""

    before: int
    """The journal's entry that never came to be."""
    how: str
    """To find it again: "kill", or what was lost and the seed."""
    files: dict[str, bytes]
    marks: tuple[object, ...]
    """What had been marked by then."""


def crashes(
    disk: Disk,
    *,
    kills: bool = True,
    power_seeds: int = 0,
    seed: float = 0,
    stride: int = 1,
    only: Collection[int] | None = None,
) -> Iterator[Crash]:
    """The crashes before every `stride`th write of a row of them and every other change.

    And one after the last change. only: before these entries of the journal alone.
    power_seeds: how many power cuts at each place, besides the kills.
    """
    files = {name: Content(bytearray(data), data) for name, data in disk.start.items()}
    marks: list[object] = []
    writes = 0
    for index, change in enumerate([*disk.journal, Change("end")]):
        if change.what == "mark":
            marks.append(change.note)
            writes = 0
            continue
        writes = writes + 1 if change.what == "write" else 0
        if (writes % stride == 0 or writes == 1) if only is None else index in only:
            here = tuple(marks)
            if kills:
                whole = {name: bytes(file.now) for name, file in files.items()}
                yield Crash(index, "kill", whole, here)
                if change.what == "write" and len(change.data) > 1:
                    part = random.Random(f"{seed}/{index}").randrange(1, len(change.data))
                    torn = bytearray(whole.get(change.name, b""))
                    _apply(torn, change._replace(data=change.data[:part]))
                    yield Crash(
                        index, f"kill after {part} B", {**whole, change.name: bytes(torn)}, here
                    )
            for n in range(power_seeds):
                # The change in progress is one more that may be there or not.
                yield power_cut(files, index, change, f"{seed}/{index}/{n}", here)
        if change.what != "end":
            files.setdefault(change.name, Content()).apply(change)


def power_cut(
    files: dict[str, Content], index: int, change: Change, seed: str, marks: tuple[object, ...]
) -> Crash:
    """What a power cut leaves of `files`, by a seeded choice."""
    choose = random.Random(seed)
    how = choose.choice(("none", "some", "sectors", "all but one", "one", "last"))
    result = {}
    for name, file in files.items():
        pending = list(file.unflushed)
        if change.name == name and change.what in ("write", "truncate"):
            pending.append(change)
        content = bytearray(file.durable)
        one = choose.randrange(len(pending)) if pending else 0
        for i, each in enumerate(pending):
            keep = {
                "none": False,
                "some": choose.random() < 0.5,
                "sectors": True,
                "all but one": i != one,
                "one": i == one,
                "last": i >= one,
            }[how]
            if not keep:
                # Its place may be there without it: a size reached the disk, the bytes did not.
                if each.what == "write" and choose.random() < 0.3:
                    missing = max(0, each.at + len(each.data) - len(content))
                    zeros = choose.random() < 0.5
                    content.extend(bytes(missing) if zeros else choose.randbytes(missing))
            elif how == "sectors" and each.what == "write":
                _apply_torn(content, each, choose)
            else:
                _apply(content, each)
        result[name] = bytes(content)
    return Crash(index, f"power cut, kept: {how}, seed {seed}", result, marks)


def _apply_torn(content: bytearray, change: Change, choose: random.Random) -> None:
    """A prefix, or some of its sectors."""
    data, at = change.data, change.at
    if choose.random() < 0.4:
        _apply(content, change._replace(data=data[: choose.randrange(len(data) + 1)]))
        return
    begin = 0
    while begin < len(data):
        end = min(len(data), (at + begin) // SECTOR * SECTOR + SECTOR - at)
        if choose.random() < 0.6:
            _apply(content, Change("write", change.name, at + begin, data[begin:end]))
        begin = end
