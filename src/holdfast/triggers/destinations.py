"""Which tables are destinations, and the stamp that each commit leaves in those that it filled.

The stamp says which transaction and which connection wrote; its format is in records.py. It costs
one UPDATE for each transaction and destination, however many records there are.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..errors import DatabaseClosedError
from ..session.announcements import Announcement
from ..sqlite.sqltext import quote_name
from .registry import READ, read_records

if TYPE_CHECKING:
    from ..session.session import Session
    from ..session.transactions import LocalTransaction

logger = logging.getLogger("holdfast")


class Destinations:
    """Destinations: of everybody's persisted triggers, of the connection's temporary ones."""

    def __init__(self, session: Session) -> None:
        self._session = session
        # Those of every database that shares the connection.
        self.temporary = session.main.temporary_destinations
        self._persisted: frozenset[str] = frozenset()
        # The schema that they were read at; None: to be read again.
        self._version: int | None = None
        # Tables that were found to be none, so that most commits need not ask.
        self._others: set[str] = set()
        self._reading: set[asyncio.Task[None]] = set()
        self._unsubscribe: Callable[[], None] | None = None

    async def open(self) -> None:
        """Learn what there is, and go on listening."""
        self._unsubscribe = self._session.announcements.subscribe(self._heard)
        await self._read()

    def close(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        for task in self._reading:
            task.cancel()

    def known(self) -> frozenset[str]:
        """As far as this connection has heard."""
        return self._persisted | self.temporary

    def seen_by(self, tx: LocalTransaction) -> frozenset[str]:
        """As the transaction sees it."""
        ((version,),) = tx.run_sql("PRAGMA main.schema_version")
        if version != self._version:
            recorded = (record.destination for record in read_records(tx.run_sql(READ)))
            self._persisted = frozenset(name for name in recorded if exists(tx, "main", name))
            self._version = version
            # Rolled back, the same number may come to stand for another schema.
            tx.on_rollback(self.forget)
        return self.known()

    def stamp(self, tx: LocalTransaction, touched: Mapping[str, int | None]) -> bool:
        """Stamp what `tx` recorded; `touched`: table -> smallest rowid inserted there, or None.

        Whether there was anything.
        """
        if touched.keys() <= self._others:
            return False
        stamped = False
        destinations = self.seen_by(tx)
        self._others |= touched.keys() - destinations
        for destination, first in touched.items():
            if first is None or destination not in destinations:
                continue
            place = "temp" if destination in self.temporary else "main"
            if place == "temp" and not exists(tx, place, destination):
                # Disposed of in this very transaction.
                continue
            table = f"{place}.{quote_name(destination)}"
            # The first that is still there: a full destination may have been emptied since.
            tx.run_sql(
                f"UPDATE {table} SET transaction_id = ?, origin = ?, "
                f"last_operation_id = (SELECT max(operation_id) FROM {table}) WHERE operation_id = "
                f"(SELECT min(operation_id) FROM {table} WHERE operation_id >= ?)",
                (tx.id, self._session.origin, first),
            )
            stamped = True
        return stamped

    def forget(self) -> None:
        """The schema changed, or a change of it was undone."""
        self._version = None
        self._others.clear()

    def _heard(self, announcement: Announcement) -> None:
        if announcement.failure is not None:
            return
        if announcement.remote and (announcement.ddl or announcement.tables is None):
            self.forget()
            task = asyncio.get_running_loop().create_task(self._read())
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def _read(self) -> None:
        try:
            rows = await self._session.fetch_all(READ)
        except DatabaseClosedError:
            logger.debug("closed while its destinations were read")
            return
        self._persisted = frozenset(record.destination for record in read_records(rows))
        self.forget()


def exists(tx: LocalTransaction, place: str, destination: str) -> bool:
    """Whether it still is a destination: a commit must not fail because one was changed."""
    return bool(
        tx.run_sql(
            "SELECT 1 FROM pragma_table_info(?, ?) WHERE name = 'last_operation_id'",
            (destination, place),
        )
    )
