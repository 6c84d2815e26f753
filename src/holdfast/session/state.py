"""One connection to one database: its locks, its open transactions, its tasks, its commits."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Iterator, Set
from functools import partial
from typing import Any

from ..bounds import Bound
from ..giving_back import give_back, keep
from ..sqlite.connection import Connection, Touched
from ..sqlite.settings import Settings
from ..storage import Storage
from ..unique import unique
from .announcements import Announcement, Announcements
from .closing import Closing, describe, warn_of_dropped
from .mender import Mender
from .transactions import LocalTransaction

# A loop of awaited calls that never wait would keep the event loop, and with it the messages of
# other tabs, from running: after this long, in seconds, a call lets others go first.
SLICE = 0.008


class SessionState:
    """What reading and writing share; `Session` adds how they are done."""

    def __init__(self, storage: Storage, main: Connection, mender: Mender) -> None:
        self.storage = storage
        self.main = main
        self.mender = mender
        if main.settings is None:
            main.share(Settings())
        # Tells this connection's records from those of others.
        self.origin = unique()
        self.announcements = Announcements()
        # Held by the task that uses the main connection.
        self.writer_lock = storage.writer_lock
        self.closing = Closing(self)
        self.open_transactions: set[LocalTransaction] = set()
        self.last_yield = time.monotonic()
        # What close() waits for, and what it cancels because it never ends.
        self.tasks: set[asyncio.Task[None]] = set()
        self.loops: set[asyncio.Task[None]] = set()
        # Commits that are being made durable; nothing ends them.
        self.commits: set[asyncio.Future[None]] = set()
        # Called before each commit with what it wrote; whether it wrote something too.
        self.before_commit: Callable[[LocalTransaction, Touched], bool] = lambda tx, touched: False

    @property
    def name(self) -> str:
        """The name that the database was opened with."""
        return self.storage.name

    @property
    def kind(self) -> str:
        """Where it lives: "opfs", "indexeddb", "file" or "memory"."""
        return self.storage.kind

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self.closing.begun

    def __repr__(self) -> str:
        return describe(self)

    def __del__(self) -> None:
        # One whose making failed has none.
        if hasattr(self, "closing"):
            warn_of_dropped(self)

    # -- waiting ---------------------------------------------------------------------------------

    def bound(self) -> Bound:
        """How long a call that begins now may wait."""
        return Bound(self.storage.busy_timeout)

    def may_go_on(self) -> bool:
        """Whether the main connection can be used now, without letting others go first."""
        return not self.writer_lock.locked() and time.monotonic() - self.last_yield < SLICE

    async def let_others_go(self) -> None:
        if time.monotonic() - self.last_yield >= SLICE:
            await self.storage.let_others_go()
            self.last_yield = time.monotonic()

    @contextlib.contextmanager
    def unless_closed(self) -> Iterator[None]:
        """Errors of what was closed while it was used, as DatabaseClosedError."""
        try:
            yield
        except Exception:
            self.closing.check_open()
            raise

    # -- commits ---------------------------------------------------------------------------------

    async def commit(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Wait until it has succeeded or failed, also if this task is cancelled meanwhile.

        Cancelled, this raises CancelledError after it has succeeded.
        """
        task = keep(coroutine)
        # What the caller does when it goes on, up to its next await, belongs to the commit.
        gone_on: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for each in (task, gone_on):
            self.commits.add(each)
            each.add_done_callback(self.commits.discard)
        cancelled: asyncio.CancelledError | None = None
        try:
            while not task.done():
                try:
                    await asyncio.wait({task})
                except asyncio.CancelledError as error:
                    cancelled = error
        finally:
            gone_on.set_result(None)
        task.result()
        if cancelled is not None:
            raise cancelled

    def committed(self, tables: Set[str]) -> frozenset[str] | None:
        """Right after a COMMIT that wrote to `tables`: those of them that others have as well.

        None: it changed nothing that they have.
        """
        if not self.storage.committed(self.main):
            return None
        if not self.main.statements.made_temporary:
            return frozenset(tables)
        sql = "SELECT name FROM temp.sqlite_master EXCEPT SELECT name FROM main.sqlite_master"
        own = {name for (name,) in self.main.run(sql)}
        if self.storage.shares_temporary:
            # The triggers of others have their records there.
            own -= self.main.temporary_destinations
        return frozenset(tables - own)

    def announce(self, tables: frozenset[str], ddl: bool, shared: frozenset[str] | None) -> None:
        """Tell of a commit of this connection: of `tables` here, of those `shared` elsewhere."""
        if shared is not None or ddl:
            self.storage.announce(shared or frozenset(), ddl)
        if tables or ddl:
            self.announcements.deliver(Announcement(tables, remote=False, ddl=ddl))

    def forget_statements(self) -> None:
        """The schema changed, and with it what is known of statements."""
        self.main.statements.forget()

    # -- tasks -----------------------------------------------------------------------------------

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Something that comes to an end; close() waits for that."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def start_loop(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Something that goes on until the database is closed or dropped."""
        self.loops.add(asyncio.get_running_loop().create_task(coroutine))

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.closing.log_failure(task)

    async def end_transactions(self) -> None:
        # Their users may be waiting for anything, so what they hold is taken back from them.
        for transaction in list(self.open_transactions):
            end = partial(transaction.end, "was rolled back, because the database was closed")
            await give_back(end, transaction.leave)

    async def end_tasks(self) -> None:
        for loop in self.loops:
            loop.cancel()
        if tasks := self.loops | self.tasks:
            await asyncio.wait(tasks)
