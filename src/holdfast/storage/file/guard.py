"""Locks that another SQLite of this process cannot take away from a database file.

SQLite's locks on a file are POSIX locks, which belong to the process: when anything in it closes
the file (the `sqlite3` module, pandas, `open(path).read()`), the kernel drops all of them, and
another SQLite of this process is never kept out by them (sqlite.org/howtocorrupt.html, section
2.2). A lock of an *open file description* (F_OFD_SETLK, Linux) belongs to one descriptor, and
conflicts with POSIX locks of the same process too. So each file that this process has open is
opened once more here, with its -shm, and locked while any connection of holdfast uses it:

    database   SHARED range       read    another SQLite's last close does not delete the WAL
    database   WRITE_AT, ours     write   one process of holdfast writes at a time
    database   NEXT_AT, ours      write   whose turn to write is next: see turns.py
    database   a name's, ours     read    no process opens it by another hard link
    -shm       the DMS byte       read    no SQLite takes the -shm for one that a crash has left
    -shm       marks of readers   read    no checkpoint passes a snapshot that is being read
    -shm       the write lock     write   no SQLite begins to write inside of a transaction

SQLite takes the write lock itself, when a transaction begins; ours would keep it out, like any
other SQLite. So ours takes the place of that one as soon as it is there. What another SQLite of
this process has locked before is seen by a descriptor of ours, and waited for.

A descriptor here is closed when nothing of holdfast in this process has the file open, and not
before: closing it would do what this prevents. Without such locks (other systems, file systems
that have none) what remains is to notice that one of the three files was removed or replaced.

Offsets: sqlite.org/walformat.html, section 2.3, and "os.h" in SQLite's sources.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import ClassVar

import apsw

from ...errors import DatabaseBusyError, StorageUnavailableError
from .ofd import AVAILABLE, NONE, READ, REFUSED, WRITE, Range, holder, set_lock, unlock_posix
from .turns import Turns
from .wal_index import REGION, count_commits, read_commits

logger = logging.getLogger("holdfast")

SHARED: Range = (0x4000_0002, 510)
# Behind all that SQLite locks in a database file.
WRITE_AT: Range = (0x4000_1000, 1)
# One byte for each name of a file, behind that.
_NAMES_AT, _NAMES = 0x4000_2000, 1 << 48
_SHM_WRITE: Range = (120, 1)
_SHM_READERS: tuple[Range, ...] = tuple((at, 1) for at in range(123, 128))
_SHM_DMS: Range = (128, 1)


# What a database consists of, by the ends of the names.
_FILES = (("the file", ""), ("the WAL of", "-wal"), ("the wal-index of", "-shm"))

# For so long, in seconds, a look at the files counts.
_FRESH = 0.001

# A folder's times tell of every change that came so long after the one before, in ns.
_TICK = 100_000_000

# The thread that opens or closes a file here is alone in that.
_lock = threading.RLock()


class FileGuard:
    """What this process holds of one file, for as long as anything of holdfast has it open."""

    _all: ClassVar[dict[tuple[int, int], FileGuard]] = {}

    def __init__(self, path: str, identity: tuple[int, int]) -> None:
        self.path = path
        self.identity = identity
        # Everybody who keeps the descriptors from being closed; those of them with a WAL.
        self._users = 0
        self._keepers = 0
        self._descriptors: list[int] = []
        self._database: int | None = None
        self._shm: int | None = None
        # The wal-index, while it is locked; mappings, which are closed with the descriptors.
        self._index: mmap.mmap | None = None
        self._mappings: list[mmap.mmap] = []
        # What the connections here have open: what it is, its path, its device and inode.
        self._places: list[tuple[str, str, tuple[int, int]]] = []
        # Their folder, and how it was when all of them were in it; None: they are looked at.
        self._folder = os.path.dirname(path)
        self._settled: tuple[int, ...] | None = None
        # When all that was last seen in its place.
        self._seen = -_FRESH
        self._writers = 0
        self._turns = Turns()
        # Marks of readers that are locked here, and for whom.
        self._pinned: dict[Range, set[object]] = {}

    # -- entering and leaving --------------------------------------------------------------------

    @classmethod
    def enter(cls, path: str) -> FileGuard:
        """The guard of a file, which is made if it is not there; left by `leave`."""
        with _lock:
            guard = cls._find(path)
            guard._users += 1
            return guard

    @classmethod
    def _find(cls, path: str) -> FileGuard:
        found = _identity(path)
        if found is not None and found in cls._all:
            return cls._all[found]
        if not AVAILABLE:
            return cls(path, found or (0, 0))
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            # SQLite says better what is wrong with it.
            logger.debug("%r is not guarded: %s", path, error)
            return cls(path, found or (0, 0))
        stat = os.fstat(descriptor)
        identity = (stat.st_dev, stat.st_ino)
        guard = cls._all.setdefault(identity, cls(path, identity))
        # A second one of the same file, which was renamed in between, is kept like the first.
        guard._descriptors.append(descriptor)
        guard._database = guard._descriptors[0]
        return guard

    @classmethod
    @contextmanager
    def using(cls, path: str) -> Generator[None]:
        """A connection of holdfast's may be on the file in this block."""
        guard = cls.enter(path)
        try:
            yield
        finally:
            guard.leave()

    def leave(self) -> None:
        """The connection that this was entered for is closed."""
        with _lock:
            self._users -= 1
            if not self._users:
                if self._all.get(self.identity) is self:
                    del self._all[self.identity]
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        for mapping in self._mappings:
            mapping.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._mappings, self._descriptors = [], []
        self._database = self._shm = self._index = None

    def claim_name(self, path: str) -> None:
        """Have the file by this name; SQLite finds a WAL by the name of its database.

        StorageUnavailableError: another process has it by another name, with another WAL.
        apsw.BusyError: another process claims it at this very moment.
        """
        with _lock:
            if self._keepers or self._database is None:
                return  # this process has it by this name, or no such locks
            place = _name_at(path)
            try:
                if _has_other_name(self._database, place):
                    raise StorageUnavailableError(
                        f"{path!r} is a hard link of a file that another process has open by "
                        "another name, or was renamed while that had it open; SQLite would damage "
                        "a file that is written by two names. Open it by one of them"
                    )
                set_lock(self._database, READ, (place, 1))
                if _has_other_name(self._database, place):
                    set_lock(self._database, NONE, (place, 1))
                    raise apsw.BusyError("another process opens it by another name")
            except OSError as error:
                logger.debug("the name of %r is not locked: %s", path, error)

    def keep(self, raw: apsw.Connection) -> None:
        """`raw` is open, with a WAL, and locked: so is the file from here on.

        apsw.BusyError: it is another file by now.
        """
        with _lock:
            if self._database is not None and _identity(self.path) != self.identity:
                raise apsw.BusyError("the database was replaced meanwhile")
            if not self._keepers:
                # Its first read makes the files that a WAL needs.
                raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
                self._secure()
                for what, suffix in _FILES:
                    if (found := _identity(self.path + suffix)) is not None:
                        self._places.append((what, self.path + suffix, found))
            self._keepers += 1

    def _secure(self) -> None:
        if self._database is None:
            return
        try:
            set_lock(self._database, READ, SHARED)
            # The -shm cannot be replaced any more.
            self._shm = os.open(self.path + "-shm", os.O_RDWR | os.O_CLOEXEC)
            self._descriptors.append(self._shm)
            set_lock(self._shm, READ, _SHM_DMS)
            # While the DMS byte is locked, no SQLite truncates it.
            if os.fstat(self._shm).st_size >= REGION:
                self._index = mmap.mmap(self._shm, REGION, access=mmap.ACCESS_READ)
                self._mappings.append(self._index)
        except OSError as error:
            self._loosen()
            self._database = None
            if error.errno in REFUSED:
                raise apsw.BusyError("another program has the database for itself") from error
            logger.warning(
                "%r cannot be locked as a whole (%s): do not open it with another SQLite in this "
                "process",
                self.path,
                error,
            )

    def _loosen(self) -> None:
        for descriptor in self._descriptors:
            set_lock(descriptor, NONE, (0, 0))
        self._turns = Turns()
        self._shm = self._index = None
        self._pinned.clear()

    def part(self, raw: apsw.Connection) -> None:
        """Close `raw`, a keeper's last connection; then leave.

        SQLite empties and removes the WAL with the last connection of all, for which it needs the
        file alone.
        """
        with _lock:
            self._keepers -= 1
            if not self._keepers:
                self._loosen()
            if self.lost():
                # What it would checkpoint is older than what others may have written since.
                raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            raw.close(True)
            if not self._keepers:
                self._places.clear()
            self.leave()

    # -- the files -------------------------------------------------------------------------------

    def lost(self) -> str:
        """Which file of the connections here is not the database's any more; "" if none is."""
        try:
            stat = os.stat(self._folder)
        except OSError:
            self._settled = None
            return self._lost()
        # Each change of a name in a folder changes its times.
        state = stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns
        if state == self._settled:
            return ""
        what = self._lost()
        # These are of a clock that ticks, in whole seconds on some file systems.
        settled = state[3] % 1_000_000_000 and abs(time.time_ns() - state[3]) > _TICK
        self._settled = state if settled and not what else None
        return what

    def _lost(self) -> str:
        for what, path, identity in self._places:
            try:
                stat = os.stat(path)
            except (FileNotFoundError, NotADirectoryError):
                return what
            if (stat.st_dev, stat.st_ino) != identity:
                return what
        return ""

    def check_files(self, *, anew: bool = False) -> None:
        """StorageUnavailableError: see `lost`.

        anew: look now, however fresh the last look is.
        """
        now = time.monotonic()
        if not anew and now - self._seen < _FRESH:
            return
        self._seen = now
        if what := self.lost():
            self._seen = -_FRESH
            raise StorageUnavailableError(
                f"{what} {self.path!r} was removed or replaced by another program while it was "
                "open here, so nothing can be committed to it; close the database everywhere in "
                "this process and open it again"
            )

    # -- writing ---------------------------------------------------------------------------------

    def begin_write(self, raw: apsw.Connection, *, waits: bool = False) -> int:
        """BEGIN, alone among all who write; gives the commits until then, which `commit` needs.

        waits: it is tried again until it succeeds, or until `give_up`.
        apsw.BusyError: another connection is writing, or another process is next.
        """
        self.check_files(anew=True)
        with _lock:
            if not self._writers and self._database is not None:
                self._take_turn(self._database, waits)
            self._writers += 1
        try:
            # SQLite is not kept out by what another SQLite of this process has locked.
            if self._shm is not None and holder(self._shm, _SHM_WRITE) is not None:
                raise apsw.BusyError("another SQLite is writing")
            raw.execute("BEGIN IMMEDIATE")
            commits = self._count(raw)
            self._take_lock()
            if self._count(raw) != commits:
                self.give_lock()
                raise apsw.BusyError("another process wrote at this very moment")
            return commits
        except BaseException:
            if raw.in_transaction:
                raw.execute("ROLLBACK")
            self._end_attempt()
            raise

    def _take_turn(self, database: int, waits: bool) -> None:
        if not self._turns.may_write(database):
            raise apsw.BusyError("another process is next to write")
        try:
            set_lock(database, WRITE, WRITE_AT)
        except OSError as error:
            if waits and error.errno in REFUSED:
                self._turns.refused(database)
            raise _busy(error) from error
        self._turns.obtained(database)

    def give_up(self) -> None:
        """No attempt to write is waited for any more; one that still waits says so again."""
        with _lock:
            if self._database is not None:
                self._turns.give_up(self._database)

    def _take_lock(self) -> None:
        """Have SQLite's write lock ourselves, instead of a connection here."""
        if self._shm is None:
            return
        unlock_posix(self._shm, _SHM_WRITE)
        try:
            set_lock(self._shm, WRITE, _SHM_WRITE)
        except OSError as error:
            raise _busy(error) from error

    def give_lock(self) -> None:
        """Leave SQLite's write lock to SQLite; without a transaction."""
        if self._shm is not None:
            set_lock(self._shm, NONE, _SHM_WRITE)

    def end_write(self) -> None:
        """After COMMIT or ROLLBACK."""
        self.give_lock()
        self._end_attempt()

    def _end_attempt(self) -> None:
        with _lock:
            self._writers -= 1
            if not self._writers and self._database is not None:
                set_lock(self._database, NONE, WRITE_AT)

    def commit(self, raw: apsw.Connection, begun: int) -> None:
        """COMMIT. DatabaseBusyError, StorageUnavailableError: it would damage what others wrote.

        begun: what `begin_write` gave. On an error it is still to be rolled back.
        """
        self.check_files()
        if raw.in_transaction and self._count(raw) != begun:
            raise DatabaseBusyError(
                f"another SQLite wrote to {self.path!r} inside of this transaction, because its "
                "locks were dropped when a program in this process closed the file, or keep no "
                "SQLite of this process out here; the transaction is rolled back. Try again, and "
                "write with one SQLite in a process"
            )
        raw.execute("COMMIT")
        self.check_files(anew=True)

    def _count(self, raw: apsw.Connection) -> int:
        return count_commits(raw) if self._index is None else read_commits(self._index)

    # -- reading ---------------------------------------------------------------------------------

    def pin(self) -> Callable[[], None]:
        """Keep the snapshots that are being read now; gives what lets go of them."""
        pinned = object()
        with _lock:
            for mark in _SHM_READERS:
                if mark in self._pinned or self._pin(mark):
                    self._pinned.setdefault(mark, set()).add(pinned)
        return lambda: self._unpin(pinned)

    def _pin(self, mark: Range) -> bool:
        if self._shm is None or holder(self._shm, mark) is None:
            return False
        try:
            set_lock(self._shm, READ, mark)
        except OSError as error:
            if error.errno not in REFUSED:
                raise
            # Another process is moving it, so no snapshot of ours depends on it.
            return False
        return True

    def _unpin(self, pinned: object) -> None:
        with _lock:
            for mark, users in list(self._pinned.items()):
                users.discard(pinned)
                if not users and self._shm is not None:
                    del self._pinned[mark]
                    set_lock(self._shm, NONE, mark)


def _name_at(path: str) -> int:
    """The byte of a name: the same for one that another mount of its folder has."""
    folder, name = os.path.split(path)
    text = f"{os.stat(folder).st_ino}/{name}".encode(errors="surrogateescape")
    digest = hashlib.blake2b(text, digest_size=6).digest()
    return _NAMES_AT + int.from_bytes(digest, "big")


def _has_other_name(descriptor: int, place: int) -> bool:
    """Whether another process has claimed any other name of the file."""
    others = (_NAMES_AT, place - _NAMES_AT), (place + 1, _NAMES_AT + _NAMES - place)
    # A length of 0 would mean all that follows.
    return any(at[1] and holder(descriptor, at) is not None for at in others)


def _identity(path: str) -> tuple[int, int] | None:
    try:
        stat = os.stat(path)
    except FileNotFoundError:
        return None
    return stat.st_dev, stat.st_ino


def _busy(error: OSError) -> Exception:
    """What to raise for a write lock that was not to be had."""
    return apsw.BusyError("another process is writing") if error.errno in REFUSED else error


# -- after a fork ----------------------------------------------------------------------------------


def _forget() -> None:
    """In a forked child: a lock would live on in its descriptors when the parent has died."""
    global _lock
    _lock = threading.RLock()
    for guard in FileGuard._all.values():
        guard._close_descriptors()
    FileGuard._all.clear()


if AVAILABLE:
    os.register_at_fork(after_in_child=_forget)
