"""The WAL of one OPFS database, as a worker uses it: catching up with it, copying it, emptying it.

A writer that finds the WAL long copies it into the database file between two transactions, while
nobody reads (see leases.py), and begins it anew in place. Where some tab reads all the time, it
tries again when the WAL has grown by a part of itself, and when a reader in its way has left.
"""

from __future__ import annotations

import asyncio
import logging
from array import array
from collections.abc import Callable

import apsw

from ...bounds import Bound
from ...errors import DatabaseBusyError, StorageUnavailableError
from ...sqlite.connection import Connection
from ..history import Step
from .leases import Leases
from .presence import Presence
from .wishes import DRAIN, HOLD_BACK

logger = logging.getLogger("holdfast")

# File controls of the VFS (see holdfast_vfs.c): bring the wal-index up to date; where it stands;
# the next checkpoint that empties the WAL begins it anew in place.
CATCH_UP = 0x48460001
POSITION = 0x48460002
RESTART = 0x48460003

# Frames in the WAL from which a writer tries to checkpoint.
CHECKPOINT = 1000
# How long it waits for readers by then, in seconds; longer in proportion when there are more.
PATIENCE = 0.02
# Where some read all the time, it tries again when the WAL has grown by this part.
_GROWTH = 4
# How long a checkpoint that no write waits for waits for the lease, in seconds.
_UNASKED = 1.0
# Frames from which the last tab that leaves empties the WAL, which every opening reads.
CHECKPOINT_AT_CLOSE = 100
# How long it waits for that, in seconds.
BRIEFLY = 0.02


class Wal:
    """The WAL of the database `name`.

    connection(): any connection of this worker to it; None: there is none now.
    on_emptied(step): called when the WAL was emptied; a step of the database's history.
    """

    def __init__(
        self,
        name: str,
        leases: Leases,
        presence: Presence,
        connection: Callable[[], Connection | None],
        on_emptied: Callable[[Step], None],
    ) -> None:
        self._name = name
        self._leases = leases
        self._presence = presence
        self._connection = connection
        self._on_emptied = on_emptied
        # Arrays, for the VFS writes to them.
        self._frames = array("I", [0])
        self._frames_at = self._frames.buffer_info()[0]
        self._position = array("I", [0, 0, 0])
        self._position_at = self._position.buffer_info()[0]
        self._checkpoint_at = CHECKPOINT
        # Readers were in the way of the last checkpoint that was tried, and of all since.
        self._missed = False
        # One of them has left since.
        self._reader_left = False
        self._task: asyncio.Task[None] | None = None

    def catch_up(self, connection: Connection) -> None:
        """Before a transaction, under its lease: see what others committed."""
        try:
            connection.raw.file_control("main", CATCH_UP, self._frames_at)
        except apsw.MisuseError as error:
            raise DatabaseBusyError(
                f"a cursor or blob of a raw connection of {self._name!r} is still open after its "
                "transaction; close it"
            ) from error

    @property
    def frames(self) -> int:
        """Frames in the WAL, when it was last caught up with."""
        return self._frames[0]

    def position(self, connection: Connection) -> tuple[int, ...]:
        """Where in the database's history the wal-index is, as `History` takes it."""
        connection.raw.file_control("main", POSITION, self._position_at)
        return tuple(self._position)

    # -- checkpoints -----------------------------------------------------------------------------

    @property
    def wants_checkpoint(self) -> bool:
        return self.frames >= self._checkpoint_at

    def make_room(self) -> bool:
        """It cannot grow: the next write tries to checkpoint. False: it is empty."""
        if self.frames:
            self._checkpoint_at = 0
        return self.frames > 0

    async def checkpoint(self) -> None:
        """Inside a write, before its transaction: copy the WAL into the file and begin it anew.

        Others read while the transaction goes on.
        """
        # As for a long one, where it cannot grow.
        frames = max(self.frames, CHECKPOINT - self._checkpoint_at)
        patience = PATIENCE * frames / CHECKPOINT
        self._missed = not await self._leases.alone(
            self._restart, Bound(min(patience, HOLD_BACK)), min(patience, DRAIN)
        )
        if self._missed:
            self._postpone()

    def _restart(self) -> None:
        connection = self._connection()
        if connection is None:
            return
        self.catch_up(connection)
        connection.raw.file_control("main", RESTART, 0)
        try:
            self._empty(connection)
        except (apsw.FullError, apsw.BusyError) as error:
            # The database file cannot grow, and all of it is still in the WAL (the transaction
            # may be the one that frees space); or a raw cursor here still reads from the WAL.
            logger.warning("no checkpoint of %r; it is tried again later (%s)", self._name, error)
            self._postpone()
        else:
            self._checkpoint_at = CHECKPOINT

    def _empty(self, connection: Connection) -> None:
        before = self.position(connection)
        connection.raw.wal_checkpoint("main", apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._on_emptied((before, self.position(connection)))

    def _postpone(self) -> None:
        self._checkpoint_at = self.frames + max(1, self.frames // _GROWTH)

    def reader_left(self) -> None:
        """A reader of another tab; it may have been what kept a checkpoint from being made."""
        if self._missed:
            self._checkpoint_at = CHECKPOINT
            self._reader_left = True
            if self._task is None:
                self._task = asyncio.get_running_loop().create_task(self._make_up_for_it())
                self._task.add_done_callback(self._made_up)

    def own_reader_left(self) -> None:
        """The same for a reader of this tab, of which no message tells."""
        if self._missed and self._leases.own_reader_stayed and not self._leases.readers:
            self.reader_left()

    async def _make_up_for_it(self) -> None:
        """The checkpoint that was missed, even if no write comes."""
        while self._missed and self._reader_left:
            self._presence.check()
            try:
                await self._leases.write(Bound(_UNASKED))
            except DatabaseBusyError:
                # Others write for long; the last of them may miss it too, so this waits again.
                continue
            try:
                self._reader_left = False
                if self._missed:
                    await self.checkpoint()
            finally:
                self._leases.leave_write()

    def _made_up(self, task: asyncio.Task[None]) -> None:
        self._task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            # Nothing is lost by it: all is in the WAL, and the next write tries again.
            logger.debug("the WAL of %r was left as it is: %r", self._name, error)

    # -- leaving ---------------------------------------------------------------------------------

    async def tidy(self, connection: Connection) -> None:
        """The last tab leaves: empty the WAL, if it is long."""
        # Of `frames`, those of the last transaction of its own are missing.
        if self.position(connection)[0] < CHECKPOINT_AT_CLOSE:
            return

        def empty() -> None:
            self.catch_up(connection)
            self._empty(connection)

        try:
            self._presence.check()
            await self._leases.write(Bound(BRIEFLY))
            try:
                await self._leases.alone(empty, Bound(BRIEFLY))
            finally:
                self._leases.leave_write()
        except (DatabaseBusyError, StorageUnavailableError, apsw.Error) as error:
            # Nothing is lost by it: all is in the WAL.
            logger.debug("the WAL of %r was left as it is: %r", self._name, error)

    async def close(self) -> None:
        """Nothing goes on any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
