"""What the system and SQLite say of a file that cannot be used, as this package's errors."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager

import apsw

from ...errors import NotADatabaseError, StorageUnavailableError
from ...sqlite.space import is_full

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def explaining(name: str, what: str) -> Generator[None]:
    """StorageUnavailableError, NotADatabaseError: `name` cannot be `what` ("opened"), and why.

    That there is no space is an apsw.FullError, whatever found it.
    """
    try:
        yield
    except apsw.NotADBError as error:
        raise NotADatabaseError(
            f"{name!r} is not a SQLite database; it was left as it is"
        ) from error
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.IOError, OSError) as error:
        if is_full(error):
            raise
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            raise apsw.FullError(str(error)) from error
        # The system names the file that it met first, which may be one beside the database.
        why = error.strerror if isinstance(error, OSError) else error
        raise StorageUnavailableError(
            f"{name!r} cannot be {what} ({why}); {_advice(error)}"
        ) from error


def _advice(error: Exception) -> str:
    if _lacks_descriptors(error):
        return (
            "this process, or this machine, has as many files open as it may; close some, or "
            "raise the limit (ulimit -n)"
        )
    if isinstance(error, apsw.IOError):
        return "the disk refuses, or what is there is no ordinary file"
    return "does its folder exist, and may you write there?"


def _lacks_descriptors(error: Exception) -> bool:
    # SQLite does not say why it cannot open a file.
    if isinstance(error, apsw.CantOpenError):
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as refused:
            error = refused
    return isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE)
