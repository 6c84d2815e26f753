"""What the browser refuses, as this package's errors: the one place that knows.

with explaining("OPFS", name):
    await host().…
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pyodide.ffi import JsException

from ..errors import DatabaseBusyError, QuotaExceededError, StorageUnavailableError

# What there is where OPFS is not.
ELSEWHERE = (
    "IndexedDB, in a worker that pages share, can be reached from a page's main thread: "
    'storage="auto" tries it there'
)

_CLEARED = "The site's data was cleared; close every page of the site, and load it again"
_BLOCKED = "Private windows and blocked site data do that"

# By the name of a DOMException: what it means where nothing more is known.
_WHY = {
    "SecurityError": _BLOCKED,
    "NotAllowedError": _BLOCKED,
    "InvalidStateError": _CLEARED,
    "NotFoundError": _CLEARED,
    "TypeMismatchError": "Another database has a folder of that name, or one of its files",
    "VersionError": "It was made by a newer version of holdfast; load the page's new version",
}
_UNKNOWN = "The browser does not say why: try again, and if that does not help, restart it"


@contextmanager
def explaining(what: str, name: str | None = None, *, naming: bool = False) -> Iterator[None]:
    """Raise what JavaScript raises inside as an error of this package.

    what: what of the browser's is asked, as "OPFS". name: the database.
    naming: files are asked for by name, so a TypeError of JavaScript is about that.
    """
    try:
        yield
    except JsException as error:
        if naming and error.name == "TypeError":  # w3.org: "not a valid file name"
            raise ValueError(
                f"{name!r} is no name for a file in this browser: {error.message}"
            ) from error
        raise refusal(what, name, error.name, error.message) from error


def refusal(what: str, name: str | None, kind: str, message: str) -> Exception:
    """The error for a refusal that JavaScript calls `kind`."""
    of = "" if name is None else f" {name!r}"
    said = f"{kind}: {message.rstrip('.')}"
    if kind == "RangeError":
        return MemoryError(f"{what} has not enough memory for{of or ' this'} ({said})")
    if kind == "QuotaExceededError":
        return QuotaExceededError(
            f"there is no more space for{of or ' this site'} ({what}: {said}); nothing was lost. "
            "Delete something, or ask for more with holdfast.persist()"
        )
    if kind == "NoModificationAllowedError":
        return DatabaseBusyError(
            f"{what} refused{of}: another tab has its file open for itself ({said}); try again"
        )
    why = _WHY.get(kind, _UNKNOWN)
    if (what, kind) == ("OPFS", "SecurityError"):
        why += f". {ELSEWHERE}"
    return StorageUnavailableError(f"{what} refused{of}: {said}. {why}")
