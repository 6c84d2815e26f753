"""The triggers of a database that a server has, and the handlers that it calls here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..api.handlers import BeforeCreate, Consumer, DiffContext, Handler, OnError
from ..api.nesting import run_callbacks, write_transactions
from ..api.options import Options
from ..api.records import DiffRecord, TrackedTrigger
from ..api.transactions import Transaction, check_transaction
from ..api.triggers import DiffTracker, DiffTrigger, TriggerManager
from ..sqlite.parameters import plain_parameters
from ..sqlite.rows import Parameters, Row
from ..triggers.registry import parse_record
from ..triggers.trigger import facts
from . import wire
from .transactions import RemoteTransaction

if TYPE_CHECKING:
    from .database import RemoteDatabase

Plain = Any


class RemoteTriggerManager(TriggerManager):
    """`Database.triggers` of a database that a server has."""

    def __init__(self, database: RemoteDatabase) -> None:
        self._database = database

    async def _create(
        self, destination: str, options: Options, transaction: Transaction | None
    ) -> RemoteTrigger:
        client = _Setup(self._database, options.before_create)
        plain = _plain_options(options) | {"destination": destination}
        number, record, temporary = await self._ask(
            "create_diff_trigger", plain, client, transaction
        )
        client.trigger = RemoteTrigger(self._database, number, record, temporary)
        return client.trigger

    async def _track(
        self,
        options: Options,
        on_change: Handler,
        on_error: OnError | None,
        throttle: float,
        transaction: Transaction | None,
        read_only: bool,
    ) -> RemoteTracker:
        client = _Handlers(
            self._database,
            options.before_create,
            Consumer(options.source, on_change, on_error, self._database),
            read_only=read_only,
        )
        plain = _plain_options(options) | {"throttle": throttle}
        if read_only:
            plain["read_only"] = True
        number, record, temporary = await self._ask("track_table_diff", plain, client, transaction)
        client.trigger = RemoteTrigger(self._database, number, record, temporary)
        client.made.set()
        return RemoteTracker(self._database, client.trigger, client.consumer)

    async def _stream(
        self, options: Options, throttle: float, net: bool
    ) -> AsyncGenerator[list[DiffRecord]]:
        database = self._database
        database.check_open()
        plain = _plain_options(options) | {"throttle": throttle, "net": net}
        number = database.peer.export(_Setup(database, options.before_create))
        try:
            async with aclosing(database.stream("diffs", plain, number)) as batches:
                async for batch in batches:
                    yield wire.read_diff(batch)
        finally:
            database.peer.forget(number)

    async def tracked(self) -> list[TrackedTrigger]:
        self._database.check_open()
        return [wire.read_tracked(each) for each in await self._database.call("tracked")]

    async def sweep(self) -> list[TrackedTrigger]:
        self._database.check_open()
        return [wire.read_tracked(each) for each in await self._database.call("sweep")]

    async def _ask(
        self, method: str, options: Plain, client: _Setup, transaction: Transaction | None
    ) -> Plain:
        """What the server answers: the trigger's number, its record, whether it is temporary."""
        database = self._database
        if transaction is None:
            database.check_open()
        else:
            options["transaction"] = _number(transaction, database)
            client.given = transaction
        peer = database.peer

        async def undo(made: Plain) -> None:
            await peer.call(made[0], "dispose", options.get("transaction"))

        number = peer.export(client)
        client.forget = lambda: peer.forget(number)
        try:
            return await peer.obtain(undo, database.number, method, options, number)
        except BaseException:
            peer.forget(number)
            raise


class _Setup:
    """What the server calls here for one trigger."""

    def __init__(self, database: RemoteDatabase, before_create: BeforeCreate | None) -> None:
        self._database = database
        self._before_create = before_create
        # Where the application asked for it: what its functions see of the context of theirs.
        self._context = copy_context()
        self._lent: dict[int, RemoteTransaction] = {}
        self.given: Transaction | None = None
        self.trigger: RemoteTrigger | None = None
        self.forget: Callable[[], None] = lambda: None

    @property
    def context(self) -> Context:
        return self._context.copy()

    async def before_create(self, number: int, identity: str) -> bool:
        """Whether to be told of the end of the transaction, by `ended`."""
        async with self._inside(number, identity, self.given) as transaction:
            if self._before_create is not None:
                await self._before_create(transaction)
        return self._waits_for_end(number)

    async def ended(self, number: int, committed: bool) -> None:
        """A transaction that was lent has ended."""
        transaction = self._lent.pop(number)
        transaction.committed = committed
        await run_callbacks(transaction.callbacks(), self._database)

    async def gone(self) -> None:
        """The trigger was disposed of, or was never made."""
        if self.trigger is not None:
            self.trigger.forget()
        self.forget()

    @asynccontextmanager
    async def _inside(
        self,
        number: int,
        identity: str,
        given: Transaction | None = None,
        *,
        writable: bool = True,
    ) -> AsyncIterator[Transaction]:
        """A transaction that the server lends to a function of the application's."""
        if given is not None:
            yield given
            return
        lent = RemoteTransaction(self._database, number, identity, writable=writable)
        if writable:
            write_transactions.set((*write_transactions.get(), lent))
        try:
            yield lent
        except BaseException:
            await run_callbacks(lent.callbacks(), self._database)
            raise
        finally:
            lent.end()
        self._lent[number] = lent

    def _waits_for_end(self, number: int) -> bool:
        lent = self._lent.pop(number, None)
        if lent is None or not lent.has_callbacks:
            return False
        self._lent[number] = lent
        return True


class _Handlers(_Setup):
    """The same for a tracker."""

    def __init__(
        self,
        database: RemoteDatabase,
        before_create: BeforeCreate | None,
        consumer: Consumer,
        *,
        read_only: bool,
    ) -> None:
        super().__init__(database, before_create)
        self.consumer = consumer
        self._read_only = read_only
        # Handlers can be called before the answer is here that there is a tracker.
        self.made = asyncio.Event()

    async def ready(self) -> None:
        """That this answers is all that is asked."""

    async def change(
        self, diff: int, number: int, identity: str, destination: str, reset: bool
    ) -> bool:
        await self.made.wait()
        self.consumer.enter()
        async with self._inside(number, identity, writable=not self._read_only) as transaction:
            context = RemoteContext(self._database, transaction, diff, destination, reset)
            await self.consumer.handle(context)
        return self._waits_for_end(number)

    async def failed(self, plain: Plain) -> None:
        await self.made.wait()
        self.consumer.enter()
        error = self._database.peer.errors.read(plain)
        await self.consumer.report(error)  # type: ignore[arg-type]


class RemoteContext(DiffContext):
    """What a handler works with, when its records are at a server."""

    def __init__(
        self,
        database: RemoteDatabase,
        transaction: Transaction,
        number: int,
        destination: str,
        reset: bool,
    ) -> None:
        super().__init__(transaction, destination, reset)
        self._database = database
        self._number = number

    async def with_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        return await self._ask("with_diff", sql, params)

    async def with_extracted_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        return await self._ask("with_extracted_diff", sql, params)

    async def _ask(self, method: str, sql: str, params: Parameters) -> list[Row]:
        self.transaction.check_ended()
        rows = await self._database.peer.call(
            self._number, method, sql, plain_parameters(params, sql)
        )
        return wire.read_rows(rows)


class RemoteTrigger(DiffTrigger):
    """A trigger of a database that a server has."""

    def __init__(
        self, database: RemoteDatabase, number: int, record: Plain, temporary: bool
    ) -> None:
        super().__init__(facts(parse_record(record), temporary=temporary))
        self.number = number
        self._database = database
        self._gone = False

    @property
    def gone(self) -> bool:
        return self._gone or self._database.closed

    def forget(self) -> None:
        """It was disposed of there."""
        self._gone = True
        self._database.peer.tell(self.number, "forget")

    async def dispose(self, transaction: Transaction | None = None) -> None:
        if self.gone:
            return
        number = None
        if transaction is None:
            self._database.check_open(own=True)
        else:
            number = _number(transaction, self._database)
        await self._database.peer.call(self.number, "dispose", number)


class RemoteTracker(DiffTracker):
    """A tracker of a database that a server has."""

    def __init__(
        self, database: RemoteDatabase, trigger: RemoteTrigger, consumer: Consumer
    ) -> None:
        self._database = database
        self._trigger = trigger
        self._consumer = consumer

    @property
    def trigger(self) -> RemoteTrigger:
        return self._trigger

    @property
    def ended(self) -> bool:
        return self._trigger.gone

    async def stop(self) -> None:
        self._consumer.check_not_handling()
        if self._trigger.gone:
            return
        self._database.check_open(own=True)
        peer, number = self._database.peer, self._trigger.number
        if self._consumer.is_reporting:
            peer.tell(number, "end")
            return
        await peer.call(number, "stop")


def _plain_options(options: Options) -> dict[str, Any]:
    """The options as they are sent."""
    plain: dict[str, Any] = {
        "source": options.source,
        # As the application gave it: the server checks and completes it again.
        "when": {str(key): "TRUE" if text is None else text for key, text in options.when.items()},
        "columns": None if options.columns is None else list(options.columns),
        "persist": options.persist,
        "only_changed": options.only_changed,
        "before_create": options.before_create is not None,
    }
    if options.max_backlog is not None:
        plain["max_backlog"] = options.max_backlog
    return plain


def _number(transaction: Transaction, database: RemoteDatabase) -> int:
    """What the server knows it by. TypeError, ValueError: it cannot be used for this."""
    remote = check_transaction(transaction, database, RemoteTransaction)
    remote.check_ended()
    return remote.number
