"""A test of the tests: break a rule of triggers, and the schedules find it out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
from simulated_opfs import Library

from faults.apart import finds_out
from faults.trigger_schedule import TriggerSchedule
from holdfast.holds import NavigatorTriggerHoldManager
from holdfast.local import database
from holdfast.sqlite import statements
from holdfast.triggers import (
    destinations,
    inbox,
    manager,
    mending,
    registry,
    stream,
    tracker,
    trigger,
)

# How many schedules are searched, in each handle mode.
SEEDS = 40

Patch = contextlib.AbstractContextManager[Any]


def replaced(owner: Any, name: str, make: Callable[[Any], Any]) -> Patch:
    """That function, made anew from what it is."""
    return mock.patch.object(owner, name, make(getattr(owner, name)))


@contextlib.contextmanager
def dropping_as(change: Callable[[Any], Any]) -> Iterator[None]:
    """`registry.drop`, wherever it is used."""
    changed = change(registry.drop)
    with (
        mock.patch.object(manager, "drop", changed),
        mock.patch.object(trigger, "drop", changed),
    ):
        yield


def unheld() -> Patch:
    async def obtain_hold(self: Any, hold_id: str) -> Any:
        async def release() -> None:
            """There is nothing to give back."""

        return release

    return mock.patch.object(NavigatorTriggerHoldManager, "obtain_hold", obtain_hold)


def holds_before_records() -> Patch:
    async def sweep(self: manager.LocalTriggerManager) -> list[Any]:
        held = await self._holds.held()
        reclaimed = []
        async with self._session.write_transaction() as tx:
            for record in self._strangers(registry.read_records(tx.run_sql(registry.READ))):
                if not self._is_held(record, held):
                    manager.drop(tx, record)
                    reclaimed.append(record.tracked(False))
        return reclaimed

    return mock.patch.object(manager.LocalTriggerManager, "sweep", sweep)


def record_left() -> Patch:
    """The record goes in a transaction of its own, after what it speaks of."""

    def change(drop: Any) -> Any:
        def changed(tx: Any, record: Any, *, temporary: bool = False) -> None:
            drop(tx, record, temporary=True)
            for name in record.triggers:
                tx.run_sql(f"DROP TRIGGER IF EXISTS main.{name}")
            tx.run_sql(f"DROP TABLE IF EXISTS main.{record.destination}")

            async def later() -> None:
                async with tx.owner.own_transaction() as after:
                    drop(after, record, temporary=temporary)

            if not temporary:
                tx.on_commit(later)

        return changed

    return dropping_as(change)


def destination_left() -> Patch:
    def change(drop: Any) -> Any:
        def changed(tx: Any, record: Any, *, temporary: bool = False) -> None:
            if temporary:
                drop(tx, record, temporary=True)
                return
            tx.run_sql("DELETE FROM ps_kv WHERE key = ?", (registry.PREFIX + record.id,))
            for name in record.triggers:
                tx.run_sql(f"DROP TRIGGER IF EXISTS main.{name}")

        return changed

    return dropping_as(change)


def triggers_left() -> Patch:
    def change(drop: Any) -> Any:
        def changed(tx: Any, record: Any, *, temporary: bool = False) -> None:
            place = "temp" if temporary else "main"
            tx.run_sql(f"DROP TABLE IF EXISTS {place}.{record.destination}")
            tx.run_sql("DELETE FROM ps_kv WHERE key = ?", (registry.PREFIX + record.id,))

        return changed

    return dropping_as(change)


def acknowledged_apart() -> Patch:
    """What a handler was given is removed in a transaction of its own."""

    def change(acknowledge: Any) -> Any:
        def changed(self: Any, tx: Any, last: int) -> None:
            async def later() -> None:
                async with self._session.own_transaction() as after:
                    acknowledge(self, after, last)

            tx.on_commit(later)

        return changed

    return replaced(inbox.Inbox, "acknowledge", change)


def all_acknowledged() -> Patch:
    """What the handler itself wrote goes too."""

    def acknowledge(self: Any, tx: Any, last: int) -> None:
        tx.run_sql(f"DELETE FROM {self.table}")

    return mock.patch.object(inbox.Inbox, "acknowledge", acknowledge)


def acknowledged_before() -> Patch:
    """`diffs` acknowledges what it has not given yet."""

    async def at_once(session: Any, trigger: Any, cutting: Any, throttle: float, net: bool) -> Any:
        box = inbox.Inbox(session, trigger)
        try:
            while await box.wait(0.0) and not session.closed:
                rows = await box.read(stream.COLUMNS)
                if not rows:
                    continue
                async with session.write_transaction() as tx:
                    box.acknowledge(tx, rows[-1][0])
                box.consumed = rows[-1][0]
                yield stream.read_diff(rows, session.origin)
        finally:
            box.stop()
            await trigger.dispose()

    return mock.patch.object(stream, "stream", at_once)


def cut_too_far() -> Patch:
    """What was not given yet is removed with what was."""

    def cut(self: Any, tx: Any) -> None:
        tx.run_sql(f"DELETE FROM {self.table}")

    return mock.patch.object(inbox.Inbox, "cut", cut)


def never_consumed() -> Patch:
    """A batch is given again."""
    return mock.patch.object(
        inbox.Inbox, "consumed", property(lambda self: 0, lambda self, last: None), create=True
    )


def no_look_out() -> Patch:
    async def look_out(reference: Any) -> None:
        """Nobody looks."""

    return mock.patch.object(database, "look_out", look_out)


def discards_untold() -> Patch:
    return replaced(
        inbox.Inbox,
        "_found",
        lambda found: lambda self, row: found(self, row)._replace(discarded=False),
    )


def without_stamps() -> Patch:
    return mock.patch.object(destinations.Destinations, "stamp", return_value=False)


def late_stamps() -> Patch:
    """A destination that another tab made is not known."""
    return mock.patch.object(
        destinations.Destinations, "seen_by", lambda self, tx: self._persisted | self.temporary
    )


def readers_for_temporary_tables() -> Patch:
    return mock.patch.object(
        statements.Statements,
        "made_temporary",
        property(lambda self: False, lambda self, value: None),
        create=True,
    )


def drops_unnoticed() -> Patch:
    return mock.patch.object(registry.Record, "error", return_value=None)


def altered_in_place() -> Patch:
    """ALTER TABLE meets the managed triggers."""

    @contextlib.contextmanager
    def around(self: Any, sql: str) -> Iterator[None]:
        yield
        self.mend(final=False)

    return mock.patch.object(mending.Mender, "around", around)


def left_out() -> Patch:
    """What ALTER TABLE was to meet no more is not made anew."""

    def remount(self: Any, one: Any, final: bool) -> None:
        """It stays away."""

    return mock.patch.object(mending.Mender, "_remount", remount)


def mended_before_its_time() -> Patch:
    """A trigger ends though its source is there again when the transaction ends."""

    def change(mend: Any) -> Any:
        return lambda self, *, final: mend(self, final=True)

    return replaced(mending.Mender, "mend", change)


def two_at_a_time() -> Patch:
    """Two calls of a handler are given the same records."""

    def change(deliver: Any) -> Any:
        async def changed(self: Any) -> bool:
            found = await self._inbox.look()
            if found.last is not None:
                async with self._session.own_transaction() as tx:
                    await self._consumer.handle(
                        tracker.LocalContext(
                            tx,
                            self.destination,
                            self._inbox.table,
                            self._inbox.record.recorded,
                            self._inbox.consumed,
                            found.last,
                            self._reset,
                        )
                    )
            return bool(await deliver(self))

        return changed

    return replaced(tracker.LocalTracker, "_deliver", change)


RULES = [
    unheld,
    holds_before_records,
    record_left,
    destination_left,
    triggers_left,
    acknowledged_apart,
    all_acknowledged,
    acknowledged_before,
    cut_too_far,
    never_consumed,
    no_look_out,
    discards_untold,
    without_stamps,
    late_stamps,
    readers_for_temporary_tables,
    drops_unnoticed,
    altered_in_place,
    left_out,
    mended_before_its_time,
    two_at_a_time,
]


def search(library: Library) -> None:
    for seed in range(SEEDS):
        for shared in (True, False):
            TriggerSchedule(library, seed, shared=shared).run()


@contextlib.contextmanager
def broken(rule: Callable[[], Patch], library: Library) -> Iterator[Library]:
    with rule():
        yield library


@pytest.mark.parametrize("rule", RULES)
def test_a_broken_rule_of_triggers_is_found_out(
    rule: Callable[[], Patch], library: Library
) -> None:
    assert finds_out(search, broken(rule, library)), f"nobody noticed: {rule.__name__}"
