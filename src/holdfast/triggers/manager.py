"""The managed triggers of one connection: made, found, swept, and gone with it.

    create   hold granted -> one transaction: before_create, destination, triggers, record
    dispose  one transaction: triggers, destination and record dropped -> hold released
    sweep    records read -> one query for all holds -> if any is not held, one transaction: what
             is not held dropped, if it is still there

A record that is visible was committed after its hold was granted, and a hold is released after the
record's removal was committed. So at any moment, what is recorded and not held is an orphan, and
stays one, for a hold's id is never used again.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from ..api.handlers import Handler, OnError
from ..api.options import Options
from ..api.records import DiffRecord, TrackedTrigger
from ..api.transactions import Transaction, check_transaction
from ..api.triggers import TriggerManager
from ..errors import DatabaseClosedError
from ..giving_back import give_back
from ..schema import next_tx_id
from ..session.transactions import LocalTransaction
from ..unique import unique
from .cutting import Cutting
from .destinations import Destinations
from .mending import INTERNAL
from .registry import READ, Record, drop, read_records
from .setup import find_source, make_trigger
from .trigger import LocalTrigger

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from ..session.session import Session
    from .tracker import LocalTracker

logger = logging.getLogger("holdfast")

# How often orphans are looked for while the database is open, in seconds. That a tab died is
# mostly known at once; this finds what was missed.
SWEEP_INTERVAL = 120.0


class LocalTriggerManager(TriggerManager):
    """`Database.triggers` of a database of this interpreter."""

    def __init__(
        self, session: Session, hold_manager: TriggerHoldManager, persist_default: bool
    ) -> None:
        self._session = session
        session.before_commit = self.before_commit
        self._holds = hold_manager
        self._persist_default = persist_default
        self._live: dict[str, LocalTrigger] = {}
        self._releases: dict[str, Callable[[], Awaitable[None]]] = {}
        # In the order in which they were made.
        self._trackers: dict[LocalTracker, None] = {}
        self._destinations = Destinations(session)
        self._cutting = Cutting(session)

    # -- making ----------------------------------------------------------------------------------

    async def _track(
        self,
        options: Options,
        on_change: Handler,
        on_error: OnError | None,
        throttle: float,
        transaction: Transaction | None,
        read_only: bool,
    ) -> LocalTracker:
        from .tracker import LocalTracker

        trigger = await self._create(_own_destination(), options, transaction)
        tracker = LocalTracker(
            self._session,
            trigger,
            on_change,
            on_error,
            throttle,
            self._cutting if read_only else None,
            on_end=lambda ended: self._trackers.pop(ended, None),
        )
        self._trackers[tracker] = None
        if transaction is None:
            tracker.start()
        else:
            transaction.on_commit(tracker.start)
            transaction.on_rollback(tracker.end)
        return tracker

    async def _stream(
        self, options: Options, throttle: float, net: bool
    ) -> AsyncGenerator[list[DiffRecord]]:
        from .stream import stream

        trigger = await self._create(_own_destination(), options, None)
        found = stream(self._session, trigger, self._cutting, throttle, net)
        async with aclosing(found) as batches:
            async for records in batches:
                yield records

    async def _create(
        self, destination: str, options: Options, transaction: Transaction | None
    ) -> LocalTrigger:
        session = self._session
        given: LocalTransaction | None = None
        if transaction is not None:
            given = check_transaction(transaction, session, LocalTransaction)
        persist = self._persist_default if options.persist is None else options.persist
        hold_id = f"{session.storage.hold_prefix}{unique()}"
        if persist:
            self._releases[hold_id] = await self._holds.obtain_hold(hold_id)
        made: LocalTrigger | None = None
        tx = given
        set_up = partial(self._set_up, hold_id, destination, options, temporary=not persist)
        try:
            if given is None:
                async with session.write_transaction() as tx:
                    made = await set_up(tx)
            else:
                async with given.savepoint():
                    made = await set_up(given)
                given.on_rollback(made.finish)
        except GeneratorExit:
            raise  # ended with its event loop: nothing can be awaited any more
        except BaseException as error:
            try:
                if made is not None and tx is not None and tx.committed:
                    # Cancelled between the commit and here: nothing else knows of the trigger.
                    await asyncio.shield(session.start(made.dispose()))
                else:
                    await asyncio.shield(self._give_up(hold_id))
            except Exception as also:
                error.add_note(f"what was made could not be undone either: {also!r}")
            raise
        return made

    async def _set_up(
        self,
        hold_id: str,
        destination: str,
        options: Options,
        tx: LocalTransaction,
        *,
        temporary: bool,
    ) -> LocalTrigger:
        source = await find_source(tx, options, (*INTERNAL, *self._destinations.seen_by(tx)))
        operations = tuple(options.when)
        name = unique()
        record = Record(
            id=hold_id,
            source=source.name,
            destination=destination,
            operations=operations,
            triggers=tuple(f"holdfast_{name}_{operation.lower()}" for operation in operations),
            created_at=datetime.now(UTC),
            when=options.when,
            columns=options.columns,
            only_changed=options.only_changed,
            max_backlog=options.max_backlog,
            recorded=(),
            key=(),
        )
        with self._session.mender.own():
            record = make_trigger(tx.engine, record, source, temporary=temporary)
        self._destinations.forget()
        trigger = LocalTrigger(self._session, record, temporary=temporary, on_gone=self._give_up)
        # From here on close() knows of it, whatever becomes of the transaction.
        self._live[hold_id] = trigger
        if trigger.temporary:
            self._destinations.temporary.add(destination)
        return trigger

    async def _give_up(self, hold_id: str) -> None:
        """A trigger is gone, or was never made."""
        trigger = self._live.pop(hold_id, None)
        if trigger is not None and trigger.temporary:
            self._destinations.temporary.discard(trigger.destination)
        release = self._releases.pop(hold_id, None)
        if release is not None:
            await release()

    # -- finding ---------------------------------------------------------------------------------

    async def tracked(self) -> list[TrackedTrigger]:
        records = await self._read_registry()
        held = await self._holds.held() if records else frozenset()
        records.sort(key=lambda record: record.created_at)
        return [record.tracked(self._is_held(record, held)) for record in records]

    async def sweep(self) -> list[TrackedTrigger]:
        # Read before the holds are asked for: what is recorded by then was held before.
        strangers = self._strangers(await self._read_registry())
        held = await self._holds.held() if strangers else frozenset()
        orphans = {record.id for record in strangers if not self._is_held(record, held)}
        if not orphans:
            # A write transaction would wait for the writer.
            return []
        reclaimed = []
        async with self._session.write_transaction() as tx:
            for record in read_records(tx.run_sql(READ)):
                if record.id not in orphans:
                    continue
                try:
                    async with tx.savepoint():
                        with self._session.mender.own():
                            drop(tx, record)
                except DatabaseClosedError:
                    raise
                except Exception:
                    # It must not keep the others from going.
                    logger.exception("what %r left could not be dropped", record)
                else:
                    reclaimed.append(record.tracked(False))
        return reclaimed

    def _strangers(self, records: Sequence[Record]) -> list[Record]:
        return [record for record in records if record.id not in self._live]

    def _is_held(self, record: Record, held: frozenset[str]) -> bool:
        # A copy of a database has records whose holds are another database's.
        return record.id in held and record.id.startswith(self._session.storage.hold_prefix)

    async def _read_registry(self) -> list[Record]:
        return read_records(await self._session.fetch_all(READ))

    # -- for the session --------------------------------------------------------------------------

    async def open(self) -> None:
        """Sweep, and go on sweeping."""
        await self._destinations.open()
        await self.sweep()
        # A manager of holds that are lost without an event says how often to look.
        interval = getattr(self._holds, "watch_interval", SWEEP_INTERVAL)
        self._session.start_loop(_sweep_now_and_then(weakref.ref(self), interval))

    async def close(self) -> None:
        """Wait for handlers in flight, drop this connection's triggers, release their holds."""
        await give_back(
            self._destinations.close,
            self._cutting.close,
            self._drain,
            self._drop_all,
            self._finish_all,
        )

    async def _drain(self) -> None:
        for tracker in list(self._trackers):
            tracker.end()
        tasks = [tracker.task for tracker in self._trackers]
        if running := [task for task in tasks if task is not None and not task.done()]:
            await asyncio.wait(running)

    async def _drop_all(self) -> None:
        try:
            if self._live:
                async with self._session.own_transaction() as tx:
                    with self._session.mender.own():
                        for trigger in self._live.values():
                            drop(tx, trigger.record, temporary=trigger.temporary)
        except Exception:
            # Without their holds they are orphans, which the others sweep.
            logger.exception("the triggers of %r could not be dropped", self._session)

    async def _finish_all(self) -> None:
        finishing = [trigger.finish for trigger in self._live.values()]
        # Of those that are being made just now.
        releasing = [partial(self._give_up, hold) for hold in self._releases.keys() - self._live]
        await give_back(*finishing, *releasing)

    def destinations(self) -> frozenset[str]:
        """The destinations of every tab's triggers, as far as this connection knows."""
        return self._destinations.known()

    def before_commit(self, tx: LocalTransaction, touched: dict[str, int | None]) -> bool:
        """`tx` is about to commit; `touched`: table -> smallest rowid inserted there, or None.

        Whether this wrote something too.
        """
        crud = touched.get("ps_crud") is not None
        if crud:
            next_tx_id(tx)
        return self._destinations.stamp(tx, touched) or crud

    def peer_gone(self) -> None:
        """Another tab has gone, and may have left triggers behind."""
        if not self._session.closed:
            self._session.start(self.sweep_quietly())

    async def sweep_quietly(self) -> None:
        """`sweep`; errors are logged."""
        try:
            await self.sweep()
        except DatabaseClosedError:
            logger.debug("closed while sweeping; the next open sweeps")
        except Exception:
            logger.exception("orphaned triggers of %r could not be swept", self._session)


async def _sweep_now_and_then(reference: weakref.ref[LocalTriggerManager], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        manager = reference()
        if manager is None:
            return
        await manager.sweep_quietly()
        del manager


def _own_destination() -> str:
    return f"ps_diff_{unique()}"
