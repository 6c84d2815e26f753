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
import inspect
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import (
    BacklogExceededError,
    DatabaseClosedError,
    HoldfastError,
    NestedTransactionError,
)
from ..session.transactions import awaited_by_close
from .context import DiffContext
from .inbox import Inbox
from .trigger import DiffTrigger

if TYPE_CHECKING:
    from ..bounds import Bound
    from ..session.session import Session

logger = logging.getLogger("holdfast")

Handler = Callable[[DiffContext], Awaitable[None]]
OnError = Callable[[Exception], Awaitable[None]]

# After a failed call, in seconds: the first pause, which doubles, and the longest.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0

# The tracker whose handler, or on_error, this task was started in.
_current: ContextVar[DiffTracker | None] = ContextVar("holdfast_tracker", default=None)


class DistantHandler(ABC):
    """A handler that runs elsewhere: on a page, which may hang or be frozen while this goes on."""

    @abstractmethod
    async def ready(self) -> None:
        """Returns once it could be called; asked for when nobody waits for the tracker."""

    @abstractmethod
    async def __call__(self, context: DiffContext) -> None: ...


class DiffTracker:
    """Follows one source; made by `track_table_diff`. Ends by `stop()` or `async with`."""

    def __init__(
        self,
        session: Session,
        trigger: DiffTrigger,
        handler: Handler,
        on_error: OnError | None,
        throttle: float,
        on_end: Callable[[DiffTracker], None],
    ) -> None:
        self._session = session
        # Whose close() waits for what the application is called with.
        self._owner: object = session
        self._trigger = trigger
        self._handler = handler
        self._on_error = on_error
        self._throttle = throttle
        self._on_end = on_end
        self._inbox = Inbox(session, trigger)
        self._task: asyncio.Task[None] | None = None
        self._handling = False
        self._reporting = False
        self._reset = False
        self._failures = 0
        self._ended = False
        # Of the last stop(), whose waits the task's own disposing is one of.
        self._stopping: Bound | None = None

    @property
    def source(self) -> str:
        """The view or table, as the application calls it."""
        return self._trigger.source

    @property
    def destination(self) -> str:
        """The table that the records go to."""
        return self._trigger.destination

    @property
    def trigger(self) -> DiffTrigger:
        """The trigger that feeds it."""
        return self._trigger

    def __repr__(self) -> str:
        return f"<holdfast.DiffTracker of {self.source!r}, {'ended' if self._ended else 'live'}>"

    def start(self) -> None:
        """Begin to deliver; the trigger is committed."""
        if not self._ended:
            self._task = asyncio.get_running_loop().create_task(self._run())
            self._task.add_done_callback(lambda _: self._on_end(self))

    async def stop(self) -> None:
        """Wait for a handler in flight, then dispose of the trigger; idempotent.

        DatabaseBusyError: others wrote for longer than the bound of this call; the trigger is
        still there, and another stop() tries again.
        NestedTransactionError: called from the tracker's own handler, which it would wait for.
        """
        mine = _current.get() is self
        if mine and self._handling:
            raise self._waits_for_itself()
        if not self._trigger.gone:
            # Inside a write transaction, this and the handler would wait for each other.
            self._session.closing.check_open(own=True)
        self.end()
        if mine and self._reporting:
            # From on_error: the task ends when that returns.
            return
        self._stopping = bound = self._session.bound()
        await self.drain()
        # The task did that, unless it was cancelled or could not.
        await self._trigger.dispose_within(bound)

    def _waits_for_itself(self) -> NestedTransactionError:
        return NestedTransactionError(
            f"stop() would wait for the handler of {self.source!r} that it is called in; "
            "call it outside, or let the handler set something that tells you to"
        )

    def end(self) -> None:
        """No more calls of the handler after the one in flight."""
        self._ended = True
        self._inbox.stop()
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

    async def __aenter__(self) -> DiffTracker:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    # -- the task --------------------------------------------------------------------------------

    async def _run(self) -> None:
        _current.set(self)
        not_before = 0.0
        while await self._inbox.wait(not_before):
            started = time.monotonic()
            try:
                if await self._deliver():
                    not_before = started + self._throttle
                self._failures = 0
            except Exception as error:
                if self._trigger.gone or (
                    self._session.closed and isinstance(error, DatabaseClosedError)
                ):
                    break
                await self._report(error)
                if error is self._inbox.ended or self._inbox.failed:
                    break
                not_before = time.monotonic() + min(FIRST_PAUSE * 2**self._failures, LONGEST_PAUSE)
                self._failures += 1
                self._inbox.again()
        self.end()
        if self._session.closed:
            # Which drops all of its triggers in one transaction.
            return
        try:
            await self._trigger.dispose_within(self._stopping or self._session.bound())
        except Exception as error:
            # stop() tries again and tells; a dead tab's triggers are swept.
            logger.warning("the trigger of %r could not be dropped: %r", self, error)

    async def _deliver(self) -> bool:
        """Look, and call the handler if there is something for it; whether there was."""
        if self._inbox.take_sure():
            return await self._handle()
        found = await self._inbox.look()
        if found.discarded:
            self._inbox.expect(found.first)
            self._reset = True
            await self._report(
                BacklogExceededError(
                    f"records of {self.source!r} were discarded, because more than max_backlog "
                    "had not been handled; the next call has ctx.reset set: read the source anew"
                )
            )
        return (found.last is not None or self._reset) and await self._handle()

    async def _handle(self) -> bool:
        if isinstance(self._handler, DistantHandler):
            # In the transaction every other tab would have to wait for it.
            await self._handler.ready()
        async with self._session.own_transaction() as tx:
            found = self._inbox.look_now(tx)
            if found.discarded:
                # In between; to be told first.
                self._inbox.again()
                return False
            if found.last is None and not self._reset:
                return False
            await self._call_handler(
                DiffContext(
                    tx,
                    self.destination,
                    self._inbox.table,
                    self._inbox.record.recorded,
                    found.last,
                    self._reset,
                )
            )
            if found.last is not None:
                self._inbox.acknowledge(tx, found.last)
        self._reset = False
        if found.last is not None:
            self._inbox.expect(found.last + 1)
        return True

    async def _call_handler(self, context: DiffContext) -> None:
        self._handling = True
        try:
            await self._call(self._handler, context)
        finally:
            self._handling = False

    async def _report(self, error: Exception) -> None:
        if self._on_error is None:
            # Holdfast's own errors say all; of a handler's own the traceback tells where.
            trace = None if isinstance(error, HoldfastError) else error
            logger.error("tracking %r failed: %s", self.source, error, exc_info=trace)
            return
        self._reporting = True
        try:
            with awaited_by_close(self._owner):
                await self._call(self._on_error, error)
        except Exception:
            logger.exception("on_error of the tracker of %r failed", self.source)
        finally:
            self._reporting = False

    async def _call(self, callback: Callable[[Any], Awaitable[None]], argument: object) -> None:
        try:
            result = callback(argument)
            if inspect.isawaitable(result):
                await result
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Something that it waited for was cancelled, not this task.
            raise RuntimeError(
                f"a callback of the tracker of {self.source!r} was cancelled"
            ) from error
