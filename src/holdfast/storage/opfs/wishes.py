"""What a tab does for another one that waits for a moment in which no tab reads (see leases.py)."""

from __future__ import annotations

import asyncio
import time

from ...bounds import Bound

# A tab that reads nothing waits this long at most before it begins, in seconds.
HOLD_BACK = 0.4

# A new reader waits this long at most for the readers of its own tab to leave, in seconds: it may
# be what one of them is waiting for.
DRAIN = 2.0

# When they have left, the next ones wait this long for the other tab to notice, in seconds.
NOTICE = 0.02


class Wish:
    """The last wish that was heard of; it ends by itself, should its tab die."""

    def __init__(self) -> None:
        self._hold_back_until = 0.0
        self._drain_until = 0.0

    def heard(self, seconds: float) -> None:
        """Another tab wishes for it; the longer the WAL has grown, the more seconds it says."""
        now = time.monotonic()
        self._hold_back_until = now + min(seconds, HOLD_BACK)
        self._drain_until = now + min(seconds, DRAIN)

    def ended(self) -> None:
        """It had its moment, or gave up."""
        self._hold_back_until = 0.0

    def met(self) -> None:
        """No reader of this tab is in its way any more."""
        self._hold_back_until = max(self._hold_back_until, time.monotonic() + NOTICE)

    @property
    def hold_back(self) -> float:
        """How long a tab that reads nothing still waits, in seconds; 0 or less: no longer."""
        return self._hold_back_until - time.monotonic()

    @property
    def drain(self) -> float:
        """How long a new reader still waits for those that are inside, in seconds."""
        return self._drain_until - time.monotonic()


class Waker:
    """Wakes the one task that waits."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[bool] | None = None

    async def wait(self, bound: Bound) -> bool:
        """Until `wake` is called; False: that was not within the bound."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting = waiting
        timer = loop.call_later(bound.left, self._end, False)
        try:
            woken = await waiting
        finally:
            self._waiting = None
            timer.cancel()
        return woken

    def wake(self) -> None:
        self._end(True)

    def _end(self, woken: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(woken)
