"""Records that a reading consumer is done with: removed a while later, many at once.

Where a consumer stands is known to it alone, and nobody goes on where a dead one stood. So the
table need not say it: a consumer that only reads writes nothing when it is done with a record, and
no other tab has to wait for that, or hears of it. What is removed now and then is for the disk.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from ..api.nesting import outside
from ..errors import DatabaseClosedError
from .insisting import PASSING

if TYPE_CHECKING:
    from ..session.session import Session
    from .inbox import Inbox

logger = logging.getLogger("holdfast")

# So long after it was consumed a record is removed at the latest, in seconds; or when one consumer
# has so many of them.
AFTER = 2.0
MANY = 10_000


class Cutting:
    """The reading consumers of one connection that have something to be removed."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._due: dict[Inbox, None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._running = False

    def note(self, inbox: Inbox) -> None:
        """It has consumed records."""
        self._due[inbox] = None
        if inbox.consumed_here >= MANY:
            self._begin()
        elif self._timer is None and not self._running:
            self._timer = asyncio.get_running_loop().call_later(AFTER, self._begin)

    def forget(self, inbox: Inbox) -> None:
        """Its table goes as a whole."""
        self._due.pop(inbox, None)

    def close(self) -> None:
        """The tables of this connection go, or have gone."""
        self._due.clear()
        self._cancel()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        self._cancel()
        if self._due and not self._running and not self._session.closed:
            self._running = True
            # The timer was set by whoever consumed, maybe inside of a transaction.
            outside().run(self._session.start, self._cut())

    async def _cut(self) -> None:
        try:
            async with self._session.own_transaction() as tx:
                for inbox in [*self._due]:
                    inbox.cut(tx)
                    self.forget(inbox)
        except DatabaseClosedError:
            logger.debug("closed before what was consumed had been removed")
        except PASSING as error:
            logger.debug("what was consumed is removed later: %s", error)
        finally:
            self._running = False
            if self._due and not self._session.closed:
                self._timer = asyncio.get_running_loop().call_later(AFTER, self._begin)
