"""The databases of a server, with the classes and methods that databases have here.

    client = await connect(port)
    db = await client.open("notes.db", …)    # a holdfast.Database

What can be told here is told here, at once: that the database is closed, that a call would wait for
the transaction that it is made in. The rest is asked for by one message, and answered by one.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from ..api.options import OnProgress
from ..holds import (
    FileTriggerHoldManager,
    MemoryTriggerHoldManager,
    NavigatorTriggerHoldManager,
    TriggerHoldManager,
)
from ..version import __version__
from . import wire
from .database import RemoteDatabase, Transfer
from .flags import Flags
from .peer import Peer
from .port import Port
from .versions import PROTOCOL, check_versions

if TYPE_CHECKING:
    from ..schema import Schema

Plain = Any


async def connect(port: Port) -> Client:
    """The client of the server at the other end. StorageUnavailableError: it is of another kind."""
    client = Client(port)
    try:
        await client.greet()
    except BaseException as error:
        client.close(f"the two ends did not understand each other: {error}")
        raise
    return client


class Client:
    """One end of a port, and what can be asked of the server at the other."""

    def __init__(self, port: Port, flags: Flags | None = None) -> None:
        self._databases: WeakSet[RemoteDatabase] = WeakSet()
        self._closing: list[Callable[[str], None]] = []
        self.peer = Peer(port, self, self._gone, flags)

    async def greet(self) -> None:
        """To come first. StorageUnavailableError: the server is of another version."""
        protocol, holdfast, python = await self.peer.call(
            0, "hello", PROTOCOL, __version__, sys.version
        )
        check_versions(protocol, holdfast, python, "the worker", "the page")

    @property
    def closed(self) -> bool:
        """Whether the server is gone, or this end was closed."""
        return self.peer.closed

    async def open(
        self, name: str, *, schema: Schema | None = None, **options: Any
    ) -> RemoteDatabase:
        """Open a database there; the arguments are those of `holdfast.open`."""
        options["schema"] = wire.plain_schema(schema)
        options["hold_manager"] = self._plain_hold_manager(options.get("hold_manager"))

        async def undo(found: Plain) -> None:
            await self.peer.call(found["number"], "close")

        found = await self.peer.obtain(undo, 0, "open", name, options)
        database = RemoteDatabase(self.peer, found, self._databases.discard)
        self._databases.add(database)
        return database

    async def import_chunks(
        self,
        name: str,
        chunks: AsyncIterator[bytes | memoryview],
        total: int | None,
        storage: str,
        wait: float,
        on_progress: OnProgress | None,
        ignore_check_constraints: bool,
    ) -> None:
        """`holdfast.import_database`, of what was made of its data."""
        number = self.peer.export(Transfer(on_progress, chunks))
        reports = on_progress is not None
        try:
            options = (storage, wait, reports, ignore_check_constraints)
            await self.peer.call(0, "import_database", name, number, total, *options)
        finally:
            self.peer.forget(number)

    async def delete_database(self, name: str, storage: str, wait: float) -> bool:
        found: bool = await self.peer.call(0, "delete_database", name, storage, wait)
        return found

    async def databases(self, storage: str, folder: str | None) -> list[str]:
        return list(await self.peer.call(0, "databases", storage, folder))

    def rest(self) -> None:
        """This end goes idle, hidden or away."""
        self.peer.tell(0, "rest")

    def close(self, why: str) -> None:
        """The server is gone, or not wanted any more."""
        self.peer.close(why)

    def on_close(self, callback: Callable[[str], None]) -> None:
        """Call it with the reason when the server is gone, or `close` was called."""
        self._closing.append(callback)

    def _gone(self, why: str) -> None:
        for database in list(self._databases):
            database.server_gone(why)
        for callback in self._closing:
            callback(why)

    def _plain_hold_manager(self, given: TriggerHoldManager | None) -> Plain:
        if given is None:
            return None
        # The hold must live and die with the connection, which is at the server.
        if type(given) is MemoryTriggerHoldManager:
            return ["memory"]
        if type(given) is NavigatorTriggerHoldManager:
            return ["navigator"]
        if type(given) is FileTriggerHoldManager:
            return ["file", str(given.folder)]
        return self.peer.export(_Holds(given))


class _Holds:
    """A hold manager of the application's, for the server."""

    def __init__(self, manager: TriggerHoldManager) -> None:
        self._manager = manager
        self._releases: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {}

    async def obtain_hold(self, hold_id: str) -> bool:
        self._releases[hold_id] = await self._manager.obtain_hold(hold_id)  # type: ignore[assignment]
        return True

    async def release_hold(self, hold_id: str) -> None:
        if (release := self._releases.pop(hold_id, None)) is not None:
            await release()

    async def is_held(self, hold_id: str) -> bool:
        return await self._manager.is_held(hold_id)

    async def held(self) -> list[str]:
        return list(await self._manager.held())
