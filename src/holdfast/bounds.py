"""How long a call may wait: one bound for all of its steps, and a lock that keeps to it."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from .errors import DatabaseBusyError

# A timer of the browser fires at once if it is set for longer than some 24 days.
LONGEST = 1_000_000.0


class Bound:
    """The seconds that a call may wait, from now on, however many steps it has."""

    __slots__ = ("_end", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = min(seconds, LONGEST)
        self._end = time.monotonic() + self.seconds

    @property
    def left(self) -> float:
        """What is left of them; 0 when they are over."""
        # Not the bit more that adding and taking away leaves of a long time.
        return min(self.seconds, max(0.0, self._end - time.monotonic()))

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._end

    def at_most(self, seconds: float) -> Bound:
        """For a step that may take so long by itself."""
        return Bound(max(0.0, min(seconds, self.left)))

    def __str__(self) -> str:
        return f"{self.seconds:g} s"


class BoundedLock:
    """A lock of this interpreter: first come, first served, and no wait without a bound.

    It is handed over: from `release` on it is the next waiter's, although that has not run yet.

    kept: what a waiter is told that keeps it from getting the lock, with its reason.
    """

    def __init__(self, kept: str) -> None:
        self._kept = kept
        self._taken = False
        self._waiting: deque[asyncio.Future[bool]] = deque()

    def locked(self) -> bool:
        """Whether `acquire` would wait."""
        return self._taken

    def acquire_now(self) -> bool:
        """Take it if it is free."""
        if self._taken:
            return False
        self._taken = True
        return True

    async def acquire(self, bound: Bound) -> None:
        """Take it. DatabaseBusyError: others kept it for longer than the bound."""
        if self.acquire_now():
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        timer = loop.call_later(bound.left, _end, turn)
        self._waiting.append(turn)
        try:
            mine = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self.release()
            raise
        finally:
            timer.cancel()
        if not mine:
            raise DatabaseBusyError(
                f"{self._kept} for longer than {bound}; try again, or look for a transaction that "
                "is left open"
            )

    def release(self) -> None:
        """Hand it over to the first who still waits."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(True)
                return
        self._taken = False


def _end(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
