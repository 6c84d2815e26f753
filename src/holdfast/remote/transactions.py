"""The transactions of a database that a server has."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

import apsw

from ..api.nesting import Entered, run_callbacks, write_transactions
from ..api.transactions import Transaction
from ..errors import DatabaseClosedError
from ..giving_back import keep
from ..sqlite.parameters import plain_many, plain_parameters
from ..sqlite.rows import ExecuteResult, Parameters, Row
from . import wire

if TYPE_CHECKING:
    from .database import RemoteDatabase

Plain = Any


class RemoteTransaction(Transaction):
    """A transaction that a server has open."""

    def __init__(
        self, database: RemoteDatabase, number: int, identity: str, *, writable: bool
    ) -> None:
        super().__init__(database, writable=writable)
        self.number = number
        self._peer = database.peer
        self._id = identity

    @property
    def id(self) -> str:
        return self._id

    @property
    def connection(self) -> NoReturn:
        raise AttributeError(
            "this transaction's connection lives in another interpreter, holdfast's worker, so "
            "the raw apsw.Connection cannot be had here; use the methods of the transaction, or "
            "run this code in a worker of your own"
        )

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        return wire.read_result(await self._call("execute", sql, plain_parameters(params, sql)))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        self.check_ended()
        many = list(plain_many(seq_of_params, sql))
        return wire.read_result(await self._call("execute_many", sql, many))

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        return wire.read_rows(await self._call("fetch_all", sql, plain_parameters(params, sql)))

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        found = await self._call("fetch_one", sql, plain_parameters(params, sql))
        return None if found is None else Row(*found)

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        return await self._call("fetch_value", sql, plain_parameters(params, sql))

    async def _save(self) -> str:
        await self._call("savepoint")
        # The server undoes and releases the last one that it has.
        return ""

    async def _undo(self, name: str) -> None:
        await self._call("undo")

    async def _release(self, name: str) -> None:
        await self._call("release")

    def check_ended(self) -> None:
        # What SQLite has ended, the server tells.
        if not self._open:
            raise DatabaseClosedError(f"the transaction {self._why_ended}")

    def _call(self, method: str, *args: Any) -> Coroutine[Any, Any, Any]:
        self.check_ended()
        return self._peer.call(self.number, method, *args)


class Scope(AbstractAsyncContextManager[Transaction]):
    """`async with`: commits there on leaving, rolls back there on an error."""

    __slots__ = ("_database", "_entered", "_outer", "_transaction", "_writable")

    def __init__(self, database: RemoteDatabase, *, writable: bool) -> None:
        self._database = database
        self._writable = writable
        self._entered = False
        self._transaction: RemoteTransaction
        self._outer: tuple[Entered, ...]

    async def __aenter__(self) -> Transaction:
        database = self._database
        database.check_open()
        if self._entered:
            raise RuntimeError("a transaction is entered once; call for another")
        self._entered = True

        async def undo(begun: Plain) -> None:
            await database.peer.call(begun[0], "roll_back")

        number, identity = await database.peer.obtain(
            undo, database.number, "begin", self._writable
        )
        transaction = RemoteTransaction(database, number, identity, writable=self._writable)
        self._transaction = transaction
        database.open_transactions.add(transaction)
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
            self._database.open_transactions.discard(transaction)
            if self._writable:
                write_transactions.set(self._outer)
            if callbacks := transaction.callbacks():
                await asyncio.shield(keep(run_callbacks(callbacks, self._database)))

    async def _leave(self, method: str, *args: Any) -> None:
        peer = self._database.peer
        answer = peer.request(self._transaction.number, method, *args)
        try:
            await answer
        except asyncio.CancelledError:
            # Too late to be undone, or undone already.
            self._transaction.committed = method == "commit" and answer.error is None
            raise
