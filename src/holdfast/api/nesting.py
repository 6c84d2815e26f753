"""Which transactions a task is inside of, and which close() waits for it.

A call that would wait for something that it is itself part of is refused. Tasks inherit what is
kept here from the task that started them.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar, copy_context
from typing import Protocol

logger = logging.getLogger("holdfast")

Callback = Callable[[], Awaitable[None] | None]


class Entered(Protocol):
    """A transaction, as far as nesting goes."""

    owner: object

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        ...


# The write transactions that this task (or the one that started it) is inside of. Tasks inherit
# it, so a task started in a block that is still open is found too.
write_transactions: ContextVar[tuple[Entered, ...]] = ContextVar(
    "holdfast_write_transactions", default=()
)

# The same for read transactions: a read inside of one never waits for the end of that one.
read_transactions: ContextVar[tuple[Entered, ...]] = ContextVar(
    "holdfast_read_transactions", default=()
)

# The databases whose close() waits for this task, which therefore must not wait for close().
closing_waits: ContextVar[tuple[object, ...]] = ContextVar("holdfast_closing_waits", default=())


def is_inside(transactions: ContextVar[tuple[Entered, ...]], owner: object) -> bool:
    """Whether this task is inside an open transaction of `owner`."""
    return any(tx.owner is owner and tx.is_open for tx in transactions.get())


def outside() -> Context:
    """A copy of this task's context that is inside of no write transaction."""
    context = copy_context()
    context.run(write_transactions.set, ())
    return context


async def run_callbacks(callbacks: Iterable[Callback], owner: object) -> None:
    """Each of them; one that fails is logged and does not keep the others from running."""
    with awaited_by_close(owner):
        for callback in callbacks:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("what was to run after a transaction failed")


@contextmanager
def awaited_by_close(database: object) -> Iterator[None]:
    """The close() of that database waits for what runs in here."""
    before = closing_waits.get()
    closing_waits.set((*before, database))
    try:
        yield
    finally:
        closing_waits.set(before)
