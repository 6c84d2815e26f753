"""The VFS compiled natively, over files in memory: several tabs in one process.

SQLite keeps a VFS's state in static variables of the extension, so each tab loads a copy of the
library of its own; what the tabs share is the files alone, as in a browser.
"""

from __future__ import annotations

import ctypes
import itertools
import shutil
from pathlib import Path

import apsw

CATCH_UP = 0x48460001
NONE, READ, WRITE, EXCLUSIVE = range(4)
ENTRY = "sqlite3_holdfastvfs_init"

_numbers = itertools.count()


class Files:
    """The origin's files: name -> bytes. `log` has every call, as (what, name, …)."""

    def __init__(self) -> None:
        self.content: dict[str, bytearray] = {}
        self.log: list[tuple[object, ...]] = []
        self.room: int | None = None  # bytes left of the quota
        self.failing_flushes = 0  # so many that come next fail

    def write(self, name: str, at: int, data: bytes) -> int:
        content = self.content[name]
        end = at + len(data)
        grown = max(0, end - len(content))
        if self.room is not None and grown > self.room:
            return -2
        if self.room is not None:
            self.room -= grown
        if at > len(content):
            content.extend(bytes(at - len(content)))
        content[at:end] = data
        return len(data)


class Tab:
    """One tab: its own copy of the library, its own wal-index."""

    SUFFIXES = ("", "-wal", "-journal")

    def __init__(self, library: Path, files: Files, name: str = "x.db") -> None:
        self.files = files
        self.name = name
        number = next(_numbers)
        copy = library.with_name(f"tab{number}.so")
        shutil.copy(library, copy)
        # The VFS's name is a static string of the library; a copy under the same name would find
        # the first one registered and use that, so each copy gets a name of its own.
        self.vfs = f"hold{number:04d}"
        blob = copy.read_bytes()
        assert blob.count(b"\0holdfast\0") == 1
        copy.write_bytes(blob.replace(b"\0holdfast\0", f"\0{self.vfs}\0".encode()))
        self.library = copy
        self.names = [name + suffix for suffix in self.SUFFIXES]
        for each in self.names:
            files.content.setdefault(each, bytearray())
        self.control = self._load(apsw.Connection(":memory:"))
        self.control.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", self._host())
        self.control.execute("SELECT holdfast_vfs_add(?, 0, 1, 2)", (name,))

    def _load(self, connection: apsw.Connection) -> apsw.Connection:
        connection.enable_load_extension(True)
        connection.load_extension(str(self.library), ENTRY)
        return connection

    def _host(self) -> tuple[int, ...]:
        c_int, c_double, c_void_p = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
        files, names = self.files, self.names

        def read(file: int, to: int, n: int, at: float) -> int:
            files.log.append(("read", names[file], int(at), n))
            data = bytes(files.content[names[file]][int(at) : int(at) + n])
            ctypes.memmove(to, data, len(data))
            return len(data)

        def write(file: int, source: int, n: int, at: float) -> int:
            files.log.append(("write", names[file], int(at), n))
            return files.write(names[file], int(at), ctypes.string_at(source, n))

        def truncate(file: int, size: float) -> int:
            files.log.append(("truncate", names[file], int(size)))
            content = files.content[names[file]]
            del content[int(size) :]
            content.extend(bytes(int(size) - len(content)))
            return 0

        def size(file: int) -> float:
            return float(len(files.content[names[file]]))

        def flush(file: int) -> int:
            files.log.append(("flush", names[file]))
            if files.failing_flushes:
                files.failing_flushes -= 1
                return -1
            return 0

        self._callbacks = (
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double)(read),
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double)(write),
            ctypes.CFUNCTYPE(c_int, c_int, c_double)(truncate),
            ctypes.CFUNCTYPE(c_double, c_int)(size),
            ctypes.CFUNCTYPE(c_int, c_int)(flush),
        )
        return tuple(ctypes.cast(each, c_void_p).value or 0 for each in self._callbacks)

    def level(self, level: int) -> None:
        self.control.execute("SELECT holdfast_vfs_level(?, ?)", (self.name, level))

    def status(self, what: str) -> int:
        return int(self.control.execute("SELECT holdfast_vfs_status(?, ?)", (self.name, what)).get)

    def connect(self) -> apsw.Connection:
        """A connection, under whatever lease there is now."""
        connection = self._load(apsw.Connection(self.name, vfs=self.vfs))
        connection.execute("PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY")
        connection.wal_autocheckpoint(0)
        return connection

    def create(self) -> apsw.Connection:
        """The first connection of all: makes the database."""
        self.level(EXCLUSIVE)
        connection = self.connect()
        assert connection.execute("PRAGMA journal_mode = WAL").get == "wal"
        self.level(NONE)
        return connection
