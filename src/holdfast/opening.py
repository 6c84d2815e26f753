"""`holdfast.open`."""

from __future__ import annotations

from collections.abc import Generator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .api import Database
from .local.opening import Name, as_name, check_options, open_here
from .remote.where import elsewhere

if TYPE_CHECKING:
    from .holds import TriggerHoldManager
    from .schema import Schema


class open:
    """Open a database: `db = await holdfast.open("notes.db")`, or `async with holdfast.open(…)`.

    name: in a browser one or more segments parted by "/", none of them empty, "." or "..";
        on CPython a path, as a str or an os.PathLike. Aliases and symlinks of a file are one
        database.
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
        name: Name,
        schema: Schema | None = None,
        storage: str = "auto",
        persist_triggers: bool | None = None,
        hold_manager: TriggerHoldManager | None = None,
        synchronous: str = "full",
        busy_timeout: float = 10.0,
        worker: str | None = None,
    ) -> None:
        self._name = as_name(name)
        check_options(schema, persist_triggers, hold_manager, synchronous, busy_timeout)
        if worker is not None and not isinstance(worker, str):
            raise TypeError(f"worker must be a URL as a str, not {type(worker).__name__}")
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
        opened = open_here if there is None else there.open
        return await opened(
            self._name,
            schema=self._schema,
            storage=self._storage,
            persist_triggers=self._persist_triggers,
            hold_manager=self._hold_manager,
            synchronous=self._synchronous,
            busy_timeout=self._busy_timeout,
        )

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
