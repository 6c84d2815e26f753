"""Tabs that take and leave leases as the package does, without waiting: one thing at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import apsw
from simulated_opfs import CATCH_UP, EXCLUSIVE, NONE, READ, RESTART, WRITE, Library, Tab

from faults.disk import Disk


def dump(connection: apsw.Connection) -> tuple[object, ...]:
    """All that an application can see of a database."""
    cursor = connection.execute("SELECT type, name, sql FROM sqlite_master ORDER BY 1, 2")
    schema = cursor.fetchall()
    return (
        *schema,
        *(
            (name, tuple(connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall()))
            for kind, name, _ in schema
            if kind == "table"
        ),
    )


class Client:
    """A tab with one connection.

    keeps: whether it keeps its leases between transactions, until another client of its `origin`
    needs them. Without an origin it gives them up at once.
    """

    def __init__(
        self,
        library: Library,
        disk: Disk,
        *,
        synchronous: str = "FULL",
        page_size: int = 4096,
        origin: list[Client] | None = None,
        keeps: bool = False,
    ) -> None:
        self.tab = Tab(library, disk)
        self.keeps = keeps
        self.level = NONE
        self.others = [] if origin is None else origin
        self.others.append(self)
        # As OpfsStorage: made, rolled back and converted while nobody else reads.
        main, _, journal = self.tab.names
        sound = disk.content[main][18:20] == b"\2\2" and not disk.content[journal]
        try:
            with self.lease(READ if sound else EXCLUSIVE):
                self.connection = self.tab.connect(synchronous)
                if not sound:
                    self.connection.execute(f"PRAGMA page_size = {page_size}").fetchall()
                mode = self.connection.execute("PRAGMA journal_mode = WAL").get
                assert mode == "wal" or self.tab.process.dead, mode
                self.connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except BaseException:
            self.die()
            raise

    @contextlib.contextmanager
    def lease(self, level: int) -> Iterator[None]:
        self.take(level)
        try:
            yield
        finally:
            if not self.keeps or self.level == EXCLUSIVE:
                self.take(NONE)

    def take(self, level: int) -> None:
        """At least this level; what others keep of it they give up."""
        if level > self.level or level == NONE:
            for other in self.others:
                if other is not self and level == EXCLUSIVE:
                    other.take(NONE)
                elif other is not self and level == WRITE and other.level >= WRITE:
                    other.take(NONE)
                    other.take(READ)
            if self.level != level:
                self.level = level
                self.tab.level(level)

    def catch_up(self) -> None:
        self.connection.file_control("main", CATCH_UP, 0)

    def write(self, *statements: str, level: int = WRITE, commit: bool = True) -> None:
        with self.lease(level):
            self.catch_up()
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                for statement in statements:
                    self.connection.execute(statement).fetchall()
                self.connection.execute("COMMIT" if commit else "ROLLBACK")
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def read(self, sql: str) -> list[tuple[object, ...]]:
        with self.lease(READ):
            self.catch_up()
            return self.connection.execute(sql).fetchall()

    def dump(self) -> tuple[object, ...]:
        with self.lease(READ):
            self.catch_up()
            self.connection.execute("BEGIN")
            try:
                return dump(self.connection)
            finally:
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")

    def checkpoint(self, mode: int = apsw.SQLITE_CHECKPOINT_PASSIVE) -> tuple[int, int]:
        with self.lease(EXCLUSIVE):
            self.catch_up()
            return self.connection.wal_checkpoint("main", mode)

    def restart(self) -> None:
        """Copy the WAL and begin it anew, as the package does between transactions."""
        with self.lease(EXCLUSIVE):
            self.catch_up()
            self.connection.file_control("main", RESTART, 0)
            self.connection.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)

    def alone(self, sql: str) -> None:
        """What runs in no transaction, and while nobody else reads."""
        with self.lease(EXCLUSIVE):
            self.catch_up()
            self.connection.execute(sql).fetchall()

    def die(self) -> None:
        self.others.remove(self)
        self.tab.die()

    def close(self) -> None:
        self.take(READ)
        self.others.remove(self)
        self.tab.forget()
