"""The databases of a server, with the classes and methods that databases have here.

    client = await connect(port)
    db = await client.open("notes.db", …)    # a holdfast.Database

What can be told here is told here, at once: that the database is closed, that a call would wait for
the transaction that it is made in. The rest is asked for by one message, and answered by one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from importlib.metadata import version
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import apsw

from ..changes import TableChange
from ..database import Database
from ..errors import DatabaseClosedError
from ..exporting import OnProgress, check_progress
from ..holds import (
    FileTriggerHoldManager,
    MemoryTriggerHoldManager,
    NavigatorTriggerHoldManager,
    TriggerHoldManager,
)
from ..rows import ExecuteResult, Parameters, Row
from ..transactions import Callback, Transaction, run_callbacks, write_transactions
from . import wire
from .peer import Peer
from .port import Port
from .server import PROTOCOL, check_versions

if TYPE_CHECKING:
    from ..schema import Schema
    from ..storage import StorageStatus

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

    def __init__(self, port: Port) -> None:
        self._databases: set[RemoteDatabase] = set()
        self._closing: list[Callable[[str], None]] = []
        self.peer = Peer(port, self, self._gone)

    async def greet(self) -> None:
        """To come first. StorageUnavailableError: the server is of another version."""
        protocol, holdfast, python = await self.peer.call(
            0, "hello", PROTOCOL, version("holdfast"), sys.version
        )
        check_versions(protocol, holdfast, python, "the worker", "the page")

    @property
    def closed(self) -> bool:
        """Whether the server is gone, or this end was closed."""
        return self.peer.closed

    async def open(self, name: str, *, schema: Schema | None = None, **options: Any) -> Database:
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
    ) -> None:
        """`holdfast.import_database`, of what was made of its data."""
        number = self.peer.export(_Transfer(on_progress, chunks))
        reports = on_progress is not None
        try:
            await self.peer.call(0, "import_database", name, number, total, storage, wait, reports)
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
            database._server_gone(why)
        for callback in self._closing:
            callback(why)

    def _plain_hold_manager(self, given: TriggerHoldManager | None) -> Plain:
        if given is None:
            return None
        # They hold for whoever lives there: that is where the database, and its connection, is.
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


class _Transfer:
    """What the server calls while it exports or imports."""

    def __init__(
        self,
        on_progress: OnProgress | None,
        chunks: AsyncIterator[bytes | memoryview] | None = None,
    ) -> None:
        self._report = check_progress(on_progress)
        self._chunks = chunks

    async def next(self) -> list[bytes]:
        """The next part of what is imported; none at the end."""
        assert self._chunks is not None
        async for chunk in self._chunks:
            return [bytes(chunk)]
        return []

    async def progress(self, done: int, total: int | None) -> None:
        await self._report(done, total)


class RemoteDatabase(Database):
    """A database that a server has."""

    def __init__(
        self, peer: Peer, found: Plain, on_closed: Callable[[RemoteDatabase], None]
    ) -> None:
        from .triggers import RemoteTriggerManager

        self._peer = peer
        self._number: int = found["number"]
        self._name: str = found["name"]
        self._kind: str = found["storage"]
        self._persists_triggers: bool = found["persists_triggers"]
        self._on_closed = on_closed
        self._closing = False
        self._closed = asyncio.Event()
        self._close_done: asyncio.Future[None] | None = None
        self._open_transactions: set[Transaction] = set()
        self.triggers = RemoteTriggerManager(self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def storage(self) -> str:
        return self._kind

    @property
    def closed(self) -> bool:
        """Whether close() was called, or who had the database is gone."""
        return self._closing or self._peer.closed

    def _call(self, method: str, *args: Any) -> Coroutine[Any, Any, Any]:
        return self._peer.call(self._number, method, *args)

    def _check_open(self, own: bool = False) -> None:
        if not self._closing:
            self._peer.check()
        super()._check_open(own)

    def _is_inside(self) -> bool:
        return any(tx.owner is self and tx.is_open for tx in write_transactions.get())

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        self._check_open()
        return wire.read_result(await self._call("execute", sql, wire.plain_parameters(params)))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        self._check_open()
        many = wire.plain_many(seq_of_params)
        return wire.read_result(await self._call("execute_many", sql, many))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        self._check_open()
        return wire.read_rows(await self._call("fetch_all", sql, wire.plain_parameters(params)))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        self._check_open()
        found = await self._call("fetch_one", sql, wire.plain_parameters(params))
        return None if found is None else Row(*found)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        self._check_open()
        return await self._call("fetch_value", sql, wire.plain_parameters(params))

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return _Block(self, writable=True)

    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:  # type: ignore[override]
        return _Block(self, writable=False)

    # -- changes ---------------------------------------------------------------------------------

    def changes(self, tables: Iterable[str] | None = None) -> AsyncIterator[TableChange]:
        self._check_open()
        return self._changes(tables)

    async def _changes(self, tables: Iterable[str] | None) -> AsyncGenerator[TableChange]:
        if tables is not None and not isinstance(tables, str):
            tables = list(tables)
        async with aclosing(self._stream("changes", tables)) as stream:
            async for names, remote in stream:
                yield TableChange(frozenset(names), remote)

    def watch(
        self, sql: str, params: Parameters = (), throttle: float = 0.03
    ) -> AsyncIterator[list[Row]]:
        self._check_open()
        return self._watch(sql, params, throttle)

    async def _watch(
        self, sql: str, params: Parameters, throttle: float
    ) -> AsyncGenerator[list[Row]]:
        params = wire.plain_parameters(params)
        async with aclosing(self._stream("watch", sql, params, throttle)) as stream:
            async for rows in stream:
                yield wire.read_rows(rows)

    async def _stream(self, method: str, *args: Any) -> AsyncGenerator[Plain]:
        """What a method there gives item by item; it is ended there when it ends here.

        NestedTransactionError: asked for inside a write transaction, which has to end first.
        """

        async def undo(number: int) -> None:
            if self._is_inside():
                # What it waits for there is that transaction's end.
                self._peer.tell(number, "close")
            else:
                await self._peer.call(number, "close")

        number = await self._peer.obtain(undo, self._number, method, *args)
        ended = False
        try:
            while not self._closing:
                if method != "changes":
                    self._check_open()
                answer = self._peer.request(number, "next")
                try:
                    found = await answer
                finally:
                    # An error ends it there. Cancelled, this may have come too late for that.
                    ended = answer.error is not None or answer.value == []
                if not found:
                    return
                yield found[0]
        finally:
            if not (ended or self.closed):
                await undo(number)

    # -- the file --------------------------------------------------------------------------------

    def export_chunks(self, *, on_progress: OnProgress | None = None) -> AsyncIterator[bytes]:
        self._check_open()
        return self._export_chunks(on_progress)

    async def _export_chunks(self, on_progress: OnProgress | None) -> AsyncGenerator[bytes]:
        number = None if on_progress is None else self._peer.export(_Transfer(on_progress))
        try:
            async with aclosing(self._stream("export_chunks", number)) as stream:
                async for chunk in stream:
                    yield chunk
        finally:
            if number is not None:
                self._peer.forget(number)

    # -- life ------------------------------------------------------------------------------------

    async def status(self) -> StorageStatus:
        self._check_open()
        return wire.read_status(await self._call("status"))

    def rest(self) -> None:
        self._peer.tell(0, "rest")

    async def _close(self) -> None:
        self._end_transactions("was rolled back, because the database was closed")
        try:
            if not self._peer.closed:
                await self._call("close")
        finally:
            self._ended()

    def _server_gone(self, why: str) -> None:
        self._end_transactions(f"was rolled back: {why}")
        self._ended()

    def _end_transactions(self, why: str) -> None:
        for transaction in list(self._open_transactions):
            transaction.end(why)

    def _ended(self) -> None:
        self._closed.set()
        self._on_closed(self)


class RemoteTransaction(Transaction):
    """A transaction that a server has open."""

    def __init__(
        self, database: RemoteDatabase, number: int, identity: str, *, writable: bool
    ) -> None:
        self.number = number
        self.owner = database
        self.writable = writable
        self.committed = False
        self._peer = database._peer
        self._id = identity
        self._open = True
        self._why_ended = "has ended; use it inside its `async with` block only"
        self._on_commit: list[Callback] = []
        self._on_rollback: list[Callback] = []

    @property
    def id(self) -> str:
        return self._id

    @property
    def connection(self) -> NoReturn:
        """AttributeError: an object of another interpreter cannot be had here."""
        raise AttributeError(
            "this transaction's connection lives in another interpreter, holdfast's worker, so "
            "the raw apsw.Connection cannot be had here; use the methods of the transaction, or "
            "run this code in a worker of your own"
        )

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        return wire.read_result(await self._call("execute", sql, wire.plain_parameters(params)))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        self.check_ended()
        many = wire.plain_many(seq_of_params)
        return wire.read_result(await self._call("execute_many", sql, many))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        return wire.read_rows(await self._call("fetch_all", sql, wire.plain_parameters(params)))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        found = await self._call("fetch_one", sql, wire.plain_parameters(params))
        return None if found is None else Row(*found)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        return await self._call("fetch_value", sql, wire.plain_parameters(params))

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        await self._call("savepoint")
        commits, rollbacks = len(self._on_commit), len(self._on_rollback)
        try:
            yield
        except BaseException:
            undone = self._on_rollback[rollbacks:]
            del self._on_commit[commits:], self._on_rollback[rollbacks:]
            if self._open:
                await self._call("undo")
            await run_callbacks(reversed(undone))
            raise
        if self._open:
            await self._call("release")

    def run_sql(self, sql: str, params: Parameters = ()) -> NoReturn:
        raise AttributeError("holdfast's own statements run where the database is")

    def close_cursors(self) -> None:
        """Nobody here has any."""

    def check_ended(self) -> None:
        """DatabaseClosedError if it was ended from outside. What SQLite ended, the server tells."""
        if not self._open:
            raise DatabaseClosedError(f"the transaction {self._why_ended}")

    def _call(self, method: str, *args: Any) -> Coroutine[Any, Any, Any]:
        self.check_ended()
        return self._peer.call(self.number, method, *args)


class _Block(AbstractAsyncContextManager[Transaction]):
    """`async with`: commits there on leaving, rolls back there on an error."""

    __slots__ = ("_database", "_entered", "_outer", "_transaction", "_writable")

    def __init__(self, database: RemoteDatabase, *, writable: bool) -> None:
        self._database = database
        self._writable = writable
        self._entered = False
        self._transaction: RemoteTransaction
        self._outer: tuple[Transaction, ...]

    async def __aenter__(self) -> Transaction:
        database = self._database
        database._check_open()
        if self._entered:
            raise RuntimeError("a transaction is entered once; call for another")
        self._entered = True

        async def undo(begun: Plain) -> None:
            await database._peer.call(begun[0], "roll_back")

        number, identity = await database._peer.obtain(
            undo, database._number, "begin", self._writable
        )
        transaction = RemoteTransaction(database, number, identity, writable=self._writable)
        self._transaction = transaction
        database._open_transactions.add(transaction)
        if self._writable:
            self._outer = write_transactions.get()
            write_transactions.set((*self._outer, transaction))
        return transaction

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction = self._transaction
        try:
            if error is None:
                transaction.check_ended()
                # From here on only the answer tells what became of it.
                transaction.end()
                await self._leave("commit")
                transaction.committed = True
            elif transaction.is_open:
                transaction.end()
                await self._leave("roll_back", isinstance(error, apsw.FullError))
        finally:
            transaction.end()
            self._database._open_transactions.discard(transaction)
            if self._writable:
                write_transactions.set(self._outer)
            if callbacks := transaction.callbacks():
                await asyncio.shield(asyncio.ensure_future(run_callbacks(callbacks)))

    async def _leave(self, method: str, *args: Any) -> None:
        peer = self._database._peer
        answer = peer.request(self._transaction.number, method, *args)
        try:
            await answer
        except asyncio.CancelledError:
            # Too late to be undone, or undone already.
            self._transaction.committed = method == "commit" and answer.error is None
            raise
