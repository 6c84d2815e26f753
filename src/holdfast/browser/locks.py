"""Web Locks (w3.org/TR/web-locks): granted in order, released when their tab or worker dies."""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable, Generator, Iterable
from functools import cache
from typing import Any

from pyodide.ffi import create_proxy

from .host import host
from .refusals import explaining, refusal
from .tasks import BrowserFuture

_ids = itertools.count(1)
_waiting: dict[int, WebLock] = {}


def _answered(id: int, granted: bool, error: str) -> None:
    lock = _waiting.pop(id, None)
    if lock is None or lock.granted.done():
        return
    if error:
        kind, _, message = error.partition(": ")
        lock.granted.set_exception(refusal("navigator.locks", lock.name, kind, message))
        lock.granted.exception()  # some are waited for after another lock only
    else:
        lock.granted.answer(granted)


@cache
def _functions() -> tuple[Callable[[int, str, bool, bool], None], Callable[[int], None]]:
    """request and release, looked up once, with one callback for all answers."""
    host().setOnAnswer(create_proxy(_answered))
    return host().request, host().release


class WebLock:
    """One request; `granted` becomes whether the lock is here."""

    __slots__ = ("_id", "_release", "granted", "name")

    def __init__(self, name: str, exclusive: bool, if_available: bool) -> None:
        request, self._release = _functions()
        self.name = name
        self.granted: BrowserFuture[bool] = BrowserFuture()
        self._id = next(_ids)
        _waiting[self._id] = self
        request(self._id, name, exclusive, if_available)

    def release(self) -> None:
        """Give the lock back, or withdraw the request."""
        _waiting.pop(self._id, None)
        self._release(self._id)


class WebLocks:
    """The locks of this origin."""

    def request(self, name: str, *, exclusive: bool = True, if_available: bool = False) -> WebLock:
        return WebLock(name, exclusive, if_available)


class _Held(Awaitable[Iterable[str]]):
    def __init__(self, prefix: str) -> None:
        self._asked = host().heldLocks(prefix)

    def __await__(self) -> Generator[Any, Any, Iterable[str]]:
        with explaining("navigator.locks"):
            names: Iterable[str] = yield from self._asked.__await__()
            return names


async def arrived() -> None:
    """Until every lock that was released here is free for every tab.

    `release` returns before the browser has heard of it.
    """
    with explaining("navigator.locks"):
        await host().releasesArrived()


def held(prefix: str) -> Awaitable[Iterable[str]]:
    """The names, from `prefix` on, of the locks that any tab of this origin holds; one query.

    It is asked at once, and answered when it is awaited.
    """
    return _Held(prefix)
