"""Reading: on the main connection, or on one of the readers that go on beside a writer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from ..api.nesting import is_inside, read_transactions
from ..bounds import Bound
from ..giving_back import give_back
from ..sqlite.connection import Connection
from .transactions import LocalTransaction

if TYPE_CHECKING:
    from .state import SessionState


class Readers:
    """The reading connections of a database: made when one is needed, and kept."""

    def __init__(self, session: SessionState) -> None:
        self._session = session
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()

    @asynccontextmanager
    async def statement(
        self, sql: str | None = None, bound: Bound | None = None
    ) -> AsyncIterator[Connection]:
        """A connection for one statement (`sql`, if it is known), which sees what is committed.

        bound: of the call that it is a step of.
        """
        session = self._session
        main, storage = session.main, session.storage
        bound = bound or session.bound()
        await session.let_others_go()
        if (
            session.writer_lock.locked()
            and storage.has_readers
            and not main.statements.may_see_temporary(sql)
        ):
            async with self._lent(bound) as connection:
                if sql is None or not connection.statement(sql).of_writer:
                    yield connection
                    return
            # What it asks about is told by the main connection alone.
        await session.writer_lock.acquire(bound)
        try:
            session.closing.check_open()
            await self._begin(main, bound)
            try:
                main.bring_up()
                yield main
            finally:
                storage.end_read()
        finally:
            session.writer_lock.release()

    @asynccontextmanager
    async def transaction(self, *, own: bool = False) -> AsyncIterator[LocalTransaction]:
        """One snapshot. DatabaseClosedError, NestedTransactionError: see `Database`.

        own: holdfast's own, which ends by itself when the database is closed.
        """
        session = self._session
        session.closing.check_open()
        await session.let_others_go()
        async with self._lent(session.bound()) as connection:
            # The snapshot is taken by the first read, so there must be one.
            connection.run("BEGIN; SELECT 1 FROM sqlite_master LIMIT 1")
            unpin = session.storage.pin()
            transaction = LocalTransaction(session, connection, writable=False)
            transaction.leave = connection.close
            if not own:
                session.open_transactions.add(transaction)
            outer = read_transactions.get()
            read_transactions.set((*outer, transaction))
            try:
                yield transaction
                transaction.check_ended()
            finally:
                read_transactions.set(outer)
                session.open_transactions.discard(transaction)
                if transaction.is_open:
                    transaction.end()
                    if connection.raw.in_transaction:
                        connection.run("ROLLBACK")
                unpin()

    def forget_statements(self) -> None:
        """What is prepared was made of a schema that has changed."""
        for connection in (*self._idle, *self._busy):
            connection.statements.forget()

    async def close(self) -> None:
        """Close every reader. A call that still waits for its lease finds its connection closed."""
        idle, self._idle = self._idle, []
        await give_back(*(connection.close for connection in (*idle, *self._busy)))

    @asynccontextmanager
    async def _lent(self, bound: Bound) -> AsyncIterator[Connection]:
        connection = await self._take(bound)
        try:
            await self._begin(connection, bound)
            try:
                connection.bring_up()
                yield connection
            finally:
                self._session.storage.end_read()
        finally:
            self._give_back(connection)

    async def _begin(self, connection: Connection, bound: Bound) -> None:
        session = self._session
        inside = is_inside(read_transactions, session)
        with session.unless_closed():
            await session.storage.begin_read(connection, bound, inside=inside)
        if session.closing.begun:
            session.storage.end_read()
            session.closing.check_open()

    async def _take(self, bound: Bound) -> Connection:
        session = self._session
        if self._idle:
            connection = self._idle.pop()
        elif session.storage.has_readers:
            with session.unless_closed():
                connection = await session.storage.connect_reader(bound)
        else:
            await session.writer_lock.acquire(bound)
            try:
                session.closing.check_open()
                connection = await session.storage.connect_reader(bound)
            finally:
                session.writer_lock.release()
        if session.closing.begun:  # while this waited
            connection.close()
            session.closing.check_open()
        connection.share(session.main.settings)
        self._busy.add(connection)
        return connection

    def _give_back(self, connection: Connection) -> None:
        session = self._session
        self._busy.discard(connection)
        if session.closing.begun or not session.storage.has_readers:
            connection.close()
        else:
            self._idle.append(connection)
