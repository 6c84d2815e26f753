"""How many transactions were committed to a file in WAL mode, by whatever process.

SQLite counts them in the wal-index, the memory that all processes share which have the file open:
`iChange` in the header (sqlite.org/walformat.html, section 2.1). No pragma tells it; what is used
here is the documented interface of a VFS (sqlite.org/c3ref/io_methods.html).
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from functools import cache
from typing import Any

import apsw

# The first part of it, which is there in every one.
REGION = 32 * 1024
_COUNT_AT = 8  # of a u32 in the header


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, up to xShmMap."""

    _fields_ = (
        ("version", ctypes.c_int),
        *((f"method_{number}", ctypes.c_void_p) for number in range(12)),
        ("shm_map", ctypes.c_void_p),
    )


@cache
def _shm_map() -> Any:
    pointer = ctypes.POINTER(ctypes.c_void_p)
    return ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_int, pointer
    )


def count_commits(raw: apsw.Connection) -> int:
    """The counter, of a connection that has read in WAL mode. It begins again after 2**32."""
    file = ctypes.c_void_p()
    raw.file_control("main", apsw.SQLITE_FCNTL_FILE_POINTER, ctypes.addressof(file))
    methods = ctypes.cast(file, ctypes.POINTER(ctypes.POINTER(_Methods))).contents.contents
    # Asked for each time: the memory is the connection's, which an application can close.
    region = ctypes.c_void_p()
    code = _shm_map()(methods.shm_map)(file, 0, REGION, 0, ctypes.byref(region))
    if code != apsw.SQLITE_OK or region.value is None:
        raise apsw.IOError(f"the wal-index cannot be read (SQLite's error {code})")
    return ctypes.c_uint32.from_address(region.value + _COUNT_AT).value


def read_commits(index: mmap.mmap) -> int:
    """The same counter, from a mapping of the -shm itself."""
    return int.from_bytes(index[_COUNT_AT : _COUNT_AT + 4], sys.byteorder)
