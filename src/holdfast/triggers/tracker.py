"""A tracker: calls a handler with what was recorded, one call at a time.

* A change is delivered at once if none was within the last `throttle` seconds, and when that time
  is over otherwise; what comes meanwhile is delivered together.
* The handler runs in a write transaction, in which the records that it was given are removed: both
  or neither. If it fails, it is called again after a pause that grows with each failure.
* The tracker's task is the only one that delivers and the one that disposes, so neither can
  overtake the other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..api.handlers import Consumer, DiffContext, Handler, OnError
from ..api.triggers import DiffTracker
from ..errors import BacklogExceededError, DatabaseClosedError
from ..session.transactions import LocalTransaction
from .context import LocalContext
from .inbox import Inbox
from .insisting import PASSING, pause_after
from .trigger import LocalTrigger

if TYPE_CHECKING:
    from ..bounds import Bound
    from ..session.session import Session
    from .cutting import Cutting

logger = logging.getLogger("holdfast")


class DistantHandler(ABC):
    """A handler that runs elsewhere: on a page, which may hang or be frozen while this goes on."""

    @abstractmethod
    async def ready(self) -> None:
        """Returns once it can be called; awaited while the tracker holds no lock."""

    @abstractmethod
    async def __call__(self, context: DiffContext) -> None: ...


class LocalTracker(DiffTracker):
    """A tracker of a connection of this interpreter."""

    def __init__(
        self,
        session: Session,
        trigger: LocalTrigger,
        handler: Handler,
        on_error: OnError | None,
        throttle: float,
        cutting: Cutting | None,
        on_end: Callable[[LocalTracker], None],
    ) -> None:
        self._session = session
        self._trigger = trigger
        self._consumer = Consumer(trigger.source, handler, on_error, session)
        self._throttle = throttle
        # Of a handler that only reads; None: it may write.
        self._cutting = cutting
        self._on_end = on_end
        self._inbox = Inbox(session, trigger)
        self._task: asyncio.Task[None] | None = None
        self._reset = False
        self._failures = 0
        self._ended = False
        # Of the last stop(), whose waits the task's own disposing is one of.
        self._stopping: Bound | None = None

    @property
    def trigger(self) -> LocalTrigger:
        return self._trigger

    @property
    def ended(self) -> bool:
        return self._ended

    def start(self) -> None:
        """Begin to deliver; the trigger is committed."""
        if not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(lambda _: self._on_end(self))

    async def stop(self) -> None:
        self._consumer.check_not_handling()
        if not self._trigger.gone:
            # Inside a write transaction, this and the handler would wait for each other.
            self._session.closing.check_open(own=True)
        self.end()
        if self._consumer.is_reporting:
            # From on_error: the task ends when that returns.
            return
        self._stopping = bound = self._session.bound()
        await self.drain()
        # The task did that, unless it was cancelled or could not.
        await self._trigger.dispose_within(bound)

    def end(self) -> None:
        """No more calls of the handler after the one in flight."""
        self._ended = True
        self._inbox.stop()
        if self._cutting is not None:
            self._cutting.forget(self._inbox)
        if self._task is None:
            self._on_end(self)

    @property
    def task(self) -> asyncio.Task[None] | None:
        """What calls the handler; None before the first call can come."""
        return self._task

    async def drain(self) -> None:
        """Wait for the handler in flight, and no further calls."""
        self.end()
        if self._task is not None:
            await asyncio.wait({self._task})

    # -- the task --------------------------------------------------------------------------------

    async def _run(self) -> None:
        self._consumer.enter()
        not_before = 0.0
        while await self._inbox.wait(not_before):
            started = time.monotonic()
            try:
                if await self._deliver():
                    not_before = started + self._throttle
                self._failures = 0
            except asyncio.CancelledError as error:
                await self._cancelled(error)
                break
            except Exception as error:
                if self._trigger.gone or (
                    self._session.closed and isinstance(error, DatabaseClosedError)
                ):
                    break
                await self._consumer.report(error)
                if error is self._inbox.ended or self._inbox.failed:
                    break
                not_before = time.monotonic() + pause_after(self._failures)
                self._failures += 1
                self._inbox.again()
        self.end()
        if self._session.closed:
            # Which drops all of its triggers in one transaction.
            return
        try:
            await self._trigger.dispose_within(self._stopping or self._session.bound())
        except PASSING as error:
            logger.debug("the trigger of %r is dropped later: %s", self, error)
        except Exception as error:
            # stop() tries again and tells; a dead tab's triggers are swept.
            logger.warning("the trigger of %r could not be dropped: %r", self, error)

    async def _cancelled(self, error: asyncio.CancelledError) -> None:
        """The handler has cancelled the task that calls it, or the event loop ends."""
        task = asyncio.current_task()
        while task is not None and task.uncancel():
            """What is left to do must not be cancelled."""
        why = RuntimeError(
            f"the task of the tracker of {self.source!r} was cancelled, as by its handler; it has "
            "ended. To end one, set something in the handler that has stop() called outside"
        )
        why.__cause__ = error
        self.end()
        await self._consumer.report(why)

    async def _deliver(self) -> bool:
        """Look, and call the handler if there is something for it; whether there was."""
        if self._inbox.take_sure():
            return await self._handle()
        found = await self._inbox.look()
        if found.discarded:
            self._inbox.consumed = found.first - 1
            self._reset = True
            await self._consumer.report(
                BacklogExceededError(
                    f"records of {self.source!r} were discarded, because more than max_backlog "
                    "had not been handled; the next call has ctx.reset set: read the source anew"
                )
            )
        return (found.last is not None or self._reset) and await self._handle()

    async def _handle(self) -> bool:
        handler = self._consumer.handler
        if isinstance(handler, DistantHandler):
            # In the transaction every other tab would have to wait for it.
            await handler.ready()
        inbox, cutting = self._inbox, self._cutting
        # Readers have no temporary tables, and a full backlog is emptied by what is still there.
        later = None if self._trigger.temporary or inbox.record.max_backlog else cutting
        session = self._session
        begin = session.own_transaction if later is None else session.own_read_transaction
        async with begin() as tx:
            found = inbox.look_now(tx)
            if found.discarded:
                # In between; to be told first.
                inbox.again()
                return False
            if found.last is None and not self._reset:
                return False
            shown = tx
            if tx.writable and cutting is not None:
                shown = LocalTransaction(session, tx.engine, writable=False)
            try:
                await self._consumer.handle(
                    LocalContext(
                        shown,
                        self.destination,
                        inbox.table,
                        inbox.record.recorded,
                        inbox.consumed,
                        found.last,
                        self._reset,
                    )
                )
            finally:
                if shown is not tx:
                    shown.end()
            if found.last is not None and later is None:
                inbox.acknowledge(tx, found.last)
        self._reset = False
        if found.last is not None:
            inbox.consumed = found.last
            if later is not None:
                later.note(inbox)
        return True
