"""One write transaction from its lease to its announcement, as an async context manager."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ..api.nesting import (
    Entered,
    is_inside,
    read_transactions,
    run_callbacks,
    write_transactions,
)
from ..bounds import Bound
from ..errors import QuotaExceededError
from ..sqlite import interrupts
from ..sqlite.connection import Touched
from ..sqlite.rows import ExecuteResult, Parameters
from ..sqlite.space import FULL, is_full, no_space
from ..sqlite.statements import Statement
from .transactions import LocalTransaction

if TYPE_CHECKING:
    from .state import SessionState


class CancelledLate(asyncio.CancelledError):
    """Cancelled while it was made durable: it is committed. `result`: what it would have given."""

    def __init__(self, result: ExecuteResult) -> None:
        super().__init__("cancelled, but committed already")
        self.result = result


class Writing:
    """`async with`: commits on leaving, rolls back on an error.

    writer lock of this connection -> lease of the database -> BEGIN -> the block -> COMMIT
    -> lease and lock given back -> announced -> callbacks

    own: holdfast's own, allowed while the database is closing.
    bound: of the call that it is a step of; None: a call of its own.
    """

    __slots__ = (
        "_bound",
        "_entered",
        "_left",
        "_outer",
        "_own",
        "_session",
        "_transaction",
        "made_room",
    )

    def __init__(
        self, session: SessionState, own: bool = False, bound: Bound | None = None
    ) -> None:
        self._session = session
        self._own = own
        self._bound = bound
        self._entered = False
        self._left = False
        # It found no space, and another one may find some.
        self.made_room = False
        self._transaction: LocalTransaction
        self._outer: tuple[Entered, ...]

    async def __aenter__(self) -> LocalTransaction:
        session = self._session
        await self._enter()
        transaction = self._new_transaction()
        transaction.leave = self._leave
        self._outer = write_transactions.get()
        write_transactions.set((*self._outer, transaction))
        if not self._own:
            session.open_transactions.add(transaction)
        return transaction

    async def _enter(self) -> None:
        session = self._session
        session.closing.check_open(self._own)
        if self._entered:
            raise RuntimeError("a write transaction is entered once; call write_transaction() anew")
        self._entered = True
        waits = session.storage.write_waits()
        if not waits:
            await session.let_others_go()
        bound = self._bound or session.bound()
        await session.writer_lock.acquire(bound)
        try:
            if session.closing.begun:  # while this waited
                session.closing.check_open(self._own)
            await session.storage.begin_write(
                session.main, bound, inside=is_inside(read_transactions, session)
            )
            if session.closing.begun and not self._own:
                session.main.run("ROLLBACK")
                session.storage.end_write(session.main)
                session.closing.check_open()
            try:
                session.mender.begun()
            except BaseException:
                self._end_begun()
                session.storage.end_write(session.main)
                raise
            if waits:
                # Others had their time; this is the beginning of ours.
                session.last_yield = time.monotonic()
        except BaseException as error:
            session.writer_lock.release()
            self._explain(error)
            if isinstance(error, Exception):
                session.closing.check_open(self._own)
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
                shared = self._session.committed(touched.keys())
            else:
                self._explain(error)
        except FULL as full:
            self._explain(full)
            raise
        finally:
            # Not a token's reset: the block may be left in another context than it was entered in.
            write_transactions.set(self._outer)
            ddl = self._leave()
            if transaction.committed:
                self._session.announce(frozenset(touched), ddl, shared)
            if callbacks := transaction.callbacks():
                # The block may be unwinding because its task was cancelled; these run all the same.
                session = self._session
                await asyncio.shield(session.start(run_callbacks(callbacks, session)))

    async def one(self, statement: Statement, params: Parameters) -> ExecuteResult:
        """All of it for one statement; from BEGIN to COMMIT nothing else runs."""
        session, main = self._session, self._session.main
        session.closing.check_open(self._own)
        waits = not (session.may_go_on() and session.storage.begin_write_now(main))
        if waits:
            if not session.storage.commits_at_once:
                return await self.whole(lambda tx: tx.execute(statement.sql, params))
            await self._enter()
        transaction = self._new_transaction()
        touched: Touched = {}
        shared: frozenset[str] | None = None
        try:
            if not waits:
                session.mender.begun()
            # What it is may have changed with the schema.
            statement = main.statement(statement.sql)
            result = main.execute(statement, params)
            touched = self._prepare()
            session.storage.commit_now(main)
            transaction.committed = True
            shared = session.committed(touched.keys())
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
                    session.storage.end_write_now()
            if transaction.committed:
                session.announce(frozenset(touched), ddl, shared)
            if callbacks := transaction.callbacks():
                session.start(run_callbacks(callbacks, session))
        return result

    async def whole(
        self, work: Callable[[LocalTransaction], Awaitable[ExecuteResult]]
    ) -> ExecuteResult:
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
        session, main = self._session, self._session.main
        session.mender.committing(ddl=main.statements.has_ddl, raw=self._transaction.uses_raw)
        touched = main.take_touched()
        if touched and session.before_commit(self._transaction, touched):
            # What that wrote went to tables that were written before.
            main.take_touched()
        self._transaction.close_cursors()
        interrupts.before_commit()
        return touched

    async def _commit(self) -> None:
        session, transaction = self._session, self._transaction
        if session.storage.commits_at_once:
            session.storage.commit_now(session.main)
            transaction.committed = True
            return
        # While the commit is made durable, nothing may be added to it, and close() may not undo it.
        transaction.end()
        session.open_transactions.discard(transaction)

        async def commit() -> None:
            await session.storage.commit(session.main)
            transaction.committed = True

        await session.commit(commit())

    def _leave(self) -> bool:
        """Give everything back, once; whether the schema changed."""
        if self._left:
            return False
        self._left = True
        session = self._session
        session.open_transactions.discard(self._transaction)
        try:
            return self._end()
        finally:
            # Even if the connection is of no use any more: others wait for these.
            session.storage.end_write(session.main)
            session.writer_lock.release()

    def _end(self) -> bool:
        """No more statements; what was not committed is rolled back; whether the schema changed."""
        transaction = self._transaction
        transaction.end()
        if not transaction.committed:
            return self._end_begun()
        mended = self._session.mender.committed()
        ddl = self._session.main.statements.take_ddl() or mended
        if ddl:
            self._session.forget_statements()
        return ddl

    def _end_begun(self) -> bool:
        """Roll back what was begun; whether it changed the schema."""
        main = self._session.main
        if main.raw.in_transaction:
            main.run("ROLLBACK")
        main.take_touched()
        ddl = main.statements.take_ddl()
        if ddl:
            main.statements.forget()
        self._session.mender.rolled_back()
        return ddl

    def _new_transaction(self) -> LocalTransaction:
        session = self._session
        transaction = LocalTransaction(session, session.main, writable=True)
        transaction.trace = session.mender.trace
        transaction.on_undone = session.mender.forget
        self._transaction = transaction
        return transaction

    def _explain(self, error: BaseException) -> None:
        if is_full(error):
            self.made_room = self._session.storage.make_room()
            raise no_space(
                repr(self._session.name), "the transaction was rolled back and nothing was lost"
            ) from error


async def write_at_once(
    session: SessionState, bound: Bound, write: Callable[[Writing], Awaitable[ExecuteResult]]
) -> ExecuteResult:
    """`write` in a write transaction; in another one where the first made room (`made_room`)."""
    writing = Writing(session, bound=bound)
    try:
        return await write(writing)
    except QuotaExceededError:
        if not writing.made_room:
            raise
    return await write(Writing(session, bound=bound))
