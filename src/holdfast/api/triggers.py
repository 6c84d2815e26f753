"""`Database.triggers`, and the triggers and trackers that it makes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from typing import NamedTuple

from .handlers import BeforeCreate, Handler, OnError
from .operations import DiffOperation, When
from .options import Options, check_callable, check_destination, check_options, check_throttle
from .records import DiffRecord, TrackedTrigger
from .transactions import Transaction


class TriggerFacts(NamedTuple):
    """What there is to know of a trigger from its making on."""

    id: str
    source: str
    destination: str
    operations: tuple[DiffOperation, ...]
    persisted: bool


class DiffTrigger(AbstractAsyncContextManager["DiffTrigger"]):
    """Records the changes of `source` in the table `destination` until it is disposed of."""

    def __init__(self, facts: TriggerFacts) -> None:
        self._facts = facts

    @property
    def id(self) -> str:
        """The id of its hold, and of its `TrackedTrigger`."""
        return self._facts.id

    @property
    def source(self) -> str:
        """The view or table, as the application calls it."""
        return self._facts.source

    @property
    def destination(self) -> str:
        """The table that the records go to."""
        return self._facts.destination

    @property
    def operations(self) -> tuple[DiffOperation, ...]:
        """The operations that it records."""
        return self._facts.operations

    @property
    def persisted(self) -> bool:
        """Whether it fires for the writes of every tab, or of this connection only."""
        return self._facts.persisted

    @property
    @abstractmethod
    def gone(self) -> bool:
        """Whether it was disposed of."""

    @abstractmethod
    async def dispose(self, transaction: Transaction | None = None) -> None:
        """Drop the triggers, the destination and the record in one transaction; idempotent.

        transaction: do it in there; the trigger goes, and its hold is released, when that commits.
        DatabaseBusyError: others wrote for longer than the bound of this call; it goes as soon as
        they let it, as it does after a call that was cancelled.
        NestedTransactionError: inside a write transaction that was not given.
        """

    async def __aexit__(self, *error: object) -> None:
        await self.dispose()

    def __repr__(self) -> str:
        state = "disposed" if self.gone else "live"
        return f"<holdfast.DiffTrigger {self.source!r} to {self.destination!r}, {state}>"


class DiffTracker(AbstractAsyncContextManager["DiffTracker"]):
    """Follows one source; made by `track_table_diff`. Ends by `stop()` or `async with`."""

    @property
    @abstractmethod
    def trigger(self) -> DiffTrigger:
        """The trigger that feeds it."""

    @property
    @abstractmethod
    def ended(self) -> bool:
        """Whether its handler is not called any more."""

    @property
    def source(self) -> str:
        """The view or table, as the application calls it."""
        return self.trigger.source

    @property
    def destination(self) -> str:
        """The table that the records go to."""
        return self.trigger.destination

    @abstractmethod
    async def stop(self) -> None:
        """Wait for a handler in flight, then dispose of the trigger; idempotent.

        DatabaseBusyError: others wrote for longer than the bound of this call; no handler is
        called any more, and the trigger goes as soon as they let it.
        NestedTransactionError: called from the tracker's own handler, which it would wait for.
        """

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    def __repr__(self) -> str:
        return f"<holdfast.DiffTracker of {self.source!r}, {'ended' if self.ended else 'live'}>"


class TriggerManager(ABC):
    """`Database.triggers`: see `create_diff_trigger`, `track_table_diff` and `diffs`."""

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
        """Record the changes of `source` in a table of their own until that is disposed of.

        source: a view of the schema, or any ordinary table.
        destination: the table to make: operation_id INTEGER PRIMARY KEY, id, operation, timestamp,
            value and previous_value TEXT, then columns of holdfast's own.
        when: for each operation to record an SQL expression over NEW and OLD, the source's
            columns; "TRUE" for always. None: every operation, always. SQLite evaluates it within
            the write: if it fails for some row, the write fails.
        columns: what `value` and `previous_value` have; None: all, []: nothing but the key.
        persist: whether writes of every tab count, or those of this connection only; None: as
            `Database.persists_triggers`.
        before_create: async callable(tx), called first in the same transaction.
        transaction: set up inside this one. If that fails it undoes its own part only.
        only_changed: leave out updates after which every recorded column is as it was.

        TypeError, ValueError, UnknownSourceError, InvalidWhenError, DestinationInUseError: nothing
        was created.
        """
        options = check_options(source, when, columns, persist, before_create, only_changed)
        return await self._create(check_destination(destination), options, transaction)

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
        read_only: bool = False,
    ) -> DiffTracker:
        """Call `on_change(ctx)` with the changes of `source`, until the tracker is stopped.

        on_change: async callable(DiffContext), run in a write transaction together with the
            removal of the records. If it raises they are kept and it is called again.
        read_only: run it in a read transaction. Nothing is written when it returns, so a tab that
            only looks on keeps no other from writing; the records are removed a while later.
        throttle: at most one call in so many seconds.
        on_error: async callable(error), called once for each failure; None: they are logged.
        max_backlog: keep no more records than this; past it they are discarded, on_error gets a
            BacklogExceededError and the next context has `reset` set.
        The other arguments and errors are those of `create_diff_trigger`.
        """
        check_callable(on_change, "on_change", optional=False)
        check_callable(on_error, "on_error")
        throttle = check_throttle(throttle)
        if not isinstance(read_only, bool):
            raise TypeError(f"read_only must be True or False, not {read_only!r}")
        options = check_options(
            source, when, columns, persist, before_create, only_changed, max_backlog
        )
        return await self._track(options, on_change, on_error, throttle, transaction, read_only)

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
        """An async iterator of what changed in `source`, from the first `anext` on.

        Gives lists of `DiffRecord`, in order, none empty. Asking for the next one acknowledges
        the last. Ends when the database is closed.
        net: fold each list to one record per key, see `fold_diff`.
        BacklogExceededError, SourceDroppedError, InvalidWhenError: it ends, after what was
        recorded before; for the rest see `track_table_diff`.
        """
        throttle = check_throttle(throttle)
        options = check_options(
            source, when, columns, persist, before_create, only_changed, max_backlog
        )
        async with aclosing(self._stream(options, throttle, bool(net))) as batches:
            async for records in batches:
                yield records

    @abstractmethod
    async def tracked(self) -> list[TrackedTrigger]:
        """The persisted triggers of every tab, the oldest first, and whether their owners live."""

    @abstractmethod
    async def sweep(self) -> list[TrackedTrigger]:
        """Drop what dead tabs left; gives what was reclaimed."""

    # -- what a kind of database fills in --------------------------------------------------------

    @abstractmethod
    async def _create(
        self, destination: str, options: Options, transaction: Transaction | None
    ) -> DiffTrigger: ...

    @abstractmethod
    async def _track(
        self,
        options: Options,
        on_change: Handler,
        on_error: OnError | None,
        throttle: float,
        transaction: Transaction | None,
        read_only: bool,
    ) -> DiffTracker: ...

    @abstractmethod
    def _stream(
        self, options: Options, throttle: float, net: bool
    ) -> AsyncGenerator[list[DiffRecord]]: ...
