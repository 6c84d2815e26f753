"""Databases in OPFS, as a whole: see ../store.py.

Who has one open is told by a lock that comes before all leases:

    holdfast:<db>:files      shared      every worker that has the database open, while it has
                             exclusive   who replaces or deletes it; never queued (see leases.py)
    holdfast:<db>:claim      shared      every worker that opens it, in passing
                             exclusive   who waits for `files`, so that those who open it wait too
    holdfast:scratch:<id>    exclusive   the owner of a scratch file, while it uses it

Scratch files are in a folder of their own, so that no name of a database can be theirs. Nobody
shares what is opened here, so its handles are exclusive ones in every browser.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import apsw

from ...bounds import Bound
from ...unique import unique
from ..claimed import ClaimedStore
from ..names import name_segments
from ..store import HEADER, Scratch, Store, holds_database, prepare, release
from .leases import FIRST_PAUSE, Level
from .node import FOLDER, claim_lock, files_lock, load_extension, tab_lock, tabs_of

if TYPE_CHECKING:
    from ...browser.files import DatabaseFiles
    from ...browser.locks import WebLock, WebLocks

# How long a wait for the files goes on, in seconds, before it looks for itself.
LONGEST_PAUSE = 0.5

SCRATCH_FOLDER = "holdfast-scratch"
_SCRATCH_LOCK = "holdfast:scratch:"
_SUFFIXES = ("", "-wal", "-journal")

# Handles of a tab that died are released a moment after its locks; how long to wait, in seconds.
HANDLES_TIMEOUT = 5.0


async def names() -> list[str]:
    """Every database of this origin."""
    from ...browser.files import list_files

    found = await list_files([FOLDER], HEADER)
    return sorted(
        name
        for name, header in found.items()
        if not name.endswith(_SUFFIXES[1:])
        and holds_database(header, found.get(f"{name}-journal", b""))
    )


class OpfsStore(ClaimedStore):
    """A database in OPFS."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        *folder, self._file = name_segments(name)
        self._folder = [FOLDER, *folder]

    # -- scratch ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        from ...browser.files import remove
        from ...browser.locks import WebLocks, arrived

        await self.discard()
        id = unique()
        lock = WebLocks().request(_SCRATCH_LOCK + id)
        try:
            await lock.granted
            try:
                async with _opened(self, [SCRATCH_FOLDER], id) as files:
                    # No name of a database has an empty segment.
                    with _alone(f"//{id}", files):
                        yield _OpfsScratch(f"//{id}", files)
            finally:
                await asyncio.shield(remove([SCRATCH_FOLDER], [id + s for s in _SUFFIXES]))
        finally:
            lock.release()
            await arrived()

    async def discard(self) -> bool:
        from ...browser.files import entries, remove
        from ...browser.locks import held

        # In this order: what is listed and not locked by then has lost its owner.
        found = await entries([SCRATCH_FOLDER])
        owned = {name.removeprefix(_SCRATCH_LOCK) for name in await held(_SCRATCH_LOCK)}
        left = [name for name in found if name.partition("-")[0] not in owned]
        return not left or await remove([SCRATCH_FOLDER], left)

    # -- alone -----------------------------------------------------------------------------------

    @asynccontextmanager
    async def replacing(self, bound: Bound) -> AsyncIterator[apsw.Connection]:
        from ...browser.files import remove

        async with self.claimed(bound):
            async with _opened(self, self._folder, self._file) as files:
                with _alone(self.name, files):
                    try:
                        raw = self._connect()
                    except (apsw.NotADBError, apsw.CorruptError):
                        files.empty()
                        raw = self._connect()
                    try:
                        yield raw
                        release(raw)
                    finally:
                        raw.close(True)
                nothing = not files.size()
            if nothing:
                await remove(self._folder, self._names())

    async def delete(self, bound: Bound) -> bool:
        from ...browser.files import entries, remove

        await self.discard()
        async with self.claimed(bound):
            if self._file not in await entries(self._folder):
                return False
            async with _opened(self, self._folder, self._file) as files:
                found = bool(files.size())
                files.empty()
            await remove(self._folder, self._names())
            return found

    def _names(self) -> list[str]:
        return [self._file + suffix for suffix in _SUFFIXES]

    def _connect(self) -> apsw.Connection:
        raw = apsw.Connection(self.name, vfs="holdfast")
        try:
            prepare(raw)
        except BaseException:
            raw.close(True)
            raise
        return raw

    async def _claim(self, bound: Bound) -> WebLock:
        from ...browser.files import check_available
        from ...browser.locks import WebLocks

        check_available()
        locks = WebLocks()
        if (lock := await _if_free(locks, files_lock(self.name))) is not None:
            return lock
        if bound.over:
            raise self.busy(bound)
        # If other tabs wait too, or one is just passing, do without.
        claim = await _if_free(locks, claim_lock(self.name))
        try:
            pause = FIRST_PAUSE
            while not bound.over:
                # Its files are closed somewhat later, and an import has them without being a tab.
                left = await self._one_leaves(locks, bound.at_most(pause))
                if (lock := await _if_free(locks, files_lock(self.name))) is not None:
                    return lock
                pause = FIRST_PAUSE if left else min(2 * pause, LONGEST_PAUSE)
            raise self.busy(bound)
        finally:
            if claim is not None:
                claim.release()

    async def _one_leaves(self, locks: WebLocks, bound: Bound) -> bool:
        """Whether a tab that has it open closed it or died within the bound."""
        watched = [
            locks.request(tab_lock(self.name, tab), exclusive=False)
            for tab in await tabs_of(self.name)
        ]
        try:
            if not watched:
                await asyncio.sleep(bound.left)
                return False
            done, _ = await asyncio.wait(
                [lock.granted for lock in watched],
                timeout=bound.left,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return bool(done)
        finally:
            for lock in watched:
                lock.release()


async def _if_free(locks: WebLocks, name: str) -> WebLock | None:
    lock = locks.request(name, if_available=True)
    try:
        if await lock.granted:
            return lock
    except BaseException:
        lock.release()
        raise
    lock.release()
    return None


class _OpfsScratch(Scratch):
    def __init__(self, vfs_name: str, files: DatabaseFiles) -> None:
        self.path = self._vfs_name = vfs_name
        self._files = files
        self._end = 0

    def append(self, data: bytes | memoryview) -> None:
        if not self._files.write(data, self._end):
            raise apsw.FullError("the browser gives no more space")
        self._end += len(data)

    def size(self) -> int:
        return self._files.size()

    def read(self, at: int, n: int) -> bytes:
        return self._files.read(at, n)

    def connect(self) -> apsw.Connection:
        return apsw.Connection(self._vfs_name, vfs="holdfast")


@asynccontextmanager
async def _opened(store: Store, folder: list[str], name: str) -> AsyncIterator[DatabaseFiles]:
    """A file and those beside it, open for this alone; what SQLite meets there is explained."""
    from ...browser.files import DatabaseFiles, look

    files = await DatabaseFiles.find(look(folder), name, share=False)
    try:
        await files.open(HANDLES_TIMEOUT)
        with store.explaining():
            yield files
    finally:
        files.close()
        await files.closed()


@contextmanager
def _alone(name: str, files: DatabaseFiles) -> Generator[None]:
    """The VFS knows the files under that name, and may do everything with them."""
    from ...browser.host import vfs_functions

    control = apsw.Connection(":memory:")
    try:
        load_extension(control)
        control.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", vfs_functions())
        control.execute("SELECT holdfast_vfs_add(?, ?, ?, ?)", (name, *files.numbers))
        try:
            control.execute("SELECT holdfast_vfs_level(?, ?)", (name, int(Level.EXCLUSIVE)))
            yield
        finally:
            control.execute("SELECT holdfast_vfs_remove(?)", (name,))
    finally:
        control.close(True)
