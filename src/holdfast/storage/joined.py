"""What all connections of this interpreter to one database share.

The first storage that joins opens it, and the last one that leaves closes it.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, Self, TypeVar

from ..bounds import Bound, BoundedLock
from .base import Storage

S = TypeVar("S", bound=Storage)


class Joined(ABC, Generic[S]):
    """What is shared of the database `name`; each class of these has its own."""

    known: ClassVar[dict[str, Any]]
    """Those that are joined now, by the database's name."""

    def __init_subclass__(cls) -> None:
        cls.known = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.storages: list[S] = []
        self.is_open = False
        self._opening = BoundedLock(f"another opening of {name!r} went on")
        # What `close` has to give back, the last first.
        self._undo = contextlib.ExitStack()

    @classmethod
    async def join(cls, storage: S, bound: Bound) -> Self:
        """What the storage shares, opened if it is the first one here."""
        found: Self | None = cls.known.get(storage.name)
        if found is None:
            found = cls.known[storage.name] = cls(storage.name)
        found.storages.append(storage)
        try:
            await found._opening.acquire(bound)
            try:
                if not found.is_open:
                    await found.open(storage, bound)
            finally:
                found._opening.release()
        except BaseException:
            await found.leave(storage)
            raise
        return found

    async def leave(self, storage: S) -> None:
        """The storage is closed."""
        self.storages.remove(storage)
        if self.storages:
            self.left()
        else:
            del self.known[self.name]
            await self.close()

    @abstractmethod
    async def open(self, storage: S, bound: Bound) -> None:
        """Open it for the first storage; all or nothing."""

    def left(self) -> None:
        """A storage has left, and others are still there."""

    @abstractmethod
    async def close(self) -> None:
        """Give back what `open` took, in the reverse order; it may have failed, or never run."""
