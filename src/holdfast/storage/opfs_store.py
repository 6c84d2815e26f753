"""Databases in OPFS, as a whole: see store.py.

Who has one open is told by a lock that comes before all leases:

    holdfast:<db>:files      shared      every worker that has the database open, while it has
                             exclusive   who replaces or deletes it
    holdfast:scratch:<id>    exclusive   the owner of a scratch file, while it uses it

Scratch files are in a folder of their own, so that no name of a database can be theirs. Nobody
shares what is opened here, so its handles are exclusive ones in every browser.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import apsw

from .leases import Level
from .node import FOLDER, check_name, files_lock, load_extension
from .store import HEADER, Scratch, Store, holds_database, no_space, prepare, release

if TYPE_CHECKING:
    from ..browser.files import DatabaseFiles
    from ..browser.locks import WebLock

SCRATCH_FOLDER = "holdfast-scratch"
_SCRATCH_LOCK = "holdfast:scratch:"
_SUFFIXES = ("", "-wal", "-journal")

# Handles of a tab that died are released a moment after its locks; how long to wait, in seconds.
HANDLES_TIMEOUT = 5.0


async def names() -> list[str]:
    """Every database of this origin."""
    from ..browser.files import list_files

    found = await list_files([FOLDER], HEADER)
    return sorted(
        name
        for name, header in found.items()
        if not name.endswith(_SUFFIXES[1:])
        and holds_database(header, found.get(f"{name}-journal", b""))
    )


class OpfsStore(Store):
    """A database in OPFS."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        *folder, self._file = check_name(name)
        self._folder = [FOLDER, *folder]

    # -- scratch ---------------------------------------------------------------------------------

    @asynccontextmanager
    async def scratch(self) -> AsyncIterator[Scratch]:
        from ..browser.files import remove
        from ..browser.locks import WebLocks

        await self.discard()
        id = uuid.uuid4().hex
        lock = WebLocks().request(_SCRATCH_LOCK + id)
        try:
            await lock.granted
            try:
                async with _opened([SCRATCH_FOLDER], id) as files:
                    # No name of a database has an empty segment.
                    with _alone(f"//{id}", files):
                        yield _OpfsScratch(self.name, f"//{id}", files)
            finally:
                await asyncio.shield(remove([SCRATCH_FOLDER], [id + s for s in _SUFFIXES]))
        finally:
            lock.release()

    async def discard(self) -> None:
        from ..browser.files import entries, remove
        from ..browser.locks import held

        # In this order: what is listed and not locked by then has lost its owner.
        found = await entries([SCRATCH_FOLDER])
        owned = {name.removeprefix(_SCRATCH_LOCK) for name in await held(_SCRATCH_LOCK)}
        left = [name for name in found if name.partition("-")[0] not in owned]
        if left:
            # What a dying worker still has open, the next who looks will find.
            await remove([SCRATCH_FOLDER], left)

    # -- alone -----------------------------------------------------------------------------------

    async def check_free(self, wait: float) -> None:
        (await self._claim(wait)).release()

    @asynccontextmanager
    async def replacing(self, wait: float) -> AsyncIterator[apsw.Connection]:
        from ..browser.files import remove

        lock = await self._claim(wait)
        try:
            async with _opened(self._folder, self._file) as files:
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
        finally:
            lock.release()

    async def delete(self, wait: float) -> bool:
        from ..browser.files import entries, remove

        await self.discard()
        lock = await self._claim(wait)
        try:
            if self._file not in await entries(self._folder):
                return False
            async with _opened(self._folder, self._file) as files:
                found = bool(files.size())
                files.empty()
            await remove(self._folder, self._names())
            return found
        finally:
            lock.release()

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

    async def _claim(self, wait: float) -> WebLock:
        from ..browser.files import check_available
        from ..browser.locks import WebLocks

        check_available()
        lock = WebLocks().request(files_lock(self.name), if_available=not wait)
        try:
            async with asyncio.timeout(wait or None):
                granted = await lock.granted
        except TimeoutError:
            granted = False
        except BaseException:
            lock.release()
            raise
        if not granted:
            lock.release()
            raise self.busy(wait)
        return lock


class _OpfsScratch(Scratch):
    def __init__(self, name: str, vfs_name: str, files: DatabaseFiles) -> None:
        self._name = name
        self._vfs_name = vfs_name
        self._files = files
        self._end = 0

    def append(self, data: bytes | memoryview) -> None:
        if not self._files.write(data, self._end):
            raise no_space(self._name)
        self._end += len(data)

    def size(self) -> int:
        return self._files.size()

    def read(self, at: int, n: int) -> bytes:
        return self._files.read(at, n)

    def connect(self) -> apsw.Connection:
        return apsw.Connection(self._vfs_name, vfs="holdfast")


@asynccontextmanager
async def _opened(folder: list[str], name: str) -> AsyncIterator[DatabaseFiles]:
    from ..browser.files import DatabaseFiles, look

    files = await DatabaseFiles.find(look(folder), name, share=False)
    await files.open(HANDLES_TIMEOUT)
    try:
        yield files
    finally:
        files.close()


@contextmanager
def _alone(name: str, files: DatabaseFiles) -> Generator[None]:
    """The VFS knows the files under that name, and may do everything with them."""
    from ..browser.host import vfs_functions

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
