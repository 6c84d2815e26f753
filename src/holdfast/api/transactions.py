"""`Transaction`: what an application does inside a transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from ..sqlite.rows import ExecuteResult, Parameters, Row
from .nesting import Callback, run_callbacks
from .options import check_callable

if TYPE_CHECKING:
    import apsw

T = TypeVar("T", bound="Transaction")


class Transaction(ABC):
    """One open transaction; made by `write_transaction()` and `read_transaction()`.

    Inside a write transaction `fetch_*` see its own changes, and take statements with RETURNING.
    Every method raises DatabaseClosedError once the transaction has ended; also when SQLite has
    rolled all of it back after an error (OR ROLLBACK, a full disk), for what came next would
    otherwise be committed by itself.
    """

    def __init__(self, owner: object, *, writable: bool) -> None:
        self.owner = owner
        self.writable = writable
        self.committed = False
        self._open = True
        self._why_ended = "has ended; use it inside its `async with` block only"
        self._on_commit: list[Callback] = []
        self._on_rollback: list[Callback] = []

    @property
    @abstractmethod
    def id(self) -> str:
        """Unique among all tabs."""

    @property
    def is_open(self) -> bool:
        """Whether it has not ended yet."""
        return self._open

    @property
    @abstractmethod
    def connection(self) -> apsw.Connection:
        """The raw connection. Statements that run there are part of this transaction, unchecked.

        Its cursors are closed with the transaction: one that was not read to its end would keep
        the snapshot, and go on reading where others write by then.
        AttributeError: it lives in another interpreter.
        """

    @abstractmethod
    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        """Run one statement. ValueError: several statements, or a write in a read transaction."""

    @abstractmethod
    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        """Run one statement once for each of `seq_of_params`."""

    @abstractmethod
    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row."""

    @abstractmethod
    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None."""

    @abstractmethod
    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None."""

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """A part that is undone alone: an exception in the block rolls back to its start."""
        name = await self._save()
        commits, rollbacks = len(self._on_commit), len(self._on_rollback)
        try:
            yield
        except BaseException:
            undone = self._on_rollback[rollbacks:]
            del self._on_commit[commits:], self._on_rollback[rollbacks:]
            if self._open:
                await self._undo(name)
            await run_callbacks(reversed(undone), self.owner)
            raise
        if self._open:
            await self._release(name)

    def on_commit(self, callback: Callback) -> None:
        """Call (and await) `callback` after the commit. TypeError: it cannot be called.

        ValueError: this is a read transaction, which has no commit; here and below.
        """
        self._check_callback(callback)
        self._on_commit.append(callback)

    def on_rollback(self, callback: Callback) -> None:
        """Call (and await) `callback` after the rollback, also of the savepoint it is set in."""
        self._check_callback(callback)
        self._on_rollback.append(callback)

    def _check_callback(self, callback: object) -> None:
        check_callable(callback, "what is to run after a transaction", optional=False)
        if not self.writable:
            raise ValueError(
                "a read transaction commits nothing and rolls nothing back, so nothing runs after "
                "it; use write_transaction(), or do it after the block"
            )

    # -- for the database ------------------------------------------------------------------------

    @abstractmethod
    def check_ended(self) -> None:
        """DatabaseClosedError: it has ended, as far as this interpreter knows."""

    def end(self, why: str | None = None) -> None:
        """No more statements; `why` is for the error that the next one raises."""
        self._open = False
        if why is not None:
            self._why_ended = why

    def callbacks(self) -> list[Callback]:
        """What is to run now that it has ended."""
        return self._on_commit if self.committed else self._on_rollback[::-1]

    @property
    def has_callbacks(self) -> bool:
        """Whether anything is to run when it ends."""
        return bool(self._on_commit or self._on_rollback)

    @abstractmethod
    async def _save(self) -> str:
        """Begin a savepoint; gives its name."""

    @abstractmethod
    async def _undo(self, name: str) -> None:
        """Roll back to that savepoint, and end it."""

    @abstractmethod
    async def _release(self, name: str) -> None:
        """End that savepoint, and keep what was done in it."""


def check_transaction(transaction: object, owner: object, kind: type[T]) -> T:
    """The transaction, in which a trigger of `owner` can be made or dropped. TypeError, ValueError.

    kind: the class of the owner's transactions.
    """
    if not isinstance(transaction, Transaction):
        raise TypeError(f"transaction must be a Transaction, not {transaction!r}")
    if transaction.owner is not owner or not isinstance(transaction, kind):
        raise ValueError("the transaction is another database's; give one of this database")
    if not transaction.writable:
        raise ValueError("the transaction only reads; give one of write_transaction()")
    return transaction
