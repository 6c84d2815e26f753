"""Which of SQLite's errors say that there is no more space."""

from __future__ import annotations

import sys

import apsw

from ..errors import QuotaExceededError

# What may say so; `is_full` tells.
FULL = (apsw.FullError, apsw.IOError)


def is_full(error: BaseException | None) -> bool:
    """Whether SQLite found no space: for the file, its WAL or the wal-index.

    The wal-index has an error of its own, for SQLite never makes it smaller than it needs.
    """
    if isinstance(error, apsw.IOError):
        return getattr(error, "extendedresult", 0) == apsw.SQLITE_IOERR_SHMSIZE
    return isinstance(error, apsw.FullError)


def no_space(what: str, now: str) -> QuotaExceededError:
    """The error of this package. what: is to be written; now: what has become of it."""
    advice = (
        "Delete something, or ask for more with holdfast.persist()"
        if sys.platform == "emscripten"
        else "Make room on its disk, or raise the quota there"
    )
    return QuotaExceededError(f"there is no more space for {what}; {now}. {advice}")
