"""A managed trigger of this connection, and how it goes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from ..api.nesting import outside
from ..api.transactions import Transaction, check_transaction
from ..api.triggers import DiffTrigger, TriggerFacts
from ..session.transactions import LocalTransaction
from .insisting import PASSING, insist
from .registry import Record, drop

if TYPE_CHECKING:
    from ..bounds import Bound
    from ..session.session import Session


class LocalTrigger(DiffTrigger):
    """A trigger that a connection of this interpreter made."""

    def __init__(
        self,
        session: Session,
        record: Record,
        *,
        temporary: bool,
        on_gone: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(facts(record, temporary=temporary))
        self.record = record
        self._session = session
        self._on_gone = on_gone
        self._gone = False
        # Set by what shows it elsewhere: called when it is dropped, or was never made.
        self.when_gone: Callable[[], None] = lambda: None
        # Set once a disposal failed that nothing else would make good.
        self._later: asyncio.Task[None] | None = None

    @property
    def temporary(self) -> bool:
        """Whether it is in the temporary schema, and not in the database."""
        return not self.persisted

    @property
    def gone(self) -> bool:
        return self._gone

    async def dispose(self, transaction: Transaction | None = None) -> None:
        if transaction is not None:
            if not self._gone:
                tx = check_transaction(transaction, self._session, LocalTransaction)
                with self._session.mender.own():
                    drop(tx, self.record, temporary=self.temporary)
                transaction.on_commit(self.finish)
            return
        await self.dispose_within(self._session.bound())

    async def dispose_within(self, bound: Bound) -> None:
        """`dispose` as a step of a call with that bound; what fails is done later."""
        try:
            await self._dispose(bound)
        except (*PASSING, asyncio.CancelledError):
            if not self._gone and self._later is None:
                self._later = outside().run(self._session.start, self._dispose_in_the_end())
            raise

    async def _dispose_in_the_end(self) -> None:
        what = f"dropping the trigger of {self.source!r}"
        await insist(self._session, what, lambda: self._dispose(self._session.bound()))

    async def _dispose(self, bound: Bound) -> None:
        if self._gone:
            return
        async with self._session.own_transaction(bound) as tx:
            # Nothing is dropped twice: another call may have been waiting, too.
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


def facts(record: Record, *, temporary: bool) -> TriggerFacts:
    """What the application may know of it."""
    return TriggerFacts(
        record.id, record.source, record.destination, record.operations, not temporary
    )
