"""Processes that write to one file take turns.

A process that writes without pause would take the write lock again before another process, which
can only try now and then, has seen it free. So a process that was refused the write lock locks a
second range, NEXT_AT, which says that it is next. A writer whose turn is over leaves the write
lock to it:

    write lock   held while a transaction is open
    NEXT_AT      held by one process that waits for the write lock, until it has that or gives up

A process that is next may be stopped. The others wait for it for a moment (PATIENCE), and then do
not look at NEXT_AT for a while (IMPATIENCE).

Times are in seconds of the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from .ofd import NONE, REFUSED, WRITE, Range, holder, set_lock

# Behind the write lock of guard.py.
NEXT_AT: Range = (0x4000_1001, 1)

# A process may go on writing for this long while another is next. A handover costs the pause
# between two attempts of the one that is next, so much shorter turns would mostly be pauses.
TURN = 0.01

PATIENCE = 0.1
IMPATIENCE = 1.0


class Turns:
    """This process's place among those that write to one file."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._is_next = False
        # When the turn that lasts began.
        self._began = -TURN
        # Since when this process has been waiting for another one to begin its turn.
        self._waiting_since: float | None = None
        # Until then it does not wait for another one.
        self._impatient_until = 0.0

    def may_write(self, descriptor: int) -> bool:
        """Whether to try for the write lock now; False: another process is next."""
        now = self._clock()
        if self._is_next or now < self._impatient_until or now - self._began < TURN:
            return True
        if holder(descriptor, NEXT_AT) is None:
            return True
        if self._waiting_since is None:
            self._waiting_since = now
        if now - self._waiting_since < PATIENCE:
            return False
        self._impatient_until = now + IMPATIENCE
        return True

    def refused(self, descriptor: int) -> None:
        """Another process has the write lock: be next, if no other process is."""
        # Its turn has begun: there is no more to wait for.
        self._waiting_since = None
        if self._is_next:
            return
        try:
            set_lock(descriptor, WRITE, NEXT_AT)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
        else:
            self._is_next = True

    def obtained(self, descriptor: int) -> None:
        """This process has the write lock."""
        if self._is_next or self._waiting_since is not None:
            self._began = self._clock()
        self._waiting_since = None
        self.give_up(descriptor)

    def give_up(self, descriptor: int) -> None:
        """Nothing of this process waits for the write lock any more."""
        if self._is_next:
            self._is_next = False
            set_lock(descriptor, NONE, NEXT_AT)
