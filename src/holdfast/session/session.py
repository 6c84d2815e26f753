"""A session: what runs on one connection to one database, here in this interpreter."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import apsw

from ..api.nesting import is_inside, read_transactions
from ..bounds import Bound
from ..errors import StorageUnavailableError
from ..giving_back import give_back
from ..sqlite.connection import Connection
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..sqlite.space import FULL, is_full, no_space
from ..sqlite.statements import Statement
from ..storage import Storage
from .announcements import Announcement
from .mender import Mender
from .reading import Readers
from .state import SessionState
from .transactions import LocalTransaction
from .writing import Writing


class Session(SessionState):
    """Statements and transactions on one connection; `Database` is its face."""

    def __init__(self, storage: Storage, main: Connection, mender: Mender) -> None:
        super().__init__(storage, main, mender)
        self.readers = Readers(self)
        # A session that is dropped shall be collected, and tell that it was not closed.
        storage.on_announcement = weakly(self.remote_commit)

    # -- statements ------------------------------------------------------------------------------

    async def fetch(self, sql: str, params: Parameters, *, one: bool) -> list[Row]:
        """The rows, or the first alone. ValueError: the statement writes (it is not run)."""
        self.closing.check_open()
        main = self.main
        # The way without waiting: the main connection is free, its lease is here.
        if self.may_go_on() and self.storage.begin_read_now(main):
            try:
                main.bring_up()
                _check_reads(main, sql)
                return main.fetch(sql, params, one)
            finally:
                self.storage.end_read()
        async with self.readers.statement(sql) as connection:
            _check_reads(connection, sql)
            return connection.fetch(sql, params, one)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row."""
        return await self.fetch(sql, params, one=False)

    async def statement(self, sql: str, bound: Bound | None = None) -> Statement:
        """What is known of `sql`. apsw.SQLError: SQLite does not take it."""
        self.closing.check_open()
        async with self.readers.statement(bound=bound) as connection:
            try:
                return connection.statement(sql)
            except apsw.SQLError:
                # An open transaction may be changing the schema that the statement will meet.
                if self.mender.is_current(connection) and not self.main.statements.has_ddl:
                    raise
        # A trigger that it would fire may be of an older schema: a write transaction mends those.
        async with Writing(self, bound=bound) as transaction:
            try:
                return transaction.engine.statement(sql)
            except apsw.SQLError as error:
                failure = error
        # That was mended, and committed, whatever is wrong with this one.
        raise failure

    async def execute_bare(self, sql: str, params: Parameters, bound: Bound) -> ExecuteResult:
        """Pragmas that set something, and VACUUM: alone, in no transaction."""
        check_open = self.closing.check_open
        check_open()
        await self.writer_lock.acquire(bound)
        try:
            try:
                inside = is_inside(read_transactions, self)
                await self.storage.begin_write(self.main, bound, inside=inside)
            except Exception:
                check_open()  # it may have been closed while this waited
                raise
            try:
                self.main.run("ROLLBACK")
                self.storage.leave_transaction()
                check_open()
                result = self.main.execute(self.main.statement(sql), params)
                try:
                    await self.commit(self.storage.settle(self.main))
                finally:
                    shared = self.committed(frozenset())
                    self.announce(frozenset(), False, shared)
            except FULL as error:
                if not is_full(error):
                    raise
                self.storage.make_room()
                raise no_space(repr(self.name), "nothing was changed") from error
            finally:
                self.storage.end_write(self.main)
        finally:
            self.writer_lock.release()
        return result

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[LocalTransaction]:
        """See `Database.write_transaction`."""
        return Writing(self)

    def own_transaction(
        self, bound: Bound | None = None
    ) -> AbstractAsyncContextManager[LocalTransaction]:
        """A write transaction of holdfast's own, allowed while the database is closing."""
        return Writing(self, own=True, bound=bound)

    def read_transaction(self) -> AbstractAsyncContextManager[LocalTransaction]:
        """See `Database.read_transaction`."""
        return self.readers.transaction()

    def own_read_transaction(self) -> AbstractAsyncContextManager[LocalTransaction]:
        """One of holdfast's own, which close() waits for and does not end."""
        return self.readers.transaction(own=True)

    # -- the commits of others -------------------------------------------------------------------

    def forget_statements(self) -> None:
        super().forget_statements()
        self.readers.forget_statements()

    def remote_commit(self, tables: frozenset[str] | None, ddl: bool) -> None:
        """Another connection committed; tables: None: whatever it wrote."""
        if self.closed:
            return
        if ddl or tables is None:
            self.forget_statements()
        self.announcements.deliver(Announcement(tables, remote=True, ddl=ddl))

    def lost(self, error: StorageUnavailableError) -> None:
        """The database is gone: all who wait for its changes are told."""
        if not self.closed:
            self.announcements.deliver(Announcement(None, remote=True, failure=error))

    # -- closing ---------------------------------------------------------------------------------

    async def close(self, dispose: Callable[[], Awaitable[None]]) -> None:
        """Give everything back. dispose: of what has to write for that, while it still can."""

        async def work() -> None:
            await give_back(
                self.end_transactions,
                lambda: self.announcements.deliver(Announcement(None, remote=False)),
                dispose,
                self.closing.ended.set,
                self.end_tasks,
                self.readers.close,
                lambda: asyncio.wait(self.commits) if self.commits else None,
                lambda: self.storage.leaving(self.main),
                lambda: self.storage.disconnect(self.main),
                self.storage.close,
            )

        await self.closing.run(work)


def _check_reads(connection: Connection, sql: str) -> None:
    if not connection.statement(sql).readonly:
        raise ValueError(
            f"{sql!r} writes, and the database's own fetch_* only read; use execute(), or for the "
            "rows of RETURNING the fetch_* of a write_transaction()"
        )


def weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A method that does nothing once its object is gone."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        if (found := reference()) is not None:
            found(*arguments)

    return call
