"""A database as blocks in memory: one connection writes, the others read snapshots.

    committed   an image of what is durable; a read transaction keeps the one that it began with
    pending     blocks that the writer's SQLite has written since; only the writer sees them

A commit must not be known to anybody before it is durable, and making it durable takes time, in
which SQLite cannot wait. So it is made in two steps:

    prepare   COMMIT writes SQLite's dirty pages, which become pending, and syncs; the sync is
              answered with SQLITE_BUSY, so the transaction stays open
    (the pending blocks are written where they are durable, in one atomic step)
    finish    COMMIT again: nothing is left to write, the sync succeeds, the pending blocks become
              part of the committed image

Where writing fails, ROLLBACK undoes all of it, temporary tables too, and the pending blocks are
discarded. What SQLite does on SQLITE_BUSY: sqlite.org/lang_transaction.html ("the transaction
remains active, and the COMMIT can be retried"). SQLite's rollback journal is in memory: nobody
ever recovers from these blocks, only from what was written.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping, Sequence
from functools import cache

import apsw

from ...sqlite.settings import RawConnection

# Bytes. SQLite's default page size: mostly, a block is a page. Other page sizes do as well.
BLOCK = 4096

# What a writer is told first: there is no file for a journal.
JOURNAL = "PRAGMA journal_mode = MEMORY"

_ZEROS = bytes(BLOCK)
_numbers = itertools.count(1)


class Image:
    """The contents of a database: blocks, all of `BLOCK` bytes, and its size in bytes.

    Changed only while no reader uses it.
    """

    __slots__ = ("blocks", "readers", "size")

    def __init__(self, blocks: list[bytes], size: int) -> None:
        self.blocks = blocks
        self.size = size
        self.readers = 0

    def read(self, at: int, n: int) -> bytes:
        """`n` bytes from `at` on, fewer at the end."""
        n = min(n, self.size - at)
        first, within = divmod(at, BLOCK)
        if not within and n == BLOCK:
            return self.blocks[first]
        if n <= 0:
            return b""
        last = (at + n - 1) // BLOCK
        return b"".join(self.blocks[first : last + 1])[within : within + n]


class Blocks:
    """One database: its committed image, and what is pending."""

    def __init__(self, name: str, blocks: list[bytes], size: int) -> None:
        # Several may stand for databases of one name, as while one is replaced.
        self._name = f"{name}#{next(_numbers)}"
        self.image = Image(blocks, size)
        self.pending: dict[int, bytes] = {}
        self.size = size
        """The size that the writer sees, in bytes."""
        # Blocks of the image from here on are not the writer's: it truncated them away.
        self._kept = len(blocks)
        self._preparing = False
        self._prepared = False
        _vfs().known[self._name] = self

    def close(self) -> None:
        """After its connections: forget everything."""
        _vfs().known.pop(self._name, None)

    def connect_writer(self) -> apsw.Connection:
        """The connection that writes; one at a time. It needs JOURNAL to do so."""
        return RawConnection(self._name, vfs=_NAME)

    def connect_reader(self) -> apsw.Connection:
        """A connection whose transactions each see one committed image."""
        return RawConnection(self._name, flags=apsw.SQLITE_OPEN_READONLY, vfs=_NAME)

    # -- a commit --------------------------------------------------------------------------------

    def prepare(self, raw: apsw.Connection) -> bool:
        """The first step. False: nothing was to be written, and the transaction has ended."""
        self._preparing, self._prepared = True, False
        try:
            raw.execute("COMMIT")
        except apsw.BusyError:
            if not self._prepared:
                raise
            self._drop_tail()
            return True
        finally:
            self._preparing = False
        return False

    def _drop_tail(self) -> None:
        """Truncate what the last step would: with auto_vacuum, SQLite does it when all is done.

        Bytes 16 to 17 are the size of a page, 28 to 31 the size in pages, which counts if the
        change counters at 24 and 92 are the same (sqlite.org/fileformat2.html, section 1.3).
        """
        header = self._block(0)[:100]
        if header[24:28] == header[92:96]:
            page = int.from_bytes(header[16:18], "big")
            size = int.from_bytes(header[28:32], "big") * (65536 if page == 1 else page)
            if 0 < size < self.size:
                self.truncate(size)

    def finish(self, raw: apsw.Connection) -> None:
        """The last step."""
        raw.execute("COMMIT")
        self.accept()

    @property
    def changed(self) -> bool:
        """Whether the writer has written anything that is not in the image."""
        return bool(self.pending) or self.size != self.image.size

    def accept(self) -> None:
        """What is pending is durable now."""
        image = self.image
        if image.readers:
            image = self.image = Image(image.blocks.copy(), image.size)
        blocks = image.blocks
        del blocks[_count(self.size) :]
        for number in sorted(self.pending):
            if number < len(blocks):
                blocks[number] = self.pending[number]
            else:
                blocks.append(self.pending[number])
        image.size = self.size
        self.discard()

    def discard(self) -> None:
        """Forget what is pending; the writer's transaction was rolled back."""
        self.pending.clear()
        self.size = self.image.size
        self._kept = len(self.image.blocks)

    # -- the writer's file -----------------------------------------------------------------------

    def _block(self, number: int) -> bytes:
        found = self.pending.get(number)
        if found is None:
            found = self.image.blocks[number] if number < self._kept else _ZEROS
        return found

    def read(self, at: int, n: int) -> bytes:
        n = min(n, self.size - at)
        first, within = divmod(at, BLOCK)
        if not within and n == BLOCK:
            return self._block(first)
        if n <= 0:
            return b""
        last = (at + n - 1) // BLOCK
        return b"".join(map(self._block, range(first, last + 1)))[within : within + n]

    def write(self, data: bytes, at: int) -> None:
        n = len(data)
        # There are no holes: reading the blocks back needs every number.
        for number in range(_count(self.size), at // BLOCK):
            self.pending[number] = _ZEROS
        first, within = divmod(at, BLOCK)
        if not within and n == BLOCK:
            self.pending[first] = bytes(data)
        else:
            last = (at + n - 1) // BLOCK
            old = b"".join(map(self._block, range(first, last + 1)))
            new = old[:within] + data + old[within + n :]
            for i in range(last - first + 1):
                self.pending[first + i] = new[i * BLOCK : (i + 1) * BLOCK]
        self.size = max(self.size, at + n)

    def truncate(self, size: int) -> None:
        if size > self.size:
            self.write(b"\0", size - 1)
            return
        count = _count(size)
        if within := size % BLOCK:
            # What lay behind must not come back when the file grows again.
            self.pending[count - 1] = self._block(count - 1)[:within].ljust(BLOCK, b"\0")
        for number in [number for number in self.pending if number >= count]:
            del self.pending[number]
        self._kept = min(self._kept, count)
        self.size = size

    def sync(self) -> None:
        if self._preparing:
            self._prepared = True
            raise apsw.BusyError("prepared: COMMIT again when it is durable")


def _count(size: int) -> int:
    return -(-size // BLOCK)


def joined(size: int, blocks: Sequence[bytes]) -> bytes:
    """The bytes of a database."""
    return b"".join(blocks)[:size]


def split(data: bytes) -> list[bytes]:
    """Its blocks; the last one is filled up."""
    return [data[at : at + BLOCK].ljust(BLOCK, b"\0") for at in range(0, len(data), BLOCK)]


# -- SQLite's side ---------------------------------------------------------------------------------

_NAME = "holdfast-blocks"


class _File:
    """What SQLite asks of either file. Locks need nothing: there is one writer, on one thread."""

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xFileControl(self, op: int, pointer: int) -> bool:
        return False

    def xSectorSize(self) -> int:
        return BLOCK

    def xDeviceCharacteristics(self) -> int:
        return apsw.SQLITE_IOCAP_POWERSAFE_OVERWRITE | apsw.SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN

    def xClose(self) -> None: ...


class _Writer(_File):
    def __init__(self, blocks: Blocks) -> None:
        # Bound once: these are called for each page.
        self._blocks = blocks
        self.xWrite = blocks.write
        self.xTruncate = blocks.truncate

    def xRead(self, n: int, at: int) -> bytes:
        return self._blocks.read(at, n)

    def xFileSize(self) -> int:
        return self._blocks.size

    def xSync(self, flags: int) -> None:
        self._blocks.sync()


class _Reader(_File):
    def __init__(self, blocks: Blocks) -> None:
        self._blocks = blocks
        self._image: Image | None = None

    def xLock(self, level: int) -> None:
        if self._image is None:
            self._image = self._blocks.image
            self._image.readers += 1

    def xUnlock(self, level: int) -> None:
        if level == apsw.SQLITE_LOCK_NONE:
            self.xClose()

    def xClose(self) -> None:
        image, self._image = self._image, None
        if image is not None:
            image.readers -= 1

    def xRead(self, n: int, at: int) -> bytes:
        return (self._image or self._blocks.image).read(at, n)

    def xFileSize(self) -> int:
        return (self._image or self._blocks.image).size

    def xWrite(self, data: bytes, at: int) -> None:
        raise apsw.ReadOnlyError("a reader does not write")

    def xTruncate(self, size: int) -> None:
        raise apsw.ReadOnlyError("a reader does not write")

    def xSync(self, flags: int) -> None: ...


class _BlocksVFS(apsw.VFS):
    """Opens `Blocks` by their names, and nothing else; temporary files are in memory."""

    def __init__(self) -> None:
        self.known: dict[str, Blocks] = {}
        super().__init__(_NAME, "")

    def xOpen(  # type: ignore[override]
        self, name: apsw.URIFilename | str | None, flags: list[int]
    ) -> _File:
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        blocks = self.known.get(text or "")
        if blocks is None or not flags[0] & apsw.SQLITE_OPEN_MAIN_DB:
            raise apsw.CantOpenError(f"there are no blocks named {text!r}")
        flags[1] = flags[0]
        return (_Reader if flags[0] & apsw.SQLITE_OPEN_READONLY else _Writer)(blocks)

    def xAccess(self, name: str, flags: int) -> bool:
        return False

    def xDelete(self, name: str, sync: bool) -> None: ...

    def xFullPathname(self, name: str) -> str:
        return name

    def xRandomness(self, n: int) -> bytes:
        return os.urandom(n)

    def xSleep(self, microseconds: int) -> int:
        return microseconds

    def xCurrentTime(self) -> float:
        return time.time() / 86_400 + 2_440_587.5  # the Julian day of 1970-01-01

    def xCurrentTimeInt64(self) -> int:
        return int(time.time() * 1000) + 210_866_760_000_000

    def xGetLastError(self) -> tuple[int, str]:
        return 0, ""


@cache
def _vfs() -> _BlocksVFS:
    return _BlocksVFS()


# What a store of blocks is given in one commit: block number -> block.
Batch = Mapping[int, bytes]
