"""Locks on ranges of a file that belong to one open file description.

Linux, fcntl(2), "Open file description locks". A lock of this kind is released by closing its own
descriptor only, and conflicts with the POSIX locks of every process, this one included.
"""

from __future__ import annotations

import errno
import struct
import sys
from functools import lru_cache

# (offset, length); length 0: all that follows.
Range = tuple[int, int]

# The errors with which the system refuses a lock that another lock is in the way of.
REFUSED = frozenset({errno.EAGAIN, errno.EACCES})

if sys.platform == "linux":
    import fcntl

    AVAILABLE = True
    READ, WRITE, NONE = fcntl.F_RDLCK, fcntl.F_WRLCK, fcntl.F_UNLCK
    # struct flock: type, whence, start, length, process
    _FLOCK = "@hhqqi0q"

    @lru_cache
    def _flock(kind: int, where: Range) -> bytes:
        return struct.pack(_FLOCK, kind, 0, *where, 0)

    def set_lock(descriptor: int, kind: int, where: Range) -> None:
        """Take (READ: shared, WRITE: exclusive) or release (NONE) a lock, without waiting.

        OSError with an errno in REFUSED: another lock is in the way.
        """
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(kind, where))

    def holder(descriptor: int, where: Range) -> int | None:
        """The process whose lock would refuse a WRITE lock there; -1: unknown; None: none would."""
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(WRITE, where))
        kind, _, _, _, process = struct.unpack(_FLOCK, found)
        return None if kind == NONE else process

    def unlock_posix(descriptor: int, where: Range) -> None:
        """Release the POSIX locks of this process there, by whatever descriptor it has them."""
        fcntl.fcntl(descriptor, fcntl.F_SETLK, _flock(NONE, where))

else:
    AVAILABLE = False
    READ = WRITE = NONE = 0

    def set_lock(descriptor: int, kind: int, where: Range) -> None:
        raise NotImplementedError("this system has no such locks")

    def holder(descriptor: int, where: Range) -> int | None:
        raise NotImplementedError("this system has no such locks")

    def unlock_posix(descriptor: int, where: Range) -> None:
        raise NotImplementedError("this system has no such locks")
