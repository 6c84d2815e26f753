"""Databases that are ordinary files, as a whole: see ../store.py.

Who has one open is told by SQLite's own lock: in WAL mode every connection keeps the file locked,
shared, for as long as it is open. A scratch file stands beside its database, under a hold of its
own, which the kernel releases when its process dies:

    <database>-scratch-<id>    while the hold "scratch-<id>" of the database is held
"""

from __future__ import annotations

import asyncio
import ctypes
import errno
import glob
import logging
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from typing import BinaryIO, TypeVar

import apsw

from ...bounds import Bound
from ...errors import DatabaseBusyError, NotADatabaseError, StorageUnavailableError
from ...sqlite.space import FULL
from ...unique import unique
from ..base import check_not_memory, retry_while_busy
from ..store import (
    HEADER,
    MAGIC,
    Scratch,
    Store,
    check_no_wal,
    configure,
    holds_database,
    is_journal,
    leave_wal,
    prepare,
    release,
)
from .guard import FileGuard
from .refusals import explaining

logger = logging.getLogger("holdfast")

T = TypeVar("T")

_BESIDE = ("-wal", "-shm", "-journal")
_SCRATCH = re.compile(r"-scratch-[0-9a-f]{32}$")


def database_path(name: str) -> str:
    """Where the database `name` is. ValueError: no database can have that name."""
    check_not_memory(name)
    if name.endswith(os.sep):
        raise ValueError(f"{name!r} is the name of a folder; leave out the {os.sep!r} at its end")
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        raise ValueError(
            f"the name of a database has a lone surrogate, which no file's name has: {name!r}"
        ) from None
    path = os.path.realpath(name)
    if path.endswith(_BESIDE) or _SCRATCH.search(path):
        raise ValueError(
            f"{name!r} is the name of a file that SQLite keeps beside a database; choose another"
        )
    try:
        # The longest of the names beside it.
        os.lstat(f"{path}-scratch-{'0' * 32}-journal")
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise ValueError(
                f"the name of a database is too long: {name!r}. The file system must take it with "
                "49 bytes more, for files that are kept beside the database; choose a shorter one"
            ) from None
    return path


def check_database(name: str, path: str) -> None:
    """Nothing, an empty file or a database is there, which may be damaged.

    NotADatabaseError: a file of something else, which a wrong name would destroy. What SQLite
    keeps beside a database tells, where that has lost its header.
    StorageUnavailableError: a device, a pipe, a folder or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # Not there, or not to be seen: SQLite tells.
        return
    if not stat.S_ISREG(mode):
        raise StorageUnavailableError(
            f"{name!r} is a folder, a device, a pipe or a socket, not a file; it was left as it "
            "is. Give the name of a file"
        )
    opened = _open_here()
    header = _begin(path, opened)
    if not (
        not header
        or header[:16] == MAGIC
        or os.path.exists(path + "-wal")
        or is_journal(_begin(path + "-journal", opened))
    ):
        raise NotADatabaseError(
            f"{name!r} is not a SQLite database; it was left as it is. Choose another name, or "
            "remove the file yourself"
        )


def was_removed(raw: apsw.Connection) -> bool:
    """Whether the file that a connection has open is not at its path any more."""
    moved = ctypes.c_int(0)
    raw.file_control("main", apsw.SQLITE_FCNTL_HAS_MOVED, ctypes.addressof(moved))
    return bool(moved.value)


def names(folder: str | None) -> list[str]:
    """The databases of a folder, not of those in it."""
    opened = _open_here()
    try:
        entries = list(os.scandir(folder or "."))
    except ValueError:
        raise ValueError(
            f"folder {folder!r} has a NUL character or a lone surrogate, which no file's name has"
        ) from None
    except OSError as error:
        raise StorageUnavailableError(
            f"the folder {folder or '.'!r} cannot be read ({error}); is it there, and may you read "
            "it?"
        ) from error
    return sorted(
        entry.name if folder is None else os.path.join(folder, entry.name)
        for entry in entries
        if entry.is_file()
        and not entry.name.endswith(_BESIDE)
        and not _SCRATCH.search(entry.name)
        and holds_database(_begin(entry.path, opened), _begin(entry.path + "-journal", opened))
    )


def has_foreign_wal(path: str) -> bool:
    """Whether a database without a WAL lies beside one with transactions: another database's.

    SQLite removes a WAL before it writes the header of a database with a rollback journal, and
    would replay this one over it.
    """
    try:
        # Nothing locks a WAL itself, so closing it does no harm. It is read first: a database that
        # another process converts has its new header before its first transaction in the WAL.
        with open(path + "-wal", "rb", buffering=0) as file:
            wal = file.read(56)
    except OSError:
        return False
    # The header's magic number, and its salts, which are those of the first frame.
    if wal[:3] != b"\x37\x7f\x06" or len(wal) < 56 or wal[16:24] != wal[40:48]:
        return False
    header = _begin(path, _open_here())
    return header[:16] == MAGIC and header[18] == 1


def _begin(path: str, opened: dict[tuple[int, int], int]) -> bytes:
    # A file that this process has open is read by that descriptor, and no other: closing one takes
    # away all locks that SQLite has on the file in this process (sqlite.org/howtocorrupt.html,
    # section 2.2). Where the system does not tell what is open, SQLite itself opens it, which
    # keeps at least its own locks on a database.
    try:
        there = os.stat(path)
        if not opened:
            flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READONLY
            file = apsw.VFSFile("", path, [flags, 0])
            try:
                return file.xRead(min(HEADER, file.xFileSize()), 0)
            finally:
                file.xClose()
        if (descriptor := opened.get((there.st_dev, there.st_ino))) is not None:
            return os.pread(descriptor, HEADER, 0)
        with open(path, "rb", buffering=0) as plain:
            return plain.read(HEADER)
    except (OSError, apsw.CantOpenError):
        # Not there, or not to be read by us: no database of ours.
        return b""


def _open_here() -> dict[tuple[int, int], int]:
    """A descriptor of each file that this process has open to read, by device and inode."""
    found = {}
    with suppress(FileNotFoundError):
        for name in os.listdir("/proc/self/fd"):
            # OSError: it is closed by now, as the list's own is, or cannot be read like a file.
            with suppress(OSError):
                os.pread(int(name), 0, 0)
                there = os.fstat(int(name))
                found[there.st_dev, there.st_ino] = int(name)
    return found


class FileStore(Store):
    """A database that is an ordinary file."""

    def __init__(self, name: str) -> None:
        from ...holds import FileTriggerHoldManager

        super().__init__(name)
        self.path = database_path(name)
        self._holds = FileTriggerHoldManager(self.path)

    # -- scratch ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        id = unique()
        with self.explaining():
            await self.discard()
            give_back = await self._holds.obtain_hold(f"scratch-{id}")
        try:
            with ExitStack() as stack:
                with self.explaining():
                    scratch = stack.enter_context(_FileScratch(f"{self.path}-scratch-{id}"))
                yield scratch
        finally:
            await asyncio.shield(give_back())

    async def discard(self) -> bool:
        # In this order: what is listed and not held by then has lost its owner.
        found = [
            path
            for path in glob.glob(f"{glob.escape(self.path)}-scratch-*")
            if _SCRATCH.search(path)
        ]
        if not (found or self._holds.folder.is_dir()):
            return True
        try:
            held = await self._holds.held()
        except DatabaseBusyError as error:
            logger.debug("what dead processes left beside %r stays for now: %s", self.name, error)
            return False
        for path in found:
            if path.removeprefix(self.path + "-") not in held:
                _remove(path)
        return True

    # -- alone -----------------------------------------------------------------------------------

    async def check_free(self, bound: Bound) -> None:
        def attempt() -> None:
            with self._locked():
                """The lock was granted, so no other connection has it open."""

        with self.explaining():
            check_database(self.name, self.path)
            if os.path.exists(self.path):
                await self._retry(bound, attempt)

    @asynccontextmanager
    async def replacing(self, bound: Bound) -> AsyncIterator[apsw.Connection]:
        flags = apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE
        was_there = os.path.exists(self.path)
        with ExitStack() as stack:
            with self.explaining():
                stack.enter_context(FileGuard.using(self.path))
                check_database(self.name, self.path)
                try:
                    raw = await self._claim(bound, flags, prepare)
                except (apsw.NotADBError, apsw.CorruptError):
                    await self._retry(bound, self._empty_rubbish)
                    raw = await self._claim(bound, flags, prepare)
            try:
                yield raw
                with self.explaining():
                    release(raw)
                    _flush_folder(self.path)
            finally:
                raw.close(True)
                if not was_there:
                    self._remove_empty()

    async def delete(self, bound: Bound) -> bool:
        await self.discard()
        with self.explaining():
            check_database(self.name, self.path)
            if not os.path.exists(self.path):
                return False
            with FileGuard.using(self.path):
                await self._delete(bound)
            # The holds of the dead go, and their folder with them.
            await self._holds.held()
        return True

    async def _delete(self, bound: Bound) -> None:
        try:
            raw = await self._claim(bound, apsw.SQLITE_OPEN_READWRITE, _only_the_file)
        except (apsw.NotADBError, apsw.CorruptError, *FULL):
            # Nothing can be made of it, or SQLite lacks the space to make it whole first.
            await self._retry(bound, self._unlink_as_it_is)
            return
        try:
            if sys.platform == "win32":  # which removes no open file
                raw.close(True)
            # Whole without what is beside it, which would do harm beside a new database of that
            # name.
            self._unlink_beside()
            self._unlink()
        finally:
            raw.close(True)

    async def _claim(
        self, bound: Bound, flags: int, take: Callable[[apsw.Connection], None]
    ) -> apsw.Connection:
        def attempt() -> apsw.Connection:
            raw = apsw.Connection(self.path, flags=flags)
            try:
                take(raw)
                if was_removed(raw):
                    raise apsw.BusyError("the file was replaced meanwhile")
            except BaseException:
                raw.close(True)
                raise
            return raw

        return await self._retry(bound, attempt)

    async def _retry(self, bound: Bound, attempt: Callable[[], T]) -> T:
        try:
            result: T = await retry_while_busy(self.name, bound, attempt)
        except DatabaseBusyError as error:
            raise self.busy(bound) from error
        return result

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold SQLite's exclusive lock on the file. apsw.BusyError: another connection has it."""
        flags = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_READWRITE
        file = apsw.VFSFile("", self.path, [flags, 0])
        try:
            file.xLock(apsw.SQLITE_LOCK_SHARED)
            file.xLock(apsw.SQLITE_LOCK_EXCLUSIVE)
            yield
        finally:
            file.xUnlock(apsw.SQLITE_LOCK_NONE)
            file.xClose()

    def _empty_rubbish(self) -> None:
        with self._locked():
            # First: what is beside it tells that it was a database. Beside an empty one SQLite
            # throws that away.
            os.truncate(self.path, 0)
            self._unlink_beside()

    def _unlink_as_it_is(self) -> None:
        with self._locked():
            os.truncate(self.path, 0)
            self._unlink_beside()
            self._unlink()

    def _remove_empty(self) -> None:
        """What SQLite made to lock it; another may have begun a database there meanwhile."""
        if not os.path.getsize(self.path):
            with suppress(apsw.BusyError), self._locked():
                if not os.path.getsize(self.path):
                    self._unlink()

    def _unlink(self) -> None:
        os.unlink(self.path)
        _flush_folder(self.path)

    def _unlink_beside(self) -> None:
        for suffix in _BESIDE:
            with suppress(FileNotFoundError):
                os.unlink(self.path + suffix)

    # -- the rest --------------------------------------------------------------------------------

    async def work(self, connection: apsw.Connection, function: Callable[[], T]) -> T:
        task = asyncio.ensure_future(asyncio.to_thread(function))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            # It uses the connection, so it ends before anything else, cancelled again or not.
            connection.interrupt()
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([task])
            # The interruption is expected; an exception that is never retrieved would be logged.
            if not task.cancelled():
                task.exception()
            raise

    @contextmanager
    def explaining(self) -> Generator[None]:
        with super().explaining(), explaining(self.name, "written"):
            yield


class _FileScratch(Scratch):
    def __init__(self, path: str) -> None:
        self.path = self._path = path
        self._file: BinaryIO

    def __enter__(self) -> _FileScratch:
        self._file = open(self._path, "xb+", buffering=0)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        _remove(self._path)

    def append(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) :]

    def size(self) -> int:
        return os.path.getsize(self._path)

    def read(self, at: int, n: int) -> bytes:
        self._file.seek(at)
        return self._file.read(n)

    def connect(self) -> apsw.Connection:
        return apsw.Connection(self._path, flags=apsw.SQLITE_OPEN_READWRITE)


def _only_the_file(raw: apsw.Connection) -> None:
    """Take a database alone, with nothing beside it that SQLite would remove when it closes."""
    configure(raw)
    leave_wal(raw)
    raw.execute("BEGIN EXCLUSIVE")
    check_no_wal(raw)


def _remove(path: str) -> None:
    for each in (path, *(path + suffix for suffix in _BESIDE)):
        with suppress(FileNotFoundError):
            os.unlink(each)


def _flush_folder(path: str) -> None:
    """Make the names in a file's folder durable; Windows does that by itself."""
    if sys.platform != "win32":
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
