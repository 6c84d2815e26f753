"""Whether a database's files are still there: clearing a site's data takes them from open tabs.

Shared handles work on then, into files that no other tab will ever see; a tab that went on writing
would acknowledge what is lost already. (Exclusive handles are opened by name with each lease, so
what is gone is found at once.)
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from ...bounds import Bound
from ...errors import StorageUnavailableError

if TYPE_CHECKING:
    from ...browser.files import DatabaseFiles
    from .leases import Leases

logger = logging.getLogger("holdfast")

# Within this time after a commit, in seconds, the files are looked for under their names.
SOON = 2.0
# A tab that does not commit looks for them within this time, in seconds.
NOW_AND_THEN = 10.0


class Presence:
    """Looks for the files of one database soon after each commit, and whenever a tab joins."""

    def __init__(self, name: str, files: DatabaseFiles, leases: Leases) -> None:
        self._name = name
        self._files = files
        self._leases = leases
        self._gone = ""
        self._timer: asyncio.Handle | None = None
        self._at = 0.0  # when the timer ends: the browser's event loop does not tell
        self._task: asyncio.Task[None] | None = None

    def check(self) -> None:
        """StorageUnavailableError: the files were found to be gone."""
        if self._gone:
            raise StorageUnavailableError(self._gone)

    def look_within(self, delay: float) -> None:
        """Look for them in `delay` seconds, or before."""
        if not self._files.shared or self._gone:
            return
        at = time.monotonic() + delay
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_later(delay, self._begin)

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    async def closed(self) -> None:
        """After `close`: nothing of it goes on."""
        if self._task is not None:
            await asyncio.wait({self._task})

    def _begin(self) -> None:
        self._timer = None
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._look())
            self._task.add_done_callback(self._looked)

    async def _look(self) -> None:
        await self._leases.read(Bound(SOON))
        try:
            if await self._files.still_there():
                return
        finally:
            self._leases.leave_read()
        self._gone = (
            f"the files of {self._name!r} were removed while it was open here, as clearing the "
            "site's data does. In this tab it can still be read and exported, but not written. For "
            "a new one close it and open it again; if the browser refuses that, close every page "
            "of the site and load it again"
        )
        logger.error("%s", self._gone)

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # The database was busy, or closed: the next commit looks again.
            logger.debug("%r was not looked for: %r", self._name, error)
