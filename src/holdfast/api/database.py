"""`Database`: what an application does with a database."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Iterable
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import apsw

from ..sqlite.rows import ExecuteResult, Parameters, Row
from .options import OnProgress, check_names, check_throttle
from .transactions import Transaction
from .triggers import TriggerManager

if TYPE_CHECKING:
    from ..storage import StorageStatus


class TableChange(NamedTuple):
    """What `Database.changes` gives: the changed tables by the application's names for them."""

    tables: frozenset[str]
    remote: bool


class Database(AbstractAsyncContextManager["Database"]):
    """One connection to a database; made by `holdfast.open()`."""

    triggers: TriggerManager
    """Its managed diff triggers."""

    # -- what it is ------------------------------------------------------------------------------

    @property
    @abstractmethod
    def name(self) -> str:
        """The name that it was opened with."""

    @property
    @abstractmethod
    def storage(self) -> str:
        """Where it lives: "opfs", "indexeddb", "file" or "memory"."""

    @property
    @abstractmethod
    def persists_triggers(self) -> bool:
        """Whether triggers are persisted unless their creator says otherwise."""

    @property
    @abstractmethod
    def closed(self) -> bool:
        """Whether close() was called, or what had the database is gone."""

    # -- statements --------------------------------------------------------------------------------

    @abstractmethod
    async def execute(self, sql: str, params: Parameters = ()) -> ExecuteResult:
        """Run one statement, in a write transaction of its own if it writes.

        ValueError: several statements (none is run), or one that controls transactions.
        NestedTransactionError: inside a write transaction of this database.
        """

    @abstractmethod
    async def execute_many(self, sql: str, seq_of_params: Iterable[Parameters]) -> ExecuteResult:
        """Run one statement for each of `seq_of_params`, in one write transaction."""

    @abstractmethod
    async def fetch_all(self, sql: str, params: Parameters = ()) -> list[Row]:
        """Every row. ValueError: the statement writes (it is not run)."""

    @abstractmethod
    async def fetch_one(self, sql: str, params: Parameters = ()) -> Row | None:
        """The first row, or None. ValueError: the statement writes (it is not run)."""

    @abstractmethod
    async def fetch_value(self, sql: str, params: Parameters = ()) -> Any:
        """The first column of the first row, or None."""

    # -- transactions ------------------------------------------------------------------------------

    @abstractmethod
    def write_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.write_transaction() as tx`: commits on leaving, rolls back on an error.

        One at a time among all connections of the database; others wait their turn.
        DatabaseBusyError: they waited longer than the bound. NestedTransactionError: inside
        another write transaction of this database.
        """

    @abstractmethod
    def read_transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """`async with db.read_transaction() as tx`: one snapshot, while writers go on beside it.

        Temporary tables of the database are not seen in it.
        """

    # -- changes -----------------------------------------------------------------------------------

    def changes(self, tables: Iterable[str] | None = None) -> AsyncIterator[TableChange]:
        """An async iterator of what is committed, by this connection or another.

        Gives a `TableChange` for each committed transaction of this connection that wrote to one
        of `tables` (None: any); commits of others that were found together may come as one. A
        commit of a program without holdfast names every table, for it does not say which it wrote.
        Begins to listen at the first `anext`; ends when the database is closed. Of who asks too
        rarely, changes that wait are gathered: their tables come as one.
        StorageUnavailableError: the database is gone, for the site's data was cleared.
        """
        return self._changes(check_names(tables, "tables"))

    def watch(
        self, sql: str, params: Parameters = (), throttle: float = 0.03, distinct: bool = True
    ) -> AsyncIterator[list[Row]]:
        """An async iterator of the rows of a query: now, and after each change to what it reads.

        Changes that come within `throttle` seconds of the last rows are given as one. Begins to
        listen at the first `anext`; ends when the database is closed.
        distinct: leave out rows that are as they were the last time.
        StorageUnavailableError: the database is gone, for the site's data was cleared.
        """
        return self._watch(sql, params, check_throttle(throttle), distinct)

    # -- the file ----------------------------------------------------------------------------------

    async def export(self, *, on_progress: OnProgress | None = None) -> bytes:
        """One snapshot of everything, as a standard SQLite file; others write on meanwhile.

        It has a rollback journal's header, so that `deserialize` takes it, and nothing of managed
        triggers. on_progress(done, total): called now and then, with the bytes done and in all.
        For what is too large for memory, see `export_chunks`. QuotaExceededError: while it is
        made, an export takes as much space as the database. Where much of that is free it is
        written once more without, if there is space for both. MemoryError: there is not enough for
        all of it in one piece.
        """
        try:
            return b"".join([chunk async for chunk in self.export_chunks(on_progress=on_progress)])
        except (MemoryError, apsw.NoMemError) as error:
            raise MemoryError(
                f"there is not enough memory for an export of {self.name!r} in one piece; "
                "export_chunks() gives it in parts of 1 MiB"
            ) from error

    @abstractmethod
    def export_chunks(self, *, on_progress: OnProgress | None = None) -> AsyncIterator[bytes]:
        """The same as an async iterator of parts of 1 MiB; the memory it takes is bounded.

        The snapshot is taken at the first `anext`. Whoever may leave early closes it
        (`contextlib.aclosing`), which removes the copy that it reads from.
        """

    # -- life --------------------------------------------------------------------------------------

    @abstractmethod
    async def status(self) -> StorageStatus:
        """What is known of the storage: see `StorageStatus`."""

    @abstractmethod
    def rest(self) -> None:
        """Give up what no transaction needs: the tab is hidden, frozen or left."""

    @abstractmethod
    async def close(self) -> None:
        """Give everything back; idempotent.

        Open transactions are rolled back (their users get DatabaseClosedError), handlers in
        flight are waited for, this connection's triggers are disposed of and their holds
        released; then others can import or delete it at once. It is one piece of work, which every
        caller waits for and which goes on if a caller is cancelled. Called by something that it
        waits for itself, as on_error or what runs after a commit, it does not wait.
        NestedTransactionError: inside a write transaction of this database, or a handler.
        """

    # -- what a kind of database fills in --------------------------------------------------------

    @abstractmethod
    def _changes(self, tables: tuple[str, ...] | None) -> AsyncIterator[TableChange]: ...

    @abstractmethod
    def _watch(
        self, sql: str, params: Parameters, throttle: float, distinct: bool
    ) -> AsyncIterator[list[Row]]: ...

    async def __aexit__(self, *error: object) -> None:
        await self.close()
