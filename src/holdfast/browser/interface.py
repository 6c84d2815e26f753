"""The host interface: all that host.js offers to Python, as `globalThis.holdfastHost`.

Arguments and results are JavaScript's: a list is an Array (made by `to_js`), bytes a Uint8Array, a
function a proxy. The tests have simulations of the same interface, so this module imports nothing
of Pyodide's.

Every call can be refused, but for those marked `certain`. A refusal is a JsException: one that
answers at once raises it, one that gives an Awaitable is rejected with it. Its `name` says why, and
refusals.py says which error of this package that is:

    SecurityError, NotAllowedError   the user or the browser blocks the site's data
    InvalidStateError, NotFoundError the site's data was cleared, or the page is being left
    NoModificationAllowedError       another handle has the file open exclusively
    TypeMismatchError                a file where a folder was asked for, or the reverse
    QuotaExceededError               no space
    VersionError                     IndexedDB: made by a newer version
    UnknownError, AbortError, …      the browser does not say; it may go well the next time
    RangeError                       no memory for a buffer
    TypeError                        `nameFiles`, `findFiles`: no name for a file in this browser
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# A folder that JavaScript looks for; a function there.
Looking = Any

# An IDBDatabase.
Blocks = Any


def certain(call: F) -> F:
    """Mark a call that never fails."""
    call.certain = True  # type: ignore[attr-defined]
    return call


class JsArray(Protocol):
    """An Array."""

    def to_py(self) -> list[Any]: ...


class JsBytes(Protocol):
    """A Uint8Array."""

    def to_bytes(self) -> bytes: ...


class JsChannel(Protocol):
    """A BroadcastChannel."""

    @certain
    def post(self, text: str) -> None:
        """Send it to the other tabs. One that the browser refuses is lost, as any may be."""
        ...

    @certain
    def close(self) -> None: ...


class FilesHost(Protocol):
    """OPFS. A file is named by a small number, its "file"."""

    @certain
    def missing(self) -> str:
        """What this worker lacks for synchronous access to files; "" for nothing."""
        ...

    @certain
    def look(self, path: list[str]) -> Looking:
        """Begin to look for a folder, made where missing; what fails, fails those who use it."""
        ...

    def nameFiles(self, looking: Looking, names: list[str]) -> Awaitable[JsArray]:
        """The files' numbers; made where missing, not open yet."""
        ...

    def findFiles(self, looking: Looking, names: list[str]) -> Awaitable[JsArray]:
        """[numbers, whether tabs can share their handles, whether they are open].

        Refused, none is open.
        """
        ...

    def openFiles(self, files: list[int], shared: bool) -> Awaitable[None]:
        """All of them or none. NoModificationAllowedError: another handle has one open."""
        ...

    @certain
    def closeFiles(self, files: list[int]) -> None: ...

    @certain
    def closePresent(self, files: list[int]) -> Awaitable[None]:
        """Close shared handles. Those whose files were cleared away end with the worker."""
        ...

    @certain
    def forgetFiles(self, files: list[int]) -> None:
        """They are closed and unused: their numbers are given to other files."""
        ...

    def peek(self, file: int, n: int) -> JsBytes:
        """The first `n` bytes, fewer where it has fewer."""
        ...

    def size(self, file: int) -> int: ...

    def stillThere(self, files: list[int]) -> Awaitable[bool]:
        """Whether the open files are those that have their names."""
        ...

    def read(self, file: int, at: int, n: int) -> JsBytes: ...

    def write(self, file: int, data: bytes, at: int) -> bool:
        """False: there was no space for all of it."""
        ...

    def empty(self, file: int) -> None:
        """Take all bytes from it, durably."""
        ...

    def entriesOf(self, path: list[str]) -> Awaitable[Any]:
        """The names in a folder; none where it does not exist."""
        ...

    def removeFiles(self, path: list[str], names: list[str]) -> Awaitable[bool]:
        """False: one is still open, and was left."""
        ...

    def list(self, path: list[str], n: int) -> Awaitable[Any]:
        """[name, first `n` bytes] of each file below a folder that has any bytes."""
        ...


class StorageHost(Protocol):
    """The site's storage as a whole."""

    def persist(self) -> Awaitable[bool]:
        """Whether the browser promises to keep it."""
        ...

    def estimate(self) -> Awaitable[Any]:
        """[whether it is kept, bytes that it takes, bytes that it may take]; undefined: unknown."""
        ...


class BlocksHost(Protocol):
    """IndexedDB; the format is described in host.js."""

    @certain
    def missingForBlocks(self) -> str:
        """What is missing here; "" for nothing."""
        ...

    def openBlocks(self, name: str, create: bool) -> Awaitable[Blocks]:
        """Null where there is none and none is created."""
        ...

    @certain
    def blocksAreOpen(self, database: Blocks) -> bool:
        """False: the browser has closed it, as it does when it clears the site's data."""
        ...

    def sizeOf(self, database: Blocks) -> Awaitable[int]:
        """Of the SQLite database, in bytes."""
        ...

    def readBlocks(self, database: Blocks, at: int) -> Awaitable[JsBytes]:
        """The blocks from number `at` on, as many as are read at once; none at the end."""
        ...

    def writeBlocks(
        self, database: Blocks, size: int, keep: int, part: Callable[[], Any], durability: str
    ) -> Awaitable[None]:
        """One transaction: the size, no block from number `keep` on, and what `part()` gives.

        That is [numbers, their blocks] each time, and None at last. Refused, nothing was written.
        """
        ...

    def namesOfBlocks(self) -> Awaitable[Any]:
        """The names of the databases that have something in them."""
        ...

    def deleteBlocks(self, name: str) -> Awaitable[bool]:
        """Whether there was one, with something in it."""
        ...


class LocksHost(Protocol):
    """Web Locks, and messages between tabs."""

    @certain
    def setOnAnswer(self, callback: Callable[[int, bool, str], None]) -> None:
        """callback(id, granted, error): the answer to `request`, once."""
        ...

    @certain
    def request(self, id: int, name: str, exclusive: bool, if_available: bool) -> None:
        """Ask for a lock. It is refused by its answer: error is "<name>: <message>", else ""."""
        ...

    @certain
    def release(self, id: int) -> None:
        """Give it back, or withdraw the request, which is not answered then."""
        ...

    def heldLocks(self, prefix: str) -> Awaitable[Any]:
        """The names, from `prefix` on, of the locks that are held in this origin."""
        ...

    @certain
    def releasesArrived(self) -> Awaitable[None]:
        """Answers when what was released until now is free for everybody."""
        ...

    def channel(self, name: str, on_message: Callable[[str], None]) -> JsChannel: ...


class TasksHost(Protocol):
    """When Python goes on: see tasks.py."""

    @certain
    def settle(self, promise: Any, callback: Callable[[bool, Any], None]) -> None:
        """callback(whether it was fulfilled, its value), when the promise is settled."""
        ...

    @certain
    def nextTask(self, callback: Callable[[], None]) -> None:
        """Call it in a task of the browser of its own."""
        ...

    @certain
    def soon(self, callback: Callable[[], None]) -> None:
        """Call it when Python has returned."""
        ...


class FlagsHost(Protocol):
    """What tells of a cancelled call while a statement runs: see flags.py."""

    @certain
    def noticeFlag(self, flag: str) -> None:
        """One that was not raised arrived: find out whether flags can be looked at here."""
        ...

    @certain
    def isRaised(self, flag: str) -> bool:
        """Whether it was raised; False where that cannot be found out."""
        ...


class Host(FilesHost, StorageHost, BlocksHost, LocksHost, TasksHost, FlagsHost, Protocol):
    """All of it."""

    version: str
    """The package's."""

    @certain
    def useModule(self, module: Any) -> None:
        """Pyodide's Emscripten module, of whose memory the VFS's functions take bytes."""
        ...

    @certain
    def install(self) -> Any:
        """The VFS's read, write, truncate, size and flush, as function pointers.

        These raise nothing: what is refused there is a code of SQLite's.
        """
        ...
