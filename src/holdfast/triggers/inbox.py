"""The receiving end of a trigger: when to look into its destination, and what is found there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from ..announcements import Announcement
from ..errors import SourceDroppedError, StorageUnavailableError
from ..sqltext import quote_name, quote_text
from .trigger import OBJECTS, DiffTrigger

if TYPE_CHECKING:
    from ..database import Database
    from ..transactions import Transaction


class Found(NamedTuple):
    """What a destination holds."""

    first: int
    """The operation_id of the first record, or the one that it will get."""
    last: int | None
    """The operation_id of the last record; None: there is none."""
    discarded: bool
    """Whether records were discarded before they could be consumed."""


class Inbox:
    """The destination of one trigger, as its one consumer sees it.

    Records are consumed from the front and numbered without gaps, so a gap before the first one
    means that some were discarded (`max_backlog`).
    """

    def __init__(self, database: Database, trigger: DiffTrigger) -> None:
        self._database = database
        self._trigger = trigger
        place = "temp" if trigger.temporary else "main"
        self.table = f"{place}.{quote_name(trigger.destination)}"
        self._find = (
            f"SELECT (SELECT min(operation_id) FROM {self.table}), "
            f"(SELECT max(operation_id) FROM {self.table}), "
            f"(SELECT seq FROM {place}.sqlite_sequence "
            f"WHERE name = {quote_text(trigger.destination)})"
        )
        self._expected = 1
        self._news = database._storage.event()
        self._stopped = asyncio.Event()
        # Whether the source may be gone; and whether it was found to be.
        self._doubtful = True
        self._sound = True
        # Whether another connection made records since the last look.
        self._sure = False
        # What came before anybody listened is news as well.
        self._news.set()
        self._failure: StorageUnavailableError | None = None
        self._unsubscribe = database._announcements.subscribe(self._heard)

    def _heard(self, announcement: Announcement) -> None:
        tables = announcement.tables
        self._failure = self._failure or announcement.failure
        if tables is None or announcement.ddl:
            self._doubtful = True
            self._news.set()
        elif self._trigger.destination in tables:
            # Its own connection may have removed some; another one has made some.
            self._sure = self._sure or announcement.remote
            self._news.set()

    # -- when to look ----------------------------------------------------------------------------

    async def wait(self, not_before: float) -> bool:
        """Until there may be news, but not before that `time.monotonic()`; False: stopped.

        Whatever is committed after it returns makes the next wait return.
        """
        await self._news.wait()
        pause = not_before - time.monotonic()
        if pause > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), pause)
        self._news.clear()
        return not self._stopped.is_set()

    @property
    def failed(self) -> bool:
        """Whether the database is gone, as it is when the site's data was cleared."""
        return self._failure is not None

    def again(self) -> None:
        """Make the next wait return: something is left to do."""
        self._news.set()

    def stop(self) -> None:
        """End every wait; no more is heard."""
        self._stopped.set()
        self._news.set()
        self._unsubscribe()

    # -- what is there ---------------------------------------------------------------------------

    async def look(self) -> Found:
        """What is in the destination, as committed.

        SourceDroppedError: there is nothing, and there never will be. StorageUnavailableError: the
        database is gone.
        """
        if self._failure is not None:
            raise self._failure
        doubtful, self._doubtful = self._doubtful, False
        try:
            if doubtful:
                objects = frozenset(
                    (kind, name) for kind, name in await self._database.fetch_all(OBJECTS)
                )
                self._sound = self._trigger.is_sound(objects)
                if ("table", self._trigger.destination) not in objects:
                    raise self._dropped()
            found = self._found((await self._database.fetch_all(self._find))[0])
        except BaseException:
            self._doubtful = self._doubtful or doubtful
            raise
        if not self._sound and found.last is None:
            raise self._dropped()
        return found

    def take_sure(self) -> bool:
        """Whether there are records, so that they can be handled without a look before."""
        sure, self._sure = self._sure, False
        return sure and not self._doubtful and self._failure is None

    def look_now(self, tx: Transaction) -> Found:
        """What is in the destination, as the transaction sees it."""
        return self._found(tx.run_sql(self._find)[0])

    def _found(self, row: Sequence[Any]) -> Found:
        first, last, sequence = row
        first = first or (sequence or 0) + 1
        return Found(first, last, discarded=first > self._expected)

    def acknowledge(self, tx: Transaction, last: int) -> None:
        """Remove what was consumed, up to the record `last`."""
        tx.run_sql(f"DELETE FROM {self.table} WHERE operation_id <= ?", (last,))

    def expect(self, operation_id: int) -> None:
        """Everything before that record was consumed, or is known to be lost."""
        self._expected = operation_id

    def _dropped(self) -> SourceDroppedError:
        source = self._trigger.source
        return SourceDroppedError(
            f"{source!r}, or the triggers on it, were dropped, so its changes are recorded no "
            "more; track it anew if it was made again"
        )
