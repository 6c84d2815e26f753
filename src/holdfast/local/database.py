"""`Database` in this interpreter: the face of a session, and of the triggers on it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from ..api import Database, TableChange, Transaction
from ..api.options import OnProgress
from ..bounds import Bound
from ..errors import HoldfastError
from ..session.lookout import look_out
from ..session.session import Session, weakly
from ..session.transactions import LocalTransaction
from ..session.writing import Writing, write_at_once
from ..sqlite.rows import ExecuteResult, Parameters, Row
from ..triggers import LocalTriggerManager
from .changes import table_changes, watch_query

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from ..schema import Schema
    from ..storage import Storage, StorageStatus

logger = logging.getLogger("holdfast")


class LocalDatabase(Database):
    """A database of this interpreter."""

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
        self.triggers: LocalTriggerManager
        self.triggers = LocalTriggerManager(session, hold_manager, persist_triggers)

    # -- what it is ------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._session.name

    @property
    def storage(self) -> str:
        return self._session.kind

    @property
    def persists_triggers(self) -> bool:
        return self._persists_triggers

    @property
    def closed(self) -> bool:
        return self._session.closed

    def __repr__(self) -> str:
        return repr(self._session)

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
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
        return await self._session.fetch(sql, params, one=False)

    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        rows = await self._session.fetch(sql, params, one=True)
        return rows[0] if rows else None

    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        rows = await self._session.fetch(sql, params, one=True)
        return rows[0][0] if rows else None

    # -- transactions ----------------------------------------------------------------------------

    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._session.write_transaction()

    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        return self._session.read_transaction()

    # -- changes ---------------------------------------------------------------------------------

    def _changes(self, tables: tuple[str, ...] | None) -> AsyncIterator[TableChange]:
        self._session.closing.check_open()
        return table_changes(
            self._session, self._schema.application_name, self.triggers.destinations, tables
        )

    def _watch(
        self, sql: str, params: Parameters, throttle: float, distinct: bool
    ) -> AsyncIterator[list[Row]]:
        self._session.closing.check_open()
        return watch_query(self._session, sql, params, throttle, distinct)

    # -- the file --------------------------------------------------------------------------------

    def export_chunks(self, *, on_progress: OnProgress | None = None) -> AsyncIterator[bytes]:
        self._session.closing.check_open()
        from .exporting import export_chunks

        return export_chunks(self._session, on_progress)

    # -- life ------------------------------------------------------------------------------------

    async def begin(self, bound: Bound) -> None:
        """Make the schema so, sweep, and start what goes on until it is closed."""
        session, schema = self._session, self._schema
        async with session.readers.statement(bound=bound) as connection:
            connection.run("BEGIN")
            try:
                there = schema.is_applied(LocalTransaction(session, connection, writable=False))
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
        session = self._session
        session.closing.check_open()
        with session.unless_closed():
            return await session.storage.status()

    def rest(self) -> None:
        self._session.storage.rest()

    async def close(self) -> None:
        await self._session.close(self.triggers.close)


async def _discard(storage: Storage) -> None:
    try:
        await storage.discard()
    except HoldfastError as error:
        logger.debug("scratch files of dead tabs were left for the next to open: %s", error)
