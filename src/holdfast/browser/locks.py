"""Web Locks (w3.org/TR/web-locks): granted in order, released when their tab or worker dies."""

from __future__ import annotations

import asyncio
from typing import Any

from pyodide.ffi import create_once_callable

from .host import host


class WebLock:
    """One request; `granted` becomes whether the lock is here."""

    def __init__(self, name: str, exclusive: bool, if_available: bool) -> None:
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._request = host().request(name, exclusive, if_available)
        self._request.granted.then(
            create_once_callable(self._answered), create_once_callable(self._failed)
        )

    def _answered(self, granted: bool) -> None:
        if not self.granted.done():
            self.granted.set_result(granted)

    def _failed(self, error: Any) -> None:
        if not self.granted.done():
            self.granted.set_exception(error)

    def release(self) -> None:
        """Give the lock back, or withdraw the request."""
        self._request.release()


class WebLocks:
    """The locks of this origin."""

    def request(self, name: str, *, exclusive: bool = True, if_available: bool = False) -> WebLock:
        return WebLock(name, exclusive, if_available)


async def held(prefix: str) -> list[str]:
    """The names, from `prefix` on, of the locks that any tab of this origin holds; one query."""
    return list(await host().heldLocks(prefix))
