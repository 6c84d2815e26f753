"""OPFS files as the VFS uses them: numbers that stand for open sync access handles."""

from __future__ import annotations

from typing import NamedTuple

from pyodide.ffi import JsException, to_js

from ..errors import DatabaseBusyError, StorageUnavailableError
from .host import host


class OpenFiles(NamedTuple):
    """Three numbers for the VFS, and whether other tabs can have the same files open."""

    database: int
    wal: int
    journal: int
    shared: bool


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


async def open_files(folder: list[str], name: str, unsafe: bool = True) -> OpenFiles:
    """`name` and what SQLite keeps beside it, in an OPFS folder; all or none.

    StorageUnavailableError: OPFS is missing or refused. DatabaseBusyError: another tab has an
    exclusive handle.
    """
    if missing := host().missing():
        raise StorageUnavailableError(
            f"OPFS cannot be used here: {missing}. Run holdfast in a dedicated worker of a "
            "page served by https or from localhost"
        )
    try:
        opened = await host().openFiles(
            to_js(folder), to_js([name, f"{name}-wal", f"{name}-journal"]), unsafe
        )
    except JsException as error:
        if error.name == "NoModificationAllowedError":
            raise DatabaseBusyError(
                f"another tab has {name!r} open for itself alone ({error.message})"
            ) from error
        raise StorageUnavailableError(
            f"OPFS refused to open {name!r}: {error.name}: {error.message}. Private windows and "
            "blocked site data do that"
        ) from error
    database, wal, journal = opened.files
    return OpenFiles(database, wal, journal, opened.shared)


def close_files(opened: OpenFiles) -> None:
    """Close the handles."""
    host().closeFiles(to_js([opened.database, opened.wal, opened.journal]))


def peek(opened: OpenFiles) -> Peek:
    """Look into open files; under a lease."""
    return Peek(host().peek(opened.database, 100).to_bytes(), host().size(opened.journal))


async def estimate() -> tuple[bool | None, int | None, int | None]:
    """Whether the site's storage is persisted, the bytes it takes, the bytes it may take."""
    persisted, usage, quota = await host().estimate()
    return persisted, usage, quota
