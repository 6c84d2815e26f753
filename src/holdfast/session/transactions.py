"""Transactions of a connection of this interpreter."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any, Protocol

import apsw

from ..api.transactions import Transaction
from ..errors import DatabaseClosedError
from ..sqlite.connection import Connection
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..sqlite.statements import Statement
from ..unique import unique

_PREFIX = unique() + "-"
_numbers = itertools.count(1)


class RunsSql(Protocol):
    """What holdfast's own statements run on: a transaction, or a connection inside of one."""

    def run_sql(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]: ...


class LocalTransaction(Transaction):
    """A transaction of a connection of this interpreter."""

    def __init__(self, owner: object, connection: Connection, *, writable: bool) -> None:
        super().__init__(owner, writable=writable)
        self._number = next(_numbers)
        self._engine = connection
        # Set by what opened it: gives back all that it holds, once; for close().
        self.leave: Callable[[], object] = lambda: None
        self._savepoints = 0
        # Of the raw connection, once the application asked for it.
        self._cursors: weakref.WeakSet[apsw.Cursor] | None = None
        # Set by what opened it: called before each statement of the raw connection.
        self.trace: apsw.ExecTracer | None = None
        # Set by what opened it: a savepoint was undone.
        self.on_undone: Callable[[], None] = lambda: None

    @property
    def id(self) -> str:
        # Asking for random bytes each time would cost more than a read.
        return f"{_PREFIX}{self._number:x}"

    @property
    def connection(self) -> apsw.Connection:
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
        engine = self._live()
        return engine.execute(self._statement(engine, sql), params)

    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        engine = self._live()
        return engine.execute_many(self._statement(engine, sql), seq_of_params)

    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        return self._fetch(sql, params)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        engine = self._live()
        statement = self._statement(engine, sql)
        # A statement that writes is run to its end, whatever is read of it.
        rows = self._fetch(sql, params, one=statement.readonly)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        row = await self.fetch_one(sql, params)
        return None if row is None else row[0]

    def run_sql(self, sql: str, params: Parameters = ()) -> list[tuple[Any, ...]]:
        """For holdfast's own statements: straight to SQLite, several allowed, nothing checked."""
        return self._live().run(sql, params)

    async def _save(self) -> str:
        engine = self._live()
        self._savepoints += 1
        name = f"holdfast_{self._savepoints}"
        engine.run(f"SAVEPOINT {name}")
        return name

    async def _undo(self, name: str) -> None:
        engine = self._engine
        if engine.raw.in_transaction:
            engine.run(f"ROLLBACK TO {name}; RELEASE {name}")
            # What was prepared since may speak of tables that are gone again.
            engine.statements.forget()
            self.on_undone()

    async def _release(self, name: str) -> None:
        self._live().run(f"RELEASE {name}")

    # -- for the database ------------------------------------------------------------------------

    def end(self, why: str | None = None) -> None:
        self.close_cursors()
        super().end(why)

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
        self._live()

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
