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
import uuid
import weakref
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from ..errors import DatabaseClosedError
from ..giving_back import give_back
from ..schema import next_tx_id
from ..session.transactions import Transaction
from .destinations import Destinations
from .mending import INTERNAL
from .operations import When
from .options import Options, check_callable, check_destination, check_options, check_throttle
from .records import DiffRecord
from .registry import READ, Record, TrackedTrigger, drop, read_records
from .setup import find_source, make_trigger
from .stream import stream
from .tracker import DiffTracker, Handler, OnError
from .trigger import DiffTrigger

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from ..session.session import Session

logger = logging.getLogger("holdfast")

# How often orphans are looked for while the database is open, in seconds. That a tab died is
# mostly known at once; this finds what was missed.
SWEEP_INTERVAL = 120.0

BeforeCreate = Callable[[Transaction], Awaitable[None]]


class TriggerManager:
    """`Database.triggers`: see `create_diff_trigger`, `track_table_diff` and `diffs`."""

    def __init__(
        self, session: Session, hold_manager: TriggerHoldManager, persist_default: bool
    ) -> None:
        self._session = session
        session.before_commit = self.before_commit
        self._holds = hold_manager
        self._persist_default = persist_default
        self._live: dict[str, DiffTrigger] = {}
        self._releases: dict[str, Callable[[], Awaitable[None]]] = {}
        # In the order in which they were made.
        self._trackers: dict[DiffTracker, None] = {}
        self._destinations = Destinations(session)

    # -- making ----------------------------------------------------------------------------------

    async def create_diff_trigger(
        self,
        source: str,
        destination: str,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        transaction: Transaction | None = None,
        only_changed: bool = False,
    ) -> DiffTrigger:
        """Record the changes of `source` in a table of their own until that is disposed of.

        source: a view of the schema, or any ordinary table.
        destination: the table to make: operation_id INTEGER PRIMARY KEY, id, operation, timestamp,
            value and previous_value TEXT, then columns of holdfast's own.
        when: for each operation to record an SQL expression over NEW and OLD, the source's
            columns; "TRUE" for always. None: every operation, always. SQLite evaluates it within
            the write: if it fails for some row, the write fails.
        columns: what `value` and `previous_value` have; None: all, []: nothing but the key.
        persist: whether writes of every tab count, or those of this connection only; None: as
            `Database.persists_triggers`.
        before_create: async callable(tx), called first in the same transaction.
        transaction: set up inside this one. If that fails it undoes its own part only.
        only_changed: leave out updates after which every recorded column is as it was.

        TypeError, ValueError, UnknownSourceError, InvalidWhenError, DestinationInUseError: nothing
        was created.
        """
        options = check_options(
            source, when, columns, persist, self._persist_default, before_create, only_changed
        )
        return await self._create(check_destination(destination), options, transaction)

    async def track_table_diff(
        self,
        source: str,
        on_change: Handler,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        transaction: Transaction | None = None,
        only_changed: bool = False,
        throttle: float = 0.03,
        on_error: OnError | None = None,
        max_backlog: int | None = None,
    ) -> DiffTracker:
        """Call `on_change(ctx)` with the changes of `source`, until the tracker is stopped.

        on_change: async callable(DiffContext), run in a write transaction together with the
            removal of the records. If it raises they are kept and it is called again.
        throttle: at most one call in so many seconds.
        on_error: async callable(error), called once for each failure; None: they are logged.
        max_backlog: keep no more records than this; past it they are discarded, on_error gets a
            BacklogExceededError and the next context has `reset` set.
        The other arguments and errors are those of `create_diff_trigger`.
        """
        check_callable(on_change, "on_change", optional=False)
        check_callable(on_error, "on_error")
        throttle = check_throttle(throttle)
        options = check_options(
            source,
            when,
            columns,
            persist,
            self._persist_default,
            before_create,
            only_changed,
            max_backlog,
        )
        trigger = await self._create(_own_destination(), options, transaction)
        tracker = DiffTracker(
            self._session,
            trigger,
            on_change,
            on_error,
            throttle,
            on_end=lambda ended: self._trackers.pop(ended, None),
        )
        self._trackers[tracker] = None
        if transaction is None:
            tracker.start()
        else:
            transaction.on_commit(tracker.start)
            transaction.on_rollback(tracker.end)
        return tracker

    async def diffs(
        self,
        source: str,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        only_changed: bool = False,
        throttle: float = 0.03,
        max_backlog: int | None = None,
        net: bool = False,
    ) -> AsyncGenerator[list[DiffRecord]]:
        """An async iterator of what changed in `source`, from the first `anext` on.

        Gives lists of `DiffRecord`, in order, none empty. Asking for the next one acknowledges
        the last. Ends when the database is closed.
        net: fold each list to one record per key, see `fold_diff`.
        BacklogExceededError, SourceDroppedError, InvalidWhenError: it ends, after what was
        recorded before; for the rest see `track_table_diff`.
        """
        throttle = check_throttle(throttle)
        options = check_options(
            source,
            when,
            columns,
            persist,
            self._persist_default,
            before_create,
            only_changed,
            max_backlog,
        )
        trigger = await self._create(_own_destination(), options, None)
        async with aclosing(stream(self._session, trigger, throttle, net)) as batches:
            async for records in batches:
                yield records

    async def _create(
        self, destination: str, options: Options, transaction: Transaction | None
    ) -> DiffTrigger:
        session = self._session
        if transaction is not None:
            check_transaction(transaction, session)
        hold_id = f"{session.storage.hold_prefix}{uuid.uuid4().hex}"
        if options.persist:
            self._releases[hold_id] = await self._holds.obtain_hold(hold_id)
        made: DiffTrigger | None = None
        tx = transaction
        try:
            if transaction is None:
                async with session.write_transaction() as tx:
                    made = await self._set_up(tx, hold_id, destination, options)
            else:
                async with transaction.savepoint():
                    made = await self._set_up(transaction, hold_id, destination, options)
                transaction.on_rollback(made.finish)
        except GeneratorExit:
            raise  # ended with its event loop: nothing can be awaited any more
        except BaseException as error:
            try:
                if made is not None and tx is not None and tx.committed:
                    # Cancelled between the commit and here: nobody else knows that it is there.
                    await asyncio.shield(session.start(made.dispose()))
                else:
                    await asyncio.shield(self._give_up(hold_id))
            except Exception as also:
                error.add_note(f"what was made could not be undone either: {also!r}")
            raise
        return made

    async def _set_up(
        self, tx: Transaction, hold_id: str, destination: str, options: Options
    ) -> DiffTrigger:
        source = await find_source(tx, options, (*INTERNAL, *self._destinations.seen_by(tx)))
        operations = tuple(options.when)
        name = uuid.uuid4().hex
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
        temporary = not options.persist
        with self._session.mender.own():
            record = make_trigger(tx.engine, record, source, temporary=temporary)
        self._destinations.forget()
        trigger = DiffTrigger(self._session, record, temporary=temporary, on_gone=self._give_up)
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
        """The persisted triggers of every tab, the oldest first, and whether their owners live."""
        records = await self._read_registry()
        held = await self._holds.held() if records else frozenset()
        records.sort(key=lambda record: record.created_at)
        return [record.tracked(self._is_held(record, held)) for record in records]

    async def sweep(self) -> list[TrackedTrigger]:
        """Drop what dead tabs left; gives what was reclaimed."""
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
        await give_back(self._destinations.close, self._drain, self._drop_all, self._finish_all)

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

    def before_commit(self, tx: Transaction, touched: dict[str, int | None]) -> bool:
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


async def _sweep_now_and_then(reference: weakref.ref[TriggerManager], interval: float) -> None:
    while True:
        await asyncio.sleep(interval)
        manager = reference()
        if manager is None:
            return
        await manager.sweep_quietly()
        del manager


def _own_destination() -> str:
    return f"ps_diff_{uuid.uuid4().hex}"


def check_transaction(transaction: Transaction, owner: object) -> None:
    if not isinstance(transaction, Transaction):
        raise TypeError(f"transaction must be a Transaction, not {transaction!r}")
    if transaction.owner is not owner:
        raise ValueError("the transaction is another database's; give one of this database")
    if not transaction.writable:
        raise ValueError("the transaction only reads; give one of write_transaction()")
