"""Closing a database: one piece of work, which every caller of close() waits for."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from ..api.nesting import closing_waits, is_inside, outside, write_transactions
from ..errors import DatabaseClosedError, NestedTransactionError

logger = logging.getLogger("holdfast")


class Owner(Protocol):
    """What the transactions of a database name as their owner."""

    @property
    def name(self) -> str:
        """The name that the database was opened with."""
        ...

    @property
    def kind(self) -> str:
        """Where it lives: "opfs", "indexeddb", "file" or "memory"."""
        ...

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        ...


class Closing:
    """Whether a database is closed, and the work that closing it is."""

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        # close() was called: only holdfast's own transactions may still begin.
        self.begun = False
        # From here on nothing may.
        self.ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def check_open(self, own: bool = False) -> None:
        """DatabaseClosedError, NestedTransactionError: a call that waits for the writer may not.

        own: it is holdfast's own, allowed while the database is closing.
        """
        if self.begun and not (own and not self.ended.is_set()):
            raise DatabaseClosedError(
                f"the database {self._owner.name!r} is closed; open it again with holdfast.open()"
            )
        self.check_not_inside("this would wait")

    def check_not_inside(self, what: str) -> None:
        """NestedTransactionError: this task is inside a write transaction of the database."""
        if is_inside(write_transactions, self._owner):
            raise NestedTransactionError(
                f"{what} for the write transaction of {self._owner.name!r} that it is called in; "
                "use the methods of that transaction (or of the handler's ctx.transaction), or "
                "call it outside"
            )

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin `work`, or join it. A caller that it waits for itself does not wait."""
        self.check_not_inside("close() would wait")
        if self._task is None:
            self.begun = True
            # Whatever transactions the first caller is inside of, this is not.
            self._task = asyncio.get_running_loop().create_task(work(), context=outside())
        elsewhere = self._owner in closing_waits.get()
        try:
            if not elsewhere:
                await asyncio.shield(self._task)
        finally:
            if not self._task.done():
                self._task.add_done_callback(self.log_failure)

    def log_failure(self, task: asyncio.Task[None]) -> None:
        """Log the error of a task that no caller awaits."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self.begun and isinstance(error, DatabaseClosedError):
            # Closing does what it would have done, such as dropping a trigger.
            logger.debug("%r was closed before a background task had ended", self._owner)
            return
        logger.error("a background task of %r failed", self._owner, exc_info=error)


def describe(database: Owner) -> str:
    """Its repr()."""
    state = "closed" if database.closed else "open"
    return f"<holdfast.Database {database.name!r} storage={database.kind!r} {state}>"


def warn_of_dropped(database: Owner) -> None:
    """From its `__del__`: a ResourceWarning, if close() was never called."""
    if not database.closed:
        warnings.warn(
            f"{database!r} was dropped and not closed; call close(), or open it with async with",
            ResourceWarning,
            source=database,
            stacklevel=3,
        )
