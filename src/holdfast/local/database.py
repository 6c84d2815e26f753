"""The database: opening, statements, transactions, and what changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
import warnings
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Set
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import apsw

from ..bounds import Bound
from ..errors import (
    DatabaseBusyError,
    DatabaseClosedError,
    HoldfastError,
    NestedTransactionError,
    StorageUnavailableError,
)
from ..giving_back import give_back, keep
from ..session.announcements import Announcement, Announcements
from ..session.reading import Readers
from ..session.transactions import (
    Transaction,
    closing_waits,
    is_inside,
    read_transactions,
    write_transactions,
)
from ..session.writing import Writing, no_space, write_at_once
from ..sqlite.connection import Connection
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..sqlite.settings import Settings
from ..sqlite.statements import Statement
from ..triggers import TriggerManager
from ..triggers.mending import Mender
from .changes import TableChange, table_changes, watch_query
from .exporting import OnProgress, export_chunks

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from ..schema import Schema
    from ..storage import Storage, StorageStatus

logger = logging.getLogger("holdfast")

# A loop of awaited calls that never wait would keep the event loop, and with it the messages of
# other tabs, from running: after this long, in seconds, a call lets others go first.
SLICE = 0.008

# How often to look for commits whose announcement never came (their writer died, or this tab
# slept), in seconds.
LOOKOUT = 2.0
# How long the announcement of a commit that was found may be on its way, in seconds.
GRACE = 0.5


class Database:
    """One connection to a database; made by `holdfast.open()`."""

    def __init__(
        self,
        storage: Storage,
        connection: Connection,
        schema: Schema,
        persist_triggers: bool,
        hold_manager: TriggerHoldManager,
    ) -> None:
        self._storage = storage
        self._main = connection
        self._schema = schema
        self._persists_triggers = persist_triggers
        self._origin = uuid.uuid4().hex
        self._hold_prefix = storage.hold_prefix
        self._announcements = Announcements()
        self._closing = False
        self._closed = asyncio.Event()
        self._close_task: asyncio.Task[None] | None = None
        self._turn = storage.turn
        self._readers = Readers(self)
        self._mender = Mender.of(connection)
        if connection.settings is None:
            connection.share(Settings())
        self._open_transactions: set[Transaction] = set()
        self._last_yield = time.monotonic()
        # What close() waits for, and what it cancels because it never ends.
        self._tasks: set[asyncio.Task[None]] = set()
        self._loops: set[asyncio.Task[None]] = set()
        # Commits that are being made durable; nothing ends them.
        self._commits: set[asyncio.Future[None]] = set()
        self.triggers = TriggerManager(self, hold_manager, persist_triggers)
        # Whoever drops it shall hear that it was not closed.
        storage.on_announcement = _weakly(self._remote_commit)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that it was opened with."""
        return self._storage.name

    @property
    def storage(self) -> str:
        """Where it lives: "opfs", "indexeddb", "file" or "memory"."""
        return self._storage.kind

    @property
    def persists_triggers(self) -> bool:
        """Whether triggers are persisted unless their creator says otherwise."""
        return self._persists_triggers

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closing

    def __del__(self) -> None:
        if not getattr(self, "_closing", True):
            warnings.warn(
                f"{self!r} was dropped and not closed; call close(), or open it with async with",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def __repr__(self) -> str:
        state = "closed" if self._closing else "open"
        return f"<holdfast.Database {self.name!r} storage={self.storage!r} {state}>"

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        """Run one statement, in a write transaction of its own if it writes.

        ValueError: several statements (none is run), or one that controls transactions.
        NestedTransactionError: inside a write transaction of this database.
        """
        bound = self._bound()
        statement = self._main.statements.known(sql) or await self._statement(sql, bound)
        if statement.bare:
            return await self._execute_bare(sql, params, bound)
        if statement.readonly:
            self._check_open()
            async with self._readers.statement(sql, bound) as connection:
                return connection.execute(connection.statement(sql), params)
        return await write_at_once(self, bound, lambda writing: writing.one(statement, params))

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        """Run one statement for each of `seq_of_params`, in one write transaction."""
        bound = self._bound()
        await self._statement(sql, bound)

        def write(writing: Writing) -> Awaitable[ExecuteResult]:
            return writing.whole(lambda tx: tx.execute_many(sql, seq_of_params))

        if not isinstance(seq_of_params, (list, tuple)):
            # What may give its values once only cannot be written again.
            return await write(Writing(self, bound=bound))
        return await write_at_once(self, bound, write)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row. ValueError: the statement writes (it is not run)."""
        return await self._fetch(sql, params, one=False)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None. ValueError: the statement writes (it is not run)."""
        rows = await self._fetch(sql, params, one=True)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        rows = await self._fetch(sql, params, one=True)
        return rows[0][0] if rows else None

    async def _fetch(self, sql: str, params: Parameters, *, one: bool) -> list[Row]:
        self._check_open()
        main = self._main
        # The way without waiting: the main connection is free, its lease is here.
        if self._may_go_on() and self._storage.begin_read_now(main):
            try:
                main.bring_up()
                if not main.statement(sql).readonly:
                    raise ValueError(f"{sql!r} writes; use execute()")
                return main.fetch(sql, params, one)
            finally:
                self._storage.end_read()
        async with self._readers.statement(sql) as connection:
            if not connection.statement(sql).readonly:
                raise ValueError(f"{sql!r} writes; use execute()")
            return connection.fetch(sql, params, one)

    async def _statement(self, sql: str, bound: Bound | None = None) -> Statement:
        self._check_open()
        async with self._readers.statement(bound=bound) as connection:
            try:
                return connection.statement(sql)
            except apsw.SQLError:
                # An open transaction may be changing the schema that the statement will meet.
                if self._mender.is_current(connection) and not self._main.statements.has_ddl:
                    raise
        # A trigger that it would fire may be of an older schema: a write transaction mends those.
        async with Writing(self, bound=bound) as transaction:
            try:
                return transaction.engine.statement(sql)
            except apsw.SQLError as error:
                failure = error
        # That was mended, and committed, whatever is wrong with this one.
        raise failure

    async def _execute_bare(self, sql: str, params: Parameters, bound: Bound) -> ExecuteResult:
        """Pragmas that set something, and VACUUM: alone, in no transaction."""
        self._check_open()
        await self._turn.acquire(bound)
        try:
            try:
                inside = is_inside(read_transactions, self)
                await self._storage.begin_write(self._main, bound, inside=inside)
            except Exception:
                self._check_open()  # it may have been closed while this waited
                raise
            try:
                self._main.run("ROLLBACK")
                self._storage.leave_transaction()
                self._check_open()
                result = self._main.execute(self._main.statement(sql), params)
                try:
                    await self._commit(self._storage.settle(self._main))
                finally:
                    shared = self._committed(frozenset())
                    self._announce(frozenset(), False, shared)
            except apsw.FullError as error:
                self._storage.make_room()
                raise no_space(self.name) from error
            finally:
                self._storage.end_write(self._main)
        finally:
            self._turn.release()
        return result

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.write_transaction() as tx`: commits on leaving, rolls back on an error.

        One at a time among all connections of the database; others wait their turn.
        DatabaseBusyError: they waited longer than the bound. NestedTransactionError: inside
        another write transaction of this database.
        """
        return Writing(self)

    def _own_transaction(
        self, bound: Bound | None = None
    ) -> AbstractAsyncContextManager[Transaction]:
        """A write transaction of holdfast's own, allowed while the database is closing."""
        return Writing(self, own=True, bound=bound)

    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.read_transaction() as tx`: one snapshot, while writers go on beside it.

        Temporary tables of the database are not seen in it.
        """
        return self._readers.transaction()

    def _bound(self) -> Bound:
        """How long a call that begins now may wait."""
        return Bound(self._storage.busy_timeout)

    def _may_go_on(self) -> bool:
        """Whether the main connection can be used now, without letting others go first."""
        return not self._turn.locked() and time.monotonic() - self._last_yield < SLICE

    async def _let_others_go(self) -> None:
        if time.monotonic() - self._last_yield >= SLICE:
            await self._storage.let_others_go()
            self._last_yield = time.monotonic()

    def _check_open(self, own: bool = False) -> None:
        if self._closing and not (own and not self._closed.is_set()):
            raise DatabaseClosedError(
                f"the database {self.name!r} is closed; open it again with holdfast.open()"
            )
        self._check_not_inside("this would wait")

    def _check_not_inside(self, what: str) -> None:
        if is_inside(write_transactions, self):
            raise NestedTransactionError(
                f"{what} for the write transaction of {self.name!r} that it is called in; use "
                "the methods of that transaction (or of the handler's ctx.transaction), or "
                "call it outside"
            )

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
        self._check_open()
        return table_changes(self, tables)

    def watch(
        self, sql: str, params: Parameters = (), throttle: float = 0.03, distinct: bool = True
    ) -> AsyncIterator[list[Row]]:
        """An async iterator of the rows of a query: now, and after each change to what it reads.

        Changes that come within `throttle` seconds of the last rows are given as one. Begins to
        listen at the first `anext`; ends when the database is closed.
        distinct: leave out rows that are as they were the last time.
        StorageUnavailableError: the database is gone, for the site's data was cleared.
        """
        self._check_open()
        return watch_query(self, sql, params, throttle, distinct)

    def _remote_commit(self, tables: frozenset[str] | None, ddl: bool) -> None:
        if self._closing:
            return
        if ddl or tables is None:
            self._forget_statements()
        self._announcements.deliver(Announcement(tables, remote=True, ddl=ddl))

    def _forget_statements(self) -> None:
        """The schema changed, and with it what is known of statements."""
        self._main.statements.forget()
        self._readers.forget_statements()

    def _committed(self, tables: Set[str]) -> frozenset[str] | None:
        """Right after a COMMIT that wrote to `tables`: those of them that others have as well.

        None: it changed nothing that they have.
        """
        if not self._storage.committed(self._main):
            return None
        if not self._main.statements.made_temporary:
            return frozenset(tables)
        sql = "SELECT name FROM temp.sqlite_master EXCEPT SELECT name FROM main.sqlite_master"
        own = {name for (name,) in self._main.run(sql)}
        if self._storage.shares_temporary:
            # The triggers of others have their records there.
            own -= self._main.temporary_destinations
        return frozenset(tables - own)

    def _announce(self, tables: frozenset[str], ddl: bool, shared: frozenset[str] | None) -> None:
        """Tell of a commit of this connection: of `tables` here, of those `shared` elsewhere."""
        if shared is not None or ddl:
            self._storage.announce(shared or frozenset(), ddl)
        if tables or ddl:
            self._announcements.deliver(Announcement(tables, remote=False, ddl=ddl))

    def _peer_gone(self) -> None:
        if not self._closing:
            self._start(self._sweep())

    async def _sweep(self) -> None:
        try:
            await self.triggers.sweep()
        except DatabaseClosedError:
            logger.debug("closed while sweeping; the next open sweeps")

    async def _look(self) -> bool | None:
        """Find commits that nobody announced. None: look again soon."""
        if not self._announcements.wanted or self._turn.locked():
            return False
        try:
            await self._turn.acquire(self._bound())
            try:
                news = await self._storage.has_news()
            finally:
                self._turn.release()
        except StorageUnavailableError as error:
            self._lost(error)
            return False
        except DatabaseBusyError as error:
            logger.debug("%r was not looked at, and will be later: %r", self, error)
            return False
        except Exception:
            if not self._closing:
                logger.exception("%r was not looked at, and will be later", self)
            return False
        if news:
            self._remote_commit(None, True)
        return news

    def _lost(self, error: StorageUnavailableError) -> None:
        """The database is gone: all who wait for its changes are told."""
        if not self._closing:
            self._announcements.deliver(Announcement(None, remote=True, failure=error))

    async def _commit(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Wait until it has succeeded or failed, also if this task is cancelled meanwhile.

        Cancelled, this raises CancelledError after it has succeeded.
        """
        task = keep(coroutine)
        # What the caller does when it goes on, up to its next await, belongs to the commit.
        gone_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for each in (task, gone_on):
            self._commits.add(each)
            each.add_done_callback(self._commits.discard)
        cancelled: asyncio.CancelledError | None = None
        try:
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            gone_on.set_result(None)
        task.result()
        if cancelled is not None:
            raise cancelled

    def _start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Something that comes to an end; close() waits for that."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _start_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Something that goes on until the database is closed or dropped."""
        self._loops.add(asyncio.get_running_loop().create_task(coroutine))

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._closing and isinstance(error, DatabaseClosedError):
            # Closing does what it would have done, such as dropping a trigger.
            logger.debug("%r was closed before a background task had ended", self)
            return
        logger.error("a background task of %r failed", self, exc_info=error)

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
        self._check_open()
        return export_chunks(self, on_progress)

    # -- life ------------------------------------------------------------------------------------

    async def status(self) -> StorageStatus:
        """What is known of the storage: see `StorageStatus`."""
        self._check_open()
        with self._unless_closed():
            return await self._storage.status()

    def rest(self) -> None:
        """Give up what no transaction needs: the tab is hidden, frozen or left."""
        self._storage.rest()

    async def _begin(self, bound: Bound) -> None:
        async with self._readers.statement(bound=bound) as connection:
            connection.run("BEGIN")
            try:
                there = self._schema.is_applied(Transaction(self, connection, writable=False))
            finally:
                connection.run("ROLLBACK")
        if not there:
            alone = await self._storage.is_alone()
            async with Writing(self, bound=bound) as transaction:
                await self._schema.apply(transaction, alone=alone)
        # From here on there is something to sweep; opening does it too.
        self._storage.on_peer_gone = _weakly(self._peer_gone)
        await self.triggers.open()
        self._start_loop(_look_out(weakref.ref(self)))
        self._start_loop(_discard(self._storage))

    async def close(self) -> None:
        """Give everything back; idempotent.

        Open transactions are rolled back (their users get DatabaseClosedError), handlers in
        flight are waited for, this connection's triggers are disposed of and their holds
        released; then others can import or delete it at once. It is one piece of work, which every
        caller waits for and which goes on if a caller is cancelled. Called by something that it
        waits for itself, as on_error or what runs after a commit, it does not wait.
        NestedTransactionError: inside a write transaction of this database, or a handler.
        """
        self._check_not_inside("close() would wait")
        if self._close_task is None:
            self._closing = True
            # Whatever transactions the first caller is inside of, this is not.
            context = copy_context()
            context.run(write_transactions.set, ())
            self._close_task = asyncio.get_running_loop().create_task(
                self._close(), context=context
            )
        elsewhere = self in closing_waits.get()
        try:
            if not elsewhere:
                await asyncio.shield(self._close_task)
        finally:
            if not self._close_task.done():
                self._close_task.add_done_callback(self._task_done)

    async def _close(self) -> None:
        await give_back(
            self._end_transactions,
            lambda: self._announcements.deliver(Announcement(None, remote=False)),
            self.triggers.close,
            self._closed.set,
            self._end_tasks,
            self._readers.close,
            lambda: asyncio.wait(self._commits) if self._commits else None,
            lambda: self._storage.leaving(self._main),
            lambda: self._storage.disconnect(self._main),
            self._storage.close,
        )

    async def _end_transactions(self) -> None:
        # Their users may be waiting for anything, so what they hold is taken back from them.
        for transaction in list(self._open_transactions):
            end = partial(transaction.end, "was rolled back, because the database was closed")
            await give_back(end, transaction.leave)

    async def _end_tasks(self) -> None:
        for loop in self._loops:
            loop.cancel()
        if tasks := self._loops | self._tasks:
            await asyncio.wait(tasks)

    @contextlib.contextmanager
    def _unless_closed(self) -> Iterator[None]:
        """Errors of what was closed while it was used, as DatabaseClosedError."""
        try:
            yield
        except Exception:
            self._check_open()
            raise

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


async def _look_out(reference: weakref.ref[Database]) -> None:
    """Find commits that nobody announced, until the database is dropped."""
    pause = LOOKOUT
    while True:
        await asyncio.sleep(pause)
        database = reference()
        if database is None:
            return
        soon = await database._look() is None
        pause = min(GRACE, LOOKOUT) if soon else LOOKOUT
        del database


def _weakly(method: Callable[..., None]) -> Callable[..., None]:
    """A method that does nothing once its object is gone."""
    reference = weakref.WeakMethod(method)

    def call(*arguments: Any) -> None:
        if (found := reference()) is not None:
            found(*arguments)

    return call
