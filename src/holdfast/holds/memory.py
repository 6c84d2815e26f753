"""Holds for a database that one process has to itself."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable

from ..errors import HoldAlreadyTakenError

# Shared by every manager of the process, as the database is by every connection.
_held: set[str] = set()
_lock = threading.Lock()


class MemoryTriggerHoldManager:
    """Holds in the memory of this process; all instances share one store."""

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        """Take a hold; gives its idempotent release. HoldAlreadyTakenError: it is taken."""
        with _lock:
            if hold_id in _held:
                raise already_taken(hold_id)
            _held.add(hold_id)
        released = False

        async def release() -> None:
            # By then another owner may have the id.
            nonlocal released
            if not released:
                released = True
                with _lock:
                    _held.discard(hold_id)

        return release

    async def is_held(self, hold_id: str) -> bool:
        """Whether anybody in this process has this hold."""
        with _lock:
            return hold_id in _held

    async def held(self) -> frozenset[str]:
        """Every hold that anybody in this process has."""
        with _lock:
            return frozenset(_held)


def already_taken(hold_id: str) -> HoldAlreadyTakenError:
    """The error of every manager."""
    return HoldAlreadyTakenError(
        f"the hold {hold_id!r} is taken by somebody who lives; use another id, or release it there"
    )
