"""The receiving end of a trigger: when to look into its destination, and what is found there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from ..errors import HoldfastError, SourceDroppedError, StorageUnavailableError
from ..session.announcements import Announcement
from ..sqlite.rows import Row
from ..sqlite.sqltext import quote_name, quote_text
from .destinations import exists
from .registry import SOUND_AT, Record, find_record, read_record, read_records
from .trigger import LocalTrigger

if TYPE_CHECKING:
    from ..session.session import Session
    from ..session.transactions import LocalTransaction

T = TypeVar("T")


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

    def __init__(self, session: Session, trigger: LocalTrigger) -> None:
        self._session = session
        self._trigger = trigger
        self._place = place = "temp" if trigger.temporary else "main"
        self.table = f"{place}.{quote_name(trigger.destination)}"
        # Of those that are not consumed.
        self._new = f"FROM {self.table} WHERE operation_id > ? ORDER BY operation_id"
        self._find = (
            f"SELECT (SELECT operation_id {self._new} LIMIT 1), "
            f"(SELECT operation_id {self._new} DESC LIMIT 1), "
            f"(SELECT seq FROM {place}.sqlite_sequence "
            f"WHERE name = {quote_text(trigger.destination)})"
        )
        # The last record that was consumed, or is known to be lost; the last that was removed.
        self.consumed = 0
        self._cut = 0
        self._news = session.storage.event()
        self._stopped = asyncio.Event()
        # Whether the schema may have changed; the trigger as it was made for it, and at which.
        self._doubtful = True
        self.record = trigger.record
        self._read_at = session.mender.sound_at
        # Why there will be no more, once that was told.
        self.ended: HoldfastError | None = None
        # Whether another connection made records since the last look.
        self._sure = False
        # What came before anybody listened is news as well.
        self._news.set()
        self._failure: StorageUnavailableError | None = None
        self._unsubscribe = session.announcements.subscribe(self._heard)

    def _heard(self, announcement: Announcement) -> None:
        if self._session.closed:
            self.stop()
            return
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
        """What is new in the destination, as committed.

        SourceDroppedError, InvalidWhenError: there is nothing, and there never will be; `ended`.
        StorageUnavailableError: the database is gone.
        """

        async def step() -> Found:
            rows = await self._session.fetch_all(self._find, (self.consumed, self.consumed))
            return self._found(rows[0])

        found = await self._looking(step)
        if found.last is None:
            self._check_end()
        return found

    async def read(self, columns: str) -> list[Row]:
        """The new records, in one look. Errors as `look`."""

        async def step() -> list[Row]:
            return await self._session.fetch_all(f"SELECT {columns} {self._new}", (self.consumed,))

        rows = await self._looking(step)
        if not rows:
            self._check_end()
        return rows

    async def _looking(self, step: Callable[[], Awaitable[T]]) -> T:
        if self._failure is not None:
            raise self._failure
        doubtful, self._doubtful = self._doubtful, False
        try:
            if doubtful:
                await self._look_at_schema()
            return await step()
        except BaseException:
            self._doubtful = self._doubtful or doubtful
            raise

    def _check_end(self) -> None:
        """There is nothing new."""
        if (error := self.record.error()) is not None:
            self._end(error)

    async def _look_at_schema(self) -> None:
        session, trigger = self._session, self._trigger
        if not await self._is_mended():
            # Another program changed the schema: beginning a transaction mends what it did.
            async with session.own_transaction():
                pass
        self._read_at = session.mender.sound_at
        find = find_record(self.record, temporary=trigger.temporary)
        place = "temp" if trigger.temporary else "main"
        there = await session.fetch_all(
            f"SELECT 1 FROM {place}.sqlite_master WHERE type = 'table' AND name = ?",
            (trigger.destination,),
        )
        records = read_records(await session.fetch_all(*find))
        if records:
            self.record = records[0]
        if not (there and records):
            self._end(self.record.error() or self._dropped())

    async def _is_mended(self) -> bool:
        """Whether the triggers were seen to since the schema changed last."""
        ((marked, version),) = await self._session.fetch_all(
            "SELECT (SELECT value FROM ps_kv WHERE key = ?), "
            "(SELECT schema_version FROM pragma_schema_version)",
            (SOUND_AT,),
        )
        if self._trigger.temporary:
            sound_at = self._session.mender.sound_at
            return sound_at is not None and sound_at.main == version
        return bool(marked == version)

    def _end(self, error: HoldfastError) -> NoReturn:
        self.ended = error
        raise error

    def take_sure(self) -> bool:
        """Whether there are records, so that they can be handled without a look before."""
        sure, self._sure = self._sure, False
        return sure and not self._doubtful and self._failure is None

    def look_now(self, tx: LocalTransaction) -> Found:
        """What is in the destination, as the transaction sees it."""
        # A reader sees a schema that `look` has seen, or one that it will see next.
        if tx.writable and self._session.mender.sound_now != self._read_at:
            before, temporary = self.record, self._trigger.temporary
            self.record = read_record(tx, before, temporary=temporary) or before
            tx.on_rollback(lambda: self._reread(before))
        return self._found(tx.run_sql(self._find, (self.consumed, self.consumed))[0])

    def _found(self, row: Sequence[Any]) -> Found:
        first, last, sequence = row
        first = first or (sequence or 0) + 1
        return Found(first, last, discarded=first > self.consumed + 1)

    def _reread(self, before: Record) -> None:
        """What a transaction read was rolled back with it."""
        self.record, self._doubtful = before, True

    def acknowledge(self, tx: LocalTransaction, last: int) -> None:
        """Remove what was consumed, up to the record `last`."""
        tx.run_sql(f"DELETE FROM {self.table} WHERE operation_id <= ?", (last,))

    @property
    def consumed_here(self) -> int:
        """How many records are consumed and still there, at most."""
        return self.consumed - self._cut

    def cut(self, tx: LocalTransaction) -> None:
        """Remove what was consumed, if its table is there."""
        cut, consumed = self._cut, self.consumed
        if not self._trigger.gone and exists(tx, self._place, self._trigger.destination):
            self.acknowledge(tx, consumed)
        self._cut = consumed
        tx.on_rollback(lambda: setattr(self, "_cut", cut))

    def _dropped(self) -> SourceDroppedError:
        source = self._trigger.source
        return SourceDroppedError(
            f"{source!r}, or the triggers on it, were dropped, so its changes are recorded no "
            "more; track it anew if it was made again"
        )
