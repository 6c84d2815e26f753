"""`holdfast.open`."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

import apsw

from .bounds import Bound
from .local.database import Database
from .remote.engine import elsewhere
from .schema import Schema
from .session.writing import no_space
from .storage import choose

if TYPE_CHECKING:
    from .holds import TriggerHoldManager


class open:
    """Open a database: `db = await holdfast.open("notes.db")`, or `async with holdfast.open(…)`.

    name: in a browser one or more segments parted by "/", none of them empty, "." or "..";
        on CPython a path. Aliases and symlinks of a file are one database.
    schema: JSON-backed views to make or bring up to date, see `Schema`.
    storage: "auto", "opfs", "indexeddb", "file" or "memory". "auto" tries the durable ones, and
        never becomes "memory". "indexeddb" is one connection for all pages, in a shared worker,
        which has the whole database in memory: some 100 MB are sensible.
    persist_triggers: whether managed triggers are stored in the database, so that every tab's
        writes fire them; None: True for "opfs" and "file".
    hold_manager: who keeps and tells holds; None: the storage's own.
    synchronous: "full" (an acknowledged commit survives a power cut) or "normal" (it survives
        the death of any process; a power cut may lose the last commits, never half of one).
    worker: where a page serves holdfast.mjs itself, for the worker of a page's main thread; None:
        it is made from the package, which a Content-Security-Policy without blob: forbids.
    busy_timeout: how long a call waits for other tabs, processes and transactions before it raises
        DatabaseBusyError, in seconds; for all of its steps together.

    Opening removes what dead tabs left behind before it returns. Raises TypeError or ValueError
    for an argument, StorageUnavailableError, DatabaseBusyError, NotADatabaseError.
    """

    def __init__(
        self,
        name: str,
        schema: Schema | None = None,
        storage: str = "auto",
        persist_triggers: bool | None = None,
        hold_manager: TriggerHoldManager | None = None,
        synchronous: str = "full",
        busy_timeout: float = 10.0,
        worker: str | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if schema is not None and not isinstance(schema, Schema):
            raise TypeError(f"schema must be a holdfast.Schema, not {type(schema).__name__}")
        if persist_triggers not in (None, True, False):
            raise TypeError(
                f"persist_triggers must be None, True or False, not {persist_triggers!r}"
            )
        if hold_manager is not None and not hasattr(hold_manager, "obtain_hold"):
            raise TypeError(
                f"hold_manager must be a TriggerHoldManager, not {type(hold_manager).__name__}"
            )
        if not isinstance(synchronous, str):
            raise TypeError(f"synchronous must be a str, not {type(synchronous).__name__}")
        if synchronous not in ("full", "normal"):
            raise ValueError(f'synchronous must be "full" or "normal", not {synchronous!r}')
        if not isinstance(busy_timeout, int | float):
            raise TypeError(
                f"busy_timeout must be a number of seconds, not {type(busy_timeout).__name__}"
            )
        if worker is not None and not isinstance(worker, str):
            raise TypeError(f"worker must be a URL as a str, not {type(worker).__name__}")
        if not busy_timeout >= 0:
            raise ValueError(f"busy_timeout must be 0 or more seconds, not {busy_timeout!r}")
        self._name = name
        self._schema = schema
        self._storage = storage
        self._persist_triggers = persist_triggers
        self._hold_manager = hold_manager
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._worker = worker
        self._database: Database | None = None

    async def _open(self) -> Database:
        there = await elsewhere(self._storage, self._worker)
        if there is None:
            return await self.here()
        return await there.open(
            self._name,
            schema=self._schema,
            storage=self._storage,
            persist_triggers=self._persist_triggers,
            hold_manager=self._hold_manager,
            synchronous=self._synchronous,
            busy_timeout=self._busy_timeout,
        )

    async def here(self) -> Database:
        """Open it in this interpreter, wherever databases live by default."""
        try:
            return await self._open_here()
        except apsw.FullError as error:
            raise no_space(self._name) from error

    async def _open_here(self) -> Database:
        storage = await choose(self._storage, self._name, self._synchronous)
        storage.busy_timeout = max(self._busy_timeout, storage.shortest_wait)
        bound = Bound(storage.busy_timeout)
        connection = await storage.open(bound)
        persists = self._persist_triggers
        database = Database(
            storage,
            connection,
            self._schema or Schema.undeclared(),
            storage.persists_triggers if persists is None else persists,
            self._hold_manager or storage.default_hold_manager(),
        )
        try:
            await database._begin(bound)
        except BaseException:
            await database.close()
            raise
        return database

    def __await__(self) -> Generator[Any, None, Database]:
        return self._open().__await__()

    async def __aenter__(self) -> Database:
        self._database = await self._open()
        return self._database

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._database is not None:
            await self._database.close()
