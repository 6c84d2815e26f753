"""What a tracker calls of an application: its handler and its on_error."""

from __future__ import annotations

import asyncio
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

from ..errors import HoldfastError, NestedTransactionError
from ..sqlite.rows import Parameters, Row
from .nesting import awaited_by_close
from .transactions import Transaction

logger = logging.getLogger("holdfast")


class DiffContext(ABC):
    """The records of one call of a handler, inside its write transaction.

    transaction: the transaction that the handler runs in. What the handler writes is committed
        together with the removal of the records.
    destination: the name of the table that the records are in.
    reset: records were discarded before this call (`max_backlog`): read the source anew.
    """

    def __init__(self, transaction: Transaction, destination: str, reset: bool) -> None:
        self.transaction = transaction
        self.destination = destination
        self.reset = reset

    @abstractmethod
    async def with_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Run a query (or a write) in which `DIFF` names the records, in order.

        DIFF has operation_id, id, operation, timestamp, value and previous_value, as the
        destination has them. The SQL may itself begin with WITH.
        """

    @abstractmethod
    async def with_extracted_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        """As `with_diff`, with the recorded columns in place of the JSON.

        DIFF has `id`, the columns by name with their stored types (of a DELETE the old values),
        and `__operation`, `__operation_id`, `__timestamp`, `__previous_value`. Where a recorded
        column is itself named id, `id` is that column.
        """


BeforeCreate = Callable[[Transaction], Awaitable[None]]
Handler = Callable[[DiffContext], Awaitable[None]]
OnError = Callable[[Exception], Awaitable[None]]

# The consumer whose handler, or on_error, this task was started in.
_current: ContextVar[Consumer | None] = ContextVar("holdfast_consumer", default=None)


class Consumer:
    """The functions that one tracker calls, and whether one of them runs.

    owner: the database whose close() waits for them.
    """

    def __init__(
        self, source: str, handler: Handler, on_error: OnError | None, owner: object
    ) -> None:
        self.handler = handler
        self._source = source
        self._on_error = on_error
        self._owner = owner
        self._handling = False
        self._reporting = False

    def enter(self) -> None:
        """This task, and those that it starts, run for this consumer from here on."""
        _current.set(self)

    @property
    def is_reporting(self) -> bool:
        """Whether this task runs in its on_error."""
        return self._reporting and _current.get() is self

    def check_not_handling(self) -> None:
        """NestedTransactionError: this task runs in its handler."""
        if self._handling and _current.get() is self:
            raise NestedTransactionError(
                f"stop() would wait for the handler of {self._source!r} that it is called in; "
                "call it outside, or let the handler set something that tells you to"
            )

    async def handle(self, context: DiffContext) -> None:
        """Call the handler; its exceptions are the caller's."""
        self._handling = True
        try:
            await self._call(self.handler, context)
        finally:
            self._handling = False

    async def report(self, error: Exception) -> None:
        """Call on_error, or log the error if there is none."""
        if self._on_error is None:
            # Holdfast's own errors say all; of a handler's own the traceback tells where.
            trace = None if isinstance(error, HoldfastError) else error
            logger.error("tracking %r failed: %s", self._source, error, exc_info=trace)
            return
        self._reporting = True
        try:
            with awaited_by_close(self._owner):
                await self._call(self._on_error, error)
        except Exception:
            logger.exception("on_error of the tracker of %r failed", self._source)
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
                f"a callback of the tracker of {self._source!r} was cancelled"
            ) from error
