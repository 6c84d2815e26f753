"""How a statement that runs hears that its caller has given up.

Nothing else runs in this thread while a statement does, so no message can tell it. A call from the
other end of a port may bring a flag that can be looked at even then (see remote/flags.py). SQLite
looks at it now and then, by its progress handler; a raised flag ends the statement with a
CancelledError. What it had written is undone: SQLite rolls back the whole transaction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextvars import ContextVar

import apsw

# SQLite's instructions between two calls of the handler: less than a millisecond of them, and some
# milliseconds where each few are a row for Python.
STEPS = 10_000

# Looking costs some milliseconds: a statement that runs for less than this, in seconds, is not
# interrupted, and the others look once in this time.
INTERVAL = 0.03

_current: ContextVar[Call | None] = ContextVar("holdfast_interruptible_call", default=None)


class Call:
    """A call whose statements are interrupted when its flag is raised."""

    def __init__(self, is_raised: Callable[[], bool]) -> None:
        self._is_raised: Callable[[], bool] | None = is_raised
        self._looked: float | None = None

    def enter(self) -> None:
        """What runs in this context from now on is part of this call."""
        _current.set(self)

    def end(self) -> None:
        """Nothing interrupts it any more, nor what it has started."""
        self._is_raised = None

    def progress(self) -> None:
        """Called by SQLite while a statement runs. CancelledError: its caller has given up."""
        now = time.monotonic()
        if self._looked is None:
            self._looked = now
        elif now - self._looked >= INTERVAL:
            self._look()
            self._looked = time.monotonic()

    def look(self) -> None:
        """None where the statements were short. CancelledError: as `progress`."""
        if self._looked is not None:
            self._look()

    def _look(self) -> None:
        if self._is_raised is not None and self._is_raised():
            raise asyncio.CancelledError


def watch(connection: apsw.Connection) -> None:
    """Let the statements of a connection be interrupted."""
    connection.set_progress_handler(_progress, STEPS)


def leave() -> None:
    """What runs in this context from now on is part of no call."""
    _current.set(None)


def before_commit() -> None:
    """A COMMIT follows, which must not be interrupted. CancelledError: the caller has given up."""
    call = _current.get()
    if call is not None:
        call.look()
        call.end()


def check() -> None:
    """For what takes as long as a statement. CancelledError: the caller has given up."""
    call = _current.get()
    if call is not None:
        call.progress()


def _progress() -> bool:
    check()
    return False
