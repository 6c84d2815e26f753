"""Holds: who still lives.

A hold is a name that its owner has for as long as it lives, however slowly, and that is free again
when the owner dies: a heartbeat would take a frozen tab for a dead one. Each persisted trigger has
one. It is obtained before anything is created and released after everything is dropped, so what is
recorded but not held belongs to nobody.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .memory import MemoryTriggerHoldManager
from .navigator import NavigatorTriggerHoldManager

if TYPE_CHECKING:
    from .file import FileTriggerHoldManager

__all__ = [
    "FileTriggerHoldManager",
    "MemoryTriggerHoldManager",
    "NavigatorTriggerHoldManager",
    "TriggerHoldManager",
]


@runtime_checkable
class TriggerHoldManager(Protocol):
    """Grants holds, and tells which are held by anybody who shares the database."""

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        """Take a hold; gives its idempotent release. HoldAlreadyTakenError: it is taken."""
        ...

    async def is_held(self, hold_id: str) -> bool:
        """Whether anybody has this hold."""
        ...

    async def held(self) -> frozenset[str]:
        """Every hold that anybody has; one query, however many there are."""
        ...


def __getattr__(name: str) -> Any:
    if name == "FileTriggerHoldManager":
        # A browser has no use for it, and would take long to import what it needs.
        from .file import FileTriggerHoldManager

        return FileTriggerHoldManager
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
