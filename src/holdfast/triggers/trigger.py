"""A managed trigger of this connection, and how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING

from .operations import DiffOperation
from .registry import Record, drop

if TYPE_CHECKING:
    from ..bounds import Bound
    from ..session.session import Session
    from ..session.transactions import Transaction


class DiffTrigger:
    """Records the changes of `source` in the table `destination` until it is disposed of."""

    def __init__(
        self,
        session: Session,
        record: Record,
        *,
        temporary: bool,
        on_gone: Callable[[str], Awaitable[None]],
    ) -> None:
        self.record = record
        self.temporary = temporary
        self._session = session
        self._on_gone = on_gone
        self._gone = False
        # Set by whoever shows it elsewhere: called when it is dropped, or was never made.
        self.when_gone: Callable[[], None] = lambda: None
        self._disposing = asyncio.Lock()

    @property
    def id(self) -> str:
        """The id of its hold, and of its `TrackedTrigger`."""
        return self.record.id

    @property
    def source(self) -> str:
        """The view or table, as the application calls it."""
        return self.record.source

    @property
    def destination(self) -> str:
        """The table that the records go to."""
        return self.record.destination

    @property
    def operations(self) -> tuple[DiffOperation, ...]:
        return self.record.operations

    @property
    def persisted(self) -> bool:
        """Whether it fires for the writes of every tab, or of this connection only."""
        return not self.temporary

    @property
    def gone(self) -> bool:
        """Whether it was disposed of."""
        return self._gone

    def __repr__(self) -> str:
        state = "disposed" if self._gone else "live"
        return f"<holdfast.DiffTrigger {self.source!r} to {self.destination!r}, {state}>"

    async def dispose(self, transaction: Transaction | None = None) -> None:
        """Drop the triggers, the destination and the record in one transaction; idempotent.

        transaction: do it in there; the trigger goes, and its hold is released, when that commits.
        NestedTransactionError: inside a write transaction that was not given.
        """
        if transaction is not None:
            if not self._gone:
                with self._session.mender.own():
                    drop(transaction, self.record, temporary=self.temporary)
                transaction.on_commit(self.finish)
            return
        await self.dispose_within(self._session.bound())

    async def dispose_within(self, bound: Bound) -> None:
        """`dispose` as a step of a call with that bound."""
        async with self._disposing:
            if self._gone:
                return
            async with self._session.own_transaction(bound) as tx:
                with self._session.mender.own():
                    drop(tx, self.record, temporary=self.temporary)
            await self.finish()

    async def finish(self) -> None:
        """It is dropped, or was never made: give up its hold."""
        if not self._gone:
            self._gone = True
            try:
                await self._on_gone(self.id)
            finally:
                self.when_gone()

    async def __aenter__(self) -> DiffTrigger:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.dispose()
