"""What must be true of managed triggers in every state of the database, whoever died or stopped.

Every transaction that changes a source enters each change in the table `log`, whose order is that
of the transactions; a consumer enters its birth there, in the transaction that makes its trigger;
and what a consumer handled it enters in `effects`. So any snapshot tells what each consumer should
have been given, and

    nothing is left over    a destination has a record; a trigger has a destination; a record has
                            both, but for the triggers that went with their table
    nothing is reclaimed    what a living consumer was not given yet is in its destination
    exactly once, in order  the effects of a handler, and then its destination, are the log
    at least once           so they are for `diffs`, but for what is given again after a failure
    discards are told       what is missing for a consumer with a bounded backlog, it is told of
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from holdfast import Column, Schema, Table
from holdfast.triggers.registry import READ, Record, read_records

SCHEMA = Schema([Table("lists", [Column.text("v")])])
WITHOUT_LISTS = Schema([])

# Each source, and the column that is its key.
SOURCES = {"items": "k", "spare": "k", "lists": "id"}
MADE = "CREATE TABLE IF NOT EXISTS spare(k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID"
SETUP = (
    "CREATE TABLE IF NOT EXISTS items(k INTEGER PRIMARY KEY, v TEXT, pad BLOB)",
    "CREATE TABLE IF NOT EXISTS log(seq INTEGER PRIMARY KEY, what, source, tag, tx, writer)",
    "CREATE TABLE IF NOT EXISTS effects(n INTEGER PRIMARY KEY, consumer, call, reset, tag)",
)

# The records that a bounded destination may have.
BOUND = 3

Fetch = Callable[[str], Awaitable[Sequence[Sequence[Any]]]]

# A record as the log has it: the new value, or "-" and the old one.
TAG = "CASE operation WHEN 'DELETE' THEN '-' ELSE '' END || json_extract(value, '$.v')"


class Entry(NamedTuple):
    seq: int
    what: str
    """born, change, drop"""
    source: str
    tag: str
    """Of a change; of a birth the consumer's name."""
    tx: str
    writer: str


class Effect(NamedTuple):
    consumer: str
    call: int
    reset: int
    tag: str | None


@dataclass
class Snapshot:
    """All of it, as one transaction sees it."""

    log: list[Entry]
    effects: list[Effect]
    records: list[Record]
    tables: set[str]
    triggers: dict[str, str]
    """Name -> SQL."""
    kept: dict[str, list[str]]
    """Destination -> the tags of its records, in order."""


async def snapshot(fetch: Fetch) -> Snapshot:
    master = await fetch("SELECT type, name, sql FROM sqlite_master")
    tables = {name for kind, name, _ in master if kind == "table" and is_destination(name)}
    return Snapshot(
        log=[Entry(*row) for row in await fetch("SELECT * FROM log ORDER BY seq")],
        effects=[
            Effect(*row)
            for row in await fetch("SELECT consumer, call, reset, tag FROM effects ORDER BY n")
        ],
        records=read_records(await fetch(READ)),
        tables=tables,
        triggers={
            name: sql for kind, name, sql in master if kind == "trigger" and "holdfast_" in name
        },
        kept={
            name: [tag for (tag,) in await fetch(f"SELECT {TAG} FROM {name} ORDER BY operation_id")]
            for name in tables
        },
    )


def is_destination(name: str) -> bool:
    return name.startswith(("ps_diff_", "diff_"))


def destination_of(consumer: str) -> str:
    """Those of a tracker are named by the package, which the schedule makes choose this."""
    return f"diff_{consumer}" if kind_of(consumer) == "plain" else f"ps_diff_{consumer}"


def kind_of(consumer: str) -> str:
    return consumer.rstrip("0123456789")


def consumer_of(destination: str) -> str:
    return destination.rsplit("_", 1)[1]


def examine(found: Snapshot) -> None:
    """AssertionError: something is not as it must be."""
    recorded = {record.destination for record in found.records}
    assert found.tables == recorded, f"destinations {found.tables}, records of {recorded}"
    owned: set[str] = set()
    for record in found.records:
        owned.update(record.triggers)
        there = found.triggers.keys() & set(record.triggers)
        name = consumer_of(record.destination)
        if there != set(record.triggers):
            assert not there, f"{name} has some of its triggers only"
            assert was_dropped(found.log, name), f"{name} has lost its triggers"
        for trigger in there:
            assert f'"{record.destination}"' in found.triggers[trigger]
        check(name, found, found.kept[record.destination])
    assert found.triggers.keys() <= owned, f"triggers without a record: {found.triggers}"
    for name in {effect.consumer for effect in found.effects}:
        check(name, found, None)


def check(name: str, found: Snapshot, kept: list[str] | None) -> None:
    """What it was given, and what is kept for it (None: it is not there any more)."""
    due = expected(found.log, name)
    effects = [effect for effect in found.effects if effect.consumer == name]
    handled = [effect.tag for effect in effects if effect.tag is not None]
    kind = kind_of(name)
    if kind == "bounded":
        _check_bounded(name, due, effects, kept)
        return
    if kind == "diffs":
        handled = list(dict.fromkeys(handled))
        if kept is not None:
            # What was given and not yet acknowledged is in both.
            both = [tag for tag in kept if tag in handled]
            assert handled[len(handled) - len(both) :] == both, (name, handled, kept)
            kept = kept[len(both) :]
    if kept is None:
        assert handled == due[: len(handled)], f"{name} got {handled}, and should {due}"
    else:
        assert handled + kept == due, f"{name} got {handled} and has {kept}, and should {due}"


def _check_bounded(
    name: str, due: list[str], effects: list[Effect], kept: list[str] | None
) -> None:
    at, call = 0, -1
    for effect in effects:
        told = bool(effect.reset) and effect.call != call
        call = effect.call
        if effect.tag is None:
            continue
        assert effect.tag in due[at:], f"{name} got {effect.tag}, which is not in {due[at:]}"
        place = due.index(effect.tag, at)
        assert place == at or told, f"{name} was not told of {due[at:place]}"
        at = place + 1
    if kept is not None:
        assert len(kept) <= BOUND, f"{name} keeps {kept}"
        assert kept == due[len(due) - len(kept) :], f"{name} keeps {kept} of {due}"
        assert len(due) - len(kept) >= at, f"{name} keeps {kept}, which it was given"


def expected(log: list[Entry], name: str) -> list[str]:
    """What happened to its source in its time, as far as its triggers can tell."""
    birth = _birth(log, name)
    temporary = kind_of(name) == "temporary"
    due = []
    for entry in log[log.index(birth) + 1 :]:
        if entry.source == birth.source:
            # Not temporary ones: another connection may drop it, and make it again, unseen.
            if entry.what == "drop" and not temporary:
                break
            # A temporary trigger fires for what its own connection writes.
            if entry.what == "change" and not (temporary and entry.writer != birth.writer):
                due.append(entry.tag)
    return due


def _birth(log: list[Entry], name: str) -> Entry:
    (birth,) = (entry for entry in log if entry.what == "born" and entry.tag == name)
    return birth


def was_dropped(log: list[Entry], name: str) -> bool:
    """Whether its source was dropped in its time."""
    birth = _birth(log, name)
    return any(
        entry.what == "drop" and entry.source == birth.source and entry.seq > birth.seq
        for entry in log
    )


def wrote(log: list[Entry], source: str, tag: str) -> tuple[str, str]:
    """The transaction and the connection that made this change."""
    (entry,) = (
        entry for entry in log if (entry.what, entry.source, entry.tag) == ("change", source, tag)
    )
    return entry.tx, entry.writer
