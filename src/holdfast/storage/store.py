"""A database as a whole: import and deletion, which need it closed, and scratch copies.

How a database is replaced, in every storage:

    scratch     the new one is written to a scratch file, checked there, stripped
    claim       the old one is open nowhere, and cannot be opened
    prepare     its WAL is checkpointed and gone: from here on it has a rollback journal
    copy        every page, in one transaction of SQLite's
    release

The transaction is what makes it atomic: killed before it commits, the next who opens the database
finds SQLite's hot journal and rolls back to the old one; afterwards the new one is there. So
nothing has to be marked or redone, any program that knows SQLite recovers it, and where space runs
out the old database is still whole. A scratch file is nobody's database: it needs no flush, and
one whose owner died is discarded. (FileSystemFileHandle.move would save the copy, but no browser
says when a move is durable, and its two steps, the WAL and the file, could be torn apart.)

How one is deleted: its main file goes first, in one step, when nothing beside it is needed any
more. SQLite throws away a WAL or a journal that it finds beside an empty database.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import AbstractAsyncContextManager, aclosing, contextmanager
from typing import TypeVar

import apsw

from ..bounds import Bound
from ..errors import DatabaseBusyError, NotADatabaseError
from ..sqlite.space import FULL, is_full, no_space
from ..sqlite.sqltext import quote_name

T = TypeVar("T")

# SQLite's page cache for a connection that copies or checks, in KiB.
CACHE_KIB = 4000

# Bytes that are copied before others may go on.
STEP = 1 << 20

MAGIC = b"SQLite format 3\0"
_JOURNAL_MAGIC = b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7"
# What tells a database from other files: its header, and its journal's.
HEADER = 28


class Scratch(ABC):
    """A private file for one database; removed at the end of its context."""

    # What a connection to another scratch file of this storage calls it; None: it is in memory.
    path: str | None = None

    @abstractmethod
    def append(self, data: bytes | memoryview) -> None:
        """OSError, apsw.FullError: there is no space for it; see `Store.explaining`."""

    @abstractmethod
    def size(self) -> int:
        """In bytes."""

    @abstractmethod
    def read(self, at: int, n: int) -> bytes:
        """`n` bytes from `at` on, fewer at the end."""

    @abstractmethod
    def connect(self) -> apsw.Connection:
        """The file as a database; one connection at a time."""

    def disconnect(self, raw: apsw.Connection) -> None:
        """Close it; from here on the file has all that it wrote."""
        raw.close(True)


class Store(ABC):
    """One name, and what can be done to the database of that name as a whole."""

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def scratch(self) -> AbstractAsyncContextManager[Scratch]:
        """A new scratch file, with room beside the database."""

    @abstractmethod
    async def check_free(self, bound: Bound) -> None:
        """DatabaseBusyError: somebody has it open all the time.

        NotADatabaseError, StorageUnavailableError: there is something else, here and below.
        """

    @abstractmethod
    def replacing(self, bound: Bound) -> AbstractAsyncContextManager[apsw.Connection]:
        """A prepared connection to copy to; nobody else has one, or can have.

        A database that SQLite cannot read (damaged, or rubbish where only databases are kept) is
        empty there. DatabaseBusyError as `check_free`.
        """

    @abstractmethod
    async def delete(self, bound: Bound) -> bool:
        """Whether there was one. DatabaseBusyError as `check_free`."""

    async def discard(self) -> bool:
        """Remove the scratch files of dead tabs; False: one is still open there."""
        return True

    async def work(self, connection: apsw.Connection, function: Callable[[], T]) -> T:
        """`function()`, which keeps `connection` busy for long."""
        return function()

    @contextmanager
    def explaining(self) -> Generator[None]:
        """Errors of SQLite as this package's."""
        try:
            yield
        except FULL as error:
            if not is_full(error):
                raise
            raise no_space(f"a whole copy of {self.name!r}", "nothing was changed") from error

    def busy(self, bound: Bound) -> DatabaseBusyError:
        if bound.seconds:
            return DatabaseBusyError(
                f"{self.name!r} is still open after {bound}; close it everywhere, or pass a longer "
                "wait"
            )
        return DatabaseBusyError(
            f"{self.name!r} is open; close it everywhere, or pass wait=… to wait for that, in "
            "seconds"
        )


# -- the steps ------------------------------------------------------------------------------------


def configure(raw: apsw.Connection) -> None:
    """For a connection that copies or checks."""
    raw.execute(f"PRAGMA temp_store = MEMORY; PRAGMA cache_size = -{CACHE_KIB}").fetchall()


def prepare(raw: apsw.Connection) -> None:
    """Take a database alone, its WAL checkpointed and gone.

    apsw.BusyError: another connection has it. apsw.NotADBError, apsw.CorruptError: it is none.
    """
    configure(raw)
    # EXTRA: the end of the journal is the commit, so it is made durable as well.
    raw.execute("PRAGMA synchronous = EXTRA; PRAGMA locking_mode = EXCLUSIVE").fetchall()
    leave_wal(raw)
    # In that locking mode the lock stays. Nothing is written: an empty file remains empty.
    raw.execute("BEGIN EXCLUSIVE")
    check_no_wal(raw)
    raw.execute("ROLLBACK")


def leave_wal(raw: apsw.Connection) -> None:
    """Checkpoint the WAL, remove it, and go on with a rollback journal."""
    # Here, for it takes a browser long to import, and most never need it.
    import ctypes

    keep = ctypes.c_int(0)
    raw.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
    raw.execute("PRAGMA journal_mode = DELETE").fetchall()
    raw.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    check_no_wal(raw)


def check_no_wal(raw: apsw.Connection) -> None:
    """apsw.BusyError: another connection has gone back to a WAL meanwhile.

    A copy into a WAL could not change the size of the pages.
    """
    if raw.execute("PRAGMA journal_mode").get == "wal":
        raise apsw.BusyError("the database was opened meanwhile")


def release(raw: apsw.Connection) -> None:
    """The end of `prepare`: SQLite removes the journal while it still has its lock.

    A transaction that reads no schema does it: a connection keeps the text encoding of the first
    schema that it read, and refuses the schema of a copy in another one.
    """
    raw.execute("PRAGMA locking_mode = NORMAL; BEGIN EXCLUSIVE; ROLLBACK").fetchall()


async def explained_copy(
    store: Store, source: apsw.Connection, to: apsw.Connection
) -> AsyncIterator[tuple[int, int]]:
    """`copy` with SQLite's errors as this package's; those of who asks for the steps are not."""
    async with aclosing(copy(source, to)) as steps:
        while True:
            with store.explaining():
                step = await anext(steps, None)
            if step is None:
                return
            yield step


async def copy(source: apsw.Connection, to: apsw.Connection) -> AsyncGenerator[tuple[int, int]]:
    """Replace a database by another, in one transaction; gives (pages done, pages in all).

    Others of this event loop run between the steps. Left early, nothing was replaced. A `source`
    that is inside a read transaction is copied as of then, whoever writes to it meanwhile.
    """
    pages = max(1, STEP // int(source.execute("PRAGMA page_size").get))
    with to.backup("main", source, "main") as backup:
        while not backup.step(pages):
            yield backup.page_count - backup.remaining, backup.page_count
            await asyncio.sleep(0)
        total = backup.page_count
    yield total, total


def check_header(name: str, header: bytes) -> None:
    """NotADatabaseError for what does not even begin as one."""
    if not header:
        raise NotADatabaseError(f"the data for {name!r} is empty (0 bytes); nothing was changed")
    if header[:16] != MAGIC:
        raise NotADatabaseError(
            f"the data for {name!r} is not a SQLite database: it does not begin with SQLite's "
            "header; nothing was changed"
        )


def check_whole(name: str, scratch: Scratch, total: int | None) -> None:
    """NotADatabaseError: the end of a database is missing; SQLite would read it as zeros.

    total: how much data there should be, where that is known.
    """
    size = scratch.size()
    if total is not None and size < total:
        raise NotADatabaseError(
            f"the data for {name!r} ended after {size} of {total} bytes; nothing was changed. Read "
            "it again from its beginning"
        )
    # sqlite.org/fileformat2.html, section 1.3: the page size is at 16, the number of pages at 28;
    # the latter is valid if the change counter at 24 equals the number at 92.
    header = scratch.read(0, 100)
    page_size = int.from_bytes(header[16:18], "big")
    page_size = 65536 if page_size == 1 else page_size
    counted = len(header) == 100 and header[24:28] == header[92:96]
    least = int.from_bytes(header[28:32], "big") * page_size if counted else 0
    if page_size and (size % page_size or size < least):
        raise NotADatabaseError(
            f"the data for {name!r} is not a whole SQLite database: it has {size} bytes, and its "
            f"header says pages of {page_size} bytes"
            + (f", {least} bytes in all" if least else "")
            + "; nothing was changed. Get a complete copy"
        )


def check(name: str, raw: apsw.Connection, ignore_check_constraints: bool = False) -> None:
    """Read all of a database; leaves it with a rollback journal. NotADatabaseError: it is unsound.

    What it cannot be used without (a virtual table's module, a collation) must be here too.
    ignore_check_constraints: rows that violate a CHECK are sound.
    """
    with unsound(name):
        configure(raw)
        # Bytes from anywhere: https://www.sqlite.org/security.html, section 1.2.
        raw.execute("PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON").fetchall()
        leave_wal(raw)
        if ignore_check_constraints:
            raw.execute("PRAGMA ignore_check_constraints = ON").fetchall()
        found = [str(row[0]) for row in raw.execute("PRAGMA integrity_check(5)")]
        if all(each.startswith("CHECK constraint failed") for each in found):
            raise NotADatabaseError(
                f"rows in the data for {name!r} violate constraints of their tables, nothing was "
                "changed: "
                + "; ".join(found)
                + ". Repair them, or accept them with ignore_check_constraints"
            )
        if found != ["ok"]:
            raise NotADatabaseError(
                f"the data for {name!r} is a damaged SQLite database, nothing was changed: "
                + "; ".join(found)
            )
        tables = raw.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            raw.execute(f"SELECT 1 FROM main.{quote_name(str(table))} LIMIT 0").fetchall()


@contextmanager
def unsound(name: str) -> Generator[None]:
    """What SQLite says of a database that it cannot read, as a NotADatabaseError."""
    try:
        yield
    except (apsw.FullError, apsw.InterruptError, apsw.NoMemError):
        raise
    except apsw.SQLError as error:
        raise NotADatabaseError(
            f"the data for {name!r} is a SQLite database that cannot be used here ({error}): it "
            "needs an extension, a function or a collation that this SQLite does not have; "
            "nothing was changed"
        ) from error
    except apsw.Error as error:
        raise NotADatabaseError(
            f"the data for {name!r} is not a sound SQLite database ({error}); nothing was changed"
        ) from error


def holds_database(header: bytes, journal: bytes) -> bool:
    """Whether a file with these first bytes, and its rollback journal with those, is a database.

    The first transaction of a database may have been cut short: then its journal says that the
    file had no pages (sqlite.org/fileformat2.html, section 3: at 16, the size in pages).
    """
    undone = is_journal(journal) and journal[16:20] == bytes(4)
    return header[:16] == MAGIC and not undone


def is_journal(journal: bytes) -> bool:
    """Whether a file with these first bytes is a rollback journal that SQLite is not done with."""
    return journal[:8] == _JOURNAL_MAGIC
