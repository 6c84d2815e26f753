"""Who hears of a committed transaction: this connection, others of this process, other tabs.

An announcement is a help, never a promise: its writer can die between the commit and the message.
Whoever must not miss a change looks into the database, and is told to by an announcement whose
`tables` is None ("some connection committed something").
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from ..errors import StorageUnavailableError

logger = logging.getLogger("holdfast")


class Announcement(NamedTuple):
    """One committed transaction, or several of others that were found together."""

    # Real names of main and temp, internal ones too; None: unknown, anything may have changed.
    tables: frozenset[str] | None
    # Whether another connection wrote it.
    remote: bool
    # Whether the schema changed.
    ddl: bool = False
    # The database is gone, as it is when the site's data was cleared: nothing more will come.
    failure: StorageUnavailableError | None = None


class Announcements:
    """The subscribers of one connection."""

    def __init__(self) -> None:
        self._subscribers: dict[object, Callable[[Announcement], None]] = {}

    def subscribe(self, callback: Callable[[Announcement], None]) -> Callable[[], None]:
        """`callback` is called, on the event loop, at each announcement; returns the way out."""
        key = object()
        self._subscribers[key] = callback

        def unsubscribe() -> None:
            self._subscribers.pop(key, None)

        return unsubscribe

    @property
    def wanted(self) -> bool:
        """Whether anybody subscribes."""
        return bool(self._subscribers)

    def deliver(self, announcement: Announcement) -> None:
        """To each subscriber; one that fails does not keep it from the others."""
        for callback in list(self._subscribers.values()):
            try:
                callback(announcement)
            except Exception:
                logger.exception("a subscriber of table changes failed")
