"""The VFS compiled natively, over a simulated disk: several tabs in one process.

What a tab has is a node of the VFS: leases, wal-index, append buffer. In a browser each tab has its
own library with one node for a database; here the nodes of all tabs live in one library, under
names of their own, and share nothing but the files that their numbers stand for.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from pathlib import Path

import apsw
from faults.disk import ERROR, Dead, Disk

CATCH_UP = 0x48460001
RESTART = 0x48460003
NONE, READ, WRITE, EXCLUSIVE = range(4)
ENTRY = "sqlite3_holdfastvfs_init"
SUFFIXES = ("", "-wal", "-journal")

_numbers = itertools.count()
# A connection that is collected late still calls them.
_callbacks: list[tuple[object, ...]] = []


class Process:
    """What files are reached through; after `die`, nothing that its tabs do reaches any.

    Death may come in the middle of anything: `die_at` is the number of changes (writes,
    truncations, flushes) that it makes before it dies.
    """

    def __init__(self, disk: Disk) -> None:
        self.disk = disk
        self.dead = False
        self.die_at: int | None = None
        self.on_death: Callable[[], None] = lambda: None

    def die(self) -> None:
        if not self.dead:
            self.dead = True
            self.on_death()

    def reach(self, what: str) -> Disk:
        if not self.dead and self.die_at is not None and what not in ("read", "size"):
            self.die_at -= 1
            if self.die_at < 0:
                self.die()
        if self.dead:
            raise Dead
        return self.disk


class Library:
    """A compiled VFS, loaded once. `host` are its files: number -> (process, name)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host: dict[int, tuple[Process, str]] = {}
        self._numbers = itertools.count()
        # SQLite knows a VFS by its name; the first of a name would be found by all that come after.
        if "holdfast" in apsw.vfs_names():
            apsw.unregister_vfs("holdfast")
        with apsw.Connection(":memory:") as control:
            self.load(control)
            self.functions = self._functions()
            control.execute("SELECT holdfast_vfs_host(?, ?, ?, ?, ?)", self.functions)
        control.close()

    def load(self, connection: apsw.Connection) -> apsw.Connection:
        connection.enable_load_extension(True)
        connection.load_extension(str(self.path), ENTRY)
        connection.enable_load_extension(False)
        return connection

    def use(self) -> None:
        """Make this the library that "holdfast" means."""
        if "holdfast" in apsw.vfs_names():
            apsw.unregister_vfs("holdfast")
        self.load(apsw.Connection(":memory:")).close()

    def add(self, process: Process, names: list[str]) -> list[int]:
        """Numbers for files."""
        numbers = []
        for name in names:
            process.disk.add(name)
            number = next(self._numbers)
            self.host[number] = (process, name)
            numbers.append(number)
        return numbers

    def _functions(self) -> tuple[int, ...]:
        c_int, c_double, c_void_p = ctypes.c_int, ctypes.c_double, ctypes.c_void_p
        files = self.host

        def read(file: int, to: int, n: int, at: float) -> int:
            process, name = files[file]
            try:
                data = process.reach("read").read(name, int(at), n)
            except Dead:
                return ERROR
            if isinstance(data, int):
                return data
            ctypes.memmove(to, data, len(data))
            return len(data)

        def write(file: int, source: int, n: int, at: float) -> int:
            process, name = files[file]
            try:
                return process.reach("write").write(name, int(at), ctypes.string_at(source, n))
            except Dead:
                return ERROR

        def truncate(file: int, size: float) -> int:
            process, name = files[file]
            try:
                return process.reach("truncate").truncate(name, int(size))
            except Dead:
                return ERROR

        def size(file: int) -> float:
            process, name = files[file]
            try:
                return float(process.reach("size").size(name))
            except Dead:
                return ERROR

        def flush(file: int) -> int:
            process, name = files[file]
            try:
                return process.reach("flush").flush(name)
            except Dead:
                return ERROR

        callbacks = (
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double)(read),
            ctypes.CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_double)(write),
            ctypes.CFUNCTYPE(c_int, c_int, c_double)(truncate),
            ctypes.CFUNCTYPE(c_double, c_int)(size),
            ctypes.CFUNCTYPE(c_int, c_int)(flush),
        )
        _callbacks.append(callbacks)
        return tuple(ctypes.cast(each, c_void_p).value or 0 for each in callbacks)


class Tab:
    """One tab: a node of its own; leases are set by hand."""

    def __init__(self, library: Library, disk: Disk, name: str = "x.db") -> None:
        self.library = library
        self.process = Process(disk)
        self.node = f"tab{next(_numbers)}/{name}"
        self.names = [name + suffix for suffix in SUFFIXES]
        self.numbers = library.add(self.process, self.names)
        self.connections: list[apsw.Connection] = []
        self.control = library.load(apsw.Connection(":memory:"))
        self.control.execute(
            "SELECT holdfast_vfs_add(?, ?, ?, ?)", (self.node, *self.numbers)
        ).fetchall()

    def level(self, level: int) -> None:
        self.control.execute("SELECT holdfast_vfs_level(?, ?)", (self.node, level)).fetchall()

    def status(self, what: str) -> int:
        return int(self.control.execute("SELECT holdfast_vfs_status(?, ?)", (self.node, what)).get)

    def connect(self, synchronous: str = "FULL") -> apsw.Connection:
        """A connection, under whatever lease there is now."""
        connection = apsw.Connection(self.node, vfs="holdfast")
        self.connections.append(connection)
        self.library.load(connection)
        # As OpfsStorage: another connection of the tab may have been here long ago.
        connection.file_control("main", CATCH_UP, 0)
        connection.execute(f"PRAGMA synchronous = {synchronous}; PRAGMA temp_store = MEMORY")
        connection.wal_autocheckpoint(0)
        return connection

    def create(self, synchronous: str = "FULL", page_size: int = 4096) -> apsw.Connection:
        """The first connection of all: makes the database."""
        self.level(EXCLUSIVE)
        connection = self.connect(synchronous)
        connection.execute(f"PRAGMA page_size = {page_size}")
        assert connection.execute("PRAGMA journal_mode = WAL").get == "wal"
        self.level(NONE)
        return connection

    def die(self) -> None:
        """Nothing of it reaches the disk from here on; its memory is given back."""
        self.process.die()
        self.forget()

    def forget(self) -> None:
        for connection in self.connections:
            connection.close(True)
        self.connections.clear()
        self.control.execute("SELECT holdfast_vfs_remove(?)", (self.node,)).fetchall()
        self.control.close(True)
        for number in self.numbers:
            del self.library.host[number]
