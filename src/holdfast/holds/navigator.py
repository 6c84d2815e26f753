"""Holds by Web Locks: a lock is its tab's or worker's until it ends, frozen or not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from .memory import already_taken

_PREFIX = "holdfast:hold:"


class NavigatorTriggerHoldManager:
    """Holds that every tab of the origin sees; see `navigator.locks`.

    The lock of a hold is named "holdfast:hold:" and the hold's id.
    """

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        """Take a hold; gives its idempotent release. HoldAlreadyTakenError: a tab has it."""
        from ..browser.locks import WebLocks, arrived

        lock = WebLocks().request(_PREFIX + hold_id, if_available=True)
        try:
            granted = await lock.granted
        except BaseException:
            # Cancelled while the lock was on its way: release it, or it would stay for ever.
            lock.release()
            raise
        if not granted:
            raise already_taken(hold_id)
        released = False

        async def release() -> None:
            nonlocal released
            if not released:
                released = True
                lock.release()
                await arrived()

        return release

    async def is_held(self, hold_id: str) -> bool:
        """Whether any tab has this hold."""
        return hold_id in await self.held()

    async def held(self) -> frozenset[str]:
        """Every hold of every tab of this origin, of all its databases; one query."""
        from ..browser.locks import held

        return frozenset(name.removeprefix(_PREFIX) for name in await held(_PREFIX))
