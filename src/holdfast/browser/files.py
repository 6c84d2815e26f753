"""OPFS files as the VFS uses them: numbers that stand for open sync access handles."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, NamedTuple

from pyodide.ffi import JsException, to_js

from ..errors import DatabaseBusyError, StorageUnavailableError
from .host import host
from .interface import Looking
from .refusals import ELSEWHERE, explaining
from .tasks import settle

logger = logging.getLogger("holdfast")


class Peek(NamedTuple):
    """What the files say before SQLite looks: the header, and the size of a rollback journal."""

    header: bytes
    journal: int

    @property
    def is_wal_database(self) -> bool:
        """A sound-looking header, in WAL mode, with nothing to roll back.

        Bytes 18 and 19 are the file format's write and read version, 2 for WAL
        (sqlite.org/fileformat2.html, section 1.3).
        """
        return self.header[18:20] == b"\x02\x02" and not self.journal


class DatabaseFiles:
    """A database's files: the main one, its WAL, its rollback journal.

    `numbers` stand for them in the VFS. With `shared` handles every tab keeps them open; exclusive
    ones are opened and closed with a lease (see storage/opfs/leases.py).
    """

    def __init__(self, name: str, numbers: list[int], shared: bool) -> None:
        self.name = name
        self.numbers = numbers
        self.shared = shared
        self._numbers = to_js(numbers)
        # Whether `find` has opened the handles.
        self.is_open = False
        self._closing: Any = None
        self._forgotten = False

    @classmethod
    async def find(cls, folder: Looking, name: str, share: bool = True) -> DatabaseFiles:
        """The files `name`, `name-wal` and `name-journal` in a folder, made where missing.

        Shared handles are open then, unless another worker has one exclusively.
        share: False asks for exclusive handles even where they could be shared.
        StorageUnavailableError: OPFS is missing or refused.
        """
        with explaining("OPFS", name, naming=True):
            names = to_js([name, f"{name}-wal", f"{name}-journal"])
            if share:
                finding = host().findFiles(folder, names)
                found = await settle(finding, _close_found)
                numbers, shared, is_open = found.to_py()
            else:
                numbers = (await host().nameFiles(folder, names)).to_py()
                shared = is_open = False
        files = cls(name, numbers, shared)
        files.is_open = is_open
        return files

    @property
    def main(self) -> int:
        """The number of the database's own file."""
        return self.numbers[0]

    async def open(self, timeout: float) -> None:
        """All handles or none. DatabaseBusyError: another tab has them, after `timeout` seconds."""
        await self._open_within(timeout, self._numbers)

    async def has_alone(self, timeout: float) -> bool:
        """Whether no other worker has the files open, be it one whose locks are not seen here.

        Handles that are shared are open, and are afterwards. A file that another worker has open
        cannot be opened by this one for itself; the journal's is enough to tell.
        DatabaseBusyError: as `open`.
        """
        journal = to_js(self.numbers[2:])
        host().closeFiles(journal)
        try:
            await self._open_once(journal, shared=False)
            host().closeFiles(journal)
            alone = True
        except DatabaseBusyError:
            alone = False
        await self._open_within(timeout, journal)
        return alone

    async def _open_within(self, timeout: float, numbers: Any) -> None:
        """A handle of a tab that died is released a moment after its locks, without an event."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                await self._open_once(numbers, self.shared)
                return
            except DatabaseBusyError as error:
                if time.monotonic() > deadline:
                    raise DatabaseBusyError(
                        f"another tab kept the files of {self.name!r} open for itself for longer "
                        f"than {timeout:g} s ({error.__cause__})"
                    ) from error
            await asyncio.sleep(0.005)

    async def _open_once(self, numbers: Any, shared: bool) -> None:
        with explaining("OPFS", self.name):
            opening = host().openFiles(numbers, shared)
            await settle(opening, lambda _: self.close())

    def close(self) -> None:
        """Close the handles that are open: exclusive ones at once, shared ones by `closed`."""
        if self.shared:
            self._closing = host().closePresent(self._numbers)
        else:
            host().closeFiles(self._numbers)

    async def closed(self) -> None:
        """After `close`: the handles are closed, and these files are unused."""
        if self._closing is not None:
            await self._closing
        if not self._forgotten:
            # Once: the numbers may be other files' from here on.
            self._forgotten = True
            host().forgetFiles(self._numbers)

    def peek(self) -> Peek:
        """Look into the files; under a lease."""
        database, _, journal = self.numbers
        with explaining("OPFS", self.name):
            return Peek(host().peek(database, 100).to_bytes(), host().size(journal))

    async def still_there(self) -> bool:
        """Whether the open files are still the ones of their names; under a lease.

        They are not after the site's data was cleared.
        """
        with explaining("OPFS", self.name):
            return bool(await host().stillThere(to_js(self.numbers[:2])))

    # -- a file as bytes, for one that only this worker has ----------------------------------------

    def size(self) -> int:
        """Of the main file, in bytes."""
        with explaining("OPFS", self.name):
            return int(host().size(self.main))

    def read(self, at: int, n: int) -> bytes:
        """From the main file; fewer at its end."""
        with explaining("OPFS", self.name):
            return host().read(self.main, at, n).to_bytes()

    def write(self, data: bytes | memoryview, at: int) -> bool:
        """Into the main file; False when there is no space."""
        with explaining("OPFS", self.name):
            return bool(host().write(self.main, to_js(data), at))

    def empty(self) -> None:
        """Take all bytes from all files, durably; the main file's first."""
        with explaining("OPFS", self.name):
            for number in self.numbers:
                host().empty(number)


def look(folder: list[str]) -> Looking:
    """Begin to look for a folder of OPFS, made where missing. It needs no lock.

    StorageUnavailableError: OPFS is missing.
    """
    check_available()
    return host().look(to_js(folder))


def _close_found(found: Any) -> None:
    host().closeFiles(to_js(found.to_py()[0]))


def check_available() -> None:
    """StorageUnavailableError: there is no OPFS here."""
    if missing := host().missing():
        raise StorageUnavailableError(
            f"OPFS cannot be used here: {missing}. Run holdfast in a dedicated worker of a "
            f"page served by https or from localhost. {ELSEWHERE}"
        )


async def list_files(folder: list[str], n: int) -> dict[str, bytes]:
    """The first `n` bytes of each file below a folder that has any; names joined by "/"."""
    check_available()
    with explaining("OPFS"):
        found = await host().list(to_js(folder), n)
    return {name: bytes.to_bytes() for name, bytes in found}


async def entries(folder: list[str]) -> list[str]:
    """The names in a folder; none where it does not exist."""
    check_available()
    with explaining("OPFS", "/".join(folder), naming=True):
        return list(await host().entriesOf(to_js(folder)))


async def remove(folder: list[str], names: list[str]) -> bool:
    """Remove files, in this order; False: some are left.

    Somebody has one open, or the browser refuses. They are empty, or nobody's, so nothing depends
    on their removal: the next clean-up finds them again.
    """
    try:
        return bool(await host().removeFiles(to_js(folder), to_js(names)))
    except JsException as error:
        logger.warning("%s: %s was not removed: %s", "/".join(folder), names, error)
        return False


async def persist() -> bool:
    """Ask for it, where that can be asked; whether the site's data is never evicted."""
    with explaining("navigator.storage"):
        return bool(await host().persist())


async def estimate() -> tuple[bool | None, int | None, int | None]:
    """Whether the site's storage is persisted, the bytes it takes, the bytes it may take.

    None for what the browser does not tell.
    """
    try:
        persisted, usage, quota = await host().estimate()
    except JsException as error:
        logger.debug("the browser refused to tell of its storage: %s", error)
        return None, None, None
    return persisted, usage, quota
