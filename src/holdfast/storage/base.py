"""What a storage offers to the database above it.

A storage is one connection's view of where the database lives: it opens SQLite connections, says
when they may read and write, and carries announcements to the other connections of the database,
in this process or not.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import apsw

from ..bounds import Bound, BoundedLock
from ..errors import DatabaseBusyError
from ..sqlite.connection import Connection

if TYPE_CHECKING:
    from ..holds import TriggerHoldManager
    from .store import Store

# How long a call waits for others before DatabaseBusyError, in seconds.
BUSY_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What `Database.status()` gives; None where unknown."""

    storage: str
    handle_mode: str | None = None
    """"shared" or "exclusive", of an `opfs` database."""
    persisted: bool | None = None
    """Whether the browser promised not to evict the site's data."""
    usage: int | None = None
    """Bytes that the site (or the database's files) takes, the WAL among them; see wal_frames."""
    quota: int | None = None
    """Bytes that the site may take."""
    wal_frames: int | None = None
    """Frames in the WAL, one page each. A long reader makes it grow; afterwards its space is used
    again, and given back when the last tab or process closes the database."""
    tabs: int | None = None
    """Tabs (workers) that have the database open, this one included."""


class Storage(ABC):
    """One connection's access to one database."""

    kind: ClassVar[str]
    # Whether triggers are persisted unless the caller says otherwise.
    persists_triggers: ClassVar[bool]
    # Whether connect() can be called again, for readers beside the writer.
    has_readers: ClassVar[bool] = True
    # Whether a COMMIT of SQLite's is all there is to a commit; else `commit` makes it durable.
    commits_at_once: ClassVar[bool] = True
    # Whether its databases have one connection, and with it one temporary schema.
    shares_temporary: ClassVar[bool] = False
    # How long an uncontended lock takes to be granted, in seconds: no bound is shorter.
    shortest_wait: ClassVar[float] = 0.0
    # Who keeps the main connection from a task that waits for it, as an error says it.
    occupants: ClassVar[str] = "other tasks of this tab, or another tab that these wait for,"
    # Hold ids of this database start with it.
    hold_prefix: str = ""

    def __init__(self, name: str, synchronous: str) -> None:
        self.name = name
        self.synchronous = synchronous
        self.busy_timeout = BUSY_TIMEOUT
        # The main connection belongs to one write transaction at a time.
        self.writer_lock = BoundedLock(f"{self.occupants} kept {name!r} busy")
        # Set by the database: (real table names or None for unknown, whether the schema changed).
        self.on_announcement: Callable[[frozenset[str] | None, bool], None] = lambda *_: None
        # Set by the database: a tab or process that had this database open is gone.
        self.on_peer_gone: Callable[[], None] = lambda: None

    @abstractmethod
    async def open(self, bound: Bound) -> Connection:
        """The main connection. StorageUnavailableError, DatabaseBusyError, NotADatabaseError."""

    @abstractmethod
    async def connect_reader(self, bound: Bound) -> Connection:
        """One more connection, which only reads."""

    def disconnect(self, connection: Connection) -> None:
        """The main connection is not needed any more."""
        connection.close()

    @abstractmethod
    def store(self) -> Store:
        """The database as a whole, for what needs a scratch file beside it."""

    @abstractmethod
    def default_hold_manager(self) -> TriggerHoldManager: ...

    # -- access ----------------------------------------------------------------------------------

    async def let_others_go(self) -> None:
        """Other tasks and what has come from other tabs go first."""
        await asyncio.sleep(0)

    def event(self) -> asyncio.Event:
        """An event that wakes its waiters as soon as this storage can."""
        return asyncio.Event()

    def begin_read_now(self, connection: Connection) -> bool:
        """Enter a read without waiting; False when that needs `begin_read`."""
        return True

    async def begin_read(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        """Enter a read; each is left by `end_read`.

        inside: the task is inside a read transaction of this database, whose end this cannot
            wait for.
        """

    def end_read(self) -> None:
        """Leave a read."""

    def pin(self) -> Callable[[], None]:
        """Keep the snapshot that a reader has just taken; gives what lets go of it."""
        return _nothing

    def write_waits(self) -> bool:
        """Whether a write transaction cannot begin before the event loop has turned."""
        return False

    @abstractmethod
    async def begin_write(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        """Enter and BEGIN a write transaction, alone among all connections of the database.

        inside: as in `begin_read`.
        """

    def commit_now(self, connection: Connection) -> None:
        """COMMIT, where that is all there is to a commit (`commits_at_once`)."""
        connection.raw.execute("COMMIT")

    async def commit(self, connection: Connection) -> None:
        """COMMIT; returns when it is durable. On an error it is still to be rolled back."""
        self.commit_now(connection)

    async def settle(self, connection: Connection) -> None:
        """After a statement that needs no COMMIT: returns when it is durable."""

    def end_write(self, connection: Connection) -> None:
        """Leave it, after COMMIT or ROLLBACK."""

    def leave_transaction(self) -> None:
        """What was begun by `begin_write` is rolled back, and a statement without it follows."""

    def begin_write_now(self, connection: Connection) -> bool:
        """Enter and BEGIN a write that ends before anything else can run.

        False when that needs `begin_write`. It is left by `end_write_now`.
        """
        return False

    def end_write_now(self) -> None:
        """Leave it, after COMMIT or ROLLBACK."""

    def make_room(self) -> bool:
        """A write transaction found no space: the next one begins with a checkpoint.

        A WAL that was checkpointed is begun anew in place, so that what frees space has room.
        False: there is nothing to be had by it.
        """
        return False

    # -- the others ------------------------------------------------------------------------------

    def committed(self, connection: Connection) -> bool:
        """Right after a COMMIT: whether it changed what the connections of the database share."""
        return False

    def announce(self, tables: frozenset[str], ddl: bool) -> None:
        """Tell the other connections of this database what was committed."""

    async def has_news(self) -> bool | None:
        """Whether another connection committed something that was not announced here.

        None: it may be announced yet; ask again soon. StorageUnavailableError: the database is
        gone, as it is when the site's data was cleared.
        """
        return False

    async def is_alone(self) -> bool:
        """Whether no other connection is known to have the database open."""
        return True

    async def discard(self) -> None:
        """After opening, beside all else: remove scratch files of tabs that died."""

    def rest(self) -> None:
        """The page is frozen, hidden or left: keep nothing that others would have to wait for."""

    async def status(self) -> StorageStatus:
        return StorageStatus(storage=self.kind)

    async def leaving(self, connection: Connection) -> None:
        """The main connection is about to be closed, the last of this storage."""

    async def close(self) -> None:
        """Give everything back; the connections are closed already."""

    # -- shared by the storages ------------------------------------------------------------------

    def configure(self, raw: apsw.Connection) -> None:
        """Settings that every connection of every storage has."""
        raw.execute("PRAGMA recursive_triggers = ON")
        raw.execute("PRAGMA temp_store = MEMORY")
        raw.execute(f"PRAGMA synchronous = {self.synchronous.upper()}")


def _nothing() -> None:
    """There is nothing to do."""


def check_not_memory(name: str) -> None:
    """ValueError: SQLite itself would take the name for that of a database in memory."""
    if name == ":memory:":
        raise ValueError(
            "':memory:' is no name of a file to SQLite; for a database that is gone with its "
            'opener use storage="memory"'
        )


async def retry_while_busy(
    what: str, bound: Bound, attempt: Callable[[], Any], *, longest_pause: float = 0.05
) -> Any:
    """`attempt()`, again with growing pauses while SQLite says BUSY, within the bound.

    Other processes' locks on a file end without an event that could be awaited.
    """
    pause = 0.001
    while True:
        try:
            return attempt()
        except apsw.BusyError as error:
            if bound.over:
                raise DatabaseBusyError(
                    f"{what}: other connections kept the database busy for {bound}; "
                    "try again, or look for a transaction that is left open"
                ) from error
        await asyncio.sleep(min(pause, bound.left))
        pause = min(pause * 1.5, longest_pause)
