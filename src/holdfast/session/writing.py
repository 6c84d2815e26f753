"""One write transaction from its lease to its announcement, as an async context manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

import apsw

from ..bounds import Bound
from ..errors import QuotaExceededError
from ..sqlite import interrupts
from ..sqlite.connection import Touched
from ..sqlite.rows import ExecuteResult, Parameters
from ..sqlite.statements import Statement
from .transactions import (
    Transaction,
    is_inside,
    read_transactions,
    run_callbacks,
    write_transactions,
)

if TYPE_CHECKING:
    from ..local.database import Database


class CancelledLate(asyncio.CancelledError):
    """Cancelled while it was made durable: it is committed. `result`: what it would have given."""

    def __init__(self, result: ExecuteResult) -> None:
        super().__init__("cancelled, but committed already")
        self.result = result


class Writing:
    """`async with`: commits on leaving, rolls back on an error.

    turn of this connection -> lease of the database -> BEGIN -> the block -> COMMIT -> lease and
    turn given back -> announced -> callbacks

    own: holdfast's own, allowed while the database is closing.
    bound: of the call that it is a step of; None: a call of its own.
    """

    __slots__ = (
        "_bound",
        "_database",
        "_entered",
        "_left",
        "_outer",
        "_own",
        "_transaction",
        "made_room",
    )

    def __init__(self, database: Database, own: bool = False, bound: Bound | None = None) -> None:
        self._database = database
        self._own = own
        self._bound = bound
        self._entered = False
        self._left = False
        # It found no space, and another one may find some.
        self.made_room = False
        self._transaction: Transaction
        self._outer: tuple[Transaction, ...]

    async def __aenter__(self) -> Transaction:
        database = self._database
        await self._enter()
        transaction = self._new_transaction()
        transaction.leave = self._leave
        self._outer = write_transactions.get()
        write_transactions.set((*self._outer, transaction))
        if not self._own:
            database._open_transactions.add(transaction)
        return transaction

    async def _enter(self) -> None:
        database = self._database
        database._check_open(self._own)
        if self._entered:
            raise RuntimeError("a write transaction is entered once; call write_transaction() anew")
        self._entered = True
        waits = database._storage.write_waits()
        if not waits:
            await database._let_others_go()
        bound = self._bound or database._bound()
        await database._turn.acquire(bound)
        try:
            if database._closing:  # while this waited
                database._check_open(self._own)
            await database._storage.begin_write(
                database._main, bound, inside=is_inside(read_transactions, database)
            )
            if database._closing and not self._own:
                database._main.run("ROLLBACK")
                database._storage.end_write(database._main)
                database._check_open()
            try:
                database._mender.begun()
            except BaseException:
                self._end_begun()
                database._storage.end_write(database._main)
                raise
            if waits:
                # Others had their time; this is the beginning of ours.
                database._last_yield = time.monotonic()
        except BaseException as error:
            database._turn.release()
            self._explain(error)
            if isinstance(error, Exception):
                database._check_open(self._own)
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        transaction = self._transaction
        touched: Touched = {}
        shared: frozenset[str] | None = None
        ddl = False
        try:
            if error is None:
                transaction.check_ended()
                touched = self._prepare()
                await self._commit()
                shared = self._database._committed(touched.keys())
            else:
                self._explain(error)
        except apsw.FullError as full:
            self._explain(full)
        finally:
            # Not a token's reset: the block may be left in another context than it was entered in.
            write_transactions.set(self._outer)
            ddl = self._leave()
            if transaction.committed:
                self._database._announce(frozenset(touched), ddl, shared)
            if callbacks := transaction.callbacks():
                # The block may be unwinding because its task was cancelled; these run all the same.
                database = self._database
                await asyncio.shield(database._start(run_callbacks(callbacks, database)))

    async def one(self, statement: Statement, params: Parameters) -> ExecuteResult:
        """All of it for one statement; from BEGIN to COMMIT nothing else runs."""
        database, main = self._database, self._database._main
        database._check_open(self._own)
        waits = not (database._may_go_on() and database._storage.begin_write_now(main))
        if waits:
            if not database._storage.commits_at_once:
                return await self.whole(lambda tx: tx.execute(statement.sql, params))
            await self._enter()
        transaction = self._new_transaction()
        touched: Touched = {}
        shared: frozenset[str] | None = None
        try:
            if not waits:
                database._mender.begun()
            # What it is may have changed with the schema.
            statement = main.statement(statement.sql)
            result = main.execute(statement, params)
            touched = self._prepare()
            database._storage.commit_now(main)
            transaction.committed = True
            shared = database._committed(touched.keys())
        except BaseException as error:
            self._explain(error)
            raise
        finally:
            if waits:
                ddl = self._leave()
            else:
                try:
                    ddl = self._end()
                finally:
                    database._storage.end_write_now()
            if transaction.committed:
                database._announce(frozenset(touched), ddl, shared)
            if callbacks := transaction.callbacks():
                database._start(run_callbacks(callbacks, database))
        return result

    async def whole(self, work: Callable[[Transaction], Awaitable[ExecuteResult]]) -> ExecuteResult:
        """All of it, around `work`. CancelledLate: cancelled when it was too late for that."""
        result: ExecuteResult | None = None
        try:
            async with self as transaction:
                result = await work(transaction)
        except asyncio.CancelledError as error:
            if result is not None and self._transaction.committed:
                raise CancelledLate(result) from error
            raise
        return result

    def _prepare(self) -> Touched:
        """The last that is written in a transaction; what all of it wrote."""
        database, main = self._database, self._database._main
        database._mender.committing(ddl=main.statements.has_ddl, raw=self._transaction.uses_raw)
        touched = main.take_touched()
        if touched and database.triggers.before_commit(self._transaction, touched):
            # What that wrote went to tables that were written before.
            main.take_touched()
        self._transaction.close_cursors()
        interrupts.before_commit()
        return touched

    async def _commit(self) -> None:
        database, transaction = self._database, self._transaction
        if database._storage.commits_at_once:
            database._storage.commit_now(database._main)
            transaction.committed = True
            return
        # While it is made durable, nobody may add to it, and close() may not take it back.
        transaction.end()
        database._open_transactions.discard(transaction)

        async def commit() -> None:
            await database._storage.commit(database._main)
            transaction.committed = True

        await database._commit(commit())

    def _leave(self) -> bool:
        """Give everything back, once; whether the schema changed."""
        if self._left:
            return False
        self._left = True
        database = self._database
        database._open_transactions.discard(self._transaction)
        try:
            return self._end()
        finally:
            # Even if the connection is of no use any more: others wait for these.
            database._storage.end_write(database._main)
            database._turn.release()

    def _end(self) -> bool:
        """No more statements; what was not committed is rolled back; whether the schema changed."""
        transaction = self._transaction
        transaction.end()
        if not transaction.committed:
            return self._end_begun()
        mended = self._database._mender.committed()
        ddl = self._database._main.statements.take_ddl() or mended
        if ddl:
            self._database._forget_statements()
        return ddl

    def _end_begun(self) -> bool:
        """Roll back what was begun; whether it changed the schema."""
        main = self._database._main
        if main.raw.in_transaction:
            main.run("ROLLBACK")
        main.take_touched()
        ddl = main.statements.take_ddl()
        if ddl:
            main.statements.forget()
        self._database._mender.rolled_back()
        return ddl

    def _new_transaction(self) -> Transaction:
        database = self._database
        transaction = Transaction(database, database._main, writable=True)
        transaction.trace = database._mender.trace
        transaction.on_undone = database._mender.forget
        self._transaction = transaction
        return transaction

    def _explain(self, error: BaseException) -> None:
        if isinstance(error, apsw.FullError):
            self.made_room = self._database._storage.make_room()
            raise no_space(self._database.name) from error


async def write_at_once(
    database: Database, bound: Bound, write: Callable[[Writing], Awaitable[ExecuteResult]]
) -> ExecuteResult:
    """`write` in a write transaction; in another one where the first made room (`made_room`)."""
    writing = Writing(database, bound=bound)
    try:
        return await write(writing)
    except QuotaExceededError:
        if not writing.made_room:
            raise
    return await write(Writing(database, bound=bound))


def no_space(name: str) -> QuotaExceededError:
    """What SQLite's FullError is to whoever writes."""
    return QuotaExceededError(
        f"there is no more space for {name!r}; the transaction was rolled back and nothing was "
        "lost. Delete something, or ask for more with holdfast.persist()"
    )
