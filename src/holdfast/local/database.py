"""`Database`: the face of a session, and of the triggers on it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import apsw

from ..bounds import Bound
from ..errors import HoldfastError
from ..session.lookout import look_out
from ..session.session import Session, weakly
from ..session.transactions import Transaction
from ..session.writing import Writing, write_at_once
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..triggers import TriggerManager
from .changes import TableChange, table_changes, watch_query
from .exporting import OnProgress, export_chunks

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from ..schema import Schema
    from ..storage import Storage, StorageStatus

logger = logging.getLogger("holdfast")


class Database:
    """One connection to a database; made by `holdfast.open()`."""

    def __init__(
        self,
        session: Session,
        schema: Schema,
        persist_triggers: bool,
        hold_manager: TriggerHoldManager,
    ) -> None:
        self._session = session
        self._schema = schema
        self._persists_triggers = persist_triggers
        self.triggers = TriggerManager(session, hold_manager, persist_triggers)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that it was opened with."""
        return self._session.name

    @property
    def storage(self) -> str:
        """Where it lives: "opfs", "indexeddb", "file" or "memory"."""
        return self._session.kind

    @property
    def persists_triggers(self) -> bool:
        """Whether triggers are persisted unless their creator says otherwise."""
        return self._persists_triggers

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._session.closed

    def __repr__(self) -> str:
        return repr(self._session)

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        """Run one statement, in a write transaction of its own if it writes.

        ValueError: several statements (none is run), or one that controls transactions.
        NestedTransactionError: inside a write transaction of this database.
        """
        session = self._session
        bound = session.bound()
        statement = session.main.statements.known(sql) or await session.statement(sql, bound)
        if statement.bare:
            return await session.execute_bare(sql, params, bound)
        if statement.readonly:
            session.closing.check_open()
            async with session.readers.statement(sql, bound) as connection:
                return connection.execute(connection.statement(sql), params)
        return await write_at_once(session, bound, lambda writing: writing.one(statement, params))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        """Run one statement for each of `seq_of_params`, in one write transaction."""
        session = self._session
        bound = session.bound()
        await session.statement(sql, bound)

        def write(writing: Writing) -> Awaitable[ExecuteResult]:
            return writing.whole(lambda tx: tx.execute_many(sql, seq_of_params))

        if not isinstance(seq_of_params, (list, tuple)):
            # What may give its values once only cannot be written again.
            return await write(Writing(session, bound=bound))
        return await write_at_once(session, bound, write)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row. ValueError: the statement writes (it is not run)."""
        return await self._session.fetch(sql, params, one=False)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None. ValueError: the statement writes (it is not run)."""
        rows = await self._session.fetch(sql, params, one=True)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        rows = await self._session.fetch(sql, params, one=True)
        return rows[0][0] if rows else None

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.write_transaction() as tx`: commits on leaving, rolls back on an error.

        One at a time among all connections of the database; others wait their turn.
        DatabaseBusyError: they waited longer than the bound. NestedTransactionError: inside
        another write transaction of this database.
        """
        return self._session.write_transaction()

    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.read_transaction() as tx`: one snapshot, while writers go on beside it.

        Temporary tables of the database are not seen in it.
        """
        return self._session.read_transaction()

    # -- changes ---------------------------------------------------------------------------------

    def changes(self, tables: Iterable[str] | None = None) -> AsyncIterator[TableChange]:
        """An async iterator of what is committed, by this connection or another.

        Gives a `TableChange` for each committed transaction of this connection that wrote to one
        of `tables` (None: any); commits of others that were found together may come as one. A
        commit of a program without holdfast names every table, for it does not say which it wrote.
        Begins to listen at the first `anext`; ends when the database is closed. Of who asks too
        rarely, changes that wait are gathered: their tables come as one.
        StorageUnavailableError: the database is gone, for the site's data was cleared.
        """
        self._session.closing.check_open()
        return table_changes(
            self._session, self._schema.application_name, self.triggers.destinations, tables
        )

    def watch(
        self, sql: str, params: Parameters = (), throttle: float = 0.03, distinct: bool = True
    ) -> AsyncIterator[list[Row]]:
        """An async iterator of the rows of a query: now, and after each change to what it reads.

        Changes that come within `throttle` seconds of the last rows are given as one. Begins to
        listen at the first `anext`; ends when the database is closed.
        distinct: leave out rows that are as they were the last time.
        StorageUnavailableError: the database is gone, for the site's data was cleared.
        """
        self._session.closing.check_open()
        return watch_query(self._session, sql, params, throttle, distinct)

    # -- the file --------------------------------------------------------------------------------

    async def export(self, *, on_progress: OnProgress | None = None) -> bytes:
        """One snapshot of everything, as a standard SQLite file; others write on meanwhile.

        It has a rollback journal's header, so that `deserialize` takes it, and nothing of managed
        triggers. on_progress(done, total): called now and then, with the bytes done and in all.
        For what is too large for memory, see `export_chunks`. QuotaExceededError: while it is
        made, an export takes as much space as the database. Where much of that is free it is
        written once more without, if there is space for both. MemoryError: there is not enough for
        all of it in one piece.
        """
        try:
            return b"".join([chunk async for chunk in self.export_chunks(on_progress=on_progress)])
        except (MemoryError, apsw.NoMemError) as error:
            raise MemoryError(
                f"there is not enough memory for an export of {self.name!r} in one piece; "
                "export_chunks() gives it in parts of 1 MiB"
            ) from error

    def export_chunks(self, *, on_progress: OnProgress | None = None) -> AsyncIterator[bytes]:
        """The same as an async iterator of parts of 1 MiB; the memory it takes is bounded.

        The snapshot is taken at the first `anext`. Whoever may leave early closes it
        (`contextlib.aclosing`), which removes the copy that it reads from.
        """
        self._session.closing.check_open()
        return export_chunks(self._session, on_progress)

    # -- life ------------------------------------------------------------------------------------

    async def begin(self, bound: Bound) -> None:
        """Make the schema so, sweep, and start what goes on until it is closed."""
        session, schema = self._session, self._schema
        async with session.readers.statement(bound=bound) as connection:
            connection.run("BEGIN")
            try:
                there = schema.is_applied(Transaction(session, connection, writable=False))
            finally:
                connection.run("ROLLBACK")
        if not there:
            alone = await session.storage.is_alone()
            async with Writing(session, bound=bound) as transaction:
                await schema.apply(transaction, alone=alone)
        # From here on there is something to sweep; opening does it too.
        session.storage.on_peer_gone = weakly(self.triggers.peer_gone)
        await self.triggers.open()
        session.start_loop(look_out(weakref.ref(session)))
        session.start_loop(_discard(session.storage))

    async def status(self) -> StorageStatus:
        """What is known of the storage: see `StorageStatus`."""
        session = self._session
        session.closing.check_open()
        with session.unless_closed():
            return await session.storage.status()

    def rest(self) -> None:
        """Give up what no transaction needs: the tab is hidden, frozen or left."""
        self._session.storage.rest()

    async def close(self) -> None:
        """Give everything back; idempotent.

        Open transactions are rolled back (their users get DatabaseClosedError), handlers in
        flight are waited for, this connection's triggers are disposed of and their holds
        released; then others can import or delete it at once. It is one piece of work, which every
        caller waits for and which goes on if a caller is cancelled. Called by something that it
        waits for itself, as on_error or what runs after a commit, it does not wait.
        NestedTransactionError: inside a write transaction of this database, or a handler.
        """
        await self._session.close(self.triggers.close)

    async def __aenter__(self) -> Database:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()


async def _discard(storage: Storage) -> None:
    try:
        await storage.discard()
    except HoldfastError as error:
        logger.debug("scratch files of dead tabs were left for the next to open: %s", error)
