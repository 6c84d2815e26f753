"""storage="file": an ordinary SQLite file on CPython, shared by the processes of a machine.

SQLite's own file locks do what leases do in a browser. Connections of one process tell each other
what they committed, and those of other processes by a `FileChannel`; what is not told is noticed by
the database's own look-out (`has_news`).

    on the channel, text   a JSON list
    -----------------------------------------------------------------------------------------
    [process, tables, ddl, step]   a transaction was committed in the process that calls itself
                                   this; the names of its tables, whether the schema changed, and
                                   the numbers of commits before and after it (see ../history.py)
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
from typing import TYPE_CHECKING

import apsw

from ...bounds import Bound
from ...errors import NotADatabaseError, StorageUnavailableError
from ...giving_back import give_back
from ...sqlite.connection import Connection
from ...sqlite.settings import RawConnection
from ...unique import unique
from ..base import Storage, StorageStatus, retry_while_busy
from ..history import History, Step
from .channel import FileChannel
from .guard import FileGuard
from .refusals import explaining
from .store import FileStore, check_database, database_path, has_foreign_wal, was_removed
from .wal_index import count_commits

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...holds import TriggerHoldManager

logger = logging.getLogger("holdfast")

# This process among those that share a file. Numbers of processes are not unique among containers.
_process = unique()


def _rename() -> None:
    global _process
    _process = unique()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_rename)

# Between two attempts to write, in seconds: much less than a turn of `turns.TURN`.
_LONGEST_PAUSE = 0.003

# The storages of this process that have a file open, by the file's identity.
_open: dict[tuple[int, int], list[FileStorage]] = {}
_open_lock = threading.Lock()


class FileStorage(Storage):
    """One connection to a SQLite file."""

    kind = "file"
    persists_triggers = True
    occupants = "other tasks of this process, or another process that these wait for,"

    def __init__(self, name: str, synchronous: str) -> None:
        super().__init__(name, synchronous)
        self.path = database_path(name)
        self._loop = asyncio.get_running_loop()
        # Device and inode: what the file is, whatever its names are.
        self._identity = (0, 0)
        self._guard: FileGuard
        # The commits until the write transaction that is open began.
        self._begun = 0
        self._watched: apsw.Connection | None = None
        self._history = History(0)
        # When the transaction began: the commits until then, and what the connection had written.
        self._began = (0, 0)
        # A write found no space; the next one begins with a checkpoint.
        self._is_full = False
        # Of a commit that is yet to be announced.
        self._step: Step | None = None
        self._channel: FileChannel | None = None

    async def open(self, bound: Bound) -> Connection:
        with explaining(self.name, "opened"):
            check_database(self.name, self.path)
            await self.store().discard()
            self._check_links()

        def attempt() -> Connection:
            guard = FileGuard.enter(self.path)
            try:
                guard.check_files(anew=True)
                guard.claim_name(self.path)
                if has_foreign_wal(self.path):
                    raise NotADatabaseError(
                        f"the WAL beside {self.name!r} was written for another database: replaying "
                        "it would destroy this one. Both were left as they are; put the right WAL "
                        "there, or remove it"
                    )
                flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
                connection = self._connect(flags, guard.keep)
            except BaseException:
                guard.leave()
                raise
            self._guard = guard
            return connection

        with explaining(self.name, "opened"):
            connection: Connection = await retry_while_busy(
                f"opening {self.name!r}", bound, attempt
            )
        try:
            with explaining(self.name, "opened"):
                self._begin(connection.raw)
            with _open_lock:
                _open.setdefault(self._identity, []).append(self)
            self._channel = FileChannel.open(self._identity, self._heard)
        except BaseException:
            await give_back(lambda: self.disconnect(connection), self.close)
            raise
        return connection

    def _begin(self, raw: apsw.Connection) -> None:
        stat = os.stat(self.path)
        self._identity = (stat.st_dev, stat.st_ino)
        self._watched = raw
        # The first read of a connection makes its wal-index.
        raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
        self._history = History(count_commits(raw))

    def _check_links(self) -> None:
        """StorageUnavailableError: it is open here by another hard link.

        SQLite finds a WAL by the name of its database, so each would have one of its own.
        """
        try:
            stat = os.stat(self.path)
        except FileNotFoundError:
            return
        folder, name = os.path.split(self.path)
        with _open_lock:
            paths = {other.path for other in _open.get((stat.st_dev, stat.st_ino), [])}
        for path in paths - {self.path}:
            other, other_name = os.path.split(path)
            # A folder may be mounted twice.
            if not (name == other_name and os.path.samefile(folder, other)):
                raise StorageUnavailableError(
                    f"{self.name!r} is a hard link of {path!r}, which is open; SQLite would damage "
                    "a file that is written by two names. Open it by one of them"
                )

    async def connect_reader(self, bound: Bound) -> Connection:
        def attempt() -> Connection:
            self._guard.check_files()
            return self._connect(apsw.SQLITE_OPEN_READWRITE)

        with explaining(self.name, "opened"):
            connection: Connection = await retry_while_busy(
                f"reading {self.name!r}", bound, attempt
            )
        connection.raw.execute("PRAGMA query_only = ON")
        return connection

    def _connect(
        self, flags: int, keep: Callable[[apsw.Connection], None] = lambda raw: None
    ) -> Connection:
        raw = RawConnection(self.path, flags=flags)
        try:
            _check_there(raw)
            mode = raw.execute("PRAGMA journal_mode = WAL").get
            if mode != "wal":
                raise StorageUnavailableError(
                    f"{self.name!r} does not take journal_mode=WAL (it stays {mode!r}); "
                    "network file systems and read-only media cannot be used"
                )
            # From here on it is locked, and cannot be deleted any more.
            _check_there(raw)
            self.configure(raw)
            keep(raw)
            return Connection(raw)
        except BaseException:
            raw.close(True)
            raise

    def store(self) -> FileStore:
        return FileStore(self.path)

    def default_hold_manager(self) -> TriggerHoldManager:
        from ...holds import FileTriggerHoldManager

        return FileTriggerHoldManager(self.path, self.busy_timeout)

    def disconnect(self, connection: Connection) -> None:
        self._guard.part(connection.raw)

    # -- access ----------------------------------------------------------------------------------

    def begin_read_now(self, connection: Connection) -> bool:
        self._guard.check_files()
        return True

    async def begin_read(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        self._guard.check_files()

    def pin(self) -> Callable[[], None]:
        return self._guard.pin()

    def begin_write_now(self, connection: Connection) -> bool:
        if self._is_full:
            return False
        try:
            self._begun = self._guard.begin_write(connection.raw)
        except apsw.BusyError:
            return False
        self._note_beginning(connection)
        return True

    async def begin_write(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        def attempt() -> None:
            if self._is_full:
                self._is_full = False
                self._checkpoint(connection)
            self._begun = self._guard.begin_write(connection.raw, waits=True)

        try:
            await retry_while_busy(
                f"writing to {self.name!r}", bound, attempt, longest_pause=_LONGEST_PAUSE
            )
        except BaseException:
            self._guard.give_up()
            raise
        self._note_beginning(connection)

    def make_room(self) -> bool:
        self._is_full = True
        return True

    def _checkpoint(self, connection: Connection) -> None:
        """Copy the WAL into the file, so that the next transaction begins it anew in place."""
        self._guard.check_files(anew=True)
        try:
            connection.raw.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_RESTART)
        except (apsw.FullError, apsw.BusyError) as error:
            # The file cannot grow, or a reader uses the WAL. The transaction says what
            # comes of it.
            logger.debug("no checkpoint of %r: %s", self.name, error)

    def _note_beginning(self, connection: Connection) -> None:
        self._began = self._begun, _pages_written(connection.raw)

    def committed(self, connection: Connection) -> bool:
        count, written = self._began
        if _pages_written(connection.raw) == written:
            return False
        # Others may have committed since, but not between the beginning and this commit.
        self._step = count, (count + 1) % 2**32
        self._history.add(self._step)
        return True

    def commit_now(self, connection: Connection) -> None:
        self._guard.commit(connection.raw, self._begun)

    async def settle(self, connection: Connection) -> None:
        self._guard.check_files(anew=True)

    def leave_transaction(self) -> None:
        self._guard.give_lock()

    def end_write(self, connection: Connection) -> None:
        self._guard.end_write()

    def end_write_now(self) -> None:
        self._guard.end_write()

    # -- the others ------------------------------------------------------------------------------

    def announce(self, tables: frozenset[str], ddl: bool) -> None:
        step, self._step = self._step, None
        with _open_lock:
            others = [other for other in _open.get(self._identity, []) if other is not self]
        for other in others:
            # Another database of this process may live on another thread's loop.
            try:
                other._loop.call_soon_threadsafe(other._told, tables, ddl, step)
            except RuntimeError:
                # Its loop is closed, so it needs no announcements.
                with _open_lock:
                    _open[self._identity].remove(other)
        if self._channel is not None:
            try:
                if self._channel.others():
                    self._channel.post(json.dumps([_process, sorted(tables), ddl, step]))
            except OSError as error:
                # It is committed; the others' own look-out finds it.
                logger.debug("other processes are not told of a commit: %s", error)

    def _heard(self, text: str) -> None:
        process, tables, ddl, step = json.loads(text)
        if process != _process:
            self._told(frozenset(tables), ddl, step)

    def _told(self, tables: frozenset[str], ddl: bool, step: Step | None) -> None:
        if step is not None:
            self._history.add(step)
        self.on_announcement(tables, ddl)

    async def is_alone(self) -> bool:
        with _open_lock:
            here = len(_open.get(self._identity, []))
        return here <= 1 and (self._channel is None or not self._channel.reaches_others())

    async def has_news(self) -> bool | None:
        if self._watched is None:
            return False
        return self._history.missed(count_commits(self._watched))

    async def status(self) -> StorageStatus:
        usage = frames = 0
        for suffix in ("", "-wal"):
            try:
                size = os.path.getsize(self.path + suffix)
            except FileNotFoundError:
                continue
            usage += size
            if suffix and self._watched is not None:
                page = int(self._watched.execute("PRAGMA page_size").get)
                frames = max(0, size - 32) // (page + 24)
        return StorageStatus(storage=self.kind, persisted=True, usage=usage, wal_frames=frames)

    async def close(self) -> None:
        self._watched = None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        with _open_lock:
            storages = _open.get(self._identity, [])
            if self in storages:
                storages.remove(self)
            if not storages:
                _open.pop(self._identity, None)


def _pages_written(raw: apsw.Connection) -> int:
    """Rises with each commit that changes anything, and with no other."""
    return raw.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)[0]


def _check_there(raw: apsw.Connection) -> None:
    """apsw.BusyError: the file was deleted between its opening and now; open it again."""
    if was_removed(raw):
        raise apsw.BusyError("the database was deleted meanwhile")
