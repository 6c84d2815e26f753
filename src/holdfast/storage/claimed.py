"""A store in a browser: a Web Lock keeps others out while its database is replaced or deleted."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..bounds import Bound
from .store import Store

if TYPE_CHECKING:
    from ..browser.locks import WebLock


class ClaimedStore(Store):
    """A store whose database is this one's alone inside `claimed`."""

    @abstractmethod
    async def _claim(self, bound: Bound) -> WebLock:
        """The lock, granted. DatabaseBusyError: somebody has the database open all the time."""

    @asynccontextmanager
    async def claimed(self, bound: Bound) -> AsyncIterator[None]:
        """Inside of it nobody else has the database. DatabaseBusyError as `check_free`."""
        from ..browser.locks import arrived

        lock = await self._claim(bound)
        try:
            yield
        finally:
            lock.release()
            await arrived()

    async def check_free(self, bound: Bound) -> None:
        async with self.claimed(bound):
            """It was to be had."""
