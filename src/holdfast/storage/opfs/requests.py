"""Asking for the locks of a database: each wish is said to the other tabs, and ends in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from ...bounds import Bound
from ...errors import DatabaseBusyError, DatabaseClosedError

# While tabs write in turn no tab keeps what the next one waits for, so nothing is said of a wish
# before this time, in seconds.
QUIET = 0.004

# "want" is said again at this pace, in seconds, should a message have been lost.
REPEAT = 0.5


class LockRequest(Protocol):
    """A lock that was asked for; `granted` becomes True, or False where it is not available."""

    @property
    def granted(self) -> asyncio.Future[bool]: ...

    def release(self) -> None:
        """Give the lock back, or withdraw the request."""
        ...


class LockManager(Protocol):
    """Locks by name, among tabs; granted in the order of asking."""

    def request(
        self, name: str, *, exclusive: bool = True, if_available: bool = False
    ) -> LockRequest: ...


class _Waiting(NamedTuple):
    """A request that was not granted yet."""

    granted: asyncio.Future[bool]
    wish: str | None
    bound: Bound


class Requests:
    """What one tab asks for, of the locks `<name>:<what>`.

    post(what): says to the other tabs what is wanted.
    title: what errors call the database.
    """

    def __init__(
        self, name: str, locks: LockManager, post: Callable[[str], None], *, title: str
    ) -> None:
        self._name = name
        self._title = title
        self._locks = locks
        self._post = post
        self._waiting: list[_Waiting] = []
        self._insist_timer: asyncio.Handle | None = None
        self._insist_at = 0.0
        self._closed = False

    async def ask(
        self, what: str, *, exclusive: bool, bound: Bound, quiet: bool = False
    ) -> LockRequest:
        """The lock, granted. DatabaseBusyError: others kept it for longer than the bound.

        DatabaseClosedError: `close` was called, before or meanwhile.
        quiet: the wish is said only if it is not granted soon.
        """
        self.check_open()
        request = self._locks.request(f"{self._name}:{what}", exclusive=exclusive)
        # A shared reader waits only for what no tab keeps, so it sends no wish.
        wish = what if exclusive else None
        if wish is not None and not quiet:
            self._post(wish)
        waiting = _Waiting(request.granted, wish, bound)
        self._waiting.append(waiting)
        self._insist_within(min(bound.left, QUIET if quiet else REPEAT))
        try:
            if await self._is_granted(request):
                return request
        finally:
            self._waiting.remove(waiting)
        raise DatabaseBusyError(
            f"other tabs kept {self._title!r} busy for longer than {bound}; "
            "try again, or look for a transaction that is left open there"
        )

    async def ask_if_free(self, what: str) -> LockRequest | None:
        """The lock for this tab alone if that is to be had at once; it is never queued.

        DatabaseClosedError: as `ask`.
        """
        self.check_open()
        request = self._locks.request(f"{self._name}:{what}", if_available=True)
        return request if await self._is_granted(request) else None

    async def _is_granted(self, request: LockRequest) -> bool:
        """Whether it was; otherwise it is given back. DatabaseClosedError: as `ask`."""
        granted = False
        try:
            # A lock granted at the moment of closing would never be released.
            granted = await request.granted and not self._closed
        finally:
            if not granted:
                request.release()
        self.check_open()
        return granted

    def _insist_within(self, seconds: float) -> None:
        # One timer for all that waits: most of it is granted long before.
        at = time.monotonic() + seconds
        if self._insist_timer is not None:
            if self._insist_at <= at:
                return
            self._insist_timer.cancel()
        self._insist_at = at
        self._insist_timer = asyncio.get_running_loop().call_later(seconds, self._insist)

    def _insist(self) -> None:
        """Say again what is wanted, should a message have been lost; end what took too long."""
        self._insist_timer = None
        soonest = REPEAT
        for waiting in self._waiting:
            if waiting.granted.done():
                continue
            if waiting.bound.over:
                waiting.granted.set_result(False)
                continue
            if waiting.wish is not None:
                self._post(waiting.wish)
            soonest = min(soonest, waiting.bound.left)
        if self._waiting:
            self._insist_within(soonest)

    def check_open(self) -> None:
        """DatabaseClosedError: `close` was called."""
        if self._closed:
            raise DatabaseClosedError(
                f"{self._title!r} was closed while this waited for other tabs"
            )

    def close(self) -> None:
        """Every waiting call gets DatabaseClosedError."""
        self._closed = True
        if self._insist_timer is not None:
            self._insist_timer.cancel()
        for waiting in self._waiting:
            if not waiting.granted.done():
                waiting.granted.set_result(False)
