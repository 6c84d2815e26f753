"""Tabs of one process that have leases, over locks that behave as Web Locks do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from simulated_locks import LockQueues

from holdfast.storage.opfs.leases import Leases, Level


class Request:
    def __init__(self, locks: SimulatedLocks, name: str, exclusive: bool) -> None:
        self.granted: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.name, self.exclusive = name, exclusive
        self._locks = locks
        # As in a browser, the answer never comes in the same turn.
        self.asking: asyncio.Handle

    def release(self) -> None:
        self.asking.cancel()
        self._locks.release(self)


class SimulatedLocks(LockQueues[Request]):
    def __init__(self) -> None:
        super().__init__(self._set)
        self.asked = 0

    def request(self, name: str, *, exclusive: bool = True, if_available: bool = False) -> Request:
        self.asked += 1
        request = Request(self, name, exclusive)
        loop = asyncio.get_running_loop()
        request.asking = loop.call_soon(self.ask, request, if_available)
        return request

    def _set(self, request: Request, granted: bool) -> None:
        if not request.granted.done():
            request.granted.set_result(granted)


class SimulatedHandles:
    """File handles that are exclusive, as Firefox's are."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def open(self, timeout: float) -> None:
        await asyncio.sleep(0)
        assert self._world.handles_of is None, "another tab has the files open"
        self._world.handles_of = self

    def close(self) -> None:
        assert self._world.handles_of is self
        self._world.handles_of = None


class World:
    """Tabs that hear each other."""

    handles_of: SimulatedHandles | None = None

    def __init__(self) -> None:
        self.locks = SimulatedLocks()
        self.tabs: list[Leases] = []
        self.lost = False  # messages do not arrive
        self.said = 0

    def tab(
        self, on_level: Callable[[Level], None] = lambda level: None, *, exclusive: bool = False
    ) -> Leases:
        def post(what: str) -> None:
            self.said += 1
            if self.lost:
                return
            for other in self.tabs:
                if other is not leases:
                    asyncio.get_running_loop().call_soon(other.heard, what)

        handles = SimulatedHandles(self) if exclusive else None
        leases = Leases(
            "db",
            self.locks,
            post,
            on_level,
            handles,
            lambda: len(self.tabs) > 1,
            title="notes.db",
        )
        self.tabs.append(leases)
        return leases
