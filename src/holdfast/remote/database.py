"""A database that a server has, with the methods that databases have here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AbstractAsyncContextManager, aclosing
from typing import TYPE_CHECKING, Any

from ..api import Database, TableChange, Transaction
from ..api.nesting import is_inside, write_transactions
from ..api.options import OnProgress, check_progress
from ..giving_back import give_back
from ..session.closing import Closing, describe, warn_of_dropped
from ..sqlite.parameters import plain_many, plain_parameters
from ..sqlite.rows import ExecuteResult, Parameters, Row
from . import wire
from .peer import Peer
from .transactions import RemoteTransaction, Scope

if TYPE_CHECKING:
    from ..storage import StorageStatus

Plain = Any


class RemoteDatabase(Database):
    """A database that a server has."""

    def __init__(
        self, peer: Peer, found: Plain, on_closed: Callable[[RemoteDatabase], None]
    ) -> None:
        from .triggers import RemoteTriggerManager

        self.peer = peer
        self.number: int = found["number"]
        self._name: str = found["name"]
        self.kind: str = found["storage"]
        self._persists_triggers: bool = found["persists_triggers"]
        self._on_closed = on_closed
        self._closing = Closing(self)
        self.open_transactions: set[RemoteTransaction] = set()
        self.triggers: RemoteTriggerManager = RemoteTriggerManager(self)

    @property
    def name(self) -> str:
        return self._name

    @property
    def storage(self) -> str:
        return self.kind

    @property
    def persists_triggers(self) -> bool:
        return self._persists_triggers

    @property
    def closed(self) -> bool:
        return self._closing.begun or self.peer.closed

    def __repr__(self) -> str:
        return describe(self)

    def __del__(self) -> None:
        # One whose making failed has none.
        if hasattr(self, "_closing"):
            warn_of_dropped(self)

    def call(self, method: str, *args: Any) -> Coroutine[Any, Any, Any]:
        """Call a method of the database there."""
        return self.peer.call(self.number, method, *args)

    def check_open(self, own: bool = False) -> None:
        """DatabaseClosedError, NestedTransactionError: see `Closing.check_open`."""
        if not self._closing.begun:
            self.peer.check()
        self._closing.check_open(own)

    def _is_inside(self) -> bool:
        return is_inside(write_transactions, self)

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        self.check_open()
        return wire.read_result(await self.call("execute", sql, plain_parameters(params, sql)))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        self.check_open()
        many = list(plain_many(seq_of_params, sql))
        return wire.read_result(await self.call("execute_many", sql, many))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        self.check_open()
        return wire.read_rows(await self.call("fetch_all", sql, plain_parameters(params, sql)))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        self.check_open()
        found = await self.call("fetch_one", sql, plain_parameters(params, sql))
        return None if found is None else Row(*found)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        self.check_open()
        return await self.call("fetch_value", sql, plain_parameters(params, sql))

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return Scope(self, writable=True)

    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return Scope(self, writable=False)

    # -- changes ---------------------------------------------------------------------------------

    def _changes(self, tables: tuple[str, ...] | None) -> AsyncIterator[TableChange]:
        self.check_open()
        return self._stream_changes(tables)

    async def _stream_changes(self, tables: tuple[str, ...] | None) -> AsyncGenerator[TableChange]:
        names = None if tables is None else list(tables)
        async with aclosing(self.stream("changes", names)) as stream:
            async for names, remote in stream:
                yield TableChange(frozenset(names), remote)

    def _watch(
        self, sql: str, params: Parameters, throttle: float, distinct: bool
    ) -> AsyncIterator[list[Row]]:
        self.check_open()
        return self._stream_rows(sql, params, throttle, distinct)

    async def _stream_rows(
        self, sql: str, params: Parameters, throttle: float, distinct: bool
    ) -> AsyncGenerator[list[Row]]:
        params = plain_parameters(params, sql)
        async with aclosing(self.stream("watch", sql, params, throttle, distinct)) as stream:
            async for rows in stream:
                yield wire.read_rows(rows)

    async def stream(self, method: str, *args: Any) -> AsyncGenerator[Plain]:
        """What a method there gives item by item; it is ended there when it ends here.

        NestedTransactionError: asked for inside a write transaction, which has to end first.
        """

        async def undo(number: int) -> None:
            if self._is_inside():
                # What it waits for there is that transaction's end.
                self.peer.tell(number, "close")
            else:
                await self.peer.call(number, "close")

        number = await self.peer.obtain(undo, self.number, method, *args)
        ended = False
        try:
            while not self._closing.begun:
                if method != "changes":
                    self.check_open()
                answer = self.peer.request(number, "next")
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
        self.check_open()
        return self._export_chunks(on_progress)

    async def _export_chunks(self, on_progress: OnProgress | None) -> AsyncGenerator[bytes]:
        number = None if on_progress is None else self.peer.export(Transfer(on_progress))
        try:
            async with aclosing(self.stream("export_chunks", number)) as stream:
                async for chunk in stream:
                    yield chunk
        finally:
            if number is not None:
                self.peer.forget(number)

    # -- life ------------------------------------------------------------------------------------

    async def status(self) -> StorageStatus:
        self.check_open()
        return wire.read_status(await self.call("status"))

    def rest(self) -> None:
        self.peer.tell(0, "rest")

    async def close(self) -> None:
        await self._closing.run(self._close)

    async def _close(self) -> None:
        why = "was rolled back, because the database was closed"
        await give_back(lambda: self._end_all(why), self._close_there, self._ended)

    async def _close_there(self) -> None:
        if not self.peer.closed:
            await self.call("close")

    def server_gone(self, why: str) -> None:
        """What had the database there is gone."""
        self._end_all(f"was rolled back: {why}")
        self._ended()

    def _end_all(self, why: str) -> None:
        for transaction in list(self.open_transactions):
            transaction.end(why)

    def _ended(self) -> None:
        self._closing.ended.set()
        self._on_closed(self)


class Transfer:
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
        if self._chunks is not None:
            async for chunk in self._chunks:
                return [bytes(chunk)]
        return []

    async def progress(self, done: int, total: int | None) -> None:
        await self._report(done, total)
