"""Serves databases to the client at the other end of a port.

    Server(port)                           # opens with holdfast.open, as that does here
    Server(port, opened=my_open)           # opens otherwise: async (name, options) -> LocalDatabase
    await server.close("the tab is gone")  # the client is gone: all that was its own ends

Object 0 of its end (see peer.py) is the server itself: `hello`, `open`, `import_database`,
`delete_database`, `databases`, `rest`. What `open` gives is in served.py.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from .. import holds
from ..local import files
from ..local.database import LocalDatabase
from ..local.opening import open_here
from ..version import __version__
from . import wire
from .flags import Flags
from .peer import Peer
from .port import Port
from .served import ServedDatabase
from .versions import PROTOCOL, check_versions

Opened = Callable[[str, dict[str, Any]], Awaitable[LocalDatabase]]


class Server:
    """What one client sees of this side.

    opened: opens a database; its options are the arguments of `holdfast.open` by name.
    on_close: called when the port is closed, with the reason.
    flags: see peer.py.
    """

    def __init__(
        self,
        port: Port,
        *,
        opened: Opened | None = None,
        on_close: Callable[[str], None] | None = None,
        flags: Flags | None = None,
    ) -> None:
        self._opened = opened or _open_here
        self._databases: dict[int, ServedDatabase] = {}
        self._closed = on_close
        self._closing: asyncio.Task[None] | None = None
        self.peer = Peer(port, self, self._gone, flags)

    async def hello(self, protocol: int, holdfast: str, python: str | None) -> list[Any]:
        """This side's version; python: None from a client that is not Python.

        StorageUnavailableError: the two do not fit together.
        """
        check_versions(protocol, holdfast, python, "the page", "the worker")
        return [PROTOCOL, __version__, sys.version]

    async def open(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """Open a database; its number, and what is known of it.

        options: as `holdfast.open` has them; the schema as plain_schema() has it; hold_manager: the
        name of one of holdfast's own, or the number of an object of the client's.
        """
        found = dict(options)
        found["schema"] = wire.read_schema(found.get("schema"))
        found["hold_manager"] = self._hold_manager(found.get("hold_manager"))
        database = await self._opened(name, found)
        served = ServedDatabase(self.peer, database, lambda: self._forget(number))
        number = self.peer.export(served)
        self._databases[number] = served
        return {
            "number": number,
            "name": database.name,
            "storage": database.storage,
            "persists_triggers": database.persists_triggers,
        }

    async def import_database(
        self,
        name: str,
        client: int,
        total: int | None,
        storage: str,
        wait: float,
        progress: bool,
        ignore_check_constraints: bool,
    ) -> None:
        """client: an object with `next()`, which gives [bytes] or [], and `progress`."""
        tell = partial(self.peer.call, client, "progress") if progress else None
        chunks = self._chunks(client)
        options = (storage, wait, tell, ignore_check_constraints)
        await files.import_chunks(name, chunks, total, *options)

    async def _chunks(self, client: int) -> AsyncIterator[bytes]:
        while chunk := await self.peer.call(client, "next"):
            yield chunk[0]

    async def delete_database(self, name: str, storage: str, wait: float) -> bool:
        return await files.delete_database(name, storage, wait)

    async def databases(self, storage: str, folder: str | None) -> list[str]:
        return await files.databases(storage, folder)

    async def rest(self) -> None:
        """The client goes idle, hidden or away: give up what no transaction needs."""
        for served in self._databases.values():
            served.database.rest()

    async def close(self, why: str) -> None:
        """The client is gone: roll back, dispose and release what was its own."""
        self.peer.close(why)
        if self._closing is not None:
            await asyncio.shield(self._closing)

    def _gone(self, why: str) -> None:
        self._closing = asyncio.get_running_loop().create_task(self._close_all())
        if self._closed is not None:
            self._closed(why)

    async def _close_all(self) -> None:
        served = list(self._databases.values())
        for found in await asyncio.gather(
            *(each.close() for each in served), return_exceptions=True
        ):
            if isinstance(found, Exception):
                raise found

    def _forget(self, number: int) -> None:
        self._databases.pop(number, None)
        self.peer.forget(number)

    def _hold_manager(self, given: Any) -> holds.TriggerHoldManager | None:
        if given is None:
            return None
        if isinstance(given, int):
            return ClientsHoldManager(self.peer, given)
        kind, *args = given
        return OWN_HOLD_MANAGERS[kind](*args)


class ClientsHoldManager:
    """A hold manager of the client's own."""

    def __init__(self, peer: Peer, number: int) -> None:
        self._peer = peer
        self._number = number

    async def obtain_hold(self, hold_id: str) -> Callable[[], Awaitable[None]]:
        async def release() -> None:
            # What a client held that is gone went with it.
            if not self._peer.closed:
                await self._peer.call(self._number, "release_hold", hold_id)

        # Cancelled while it was on its way, it must not stay behind.
        await self._peer.obtain(lambda _: release(), self._number, "obtain_hold", hold_id)
        return release

    async def is_held(self, hold_id: str) -> bool:
        return bool(await self._peer.call(self._number, "is_held", hold_id))

    async def held(self) -> frozenset[str]:
        return frozenset(await self._peer.call(self._number, "held"))


OWN_HOLD_MANAGERS: dict[str, Callable[..., holds.TriggerHoldManager]] = {
    "memory": holds.MemoryTriggerHoldManager,
    "navigator": holds.NavigatorTriggerHoldManager,
    "file": holds.FileTriggerHoldManager.in_folder,
}


async def _open_here(name: str, options: dict[str, Any]) -> LocalDatabase:
    return await open_here(name, **options)
