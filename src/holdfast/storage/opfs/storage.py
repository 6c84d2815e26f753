"""storage="opfs": one SQLite file in OPFS, each tab with its own connections to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import apsw

from ...bounds import Bound
from ...errors import (
    DatabaseBusyError,
    DatabaseClosedError,
    NotADatabaseError,
    StorageUnavailableError,
)
from ...giving_back import give_back
from ...sqlite.connection import Connection, Touched
from ...sqlite.settings import RawConnection
from ..base import Storage, StorageStatus
from ..history import History, Step
from ..names import name_segments
from .leases import Level
from .node import Node, load_extension
from .presence import NOW_AND_THEN
from .store import OpfsStore
from .wal import CATCH_UP

if TYPE_CHECKING:
    from ...holds import TriggerHoldManager

# SQLite's page cache for each connection, in KiB.
CACHE_KIB = 16_000


class OpfsStorage(Storage):
    """One connection to a database in OPFS."""

    kind = "opfs"
    persists_triggers = True
    shortest_wait = 0.05

    def __init__(self, name: str, synchronous: str) -> None:
        super().__init__(name, synchronous)
        name_segments(name)
        self.hold_prefix = f"{name}#"
        self._node: Node | None = None
        self._main: Connection | None = None
        # Where the transaction began, and the step of a commit that is yet to be announced.
        self._began: tuple[int, ...] = ()
        self._step: Step | None = None
        # Reads that were entered and not left.
        self._reads = 0

    @property
    def node(self) -> Node:
        if self._node is None:
            raise DatabaseClosedError(f"{self.name!r} is closed")
        return self._node

    @property
    def main(self) -> Connection | None:
        """The main connection, while it is open."""
        return self._main

    # -- opening and closing ---------------------------------------------------------------------

    async def open(self, bound: Bound) -> Connection:
        self._node = await Node.join(self, bound)
        try:
            self._main = await self._connect_first(bound)
        except BaseException:
            await self.close()
            raise
        return self._main

    async def _connect_first(self, bound: Bound) -> Connection:
        node = self.node
        await node.leases.read(bound)
        try:
            if node.files.peek().is_wal_database:
                self._check_wal()
                return self._connect_main()
        finally:
            node.leases.leave_read()
        # New, or with a rollback journal: made (or rolled back) and converted while nobody reads.
        made: list[Connection] = []

        def convert() -> None:
            self._check_wal()
            made.append(self._connect_main())

        await node.leases.write(bound)
        try:
            if not await node.leases.alone(convert, bound):
                raise DatabaseBusyError(
                    f"{self.name!r} has to be converted to WAL, and other tabs kept reading it "
                    f"for longer than {bound}; close them, or try again"
                )
            return made[0]
        except BaseException:
            for connection in made:
                connection.close()
            raise
        finally:
            node.leases.leave_write()

    def _check_wal(self) -> None:
        if self.node.status("foreign") == 1:
            raise NotADatabaseError(
                f"the WAL beside {self.name!r} was written for another database: replaying it "
                "would destroy this one. Both were left as they are; put the right WAL there, or "
                "remove it"
            )

    def _connect_main(self) -> Connection:
        connection = self._connect()
        if self.node.history is None:
            self.node.history = History(self.node.wal.position(connection))
        return connection

    def _connect(self) -> Connection:
        try:
            raw = RawConnection(self.name, vfs="holdfast")
        except apsw.CantOpenError as error:
            raise StorageUnavailableError(f"{self.name!r} cannot be opened: {error}") from error
        try:
            load_extension(raw)
            # Another connection of this tab may have left the wal-index as it was long ago.
            raw.file_control("main", CATCH_UP, 0)
            self.configure(raw)
            raw.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            # Checkpoints need a lease and a wal-index that is up to date, so they are not SQLite's
            # to begin, neither after a commit nor when the last connection of a tab is closed.
            raw.wal_autocheckpoint(0)
            raw.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
            mode = raw.execute("PRAGMA journal_mode = WAL").get
            if mode != "wal":
                raise StorageUnavailableError(f"{self.name!r} stays in journal mode {mode!r}")
            raw.execute("SELECT count(*) FROM sqlite_master").get  # noqa: B018  reads the header
        except apsw.NotADBError as error:
            raw.close(True)
            raise NotADatabaseError(
                f"{self.name!r} is not a SQLite database; it was left as it is"
            ) from error
        except BaseException:
            raw.close(True)
            raise
        changes = raw.cursor()

        def take() -> Touched:
            text = changes.execute("SELECT holdfast_changes()").get
            if text is None:
                return {}
            parts = text.split("\0")
            touched: Touched = {}
            for i in range(0, len(parts) - 1, 2):
                rowid = parts[i + 1]
                touched[parts[i]] = int(rowid) if rowid else None
            return touched

        def rows(table: str, operation: int) -> int:
            return int(changes.execute("SELECT holdfast_rows(?, ?)", (table, operation)).get)

        return Connection(raw, take, rows)

    async def connect_reader(self, bound: Bound) -> Connection:
        leases = self.node.leases
        await leases.read(bound)
        try:
            reader = self._connect()
            reader.raw.execute("PRAGMA query_only = ON")
            return reader
        finally:
            leases.leave_read()

    async def leaving(self, connection: Connection) -> None:
        if self.node.storages == [self]:
            await self.node.tidy(connection)

    def disconnect(self, connection: Connection) -> None:
        self._main = None
        super().disconnect(connection)

    async def close(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            # The leases may be those of other connections of this worker, too.
            leave_read = [node.leases.leave_read] * self._reads
            await give_back(*leave_read, lambda: node.leave(self))

    def store(self) -> OpfsStore:
        return OpfsStore(self.name)

    def default_hold_manager(self) -> TriggerHoldManager:
        from ...holds import NavigatorTriggerHoldManager

        return NavigatorTriggerHoldManager()

    # -- access ----------------------------------------------------------------------------------

    async def let_others_go(self) -> None:
        await self.node.tasks.next()

    def event(self) -> asyncio.Event:
        return self.node.tasks.event()

    def begin_read_now(self, connection: Connection) -> bool:
        if not self.node.leases.read_now():
            return False
        self._reads += 1
        self._catch_up_reader(connection)
        return True

    async def begin_read(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        leases = self.node.leases
        await leases.read(bound, inside=inside)
        if self._node is None:
            leases.leave_read()
            raise DatabaseClosedError(f"{self.name!r} was closed while this waited for its lease")
        self._reads += 1
        self._catch_up_reader(connection)

    def _catch_up_reader(self, connection: Connection) -> None:
        try:
            self.node.wal.catch_up(connection)
        except BaseException:
            self.end_read()
            raise

    def end_read(self) -> None:
        # Closed under a reader, it was left then.
        if self._node is not None:
            self._reads -= 1
            self._node.leases.leave_read()
            self._node.wal.own_reader_left()

    def write_waits(self) -> bool:
        return self.node.leases.level < Level.WRITE

    async def begin_write(
        self, connection: Connection, bound: Bound, *, inside: bool = False
    ) -> None:
        node = self.node
        node.presence.check()
        await node.leases.write(bound, inside=inside)
        try:
            node.wal.catch_up(connection)
            if node.wal.wants_checkpoint:
                await node.wal.checkpoint()
                node.wal.catch_up(connection)
            connection.raw.execute("BEGIN IMMEDIATE")
            self._began = node.wal.position(connection)
        except BaseException:
            node.leases.leave_write()
            raise

    def begin_write_now(self, connection: Connection) -> bool:
        node = self.node
        if node.wal.wants_checkpoint or not node.leases.write_now():
            return False
        try:
            node.presence.check()
            node.wal.catch_up(connection)
            connection.raw.execute("BEGIN IMMEDIATE")
            self._began = node.wal.position(connection)
        except BaseException:
            node.leases.leave_write_now()
            raise
        return True

    def committed(self, connection: Connection) -> bool:
        # The lease is still here, so this is where the commit has led to.
        after = self.node.wal.position(connection)
        if after == self._began:
            return False
        self._step = self._began, after
        self.node.add_step(self._step)
        return True

    def end_write_now(self) -> None:
        self.node.leases.leave_write_now()

    def end_write(self, connection: Connection) -> None:
        self.node.leases.leave_write()

    def make_room(self) -> bool:
        return self._node is not None and self._node.wal.make_room()

    # -- the others ------------------------------------------------------------------------------

    def announce(self, tables: frozenset[str], ddl: bool) -> None:
        step, self._step = self._step, None
        self.node.announce(self, tables, ddl, step)

    async def has_news(self) -> bool | None:
        main, node = self._main, self.node
        if main is None or node.history is None:
            return False
        node.presence.check()
        node.presence.look_within(NOW_AND_THEN)
        await self.begin_read(main, Bound(self.busy_timeout))
        try:
            # A wal-index that has to be recovered is, when something is read.
            main.raw.execute("PRAGMA schema_version").get  # noqa: B018
            news = node.history.missed(node.wal.position(main))
        finally:
            self.end_read()
        if news:
            for storage in node.storages:
                if storage is not self:
                    storage.on_announcement(None, True)
        return news

    async def is_alone(self) -> bool:
        return len(self.node.storages) <= 1 and len(await self.node.tabs()) <= 1

    async def discard(self) -> None:
        # The handles of a worker that has just died are released a moment later.
        for pause in (0.5, 1.0, 2.0, 4.0):
            if await self.store().discard():
                break
            await asyncio.sleep(pause)

    def rest(self) -> None:
        if self._node is not None:
            self._node.rest()

    async def status(self) -> StorageStatus:
        from ...browser.files import estimate

        node = self.node
        persisted, usage, quota = await estimate()
        return StorageStatus(
            storage=self.kind,
            handle_mode="shared" if node.files.shared else "exclusive",
            persisted=persisted,
            usage=usage,
            quota=quota,
            wal_frames=node.status("frames"),
            tabs=len(await node.tabs()),
        )
