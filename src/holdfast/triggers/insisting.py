"""What has to be done in the end, however long the database is busy or full."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import DatabaseBusyError, QuotaExceededError

if TYPE_CHECKING:
    from ..session.session import Session

logger = logging.getLogger("holdfast")

T = TypeVar("T")

# Errors that pass by themselves, or when others give way.
PASSING = (DatabaseBusyError, QuotaExceededError)

# After a failure, in seconds: the first pause, which doubles, and the longest.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 10.0


def pause_after(failures: int) -> float:
    """How long to wait, in seconds, before the next attempt; failures: those before the last."""
    # A power of two has no bound, and a float has one.
    return min(FIRST_PAUSE * (1 << min(failures, 20)), LONGEST_PAUSE)


async def insist(session: Session, what: str, step: Callable[[], Awaitable[T]]) -> T:
    """What `step()` gives; again, with growing pauses, while the database is busy or full.

    DatabaseClosedError: it was closed meanwhile.
    """
    failures = 0
    while True:
        try:
            return await step()
        except PASSING as error:
            logger.warning("%s failed and is tried again: %s", what, error)
        with suppress(TimeoutError):
            await asyncio.wait_for(session.closing.ended.wait(), pause_after(failures))
        failures += 1
