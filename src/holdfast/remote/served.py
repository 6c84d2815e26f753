"""One database on the side that has it: what its client can call.

Methods take and give plain values (see wire.py). An object is named by the number under which it
was exported; it is forgotten when it ends, at the latest with its database.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import Context, copy_context
from functools import partial
from typing import Any, cast

import apsw

from ..api import DiffContext, Transaction
from ..giving_back import give_back
from ..local.database import LocalDatabase
from ..session.writing import CancelledLate
from ..sqlite.rows import ExecuteResult
from ..triggers.registry import plain_record
from ..triggers.tracker import DistantHandler, LocalTracker
from ..triggers.trigger import LocalTrigger
from . import wire
from .peer import Peer, start, to_its_end

logger = logging.getLogger("holdfast")

Plain = Any


class _RolledBack(Exception):
    """The client left its block by an error of its own."""


async def _told(writing: Awaitable[ExecuteResult]) -> Plain:
    """What it gives. Cancelled, the client learns whether it was committed."""
    try:
        return tuple(await writing)
    except CancelledLate as late:
        return tuple(late.result)


class ServedStream:
    """An async iterator, pulled item by item.

    at_once: the first is pulled before it is asked for: what the client does next comes after the
    iterator has begun to listen. Else each runs in the call for it, and is cancelled with that.
    """

    def __init__(
        self,
        peer: Peer,
        iterator: AsyncIterator[Any],
        plain: Callable[[Any], Plain] = lambda item: item,
        *,
        at_once: bool = True,
    ) -> None:
        self._iterator = iterator
        self._plain = plain
        self._peer = peer
        self.number = peer.export(self)
        self._first: asyncio.Task[list[Plain]] | None = None
        if at_once:
            self._first = start(self._pull(), Context())

    async def next(self) -> list[Plain]:
        """The next item in a list; an empty one at the end."""
        first, self._first = self._first, None
        try:
            found = await (self._pull() if first is None else first)
        except BaseException:
            self._peer.forget(self.number)
            raise
        if not found:
            self._peer.forget(self.number)
        return found

    async def _pull(self) -> list[Plain]:
        # However it ends, the client is told when it asks: until then it is to be found.
        try:
            return [self._plain(await anext(self._iterator))]
        except StopAsyncIteration:
            return []

    async def close(self) -> None:
        """End it, wherever it stands."""
        self._peer.forget(self.number)
        if self._first is not None:
            self._first.cancel()
            await asyncio.wait({self._first})
        await self._iterator.aclose()  # type: ignore[attr-defined]


class ServedTransaction:
    """A transaction, of a client's own block or of one of its handlers.

    `context` is that of its block, so that what runs for the client is seen to be inside of it.
    """

    def __init__(self, transaction: Transaction, context: Context) -> None:
        self.transaction = transaction
        self.context = context
        self._savepoints: list[AbstractAsyncContextManager[None]] = []

    async def execute(self, sql: str, params: Plain) -> Plain:
        return tuple(await self.transaction.execute(sql, params))

    async def execute_many(self, sql: str, many: Plain) -> Plain:
        return tuple(await self.transaction.execute_many(sql, many))

    async def fetch_all(self, sql: str, params: Plain) -> Plain:
        return wire.plain_rows(await self.transaction.fetch_all(sql, params))

    async def fetch_one(self, sql: str, params: Plain) -> Plain:
        return wire.plain_row(await self.transaction.fetch_one(sql, params))

    async def fetch_value(self, sql: str, params: Plain) -> Plain:
        return await self.transaction.fetch_value(sql, params)

    async def savepoint(self) -> None:
        savepoint = self.transaction.savepoint()
        await savepoint.__aenter__()
        self._savepoints.append(savepoint)

    async def release(self) -> None:
        await self._savepoints.pop().__aexit__(None, None, None)

    async def undo(self) -> None:
        """Roll back to the last savepoint."""
        error = _RolledBack()
        try:
            await self._savepoints.pop().__aexit__(_RolledBack, error, None)
        except _RolledBack:
            return


class ServedScope(ServedTransaction):
    """A transaction whose block is the client's."""

    def __init__(
        self,
        transaction: Transaction,
        context: Context,
        scope: AbstractAsyncContextManager[Transaction],
        ended: Callable[[ServedScope], None],
    ) -> None:
        super().__init__(transaction, context)
        self._scope = scope
        self._ended = ended

    async def commit(self) -> None:
        await to_its_end(self._leave(None))

    async def roll_back(self, full: bool = False) -> None:
        """full: because there was no space, which is then the error of the whole transaction."""
        error = apsw.FullError("database or disk is full") if full else _RolledBack()
        await to_its_end(self._leave(error))

    async def _leave(self, error: Exception | None) -> None:
        self._ended(self)
        try:
            await self._scope.__aexit__(None if error is None else type(error), error, None)
        except _RolledBack:
            return


class ServedContext:
    """What a client's handler works with."""

    def __init__(self, served: ServedTransaction, context: DiffContext) -> None:
        self.context = served.context
        self._diff = context

    async def with_diff(self, sql: str, params: Plain) -> Plain:
        return wire.plain_rows(await self._diff.with_diff(sql, params))

    async def with_extracted_diff(self, sql: str, params: Plain) -> Plain:
        return wire.plain_rows(await self._diff.with_extracted_diff(sql, params))


class ServedHandler(DistantHandler):
    """A client's handler."""

    def __init__(self, database: ServedDatabase, client: int) -> None:
        self._database = database
        self._client = client

    async def ready(self) -> None:
        await self._database.peer.call(self._client, "ready")

    async def __call__(self, context: DiffContext) -> None:
        database, transaction = self._database, context.transaction
        served, number, close = database.lend(transaction)
        diff = database.peer.export(ServedContext(served, context))
        try:
            asks = await database.peer.call(
                self._client,
                "change",
                diff,
                number,
                transaction.id,
                context.destination,
                context.reset,
            )
            database.tell_end(transaction, self._client, number, asks)
        finally:
            database.peer.forget(diff)
            close()


class ServedTrigger:
    """A diff trigger."""

    def __init__(self, database: ServedDatabase, trigger: LocalTrigger) -> None:
        self._database = database
        self._trigger = trigger
        self.number = 0

    async def dispose(self, transaction: int | None = None) -> None:
        await self._trigger.dispose(self._database.given(transaction))

    async def forget(self) -> None:
        """The client has heard that it is gone."""
        self._database.peer.forget(self.number)


class ServedTracker(ServedTrigger):
    """A tracker, whose handler is the client's."""

    def __init__(self, database: ServedDatabase, tracker: LocalTracker) -> None:
        super().__init__(database, tracker.trigger)
        self._tracker = tracker

    async def stop(self) -> None:
        await self._tracker.stop()

    async def end(self) -> None:
        """`stop` from on_error: do not wait, for the caller is part of what would be awaited."""
        self._tracker.end()


class ServedDatabase:
    """A database; `ended` is called when it is closed."""

    def __init__(self, peer: Peer, database: LocalDatabase, ended: Callable[[], None]) -> None:
        self.database = database
        self.peer = peer
        self._ended = ended
        self._scopes: dict[ServedScope, int] = {}
        self._numbers: dict[Transaction, int] = {}

    # -- statements ------------------------------------------------------------------------------

    async def execute(self, sql: str, params: Plain) -> Plain:
        return await _told(self.database.execute(sql, params))

    async def execute_many(self, sql: str, many: Plain) -> Plain:
        return await _told(self.database.execute_many(sql, many))

    async def fetch_all(self, sql: str, params: Plain) -> Plain:
        return wire.plain_rows(await self.database.fetch_all(sql, params))

    async def fetch_one(self, sql: str, params: Plain) -> Plain:
        return wire.plain_row(await self.database.fetch_one(sql, params))

    async def fetch_value(self, sql: str, params: Plain) -> Plain:
        return await self.database.fetch_value(sql, params)

    # -- transactions ----------------------------------------------------------------------------

    async def begin(self, writable: bool) -> Plain:
        """The number of a `ServedScope`, and the id of the transaction."""
        database = self.database
        block = database.write_transaction() if writable else database.read_transaction()
        transaction = await block.__aenter__()
        served = ServedScope(transaction, copy_context(), block, self._forget_scope)
        number = self._scopes[served] = self.peer.export(served)
        self._numbers[served.transaction] = number
        return number, served.transaction.id

    def _forget_scope(self, served: ServedScope) -> None:
        self.peer.forget(self._scopes.pop(served))
        del self._numbers[served.transaction]

    def given(self, number: int | None) -> Transaction | None:
        """The transaction that a client names. DatabaseClosedError: it has ended."""
        if number is None:
            return None
        transaction: Transaction = self.peer.find(number).transaction
        return transaction

    # -- changes, and the file -------------------------------------------------------------------

    async def changes(self, tables: Sequence[str] | None) -> int:
        return self._stream(
            self.database.changes(tables), lambda change: (sorted(change.tables), change.remote)
        )

    async def watch(self, sql: str, params: Plain, throttle: float, distinct: bool = True) -> int:
        # A change between this and the first rows is in them.
        rows = self.database.watch(sql, params, throttle, distinct)
        return self._stream(
            rows, lambda found: self.peer.rows(wire.plain_rows(found)), at_once=False
        )

    async def export_chunks(self, progress: int | None) -> int:
        """progress: an object of the client's with a method `progress(done, total)`."""
        return self._stream(self.database.export_chunks(on_progress=self.progress(progress)))

    def _stream(self, *args: Any, **options: Any) -> int:
        return ServedStream(self.peer, *args, **options).number

    def progress(self, number: int | None) -> Callable[[int, int | None], object] | None:
        if number is None:
            return None
        peer = self.peer
        return lambda done, total: peer.call(number, "progress", done, total)

    async def status(self) -> Plain:
        return wire.plain_status(await self.database.status())

    # -- triggers --------------------------------------------------------------------------------

    async def create_diff_trigger(self, options: Plain, client: int) -> Plain:
        """The number of a `ServedTrigger`, and what it is.

        client: an object of the client's, with `before_create` if the options say so, and `gone`.
        """
        options = self._options(options, client)
        trigger = await self.database.triggers.create_diff_trigger(**options)
        trigger = cast("LocalTrigger", trigger)
        return self._export_trigger(ServedTrigger(self, trigger), trigger, client)

    async def track_table_diff(self, options: Plain, client: int) -> Plain:
        """The same for a `ServedTracker`; client: with `ready`, `change` and `failed` as well."""
        options = self._options(options, client)

        async def on_error(error: Exception) -> None:
            await self.peer.call(client, "failed", self.peer.errors.plain(error))

        tracker = await self.database.triggers.track_table_diff(
            on_change=ServedHandler(self, client), on_error=on_error, **options
        )
        tracker = cast("LocalTracker", tracker)
        return self._export_trigger(ServedTracker(self, tracker), tracker.trigger, client)

    async def diffs(self, options: Plain, client: int) -> int:
        return self._stream(
            self.database.triggers.diffs(**self._options(options, client)), wire.plain_diff
        )

    async def tracked(self) -> Plain:
        return [wire.plain_tracked(each) for each in await self.database.triggers.tracked()]

    async def sweep(self) -> Plain:
        return [wire.plain_tracked(each) for each in await self.database.triggers.sweep()]

    def _options(self, options: Mapping[str, Any], client: int) -> dict[str, Any]:
        found = dict(options)
        if "transaction" in found:
            found["transaction"] = self.given(found["transaction"])
        if found.pop("before_create", False):
            found["before_create"] = self._before_create(client)
        return found

    def _before_create(self, client: int) -> Callable[[Transaction], Awaitable[None]]:
        async def before_create(transaction: Transaction) -> None:
            _, number, close = self.lend(transaction)
            try:
                asks = await self.peer.call(client, "before_create", number, transaction.id)
                self.tell_end(transaction, client, number, asks)
            finally:
                close()

        return before_create

    def lend(self, transaction: Transaction) -> tuple[ServedTransaction, int, Callable[[], None]]:
        """A transaction of which the client is told; its number; what ends that."""
        if (number := self._numbers.get(transaction)) is not None:
            # Its own, in which it asked for something.
            return self.peer.find(number), number, lambda: None
        served = ServedTransaction(transaction, copy_context())
        number = self.peer.export(served)
        return served, number, lambda: self.peer.forget(number)

    def tell_end(self, transaction: Transaction, client: int, number: int, asks: bool) -> None:
        """The client has something to do when a transaction that it was lent has ended."""
        if asks:
            transaction.on_commit(partial(self.peer.call, client, "ended", number, True))
            transaction.on_rollback(partial(self.peer.call, client, "ended", number, False))

    def _export_trigger(self, served: ServedTrigger, trigger: LocalTrigger, client: int) -> Plain:
        number = served.number = self.peer.export(served)
        # The client forgets it when it hears of that: until then it may still call it.
        trigger.when_gone = partial(self.peer.tell, client, "gone")
        return number, plain_record(trigger.record), trigger.temporary

    # -- life ------------------------------------------------------------------------------------

    async def close(self) -> None:
        """Close it to the end, even if the caller is cancelled."""
        await to_its_end(self._close())

    async def _close(self) -> None:
        await give_back(self.database.close, self._end_scopes, self._ended)

    async def _end_scopes(self) -> None:
        for served in list(self._scopes):
            try:
                await served.roll_back()
            except Exception as error:
                # It is rolled back all the same; the client learns that at its own end.
                logger.debug("a transaction that was open at the end: %r", error)
