"""A client and its server in one process, with a port between them as a worker would have it."""

from __future__ import annotations

import asyncio
import marshal
from collections.abc import Callable
from contextvars import Context
from typing import Any
from weakref import WeakSet

from holdfast import Database
from holdfast.local.database import LocalDatabase
from holdfast.remote.client import Client, connect
from holdfast.remote.database import RemoteDatabase
from holdfast.remote.server import Server
from holdfast.session.session import Session

_servers: WeakSet[Server] = WeakSet()


class MemoryPort:
    """One end; what is sent is bytes on the way, so nothing but plain values passes."""

    def __init__(self) -> None:
        self.on_message: Callable[[Any], None] = lambda message: None
        self.on_close: Callable[[str], None] = lambda why: None
        self.other: MemoryPort
        self.closed = False
        # What passed through, for tests that look at it.
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        try:
            data = marshal.dumps(message)
        except ValueError as error:
            raise TypeError(f"{message!r} cannot be sent: {error}") from None
        self.sent.append(message)
        # In a context of its own, as an event of a browser is.
        asyncio.get_running_loop().call_soon(self.other._arrive, data, context=Context())

    def rows(self, rows: list[tuple[Any, ...]], check: Callable[[], None]) -> Any:
        check()
        return rows

    def close(self) -> None:
        self.closed = True

    def _arrive(self, data: bytes) -> None:
        if not self.closed:
            self.on_message(marshal.loads(data))


def pair() -> tuple[MemoryPort, MemoryPort]:
    one, other = MemoryPort(), MemoryPort()
    one.other, other.other = other, one
    return one, other


class Across:
    """Databases of this process, by way of a server."""

    def __init__(self) -> None:
        self.client: Client | None = None
        self.server: Server

    async def elsewhere(self, storage: str, worker: str | None = None) -> Client:
        """In place of holdfast's own: everything lives at the server."""
        if self.client is None or self.client.closed:
            here, there = pair()
            self.server = Server(there)
            _servers.add(self.server)
            self.client = await connect(here)
        return self.client

    async def die(self, why: str = "the worker died") -> None:
        """The server is gone, from one moment to the next."""
        assert self.client is not None
        self.client.close(why)
        await self.server.close("the page is gone")


def session_of(database: Database) -> Session:
    """Its session, here or at the server."""
    return inside(database)._session


def inside(database: Database) -> LocalDatabase:
    """The database itself, for tests that look inside: the one here, or the one at the server."""
    if isinstance(database, LocalDatabase):
        return database
    assert isinstance(database, RemoteDatabase)
    server = next(
        server
        for server in _servers
        if server.peer._port.other is database.peer._port  # type: ignore[attr-defined]
    )
    return server._databases[database.number].database
