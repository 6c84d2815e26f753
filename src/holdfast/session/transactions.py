"""Transactions: what runs inside one, and who may not wait for it."""

from __future__ import annotations

import inspect
import itertools
import logging
import uuid
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol

import apsw

from ..errors import DatabaseClosedError
from ..sqlite.connection import Connection
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..sqlite.statements import Statement

logger = logging.getLogger("holdfast")

# The write transactions that this task (or the one that started it) is inside of. Tasks inherit
# it, so a task started in a block that is still open is found too.
write_transactions: ContextVar[tuple[Transaction, ...]] = ContextVar(
    "holdfast_write_transactions", default=()
)

# The same for read transactions: what is read inside of one never waits for that one's end.
read_transactions: ContextVar[tuple[Transaction, ...]] = ContextVar(
    "holdfast_read_transactions", default=()
)
# The databases whose close() waits for what this task does, which therefore must not wait for that.
closing_waits: ContextVar[tuple[object, ...]] = ContextVar("holdfast_closing_waits", default=())

_PREFIX = uuid.uuid4().hex + "-"
_numbers = itertools.count(1)

Callback = Callable[[], Awaitable[None] | None]


class RunsSql(Protocol):
    """What holdfast's own statements run on: a transaction, or a connection inside of one."""

    def run_sql(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]: ...


class Transaction:
    """One open transaction; made by `write_transaction()` and `read_transaction()`.

    Inside a write transaction `fetch_*` see its own changes, and take statements with RETURNING.
    Every method raises DatabaseClosedError once the transaction has ended; also when SQLite has
    rolled all of it back after an error (OR ROLLBACK, a full disk), for what came next would
    otherwise be committed by itself.
    """

    def __init__(self, owner: object, connection: Connection, *, writable: bool) -> None:
        self._number = next(_numbers)
        self.owner = owner
        self.writable = writable
        self._engine = connection
        self.committed = False
        self._open = True
        self._why_ended = "has ended; use it inside its `async with` block only"
        # Set by what opened it: gives back all that it holds, once; for close().
        self.leave: Callable[[], object] = lambda: None
        self._on_commit: list[Callback] = []
        self._on_rollback: list[Callback] = []
        self._savepoints = 0
        # Of the raw connection, once somebody asked for it.
        self._cursors: weakref.WeakSet[apsw.Cursor] | None = None
        # Set by what opened it: called before each statement of the raw connection.
        self.trace: apsw.ExecTracer | None = None
        # Set by what opened it: a savepoint was undone.
        self.on_undone: Callable[[], None] = lambda: None

    @property
    def id(self) -> str:
        """Unique among all tabs; asking for random bytes each time would cost more than a read."""
        return f"{_PREFIX}{self._number:x}"

    @property
    def is_open(self) -> bool:
        return self._open

    @property
    def connection(self) -> apsw.Connection:
        """The raw connection. What is run there takes part in this transaction, unchecked.

        Its cursors are closed with the transaction: one that was not read to its end would keep
        the snapshot, and go on reading where others write by then.
        """
        raw = self._live().raw
        if self._cursors is None:
            cursors = self._cursors = weakref.WeakSet()

            def cursor(connection: apsw.Connection) -> apsw.Cursor:
                made = apsw.Cursor(connection)
                cursors.add(made)
                return made

            raw.cursor_factory = cursor
            raw.exec_trace = self.trace
        return raw

    @property
    def uses_raw(self) -> bool:
        """Whether statements may have run that nothing here knows of."""
        return self._cursors is not None

    @property
    def engine(self) -> Connection:
        """For holdfast's own: the connection that it runs on."""
        return self._live()

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        """Run one statement. ValueError: several statements, or a write in a read transaction."""
        engine = self._live()
        return engine.execute(self._statement(engine, sql), params)

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        """Run one statement once for each of `seq_of_params`."""
        engine = self._live()
        return engine.execute_many(self._statement(engine, sql), seq_of_params)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row."""
        return self._fetch(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None."""
        engine = self._live()
        statement = self._statement(engine, sql)
        # A statement that writes is run to its end, whatever is read of it.
        rows = self._fetch(sql, params, one=statement.readonly)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None."""
        row = await self.fetch_one(sql, params)
        return None if row is None else row[0]

    def run_sql(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]:
        """For holdfast's own statements: straight to SQLite, several allowed, nothing checked."""
        return self._live().run(sql, params)

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that is undone alone: an exception in the block rolls back to its start."""
        engine = self._live()
        self._savepoints += 1
        name = f"holdfast_{self._savepoints}"
        commits, rollbacks = len(self._on_commit), len(self._on_rollback)
        engine.run(f"SAVEPOINT {name}")
        try:
            yield
        except BaseException:
            undone = self._on_rollback[rollbacks:]
            del self._on_commit[commits:], self._on_rollback[rollbacks:]
            if self._open and engine.raw.in_transaction:
                engine.run(f"ROLLBACK TO {name}; RELEASE {name}")
                # What was prepared since may speak of tables that are gone again.
                engine.statements.forget()
                self.on_undone()
            await run_callbacks(reversed(undone), self.owner)
            raise
        if self._open:
            self._live().run(f"RELEASE {name}")

    def on_commit(self, callback: Callback) -> None:
        """Call (and await) `callback` after the commit."""
        self._on_commit.append(callback)

    def on_rollback(self, callback: Callback) -> None:
        """Call (and await) `callback` after the rollback, also of the savepoint it is set in."""
        self._on_rollback.append(callback)

    # -- for the database ------------------------------------------------------------------------

    def end(self, why: str | None = None) -> None:
        """No more statements; `why` is for the error of who tries."""
        self.close_cursors()
        self._open = False
        if why is not None:
            self._why_ended = why

    def close_cursors(self) -> None:
        """Before COMMIT or ROLLBACK, which end a snapshot that no statement is using any more."""
        if self._cursors is not None:
            self._engine.raw.cursor_factory = apsw.Cursor
            if self._engine.raw.exec_trace is self.trace:
                self._engine.raw.exec_trace = None
            for cursor in self._cursors:
                cursor.close(True)
            self._cursors = None

    def check_ended(self) -> None:
        """DatabaseClosedError if it was ended from outside, or by SQLite."""
        self._live()

    def callbacks(self) -> list[Callback]:
        """What is to run now that it ended."""
        return self._on_commit if self.committed else self._on_rollback[::-1]

    def _live(self) -> Connection:
        if not self._open:
            raise DatabaseClosedError(f"the transaction {self._why_ended}")
        if not self._engine.raw.in_transaction:
            raise DatabaseClosedError(
                "the transaction was ended by SQLite: an error rolled back all of it (OR ROLLBACK, "
                "RAISE(ROLLBACK), no space, a write that was cancelled while it ran), or the raw "
                "connection ran a COMMIT or ROLLBACK"
            )
        return self._engine

    def _fetch(self, sql: str, params: Parameters, one: bool = False) -> list[Row]:
        engine = self._live()
        statement = self._statement(engine, sql)
        if statement.readonly:
            return engine.fetch(sql, params, one)
        with engine.around_ddl(sql) if statement.ddl else nullcontext():
            rows = engine.fetch(sql, params, one)
            engine.note_unhooked(statement)
        return rows

    def _statement(self, engine: Connection, sql: str) -> Statement:
        statement = engine.statement(sql)
        if not (self.writable or statement.readonly):
            raise ValueError(
                f"{sql!r} writes, and this is a read transaction; use write_transaction()"
            )
        if statement.of_writer and not self.writable:
            raise ValueError(
                f"{sql!r} asks what the connection did that writes, and a read transaction has one "
                "of its own, which wrote nothing; call it on the database or in write_transaction()"
            )
        if statement.alone:
            raise ValueError(f"{sql!r} cannot run inside a transaction; call it on the database")
        return statement


def is_inside(transactions: ContextVar[tuple[Transaction, ...]], owner: object) -> bool:
    """Whether this task is inside an open transaction of `owner`."""
    return any(tx.owner is owner and tx.is_open for tx in transactions.get())


async def run_callbacks(callbacks: Iterable[Callback], owner: object) -> None:
    """Each of them; one that fails is logged and does not keep the others from running."""
    with awaited_by_close(owner):
        for callback in callbacks:
            try:
                result = callback()
                if inspect.isawaitable(result):
                    await result
            except Exception:
                logger.exception("what was to run after a transaction failed")


@contextmanager
def awaited_by_close(database: object) -> Iterator[None]:
    """The close() of that database waits for what runs in here."""
    before = closing_waits.get()
    closing_waits.set((*before, database))
    try:
        yield
    finally:
        closing_waits.set(before)
