"""The triggers of a database that a server has, and the handlers that it calls here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from ..session.transactions import Transaction, run_callbacks, write_transactions
from ..sqlite.parameters import plain_parameters
from ..sqlite.rows import Parameters, Row
from ..triggers.context import DiffContext
from ..triggers.manager import BeforeCreate, TriggerManager, check_transaction
from ..triggers.operations import DiffOperation, When
from ..triggers.options import check_callable, check_destination, check_options, check_throttle
from ..triggers.records import DiffRecord
from ..triggers.registry import TrackedTrigger, parse_record
from ..triggers.tracker import DiffTracker, Handler, OnError, _current
from ..triggers.trigger import DiffTrigger
from . import wire
from .transactions import RemoteTransaction

if TYPE_CHECKING:
    from .database import RemoteDatabase

logger = logging.getLogger("holdfast")

Plain = Any


class RemoteTriggerManager(TriggerManager):
    """`Database.triggers` of a database that a server has."""

    def __init__(self, database: RemoteDatabase) -> None:
        self._remote = database

    async def create_diff_trigger(
        self,
        source: str,
        destination: str,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        transaction: Transaction | None = None,
        only_changed: bool = False,
    ) -> DiffTrigger:
        options = _plain_options(source, when, columns, persist, before_create, only_changed)
        options["destination"] = check_destination(destination)
        client = _Setup(self._remote, before_create)
        number, record, temporary = await self._create(
            "create_diff_trigger", options, client, transaction
        )
        client.trigger = RemoteTrigger(self._remote, number, record, temporary)
        return client.trigger

    async def track_table_diff(
        self,
        source: str,
        on_change: Handler,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        transaction: Transaction | None = None,
        only_changed: bool = False,
        throttle: float = 0.03,
        on_error: OnError | None = None,
        max_backlog: int | None = None,
    ) -> DiffTracker:
        check_callable(on_change, "on_change", optional=False)
        check_callable(on_error, "on_error")
        options = _plain_options(
            source, when, columns, persist, before_create, only_changed, max_backlog
        )
        options["throttle"] = check_throttle(throttle)
        client = _Handlers(self._remote, before_create)
        number, record, temporary = await self._create(
            "track_table_diff", options, client, transaction
        )
        client.trigger = RemoteTrigger(self._remote, number, record, temporary)
        tracker = RemoteTracker(self._remote, client.trigger, on_change, on_error)
        client.tracker.set_result(tracker)
        return tracker

    async def diffs(
        self,
        source: str,
        when: When | None = None,
        columns: Sequence[str] | None = None,
        persist: bool | None = None,
        before_create: BeforeCreate | None = None,
        only_changed: bool = False,
        throttle: float = 0.03,
        max_backlog: int | None = None,
        net: bool = False,
    ) -> AsyncGenerator[list[DiffRecord]]:
        options = _plain_options(
            source, when, columns, persist, before_create, only_changed, max_backlog
        )
        options |= {"throttle": check_throttle(throttle), "net": bool(net)}
        database = self._remote
        database._check_open()
        number = database._peer.export(_Setup(database, before_create))
        try:
            async with aclosing(database._stream("diffs", options, number)) as stream:
                async for batch in stream:
                    yield wire.read_diff(batch)
        finally:
            database._peer.forget(number)

    async def tracked(self) -> list[TrackedTrigger]:
        self._remote._check_open()
        return [wire.read_tracked(each) for each in await self._remote._call("tracked")]

    async def sweep(self) -> list[TrackedTrigger]:
        self._remote._check_open()
        return [wire.read_tracked(each) for each in await self._remote._call("sweep")]

    async def _create(  # type: ignore[override]
        self, method: str, options: Plain, client: _Setup, transaction: Transaction | None
    ) -> Plain:
        database = self._remote
        if transaction is None:
            database._check_open()
        else:
            options["transaction"] = _number(transaction, database)
            client.given = transaction
        peer = database._peer

        async def undo(made: Plain) -> None:
            await peer.call(made[0], "dispose", options.get("transaction"))

        number = peer.export(client)
        client.forget = lambda: peer.forget(number)
        try:
            return await peer.obtain(undo, database._number, method, options, number)
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
            self.trigger._gone = True
            self._database._peer.tell(self.trigger._number, "forget")
        self.forget()

    @asynccontextmanager
    async def _inside(
        self, number: int, identity: str, given: Transaction | None = None
    ) -> AsyncIterator[Transaction]:
        """A transaction that the server lends to a function of the application's."""
        if given is not None:
            yield given
            return
        lent = RemoteTransaction(self._database, number, identity, writable=True)
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
        if lent is None or not (lent._on_commit or lent._on_rollback):
            return False
        self._lent[number] = lent
        return True


class _Handlers(_Setup):
    """The same for a tracker."""

    def __init__(
        self,
        database: RemoteDatabase,
        before_create: BeforeCreate | None,
    ) -> None:
        super().__init__(database, before_create)
        # Handlers can be called before the answer is here that there is a tracker.
        self.tracker: asyncio.Future[RemoteTracker] = asyncio.get_running_loop().create_future()

    async def ready(self) -> None:
        """That this answers is all that is asked."""

    async def change(
        self, diff: int, number: int, identity: str, destination: str, reset: bool
    ) -> bool:
        tracker = await self.tracker
        _current.set(tracker)
        async with self._inside(number, identity) as transaction:
            await tracker._call_handler(RemoteContext(transaction, diff, destination, reset))
        return self._waits_for_end(number)

    async def failed(self, plain: Plain) -> None:
        tracker = await self.tracker
        _current.set(tracker)
        error = self._database._peer.errors.read(plain)
        await tracker._report(error)  # type: ignore[arg-type]


class RemoteContext(DiffContext):
    """What a handler works with, when its records are at a server."""

    def __init__(
        self, transaction: Transaction, number: int, destination: str, reset: bool
    ) -> None:
        self.transaction = transaction
        self.destination = destination
        self.reset = reset
        self._number = number

    async def with_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        return await self._ask("with_diff", sql, params)

    async def with_extracted_diff(self, sql: str, params: Parameters = ()) -> list[Row]:
        return await self._ask("with_extracted_diff", sql, params)

    async def _ask(self, method: str, sql: str, params: Parameters) -> list[Row]:
        self.transaction.check_ended()
        peer = self.transaction.owner._peer  # type: ignore[attr-defined]
        return wire.read_rows(
            await peer.call(self._number, method, sql, plain_parameters(params, sql))
        )


class RemoteTrigger(DiffTrigger):
    """A trigger of a database that a server has."""

    def __init__(
        self, database: RemoteDatabase, number: int, record: Plain, temporary: bool
    ) -> None:
        self.record = parse_record(record)
        self.temporary = temporary
        self._remote = database
        self._number = number
        self._gone = False

    @property
    def gone(self) -> bool:
        return self._gone or self._remote.closed

    async def dispose(self, transaction: Transaction | None = None) -> None:
        if self.gone:
            return
        number = None
        if transaction is None:
            self._remote._check_open(own=True)
        else:
            number = _number(transaction, self._remote)
        await self._remote._peer.call(self._number, "dispose", number)


class RemoteTracker(DiffTracker):
    """A tracker of a database that a server has."""

    def __init__(
        self,
        database: RemoteDatabase,
        trigger: RemoteTrigger,
        handler: Handler,
        on_error: OnError | None,
    ) -> None:
        self._remote = database
        self._owner = database
        self._trigger = trigger
        self._number = trigger._number
        self._handler = handler
        self._on_error = on_error
        self._handling = False
        self._reporting = False

    @property
    def _ended(self) -> bool:  # type: ignore[override]
        return self._trigger.gone

    async def stop(self) -> None:
        mine = _current.get() is self
        if mine and self._handling:
            raise self._waits_for_itself()
        if self._trigger.gone:
            return
        self._remote._check_open(own=True)
        peer, number = self._remote._peer, self._number
        if mine and self._reporting:
            peer.tell(number, "end")
            return
        await peer.call(number, "stop")


def _plain_options(
    source: str,
    when: When | None,
    columns: Sequence[str] | None,
    persist: bool | None,
    before_create: BeforeCreate | None,
    only_changed: bool,
    max_backlog: int | None = None,
) -> dict[str, Any]:
    """The options as they are sent, checked."""
    checked = check_options(
        source, when, columns, persist, True, before_create, only_changed, max_backlog
    )
    options: dict[str, Any] = {
        "source": source,
        "when": None
        if when is None
        else {str(DiffOperation(key)): text for key, text in when.items()},
        "columns": None if checked.columns is None else list(checked.columns),
        "persist": persist,
        "only_changed": only_changed,
        "before_create": before_create is not None,
    }
    if max_backlog is not None:
        options["max_backlog"] = max_backlog
    return options


def _number(transaction: Transaction, database: RemoteDatabase) -> int:
    """What the server knows it by. TypeError, ValueError: it cannot be used for this."""
    check_transaction(transaction, database)
    transaction.check_ended()
    number: int = transaction.number  # type: ignore[attr-defined]
    return number
